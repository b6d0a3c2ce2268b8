"""From a campaign to its shards: which blocks of starts are still to be computed. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]

# Starts in a shard, at least and at most: below, compiled batches run half empty; above, a stop or a crash throws
# away more than about a minute of one worker, and the catalogue grows in too large steps to watch.
SMALLEST_SHARD = 64
LARGEST_SHARD = 256
# A GPU holds up to this many lanes at once.
LARGEST_SHARD_GPU = 16384
# Shards for each worker, so that one that ends early finds more to do.
SHARDS_PER_WORKER = 4


def default_shard_size(starts: int, workers: int, gpu: bool = False) -> int:
    """The power of two that gives every worker at least SHARDS_PER_WORKER shards, between the smallest and largest."""
    largest = LARGEST_SHARD_GPU if gpu else LARGEST_SHARD
    share = starts // (workers * SHARDS_PER_WORKER)
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
