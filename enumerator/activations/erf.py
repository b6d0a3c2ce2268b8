"""The error function, g(z) = erf(z/sqrt 2), whose overlap equations Saad & Solla (1995) solved.

k(u, v) = (2/pi) arcsin(u.v/sqrt((1 + u.u)(1 + v.v))). With a = 1 + u.u, b = 1 + v.v, c = u.v and
s = a b - c^2, every derivative is a rational function of a, b, c and sqrt s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.activations.base import Activation, Norms
from enumerator.activations.geometry import PI, Geometry

_Pairs = Float[Array, "K N"]


def _invariants(geometry: Geometry) -> tuple[_Pairs, _Pairs, _Pairs, _Pairs]:
    """a, b, c and s of all pairs; s = 1 + u.u + v.v + (|u||v| sin t)^2 without cancellation."""
    own, other = (geometry.norms**2)[:, None], (geometry.other_norms**2)[None, :]
    product = geometry.norms[:, None] * geometry.other_norms[None, :]
    s = 1 + own + other + (product * geometry.sine) ** 2
    ones = jnp.ones_like(product)
    return (1 + own) * ones, (1 + other) * ones, product * geometry.cosine, s


@dataclass(frozen=True)
class Erf(Activation):
    """erf(z/sqrt 2)."""

    is_homogeneous = False
    is_odd = True

    def plain_kernel(self, own: Any, other: Any, mutual: Any, m: Any) -> Any:
        return 2 / m.pi * m.atan2(mutual, m.sqrt((1 + own) * (1 + other) - mutual**2))

    def third_derivatives(self, norms: Norms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """From suprema of |g| = 1, |g'| = |g'''| = sqrt(2/pi), |g''| = sqrt(2/(pi e)) under the expectation.

        E|e.x|^3 = 2 sqrt(2/pi) |e|^3, and E (e.x)^2 |f.x| <= sqrt 3 |e|^2 |f| by Cauchy and Schwarz. Half of
        k(u, u) has the bound of a pair and that of a mixed one.
        """
        slope, bend = np.sqrt(2 / PI), np.sqrt(2 / (PI * np.e))
        own, mixed = slope * 2 * np.sqrt(2 / PI), 3 * bend * slope * np.sqrt(3)
        everywhere = np.ones_like(norms.shortest)
        return (own * (norms.neighbours + 1) + mixed) * everywhere, mixed * everywhere

    def apply(self, z: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return erf(z / np.sqrt(2))

    def kernel(self, geometry: Geometry) -> Float[Array, "K N"]:
        _, _, c, s = _invariants(geometry)
        return 2 / PI * jnp.arctan2(c, jnp.sqrt(s))

    def mutual(self, geometry: Geometry) -> Float[Array, "K N"]:
        return 2 / PI / jnp.sqrt(_invariants(geometry)[3])

    def alpha(self, geometry: Geometry, weights: Float[Array, " N"]) -> Float[Array, " K"]:
        a, _, c, s = _invariants(geometry)
        return (-2 / PI * c / (a * jnp.sqrt(s))) @ weights

    def hessian_blocks(
        self, neurons: Float[Array, "N D"], geometry: Geometry, weights: Float[Array, " N"]
    ) -> tuple[Float[Array, "K K D D"], Float[Array, "K D D"]]:
        K = len(geometry.norms)
        a, b, c, s = _invariants(geometry)
        identity, students = jnp.eye(neurons.shape[1]), neurons[:K]
        power = 2 / PI * s**-1.5
        crossed = students[:, None, :, None] * students[None, :, None, :]  # u v^T
        mixed = (2 / PI / jnp.sqrt(s))[:, :K, None, None] * identity
        mixed = mixed + (power * c)[:, :K, None, None] * (crossed + jnp.swapaxes(crossed, 2, 3))
        mixed = mixed - jnp.einsum("ij,ia,ib->ijab", (power * b)[:, :K], students, students)
        mixed = mixed - jnp.einsum("ij,ja,jb->ijab", (power * a)[:, :K], students, students)

        pull = (-2 / PI * c / (a * jnp.sqrt(s))) @ weights
        along = 2 * power * c * s / a**2 + power * c * b / a  # 2 d/d(u.u) of the pull
        own = pull[:, None, None] * identity
        own = own + jnp.einsum("ij,j,ia,ib->iab", along, weights, students, students)
        own = own + jnp.einsum("ij,j,ja,jb->iab", power * c, weights, neurons, neurons)
        outer = jnp.einsum("ij,j,ia,jb->iab", -power * b, weights, students, neurons)
        return mixed, own + outer + jnp.swapaxes(outer, 1, 2)
