"""A constraint on the student weights W (K, D): a manifold that every rotation of R^D maps onto itself.

All constraints here fix a part of Q = W W^T, so the normal space at W is {S W} with S in a space of symmetric
(K, K) matrices, and everything follows from the projection onto that space. The gradient on the manifold is
G - Lambda W with the multipliers Lambda = restrict(G W^T); the second derivative along a geodesic with velocity x
is x H x - tr(x^T Lambda x), the same as that of the Lagrange function (Edelman, Arias & Smith 1998, section 2.4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray


class Constraint(ABC):
    """A constraint; instances are immutable, equal if they are the same, and hashable."""

    # No constraint at all: everything below is trivial.
    is_free: bool = False
    # |gamma'''| <= jerk along a geodesic gamma of unit speed, in whose space |gamma''| <= 1.
    jerk: float

    @abstractmethod
    def restrict(self, S: Float[Array, "K K"]) -> Float[Array, "K K"]:
        """The part of a (K, K) matrix that is a multiplier of the constraint."""

    @abstractmethod
    def retract(self, W: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """The point of the manifold nearest to a W (K, D) near it."""

    @abstractmethod
    def project(self, W: NDArray[np.float64]) -> NDArray[np.float64]:
        """The point of the manifold nearest to any W (..., K, D), on the host."""

    @abstractmethod
    def multipliers(self, students: int) -> NDArray[np.float64]:
        """A basis (n, K, K) of the multipliers."""

    def tangent(self, W: Float[Array, "K D"], G: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """The part of G (K, D) that is tangent to the manifold at W: of the gradient, that on the manifold."""
        return G - self.restrict(G @ W.T) @ W

    def deviation(self, Q: NDArray[np.float64]) -> float:
        """By how much overlaps Q (K, K) miss the constraint, in the largest entry."""
        missed = np.asarray(self.restrict(jnp.asarray(Q - np.eye(len(Q)))))
        return float(np.abs(missed).max(initial=0.0))

    def needs_dimension(self, students: int) -> int:
        """The fewest dimensions in which K students can satisfy it."""
        return 1
