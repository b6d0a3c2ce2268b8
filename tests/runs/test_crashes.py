"""Workers that die, really killed: by chance nobody notices; by one shard the run ends, and says which."""

import os
import signal
import time

import pytest
import ray

from cluster.inputs import Request
from cluster.runs import pool
from cluster.runs.driver import run_campaign
from cluster.runs.options import RunOptions
from cluster.runs.session import ray_session
from cluster.runs.worker import worker_environment
from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import SolverError
from enumerator.problem import Campaign, InitialLaw, Landscape

STARTS, SHARD = 160, 20
CAMPAIGN = Campaign(Landscape(3, 3), law=InitialLaw(dimension=3))


@pytest.fixture(scope="module", autouse=True)
def running():
    """One Ray for all tests of this file."""
    with ray_session(None, 2, "cpu"):
        yield


@pytest.fixture
def atlas(tmp_path) -> Catalogue:
    return Catalogue(tmp_path / "atlas", create=True)


def workers_that_die(monkeypatch, at, marks) -> list:
    """Let every worker kill its own process at the starts `at(first, mark)` says; returns those that are started.

    `mark` is the file of the shard in the folder `marks`, in which each death leaves a letter.
    """
    started = []

    def start_worker(device):
        class Dying:
            def solve(self, campaign, first, last):
                mark = marks / str(first)
                if at(first, mark):
                    with mark.open("a") as file:
                        file.write("x")
                    time.sleep(0.3)  # while the result of the shard before is on its way
                    os.kill(os.getpid(), signal.SIGKILL)
                from enumerator.follow import follow_shard

                return follow_shard(campaign, first, last)

        environment = {"env_vars": worker_environment(device)}
        started.append(ray.remote(Dying).options(num_cpus=1, runtime_env=environment).remote())
        return started[-1]

    monkeypatch.setattr(pool, "start_worker", start_worker)
    return started


def run(catalogue, workers=2):
    return run_campaign(Request(CAMPAIGN, STARTS, SHARD), catalogue, RunOptions(workers, "cpu", progress="none"))


def test_a_shard_that_always_ends_its_worker_ends_the_run_after_all_others(atlas, monkeypatch, tmp_path):
    started = workers_that_die(monkeypatch, lambda first, mark: first == 40, tmp_path)
    with pytest.raises(
        SolverError, match=rf"^starts 40 to 59 of {CAMPAIGN.id}: the worker process died on them 3 times"
    ):
        run(atlas)
    assert (tmp_path / "40").read_text() == "xxx"
    assert len(started) == 2 + 2, "only the first two deaths called for another worker"
    # It was put last: all else is stored, but what the other worker was at in the end.
    stored = sum(last - first for first, last in atlas.done(CAMPAIGN.id))
    assert STARTS - 3 * SHARD <= stored <= STARTS - SHARD
    assert atlas.campaigns()["status"].to_pylist() == ["stopped"]

    # The defect is gone, say the memory is there: the same call goes on from there.
    monkeypatch.undo()
    assert run(atlas).tally.fresh == STARTS - stored
    assert atlas.done(CAMPAIGN.id) == [(0, STARTS)]


def test_a_death_at_every_shard_changes_nothing(atlas, monkeypatch, tmp_path):
    """Eight deaths, one at each shard, of two workers, between which others hand in what they solved."""
    started = workers_that_die(
        monkeypatch, lambda first, mark: first % (2 * SHARD) == 0 and not mark.exists(), tmp_path
    )
    assert run(atlas).tally.fresh == STARTS
    assert len(started) == 2 + STARTS // (2 * SHARD)
    assert atlas.done(CAMPAIGN.id) == [(0, STARTS)]
    assert atlas.starts()["start_index"].to_pylist() == list(range(STARTS))


def test_workers_that_die_wherever_they_are_end_the_run(atlas, monkeypatch, tmp_path):
    """As where memory is too short for any shard: not eight times three deaths, but three in a row for each worker."""
    workers_that_die(monkeypatch, lambda first, mark: True, tmp_path)
    with pytest.raises(
        SolverError, match=r"^worker processes died 3 times in a row, the last at starts \d+ to \d+ of c-"
    ):
        run(atlas, workers=1)
    assert atlas.done(CAMPAIGN.id) == []
