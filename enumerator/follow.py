"""The starts of a campaign to their ends, by whichever solver its dynamics has; and what no solver takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from enumerator.activations import homogeneous
from enumerator.dynamics.steppers import single_precision_for, stepper_for
from enumerator.errors import InputError
from enumerator.lanes.batch import BatchShape
from enumerator.lanes.solve import solve_starts
from enumerator.loss.overlaps import FEASIBLE, check_feasible
from enumerator.minima.effective import PARALLEL
from enumerator.problem import Campaign
from enumerator.starts import ShardResult


def follow_starts(
    campaign: Campaign,
    indices: NDArray[np.int64],
    shape: BatchShape | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShardResult:
    """The starts with these indices (n,): see `solve_starts`, and `solve_sgd` for one-pass SGD."""
    if campaign.dynamics.is_noisy:
        from enumerator.sgd.fluctuation import solve_sgd  # networks of flax, which no other dynamics needs

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


def check_solvable(campaign: Campaign) -> None:
    """Raise InputError for what the identity has a place for but no solver of this version enumerates.

    Also for given initial overlaps that no weights have, with row and eigenvalue.
    """
    landscape, law = campaign.landscape, campaign.law
    if campaign.dynamics.is_noisy:
        from enumerator.sgd.one_pass import check_sgd  # networks of flax, which no other dynamics needs

        check_sgd(campaign)
    else:
        stepper_for(campaign.dynamics, landscape.equations, campaign.tolerances)
    if campaign.tolerances.single_above:
        single_precision_for(campaign.dynamics, landscape.equations, campaign.tolerances)
    if landscape.second_layer == "trained" and not landscape.merges:
        raise InputError(
            f"`second_layer` trained goes with constraint none and activation {' or '.join(homogeneous())} in this "
            f"version, got {landscape.constraint} and {landscape.activation}."
        )
    norms = landscape.teacher_norms
    short = np.flatnonzero((norms > 0) & (norms <= 2 * PARALLEL * landscape.teacher_scale))
    if landscape.merges and len(short):
        raise InputError(
            f"`T` must have no teacher shorter than {2 * PARALLEL:g} of the norm of all, teacher {short[0]} has "
            f"{norms[short[0]] / landscape.teacher_scale:.2g} of it: it could not be told from none; leave it out."
        )
    manifold = landscape.equations.manifold
    if law.Q is not None and law.R is not None:
        check_feasible(law.Q, law.R, landscape.T)
        for row, Q in enumerate(law.Q):
            if manifold.deviation(Q) > FEASIBLE:
                raise InputError(
                    f"initial overlaps must be those of {landscape.constraint} students, row {row} misses by "
                    f"{manifold.deviation(Q):.3g}."
                )
