"""Rectifiers, g(z) = max(z, 0) + slope min(z, 0): ReLU with slope 0, leaky ReLU with any slope in [0, 1).

E[g(u.x) g(v.x)] = (1 - slope)^2 J + slope u.v with J the arc-cosine kernel of order one, Cho & Saul (2009), eq. 6.
Derivatives: Safran & Shamir (2018), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.activations.base import Activation, Norms
from enumerator.activations.geometry import PI, TINY, Geometry, at_least_tiny, safe_norm, unit_vectors


@dataclass(frozen=True)
class Rectifier(Activation):
    """max(z, 0) + slope min(z, 0)."""

    slope: float = 0.0
    is_homogeneous = True
    is_odd = False

    @property
    def _bend(self) -> float:
        """The part of the arc-cosine kernel."""
        return (1 - self.slope) ** 2

    def third_derivatives(self, norms: Norms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Extrema of the derivatives of J over directions and angle; the tests maximise them numerically.

        k(u, v) has at most 3 sqrt(3)/(4 pi) |v|/|u|^2 |e|^3 along e, and three times 1/(pi |u|) |e|^2 |f|; k(u, u)
        has none.
        """
        if (norms.shortest <= 0).any():
            return np.full_like(norms.shortest, np.inf), np.zeros_like(norms.shortest)
        own = 3 * np.sqrt(3) / (4 * PI) * norms.others / norms.shortest**2
        return self._bend * own, self._bend * 3 / (PI * norms.shortest)

    def apply(self, z: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.where(z > 0, z, self.slope * z)

    def kernel(self, geometry: Geometry) -> Float[Array, "K N"]:
        product = geometry.norms[:, None] * geometry.other_norms[None, :]
        arc = product * (geometry.sine + (PI - geometry.angle) * geometry.cosine) / (2 * PI)
        return arc if not self.slope else self._bend * arc + self.slope * product * geometry.cosine

    def mutual(self, geometry: Geometry) -> Float[Array, "K N"]:
        turn = (PI - geometry.angle) / (2 * PI)
        return turn if not self.slope else self._bend * turn + self.slope

    def alpha(self, geometry: Geometry, weights: Float[Array, " N"]) -> Float[Array, " K"]:
        pull = geometry.sine @ (weights * geometry.other_norms) / (2 * PI * at_least_tiny(geometry.norms))
        return jnp.where(geometry.norms == 0, 0.0, self._bend * pull)

    def hessian_blocks(
        self, neurons: Float[Array, "N D"], geometry: Geometry, weights: Float[Array, " N"]
    ) -> tuple[Float[Array, "K K D D"], Float[Array, "K D D"]]:
        """Exact to rounding also at and near collinear pairs, from unit vectors p, q along u + v and u - v.

        Mixed blocks ((pi - t) I + sin t (p p^T - q q^T))/(2 pi); own blocks |n| sin t (I - u u^T + m m^T)/(2 pi |w|)
        with m the in-plane normal.
        """
        K, D = len(geometry.norms), neurons.shape[1]
        units, norms = unit_vectors(neurons)
        identity = jnp.eye(D)
        plus = units[:K, None] + units[None]
        minus = units[:K, None] - units[None]
        p = plus / jnp.maximum(safe_norm(plus), TINY)[..., None]
        q = minus / jnp.maximum(safe_norm(minus), TINY)[..., None]
        mixed = (PI - geometry.angle)[:, :K, None, None] * identity
        mixed = mixed + jnp.einsum("ij,ija,ijb->ijab", geometry.sine[:, :K], p[:, :K], p[:, :K])
        mixed = mixed - jnp.einsum("ij,ija,ijb->ijab", geometry.sine[:, :K], q[:, :K], q[:, :K])

        # In-plane normal of w_i towards n: from the nearer of n - w and n + w, which keeps its digits.
        nearer = jnp.where((geometry.angle < PI / 2)[..., None], -minus, plus)
        normal = nearer - jnp.einsum("ija,ia->ij", nearer, units[:K])[..., None] * units[:K, None]
        normal = normal / jnp.maximum(safe_norm(normal), TINY)[..., None]
        distinct = ~jnp.eye(K, len(units), dtype=bool)
        strength = jnp.where(distinct, geometry.sine * weights * norms, 0.0)
        strength = strength / (2 * PI * jnp.maximum(geometry.norms, TINY))[:, None]
        projector = identity - units[:K, :, None] * units[:K, None, :]
        own = strength.sum(axis=1)[:, None, None] * projector
        own = own + jnp.einsum("ij,ija,ijb->iab", strength, normal, normal)
        return self._bend * mixed / (2 * PI) + self.slope * identity, self._bend * own
