"""The tolerances of the solvers, each with its reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from enumerator.errors import InputError
from enumerator.validation import check_count, check_positive

# The least `single_above`: a lane that lingers is below it, as `linger_below` has it, and rounding is 0.3% of the
# gradient. At 3e-7 the gradient would never be seen to fall.
LEAST_SINGLE_ABOVE = 1e-4


@dataclass(frozen=True)
class Tolerances:
    """Every tolerance of the solvers. They are stored with the campaign and are part of its id.

    You rarely need others than the defaults. The source gives the reason of each.

    Args:
        step_error: Local error of one step, over the norm of the weights.
        max_flow_time: Flow time up to which explicit steps follow a start.
        max_evaluations: Evaluations of the gradient by explicit steps; as many again by implicit ones.
        first_look: Gradient norm, over the norm of the teachers, at which a start is first compared with the minima.
        retry_factor: Factor by which `first_look` falls at each refusal.
        collapse_below: Gradient norm, over that of the teachers, at which a start is compared with zero loss.
        newton_below: Gradient norm, over that of the teachers, at which Newton's method polishes the start.
        newton_retry_factor: Factor by which `newton_below` falls at each refusal.
        stationary: Gradient norm, over that of the teachers, below which a point counts as stationary.
        definite: An eigenvalue above this part of the largest is positive, and below minus it negative.
        linger_below: Gradient norm, over the root mean square norm of a teacher, below which a start that moves on
            lingers on a saddle, which is then stored. At 0 no such saddles are stored.
        single_above: Gradient norm, over that of the teachers, down to which gradients are in single precision.
            At 0 all are in double precision.

    Raises:
        InputError: For a tolerance that is not positive, or a `single_above` between 0 and 1e-4.
    """

    # Local error of one step over the norm of the weights. Measured against the same flow at 1e-6
    # on 4,000 starts of K = 17 and 18, M = d = 17: at 1e-4 0.08% of the starts change their minimum, at
    # 3e-4 0.18%, at 1e-3 0.2%; a start costs 944, 761 and 653 evaluations at K = M = 17.
    step_error: float = 1e-4
    # Flow time to which explicit steps follow a lane: ten times the slowest known plateau.
    max_flow_time: float = 1e6
    # Evaluations of explicit steps: ten times the slowest of 10,000 starts at K = M = 17. Beyond, implicit ones follow
    # the gradient flow for as many once more, without a limit of time (`finish`); then a lane is given up.
    max_evaluations: int = 50_000
    # Gradient norm, over the norm of the teachers, at which a lane is first compared with the
    # minima in hand; it falls by `retry_factor` at each refusal. It only decides when to look:
    # what captures a lane is the certified ball.
    first_look: float = 3e-4
    retry_factor: float = 0.3
    # Gradient norm, over that of the teachers, at which a lane that no ball in hand holds is compared with zero loss.
    collapse_below: float = 3e-5
    # Gradient norm at which an unrecognised lane is polished, and the factor by which it falls at each
    # refusal: below it Newton's method from the lane converges for all but near-degenerate points. A polish
    # costs as much as thousands of evaluations, in which the gradient falls by much more.
    newton_below: float = 3e-6
    newton_retry_factor: float = 0.03
    # A point counts as stationary below this gradient norm (over the norm of the teachers): a
    # hundred times the rounding of the gradient (3e-15 at K = 17).
    stationary: float = 1e-12
    # An eigenvalue above this part of the largest is positive, below minus it negative, between
    # undecided: a thousand times the rounding of a symmetric eigenvalue solver at 300 variables,
    # and a thousand times below the flattest minimum known (1e-5).
    definite: float = 1e-9

    # Gradient norm, over the root mean square norm of a teacher, below which a lane that does not stay
    # lingers on a saddle, which is then catalogued: where published runs were stopped. 0: none are, which
    # saves a polish for each.
    linger_below: float = 1e-4
    # Gradient norm, over that of the teachers: until it first falls to this the gradient is evaluated in single
    # precision. 0: nowhere.
    single_above: float = 0.0

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            if entry.name not in ("linger_below", "single_above") or getattr(self, entry.name) != 0:
                check_positive(entry.name, getattr(self, entry.name))
        check_count("max_evaluations", self.max_evaluations)
        if 0 < self.single_above < LEAST_SINGLE_ABOVE:
            raise InputError(
                f"`single_above` must be 0 or at least {LEAST_SINGLE_ABOVE}, got {self.single_above!r}: "
                "rounding of a gradient in single precision hides smaller ones."
            )
