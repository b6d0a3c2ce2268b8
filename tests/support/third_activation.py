"""An activation as a user would add one: a file, and a line in `ACTIVATIONS`. Neither homogeneous nor odd.

A rectifier smeared by noise, g(z) = E[max(z + y, 0)] = z Phi(z) + phi(z) with y ~ N(0, 1), less an offset: its kernel
is the arc-cosine kernel at a = 1 + u.u, b = 1 + v.v and c = u.v, less offset (sqrt a + sqrt b)/sqrt(2 pi) - offset^2.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from enumerator.activations.base import Activation
from enumerator.activations.geometry import PI

DENSITY = 1 / np.sqrt(2 * PI)  # phi(0) = g(0) without an offset


@dataclass(frozen=True)
class SmoothRectifier(Activation):
    """Positive everywhere: a neuron of zero norm is a constant, and no student with more neurons is the teacher."""

    is_homogeneous = False
    is_odd = False
    offset = 0.0

    def apply(self, z):
        return z * norm.cdf(z) + norm.pdf(z) - self.offset

    def plain_kernel(self, own, other, mutual, m):
        a, b = 1 + own, 1 + other
        root = m.sqrt(a * b - mutual**2)
        arc = (root + (m.pi - m.atan2(root, mutual)) * mutual) / (2 * m.pi)
        return arc - self.offset * ((m.sqrt(a) + m.sqrt(b)) / m.sqrt(2 * m.pi) - self.offset)

    def third_derivatives(self, norms):
        # |g'''| <= 1/sqrt(2 pi e), |g''| <= phi(0), |g'| <= 1, |g(z)| <= phi(0) - offset + |z| under the expectation.
        bend = DENSITY / np.sqrt(np.e)
        constant, growth = 2 * np.sqrt(2 / PI) * (DENSITY - self.offset), np.sqrt(15)
        mixed = 3 * DENSITY * np.sqrt(3) * np.ones_like(norms.shortest)
        own = bend * (constant * (norms.neighbours + 1) + growth * (norms.others + norms.longest))
        return own + mixed, mixed

    def kernel(self, geometry):
        a, b, c, s = _invariants(geometry)
        arc = (s + (PI - jnp.arctan2(s, c)) * c) / (2 * PI)
        return arc - self.offset * (DENSITY * (jnp.sqrt(a) + jnp.sqrt(b)) - self.offset)

    def mutual(self, geometry):
        _, _, c, s = _invariants(geometry)
        return (PI - jnp.arctan2(s, c)) / (2 * PI)

    def alpha(self, geometry, weights):
        a, _, _, s = _invariants(geometry)
        return (s / (2 * PI * a) - self.offset * DENSITY / jnp.sqrt(a)) @ weights

    def hessian_blocks(self, neurons, geometry, weights):
        K = len(geometry.norms)
        a, b, c, s = _invariants(geometry)
        identity, u = jnp.eye(neurons.shape[1]), neurons[:K]
        turn, over, scale = self.mutual(geometry), 1 / (2 * PI * s), -c / (2 * PI * s)
        mixed = turn[:, :K, None, None] * identity
        mixed = mixed + jnp.einsum("ij,ja,ib->ijab", over[:, :K], u, u)
        mixed = mixed + jnp.einsum("ij,ja,jb->ijab", (scale / b)[:, :K], u, u)
        mixed = mixed + jnp.einsum("ij,ia,ib->ijab", (scale / a)[:, :K], u, u)
        mixed = mixed + jnp.einsum("ij,ia,jb->ijab", over[:, :K], u, u)
        along = b * over / a - s / (PI * a**2) + self.offset * DENSITY / a**1.5
        own = self.alpha(geometry, weights)[:, None, None] * identity
        own = own + jnp.einsum("ij,j,ia,ib->iab", along, weights, u, u)
        own = own + jnp.einsum("ij,j,ja,jb->iab", over, weights, neurons, neurons)
        outer = jnp.einsum("ij,j,ia,jb->iab", scale / a, weights, u, neurons)
        return mixed, own + outer + jnp.swapaxes(outer, 1, 2)


@dataclass(frozen=True)
class CentredRectifier(SmoothRectifier):
    """g(0) = 0: a neuron of zero norm adds nothing."""

    offset = DENSITY

    def apply(self, z):
        return z * norm.cdf(z) + (norm.pdf(z) - DENSITY)


def _invariants(geometry):
    own, other = (geometry.norms**2)[:, None], (geometry.other_norms**2)[None, :]
    product = geometry.norms[:, None] * geometry.other_norms[None, :]
    s = jnp.sqrt(1 + own + other + (product * geometry.sine) ** 2)
    ones = jnp.ones_like(product)
    return (1 + own) * ones, (1 + other) * ones, product * geometry.cosine, s
