"""Norms and angles of students and teachers: what every two-point kernel is a function of.

Two routes to the angle t between u and v: arccos of the cosine, whose error cancels in the gradient (3e-15),
in the batch loop; and 2 atan2(|u - v|, |u + v|) of unit vectors, exact to rounding for every t, wherever
second derivatives are stored.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

PI = np.pi


# Degree of the polynomial in `fast_arccos` for each precision: its error is that of rounding.
ARCCOS_DEGREES = {"float64": 20, "float32": 8}


def _arccos_coefficients(degree: int) -> tuple[float, ...]:
    """Monomial coefficients in 2|c| - 1 of arccos(c)/sqrt(1 - |c|) on [0, 1], from its Chebyshev interpolant."""
    nodes = np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    values = np.arccos((nodes + 1) / 2) / np.sqrt(1 - (nodes + 1) / 2)
    interpolant = np.polynomial.chebyshev.chebfit(nodes, values, degree)
    return tuple(float(c) for c in np.polynomial.chebyshev.cheb2poly(interpolant))


_ARCCOS = {name: _arccos_coefficients(degree) for name, degree in ARCCOS_DEGREES.items()}


def fast_arccos(c: Float[Array, ...]) -> Float[Array, ...]:
    """arccos(c) for -1 <= c <= 1, absolute error below 1e-15 (float32: 1e-6): sqrt(1 - |c|) P(2|c| - 1), reflected.

    The library's float64 arccos takes five times as long on a CPU and would dominate the gradient. Even and odd powers
    apart are two chains of operations that do not wait for each other: a quarter faster than Horner's one.
    """
    magnitude = jnp.abs(c)
    x = 2 * magnitude - 1
    square = x * x
    coefficients = _ARCCOS[x.dtype.name]
    even, odd = (jnp.full_like(x, coefficients[-1]), jnp.full_like(x, coefficients[-2]))
    for coefficient, lower in zip(coefficients[-3::-2], (*coefficients[-4::-2], None), strict=True):
        even = even * square + coefficient
        odd = odd if lower is None else odd * square + lower
    # The root comes last: compilers evaluate a polynomial anew for each use, but not a root.
    value = even + x * odd
    angle = jnp.sqrt(jnp.maximum(1 - magnitude, 0) * (value * value))
    return jnp.where(c < 0, PI - angle, angle)


# Stands in for a norm of zero in a denominator; its square is still a normal number.
TINY = 1e-150
_TINY = {"float64": TINY, "float32": 1e-18}


def at_least_tiny(x: Float[Array, ...]) -> Float[Array, ...]:
    """x >= 0, or the number that stands in for zero in a denominator of its precision."""
    return jnp.maximum(x, _TINY[x.dtype.name])


class Geometry(NamedTuple):
    """Norms and angles of the students against all K + M neurons, students first."""

    norms: Float[Array, " K"]
    other_norms: Float[Array, " N"]
    cosine: Float[Array, "K N"]
    sine: Float[Array, "K N"]
    angle: Float[Array, "K N"]


# Teachers (M, r): an array, or one of numpy, which is a constant of the compiled program.
Teachers = Float[Array, "M r"] | Float[np.ndarray, "M r"]


def _are_axes(V: Teachers) -> bool:
    """Whether the teachers are known to be the first coordinate axes: products with them cost nothing."""
    return isinstance(V, np.ndarray) and np.array_equal(V, np.eye(len(V)))


def overlaps_with(V: Teachers, x: Float[Array, "K D"]) -> Float[Array, "K M"]:
    """Products of the rows of x (K, D) with the teachers."""
    return x[:, : V.shape[1]] if _are_axes(V) else x[:, : V.shape[1]] @ V.T


def combined(coefficients: Float[Array, "K M"], V: Teachers) -> Float[Array, "K r"]:
    """Linear combinations of the teachers."""
    return coefficients if _are_axes(V) else coefficients @ V


def fast_geometry(W: Float[Array, "K D"], V: Teachers) -> Geometry:
    """Angles by arccos of the overlaps: two matrix products, nothing of size K^2 D."""
    K = W.shape[0]
    gram = W @ W.T
    norms = jnp.sqrt(jnp.diagonal(gram))
    teacher_norms = jnp.sqrt((V * V).sum(axis=1))
    other_norms = jnp.concatenate([norms, teacher_norms])
    products = jnp.concatenate([gram, overlaps_with(V, W)], axis=1)
    cosine = products / at_least_tiny(norms[:, None] * other_norms[None, :])
    cosine = jnp.clip(jnp.where(jnp.eye(K, K + V.shape[0], dtype=bool), 1.0, cosine), -1.0, 1.0)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    return Geometry(norms, other_norms, cosine, sine, fast_arccos(cosine))


def unit_vectors(W: Float[Array, "N D"]) -> tuple[Float[Array, "N D"], Float[Array, " N"]]:
    """Unit vectors (zero for a zero row) and norms."""
    norms = jnp.sqrt((W * W).sum(axis=1))
    return W / jnp.maximum(norms, TINY)[:, None], norms


def all_neurons(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, "N D"]:
    """Students and teachers in the same D coordinates."""
    return jnp.concatenate([W, jnp.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))])


def safe_norm(x: Float[Array, "K N D"]) -> Float[Array, "K N"]:
    return jnp.sqrt((x * x).sum(axis=-1))


def exact_geometry(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Geometry:
    """Angles by 2 atan2(|u - v|, |u + v|): full accuracy also at and near collinear and antiparallel pairs."""
    units, norms = unit_vectors(all_neurons(W, V))
    K = W.shape[0]
    minus = safe_norm(units[:K, None] - units[None])
    plus = safe_norm(units[:K, None] + units[None])
    # A zero neuron has no direction: its unit vector is zero, and it stands at right angles to all.
    angle = 2 * jnp.arctan2(minus, plus)
    angle = jnp.where(jnp.eye(K, len(units), dtype=bool), 0.0, angle)
    return Geometry(norms[:K], norms, jnp.cos(angle), jnp.sin(angle), angle)
