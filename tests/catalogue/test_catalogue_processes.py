"""The catalogue under real processes: racing, killed, reading while others write, and leaving cleanly."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from deltalake import DeltaTable

from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import TABLE_NAMES
from tests.support.stand_ins import make_campaign, make_point, make_result, same_loss

WRITERS = 2
# Less than what `same_loss` takes for the same; enough for another id at a loss that ends in 5 there.
ROUNDING = 3e-12
PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu"}

_barrier = None


def _meet_at(barrier):
    global _barrier
    _barrier = barrier


def _together():
    assert _barrier is not None
    _barrier.wait(timeout=60)


@pytest.fixture(scope="module")
def writers():
    """Processes that can wait for each other; `race(task, *arguments)` runs a task in all of them at once."""
    context = get_context("spawn")
    with ProcessPoolExecutor(WRITERS, context, _meet_at, (context.Barrier(WRITERS),)) as pool:

        def race(task, *arguments):
            futures = [pool.submit(task, writer, *arguments) for writer in range(WRITERS)]
            return [future.result(timeout=60) for future in futures]

        yield race


def _create(writer, folder, rounds):
    for k in range(rounds):
        _together()
        Catalogue(folder / str(k), create=True)


def test_catalogue_created_twice_at_once_is_created_once(writers, tmp_path):
    writers(_create, tmp_path, 10)
    for k in range(10):
        assert [DeltaTable(tmp_path / str(k) / name).version() for name in TABLE_NAMES] == [0] * len(TABLE_NAMES)


def _register(writer, folder, rounds):
    atlas = Catalogue(folder)
    sizes = []
    for seed in range(rounds):
        _together()
        sizes.append(atlas.register(make_campaign(seed=seed), 10 + writer, "cpu").shard_size)
    return sizes


def test_campaign_registered_twice_at_once_is_there_once(writers, tmp_path):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    first, second = writers(_register, tmp_path / "atlas", 10)
    assert first == second
    assert atlas.campaigns().num_rows == 10
    assert atlas.landscapes().num_rows == 1


def _discover(writer, folder, rounds):
    """In each round all writers find the same two minima at once, up to rounding, and one more each."""
    atlas, campaign, new = Catalogue(folder, matcher=same_loss), make_campaign(), 0
    for k in range(rounds):
        losses = (0.1 + k + writer * ROUNDING, 0.2 + k - writer * ROUNDING, 0.3 + k + 0.1 * writer)
        points = [make_point(campaign.landscape, loss) for loss in losses]
        first = 10 * (WRITERS * k + writer)
        result = make_result(campaign, first, first + 10, points)
        _together()
        new += atlas.commit_shard(result, first, first + 10).new_minima
    return new


def test_minimum_found_by_two_processes_at_once_is_stored_once(writers, tmp_path):
    rounds, campaign = 12, make_campaign()
    atlas = Catalogue(tmp_path / "atlas", create=True)
    atlas.register(campaign, 10, "cpu")
    new = writers(_discover, tmp_path / "atlas", rounds)
    assert sum(new) == rounds * (2 + WRITERS)
    minima = atlas.minima().to_pylist()
    assert len(minima) == rounds * (2 + WRITERS)
    assert len({row["label"] for row in minima}) == len({row["minimum_id"] for row in minima}) == len(minima)
    assert atlas.done(campaign.id) == [(0, 10 * WRITERS * rounds)]
    assert sum(row["hits"] for row in minima) == 10 * WRITERS * rounds


def _repeat(writer, folder, rounds):
    """All writers commit the same shards at once, in one round as [0, 10), in the next shifted by five."""
    atlas, campaign, added = Catalogue(folder, matcher=same_loss), make_campaign(), 0
    points = [make_point(campaign.landscape, 0.5)]
    for k in range(rounds):
        first = 20 * k + 5 * writer * (k % 2)
        result = make_result(campaign, first, first + 10, points)
        _together()
        added += atlas.commit_shard(result, first, first + 10).starts
    return added


def test_start_committed_by_two_processes_at_once_counts_once(writers, tmp_path):
    rounds, campaign = 12, make_campaign()
    atlas = Catalogue(tmp_path / "atlas", create=True)
    atlas.register(campaign, 10, "cpu")
    added = writers(_repeat, tmp_path / "atlas", rounds)
    expected = [20 * k + j for k in range(rounds) for j in range(15 if k % 2 else 10)]
    assert atlas.starts(columns="start_index")["start_index"].to_pylist() == expected
    assert sum(added) == len(expected)


def _write_or_read(writer, folder, rounds):
    """Writer 0 adds shards with a new minimum each; the other looks for starts that name a minimum not there."""
    atlas, campaign = Catalogue(folder, matcher=same_loss), make_campaign()
    seen = []
    _together()
    for k in range(rounds):
        if writer == 0:
            point = make_point(campaign.landscape, 0.1 + k)
            atlas.commit_shard(make_result(campaign, k, k + 1, [point]), k, k + 1)
        else:
            query = "select count(*) as n, count(*) filter (m.minimum_id is null) as orphans from starts"
            seen += atlas.sql(f"{query} left join minima m using (minimum_id)").to_pylist()
            rows = atlas.minima(columns="hits,starts").to_pylist()
            assert all(row["starts"] in (sum(r["hits"] for r in rows), 0) for row in rows)
    return seen


def test_reader_never_sees_a_start_without_its_minimum(writers, tmp_path):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    atlas.register(make_campaign(), 1, "cpu")
    _, seen = writers(_write_or_read, tmp_path / "atlas", 25)
    assert [row["orphans"] for row in seen] == [0] * 25
    counts = [row["n"] for row in seen]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


# The parent touches no Delta table, so that it can fork; a child acknowledges each shard on its pipe
# after the commit, until it is killed: 100 to 600 ms after its first, in the middle of commits.
KILLED_WRITERS = """
import os, random, signal, sys, time
from tests.support.stand_ins import make_campaign, make_point, make_result, same_loss
from enumerator.catalogue.catalogue import Catalogue

