"""A dynamics as a state machine that the batch loop advances by one evaluation per tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

from enumerator.activations.geometry import Teachers
from enumerator.dynamics.symmetric_starts import Projection


class Stepper(NamedTuple):
    """`init` and `tick` take the teachers V (M, r), the projection of the lane's symmetry, and the lane.

    A tick costs one evaluation. The state is a pytree with W, gradient_norm, flow_time and
    evaluations; the rest is its own. Where lanes begin in single precision, `single` is the stepper that they begin
    with. Such a one has `lasts`, of V and a lane; a tick leaves a lane that no longer lasts as it is, for `handed_over`
    to take.
    """

    init: Callable[[Teachers, Projection, Float[Array, "K D"]], Any]
    tick: Callable[[Teachers, Projection, Any], Any]
    single: Stepper | None = None
    lasts: Callable[[Teachers, Any], Bool[Array, ""]] | None = None


def handed_over(stepper: Stepper, V: Teachers, project: Projection, lane: Any) -> Any:
    """A lane in single precision, begun anew by the stepper itself; flow time and evaluations go on."""
    new = stepper.init(V, project, lane.W)
    return replace(new, flow_time=lane.flow_time, evaluations=lane.evaluations + new.evaluations)
