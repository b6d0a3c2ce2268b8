"""Runs on a real Ray on this machine: the catalogue does not depend on workers, shards, kills or interruptions."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from cluster.inputs import Request
from cluster.runs import pool
from cluster.runs.driver import run_campaign
from cluster.runs.options import RunOptions
from cluster.runs.session import ray_session
from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import InputError
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape

PROJECT = Path(__file__).parents[2]
# So many starts that a run is still at work when a signal comes, on a fast machine too.
STARTS, SHARD = 480, 40
CAMPAIGN = Campaign(Landscape(8, 8), law=InitialLaw(dimension=8))
COMMAND = [sys.executable, "-m", "cluster.cli", "run", "--students", "8", "--teachers", "8", "--dimension", "8"]
COMMAND += ["--starts", str(STARTS), "--shard-size", str(SHARD), "--workers", "2", "--device", "cpu"]


def run(catalogue, starts=STARTS, workers=2, shard_size=SHARD):
    return run_campaign(Request(CAMPAIGN, starts, shard_size), catalogue, RunOptions(workers, "cpu", progress="none"))


def what_was_found(catalogue: Catalogue) -> dict:
    """Of every start its outcome and minimum, and of every minimum its loss to 12 digits, order and hits."""
    minima = catalogue.minima(columns="minimum_id,loss,anti_aligned,hits").to_pylist()
    names = {row["minimum_id"]: (round(row["loss"], 12), row["anti_aligned"], row["hits"]) for row in minima}
    starts = catalogue.starts(columns="start_index,outcome,minimum_id").to_pylist()
    ended = [(row["start_index"], row["outcome"], names.get(row["minimum_id"])) for row in starts]
    return {"minima": sorted(names.values()), "starts": ended}


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The processes of the workers that this process has started."""
    return [child for child in process.children(recursive=True) if child.name().startswith("ray::Solver")]


def listening_addresses(pid: int) -> set[str]:
    """Where a process and its descendants wait for connections."""
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    sockets = [socket for process in tree for socket in process.net_connections() if socket.status == "LISTEN"]
    return {socket.laddr.ip.removeprefix("::ffff:") for socket in sockets}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """What one worker finds in one go."""
    atlas = Catalogue(tmp_path_factory.mktemp("undisturbed") / "atlas", create=True)
    summary = run(atlas, workers=1)
    assert (summary.tally.done, summary.tally.fresh, summary.interrupted) == (STARTS, STARTS, False)
    found = what_was_found(atlas)
    assert len(found["minima"]) >= 2
    assert summary.tally.minima == len(found["minima"])
    assert [start[0] for start in found["starts"]] == list(range(STARTS))
    assert atlas.campaigns()["status"].to_pylist() == ["complete"]
    assert not ray.is_initialized()
    return found


@pytest.fixture(scope="module")
def running(undisturbed):
    """A Ray that runs already: the runs of this process use it, instead of starting one each."""
    with ray_session(None, 3, "cpu"):
        yield
        assert ray.is_initialized(), "a run shut down a Ray that it had not started"


def test_three_workers_and_other_shards_find_the_same(undisturbed, running, tmp_path):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    run(atlas, workers=3, shard_size=64)
    assert what_was_found(atlas) == undisturbed


def test_extended_twice_finds_the_same(undisturbed, running, tmp_path, monkeypatch):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    sizes = [run(atlas, starts).tally.fresh for starts in (70, 130, STARTS)]
    assert sizes == [70, 60, STARTS - 130]
    assert what_was_found(atlas) == undisturbed

    # Nothing is missing now: the same call computes nothing, and changes nothing.
    before = atlas.campaigns().to_pylist()
    monkeypatch.setattr(pool, "start_worker", lambda _: pytest.fail("a worker was started"))
    summary = run(atlas)
    assert (summary.tally.done, summary.tally.fresh) == (STARTS, 0)
    assert atlas.campaigns().to_pylist() == before


class KillingCatalogue(Catalogue):
    """Kills a worker, as the system would when memory runs out, right after the first commit."""

    killed: psutil.Process | None = None

    def commit_shard(self, result, first, last):
        summary = super().commit_shard(result, first, last)
        if self.killed is None:
            self.killed = workers_of(psutil.Process())[0]
            self.killed.kill()
        return summary


