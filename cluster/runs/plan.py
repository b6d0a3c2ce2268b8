"""From a campaign to its shards: which blocks of starts are still to be computed. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

from enumerator.problem import Campaign

Range = tuple[int, int]

# Starts in a shard, at least and at most: below, compiled batches run half empty; above, dear starts (wide students,
# descent, SGD) take minutes, which a stop or a crash throws away, and the catalogue grows in too large steps to watch.
SMALLEST_SHARD = 64
LARGEST_SHARD = 256
# A GPU holds up to this many lanes at once.
LARGEST_SHARD_GPU = 16384
# Shards for each worker, so that one that ends early finds more to do.
SHARDS_PER_WORKER = 4
# Quick starts, 5 to 25 ms of a core at M = 17: so many are tens of seconds, and a driver, which takes 60 ms to commit a
# shard, keeps up with hundreds of workers, where with LARGEST_SHARD it would with 50.
LARGEST_SHARD_QUICK = 2048
# Shards for each worker when they are larger than LARGEST_SHARD: progress is seen, and a lost one is a small part.
SHARDS_PER_WORKER_QUICK = 20
# Dynamics whose starts are quick, up to a number of students: the cost grows like its third power.
QUICK_DYNAMICS = ("gradient-flow", "newton")
QUICK_STUDENTS = 20


def quick(campaign: Campaign) -> bool:
    """Whether a start of this campaign takes no more than some hundredths of a second of a core."""
    return campaign.dynamics.name in QUICK_DYNAMICS and campaign.landscape.students <= QUICK_STUDENTS


def default_shard_size(starts: int, workers: int, gpu: bool = False, quick: bool = False) -> int:
    """The power of two that gives every worker at least SHARDS_PER_WORKER shards, between the smallest and largest.

    Where starts are `quick`, a larger one if every worker still gets SHARDS_PER_WORKER_QUICK of them.
    """
    size = _power(starts // (workers * SHARDS_PER_WORKER), LARGEST_SHARD_GPU if gpu else LARGEST_SHARD)
    if quick and not gpu:
        size = max(size, _power(starts // (workers * SHARDS_PER_WORKER_QUICK), LARGEST_SHARD_QUICK))
    return size


def _power(share: int, largest: int) -> int:
    """The largest power of two up to `share`, between SMALLEST_SHARD and `largest`."""
    return max(SMALLEST_SHARD, min(largest, 1 << max(share, 1).bit_length() - 1))


def missing_shards(starts: int, shard_size: int, done: Iterable[Range]) -> list[Range]:
    """The half-open index ranges that cover [0, starts) without `done`, cut at the multiples of `shard_size`.

    Extending a campaign that ended inside a shard gives the rest of that shard first.
    """
    shards: list[Range] = []
    position = 0
    for first, last in [*sorted(done), (starts, starts)]:
        while position < min(first, starts):
            end = min((position // shard_size + 1) * shard_size, first, starts)
            shards.append((position, end))
            position = end
        position = max(position, last)
    return shards
