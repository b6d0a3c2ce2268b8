"""Normalized students: each on the unit sphere, Q_kk = 1."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.constraints.base import Constraint


@dataclass(frozen=True)
class Normalized(Constraint):
    """A product of K unit spheres: on a geodesic gamma_k'' = -|gamma_k'|^2 gamma_k, so |gamma'''| <= 1."""

    jerk = 1.0

    def restrict(self, S: Float[Array, "K K"]) -> Float[Array, "K K"]:
        return jnp.diag(jnp.diagonal(S))

    def retract(self, W: Float[Array, "K D"]) -> Float[Array, "K D"]:
        return W / jnp.sqrt((W * W).sum(axis=1, keepdims=True))

    def project(self, W: NDArray[np.float64]) -> NDArray[np.float64]:
        return W / np.linalg.norm(W, axis=-1, keepdims=True)

    def multipliers(self, students: int) -> NDArray[np.float64]:
        identity = np.eye(students)
        return identity[:, :, None] * identity[:, None, :]
