"""The starts of a campaign to their ends, by whichever solver its dynamics has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from enumerator.problem import Campaign
from enumerator.solve import BatchShape, solve_starts
from enumerator.starts import ShardResult


def follow_starts(
    campaign: Campaign,
    indices: NDArray[np.int64],
    shape: BatchShape | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShardResult:
    """The starts with these indices (n,): see `solve_starts`, and `solve_sgd` for one-pass SGD."""
    if campaign.dynamics.is_noisy:
        from enumerator.fluctuation import solve_sgd  # networks of flax, which no other dynamics needs

        return solve_sgd(campaign, indices, progress)
    return solve_starts(campaign, indices, shape, progress)


def follow_shard(
    campaign: Campaign,
    first: int,
    last: int,
    shape: BatchShape | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShardResult:
    """The consecutive starts [first, last): the unit of work and of commit."""
    return follow_starts(campaign, np.arange(first, last), shape, progress)
