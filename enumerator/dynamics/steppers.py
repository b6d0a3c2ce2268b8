"""The dynamics on offer. A new one is a file beside these and a line in `STEPPERS`.

One-pass SGD has no lane that settles, and a solver of its own: `enumerator.sgd.fluctuation`.
"""

from __future__ import annotations

from collections.abc import Callable

from enumerator.dynamics import gradient_descent, gradient_flow, newton
from enumerator.dynamics.base import Stepper
from enumerator.errors import InputError
from enumerator.loss.equations import Equations
from enumerator.problem import Dynamics, Tolerances

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


def single_precision_for(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """The state machine of lanes whose gradient is large, in single precision; InputError where there is none."""
    single = None if dynamics.is_noisy else stepper_for(dynamics, equations, tolerances).single
    if single is None:
        raise InputError(f"`precision` mixed goes with dynamics gradient-flow, got {dynamics.name}.")
    return single
