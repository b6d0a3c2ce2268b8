"""A dynamics as a state machine that the batch loop advances by one evaluation per tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from enumerator.geometry import Teachers
from enumerator.invariance import Projection


class Stepper(NamedTuple):
    """Both functions take the teachers V (M, r), the projection of the lane's symmetry, and the lane.

    A tick costs one evaluation. The state is a pytree with W, gradient_norm, flow_time and
    evaluations; the rest is its own. `transient` takes the lanes whose gradient is large, where it is given.
    """

    init: Callable[[Teachers, Projection, Float[Array, "K D"]], Any]
    tick: Callable[[Teachers, Projection, Any], Any]
    transient: Stepper | None = None