campaign = make_campaign()
acknowledged = []
for victim in range(6):
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        atlas = Catalogue(sys.argv[1], matcher=same_loss)
        for shard in range(1000):
            first = 10 * shard
            points = [make_point(campaign.landscape, 0.1 + shard // 2), make_point(campaign.landscape, 0.2, "saddle")]
            atlas.commit_shard(make_result(campaign, first, first + 10, points), first, first + 10)
            os.write(send, b"%d " % shard)
    os.close(send)
    acknowledged.append(int(os.read(receive, 2)))
    time.sleep(random.Random(victim).uniform(0.1, 0.6))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(receive) as pipe:
        acknowledged += [int(word) for word in pipe.read().split()]
print(max(acknowledged))
"""


def test_killed_writers_lose_nothing_acknowledged_and_double_nothing(tmp_path):
    campaign = make_campaign()
    atlas = Catalogue(tmp_path / "atlas", create=True, matcher=same_loss)
    atlas.register(campaign, 10, "cpu")
    command = [sys.executable, "-W", "ignore", "-c", KILLED_WRITERS, str(tmp_path / "atlas")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    last = int(done.stdout) + 1
    assert last > 3
    # At most one shard was stored and not yet acknowledged when its writer died.
    ((first, stored),) = atlas.done(campaign.id)
    assert first == 0
    assert 10 * last <= stored <= 10 * last + 10
    assert atlas.starts(columns="start_index")["start_index"].to_pylist() == list(range(stored))
    assert (
        atlas.sql("select * from starts anti join minima using (minimum_id) where outcome = 'converged'").num_rows == 0
    )
    losses = atlas.minima()["loss"].to_pylist()
    assert len(losses) == len(set(losses))
    assert atlas.saddles()["hits"].to_pylist() == [stored // 2]
    atlas.commit_shard(make_result(campaign, stored, stored + 10), stored, stored + 10)


QUERIES = """
import sys
from enumerator.catalogue.catalogue import Catalogue
atlas = Catalogue(sys.argv[1])
print(atlas.minima().num_rows, atlas.sql("select * from starts").num_rows)
"""


def test_process_of_a_query_ends_cleanly(tmp_path):
    """Reading a Delta table through its own file system can abort the interpreter after all work is done."""
    campaign = make_campaign()
    atlas = Catalogue(tmp_path / "atlas", create=True)
    atlas.register(campaign, 10, "cpu")
    atlas.commit_shard(make_result(campaign, 0, 10, [make_point(campaign.landscape, 0.5)]), 0, 10)
    command = [sys.executable, "-c", QUERIES, str(tmp_path / "atlas")]
    for _ in range(3):
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1 10\n", "")
