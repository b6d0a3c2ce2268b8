"""Two-point kernels E[g(u.x) g(v.x)] over x ~ N(0, I), as functions of two norms and an angle.

Cho & Saul (2009), eq. 6 (arc-cosine kernel of order one) for ReLU.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

PI = np.pi


def _arccos_coefficients(degree: int = 20) -> tuple[float, ...]:
    """Monomial coefficients in 2|c| - 1 of arccos(c)/sqrt(1 - |c|) on [0, 1], from its Chebyshev interpolant."""
    nodes = np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    values = np.arccos((nodes + 1) / 2) / np.sqrt(1 - (nodes + 1) / 2)
    interpolant = np.polynomial.chebyshev.chebfit(nodes, values, degree)
    return tuple(float(c) for c in np.polynomial.chebyshev.cheb2poly(interpolant))


_ARCCOS = _arccos_coefficients()


def fast_arccos(c: Float[Array, ...]) -> Float[Array, ...]:
    """arccos(c) for -1 <= c <= 1, absolute error below 1e-15: sqrt(1 - |c|) P(2|c| - 1), reflected for c < 0.

    The library's float64 arccos takes five times as long on a CPU and would dominate the gradient.
    """
    magnitude = jnp.abs(c)
    x = 2 * magnitude - 1
    value = jnp.full_like(x, _ARCCOS[-1])
    for coefficient in _ARCCOS[-2::-1]:
        value = value * x + coefficient
    angle = jnp.sqrt(jnp.maximum(1 - magnitude, 0)) * value
    return jnp.where(c < 0, PI - angle, angle)


def relu_kernel(
    product: Float[Array, ...], cosine: Float[Array, ...], sine: Float[Array, ...], angle: Float[Array, ...]
) -> Float[Array, ...]:
    """J(u, v) = |u||v| (sin t + (pi - t) cos t)/(2 pi), from the product of the norms and the angle t."""
    return product * (sine + (PI - angle) * cosine) / (2 * PI)
