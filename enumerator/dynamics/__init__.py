"""The dynamics on offer. A new one is a file beside these and a line in `STEPPERS`.

One-pass SGD has no lane that settles, and a solver of its own: `enumerator.fluctuation`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from enumerator.activations import homogeneous
from enumerator.dynamics import gradient_descent, gradient_flow, newton
from enumerator.dynamics.base import Stepper
from enumerator.effective import PARALLEL
from enumerator.equations import Equations
from enumerator.errors import InputError
from enumerator.overlaps import FEASIBLE, check_feasible
from enumerator.problem import Campaign, Dynamics, Tolerances

STEPPERS: dict[str, Callable[[Dynamics, Equations, Tolerances], Stepper]] = {
    "gradient-flow": gradient_flow.stepper,
    "newton": newton.stepper,
    "gradient-descent": gradient_descent.stepper,
}


def stepper_for(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """The state machine of the dynamics; InputError where this version has none."""
    if dynamics.name not in STEPPERS:
        raise InputError(f"`dynamics` must be one of {', '.join(STEPPERS)} in this version, got {dynamics.name!r}.")
    return STEPPERS[dynamics.name](dynamics, equations, tolerances)


def transient_for(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """The state machine of lanes whose gradient is large, in single precision; InputError where there is none."""
    transient = None if dynamics.is_noisy else stepper_for(dynamics, equations, tolerances).transient
    if transient is None:
        raise InputError(f"`precision` mixed goes with dynamics gradient-flow, got {dynamics.name}.")
    return transient


def check_solvable(campaign: Campaign) -> None:
    """Raise InputError for what the identity has a place for but no solver of this version enumerates.

    Also for given initial overlaps that no weights have, with row and eigenvalue.
    """
    landscape, law = campaign.landscape, campaign.law
    if campaign.dynamics.is_noisy:
        from enumerator.one_pass_sgd import check_sgd  # networks of flax, which no other dynamics needs

        check_sgd(campaign)
    else:
        stepper_for(campaign.dynamics, landscape.equations, campaign.tolerances)
    if campaign.tolerances.single_above:
        transient_for(campaign.dynamics, landscape.equations, campaign.tolerances)
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
