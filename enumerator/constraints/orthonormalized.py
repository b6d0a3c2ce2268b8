"""Orthonormalized students: Q = I, the Stiefel manifold of K orthonormal vectors in d >= K dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.constraints.base import Constraint

# Newton-Schulz steps to the polar factor: an error e of W W^T becomes 3/4 e^2, from 0.3 to rounding in six.
_STEPS = 6


@dataclass(frozen=True)
class Orthonormalized(Constraint):
    """On a geodesic gamma'' = -(gamma' gamma'^T) gamma (Edelman, Arias & Smith 1998, eq. 2.7), so |gamma'''| <= 3."""

    jerk = 3.0

    def restrict(self, S: Float[Array, "K K"]) -> Float[Array, "K K"]:
        return (S + S.T) / 2

    def retract(self, W: Float[Array, "K D"]) -> Float[Array, "K D"]:
        for _ in range(_STEPS):
            W = 1.5 * W - 0.5 * (W @ W.T) @ W
        return W

    def project(self, W: NDArray[np.float64]) -> NDArray[np.float64]:
        left, _, right = np.linalg.svd(W, full_matrices=False)
        return left @ right

    def multipliers(self, students: int) -> NDArray[np.float64]:
        rows, columns = np.triu_indices(students)
        basis = np.zeros((len(rows), students, students))
        basis[np.arange(len(rows)), rows, columns] = basis[np.arange(len(rows)), columns, rows] = 1
        return basis

    def needs_dimension(self, students: int) -> int:
        return students
