"""The shards of a campaign cover what is missing, exactly once, whatever was done before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.runs.plan import default_shard_size, missing_shards, quick
from enumerator import Campaign, Dynamics, Landscape


def test_fresh_campaign_is_cut_into_blocks():
    assert missing_shards(500, 200, []) == [(0, 200), (200, 400), (400, 500)]


def test_finished_campaign_has_nothing_missing():
    assert missing_shards(500, 200, [(200, 400), (0, 200), (400, 500)]) == []


def test_extended_campaign_completes_the_shard_it_ended_in():
    assert missing_shards(1000, 200, [(0, 200), (200, 400), (400, 500)]) == [(500, 600), (600, 800), (800, 1000)]


def test_fewer_starts_than_done_asks_for_nothing():
    assert missing_shards(100, 200, [(0, 200), (400, 500)]) == []


def test_holes_are_filled():
    assert missing_shards(10, 4, [(1, 2), (6, 7)]) == [(0, 1), (2, 4), (4, 6), (7, 8), (8, 10)]


ranges = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(starts=st.integers(0, 60), shard_size=st.integers(1, 70), done=st.lists(ranges, max_size=8))
def test_every_start_is_done_or_in_exactly_one_shard(starts, shard_size, done):
    before = {index for first, last in done for index in range(first, last)}
    shards = missing_shards(starts, shard_size, done)
    planned = [index for first, last in shards for index in range(first, last)]
    assert sorted(planned) == sorted(set(range(starts)) - before)
    assert all(first // shard_size == (last - 1) // shard_size for first, last in shards)


@pytest.mark.parametrize(
    ("starts", "workers", "gpu", "size"),
    [(500, 2, False, 64), (10_000, 2, False, 256), (10, 2, False, 64), (1, 64, False, 64), (10**6, 1, True, 16384)],
)
def test_default_shard_size(starts, workers, gpu, size):
    assert default_shard_size(starts, workers, gpu) == size


@pytest.mark.parametrize(
    ("starts", "workers", "gpu", "size"),
    [
        *((10_000, 2, False, 256), (10, 2, False, 64), (10**6, 2, False, 2048), (10**5, 4, False, 1024)),
        *((10**5, 512, False, 64), (10**7, 512, False, 512), (10**6, 1, True, 16384)),
    ],
)
def test_quick_starts_get_larger_shards_in_large_campaigns(starts, workers, gpu, size):
    assert default_shard_size(starts, workers, gpu, quick=True) == size
    assert default_shard_size(starts, workers, gpu) == (size if gpu else min(size, 256))


@given(starts=st.integers(1, 10**8), workers=st.integers(1, 600))
def test_large_shards_leave_twenty_for_every_worker(starts, workers):
    size = default_shard_size(starts, workers, quick=True)
    assert 64 <= size <= 2048
    assert size <= 256 or starts // size >= 20 * workers


@pytest.mark.parametrize(
    ("students", "dynamics", "expected"),
    [(17, "gradient-flow", True), (18, "newton", True), (17, "gradient-descent", False), (40, "gradient-flow", False)],
)
def test_starts_are_quick_by_dynamics_and_width(students, dynamics, expected):
    step = 0.1 if dynamics == "gradient-descent" else None
    assert quick(Campaign(Landscape(students, students), Dynamics(dynamics, step=step))) is expected


@given(starts=st.integers(2048, 10**7), workers=st.integers(1, 8))
def test_every_worker_gets_several_shards(starts, workers):
    assert len(missing_shards(starts, default_shard_size(starts, workers), [])) >= 4 * workers