def test_killed_worker_changes_nothing(undisturbed, running, tmp_path):
    atlas = KillingCatalogue(tmp_path / "atlas", create=True)
    summary = run(atlas)
    assert atlas.killed is not None and not atlas.killed.is_running()
    assert summary.tally.fresh == STARTS
    assert what_was_found(atlas) == undisturbed


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_stopped_run_goes_on_with_the_same_command(undisturbed, running, tmp_path, signum):
    command = [*COMMAND, "--catalogue", str(tmp_path / "atlas")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        at_work = wait_for_a_commit(process, tmp_path / "atlas")
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)  # as a terminal does: to everybody in the foreground
        else:
            process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    atlas = Catalogue(tmp_path / "atlas")
    stored = sum(last - first for first, last in atlas.done(CAMPAIGN.id))
    assert atlas.campaigns()["status"].to_pylist() == ["stopped"]
    assert 0 < stored < STARTS
    if signum != signal.SIGKILL:
        assert (process.returncode, out) == (130, "")
        *progress, last = err.splitlines()
        # On a busy machine Ray takes long to start, which is said once.
        waited = [line for line in progress if line.startswith("Waiting for Ray to start")]
        assert all(f" of {STARTS:,} starts, " in line for line in progress if line not in waited), err
        assert len(waited) <= 1
        assert last == (
            f"Stopped. {stored:,} of {STARTS:,} starts are stored in {tmp_path / 'atlas'}; "
            "the same command goes on from there."
        )
    assert not psutil.wait_procs(at_work, timeout=30)[1], "a worker was left at work"

    if signum == signal.SIGTERM:  # which stops a run as SIGINT does: what goes on from there is the call, to save a Ray
        assert run(atlas).tally.fresh == STARTS - stored
    else:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert what_was_found(Catalogue(tmp_path / "atlas")) == undisturbed


def wait_for_a_commit(process: subprocess.Popen, path) -> list[psutil.Process]:
    """Wait until a run has committed a shard, and return its workers."""
    for _ in range(3000):  # Ray takes minutes to start on a machine at load 20
        time.sleep(0.1)
        assert process.poll() is None, "ended too early"
        if (path / "starts" / "_delta_log").is_dir() and Catalogue(path).done(CAMPAIGN.id):
            return workers_of(psutil.Process(process.pid))
    pytest.fail("nothing was committed in time")


def test_more_workers_than_ray_has_cores_are_refused(running, tmp_path):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    with pytest.raises(InputError, match="`workers` must be at most 3 on this Ray cluster, got 4"):
        run(atlas, workers=4)
    assert atlas.campaigns().num_rows == 0


def test_a_cluster_without_room_is_waited_for_and_asked_to_grow(tmp_path):
    """As on an autoscaled cluster: no node but the head, then one joins. One worker waits, then one more."""
    code = f"""
import sys
sys.path[:0] = ["{PROJECT}/scripts", "{PROJECT}"]
from small_cluster import SmallCluster
from cluster.inputs import Request
from cluster.runs import pool
from cluster.runs.driver import run_campaign
from cluster.runs.options import RunOptions
from enumerator import Campaign, Catalogue, InitialLaw, Landscape
class Watch:
    looks, joined = 0, False
    def show(self, tally):
        self.looks += 1
        if not self.joined and self.looks >= 10:
            assert (tally.done, started) == (0, ["cpu"]), (tally, started)
            cluster.add()
            self.joined = True
    def close(self, tally):
        assert tally.done == 400
started, start = [], pool.start_worker
pool.start_worker = lambda device: (started.append(device), start(device))[1]
campaign, atlas = Campaign(Landscape(4, 4), law=InitialLaw(dimension=4)), Catalogue("{tmp_path}/atlas", create=True)
with SmallCluster(0) as cluster:
    run_campaign(Request(campaign, 400, 50), atlas, RunOptions(None, "cpu", cluster.address), Watch())
print(len(started), atlas.campaigns()["starts"].to_pylist())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "2 [400]\n", done.stdout + done.stderr


def test_error_in_a_worker_names_the_starts(running, tmp_path):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    impossible = Campaign(Landscape(3, 3, constraint="normalized"), Dynamics("newton"))
    with pytest.raises(InputError, match=r"^starts 0 to 9: `dynamics` newton goes with constraint none"):
        run_campaign(Request(impossible, 10), atlas, RunOptions(1, "cpu", progress="none"))
    assert atlas.done(impossible.id) == []
