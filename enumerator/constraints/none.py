"""No constraint."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.constraints.base import Constraint


@dataclass(frozen=True)
class Free(Constraint):
    """All weights."""

    is_free = True
    jerk = 0.0

    def restrict(self, S: Float[Array, "K K"]) -> Float[Array, "K K"]:
        return jnp.zeros_like(S)

    def retract(self, W: Float[Array, "K D"]) -> Float[Array, "K D"]:
        return W

    def project(self, W: NDArray[np.float64]) -> NDArray[np.float64]:
        return W

    def multipliers(self, students: int) -> NDArray[np.float64]:
        return np.zeros((0, students, students))

    def tangent(self, W: Float[Array, "K D"], G: Float[Array, "K D"]) -> Float[Array, "K D"]:
        return G
