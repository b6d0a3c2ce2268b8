"""From nearby to a stationary point: plain Newton, and where its steps overshoot, the norm of the gradient led down."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import NDArray

from enumerator.activations.base import Activation
from enumerator.loss.population import SecondLayer, compiled_gradient, compiled_hessian, gradient, hessian


def polish(
    g: Activation, W: Float[Array, "K r"], V: Float[Array, "M r"], a: SecondLayer = None, iterations: int = 12
) -> tuple[Float[Array, "K r"], Float[Array, ""]]:
    """Newton's method on grad L = 0 from nearby, in the span of the teachers: the point and its gradient norm.

    Plain Newton with the closed-form Hessian, which finds saddles as well as minima; stops when the
    gradient norm no longer falls below half. Whether it converged, and to what, the caller decides.
    """

    def norm_at(x: Float[Array, "K r"]) -> tuple[Float[Array, "K r"], Float[Array, ""]]:
        slope = gradient(g, x, V, a)
        return slope, jnp.sqrt((slope * slope).sum())

    def body(carry: tuple) -> tuple:
        x, slope, norm, _, count = carry
        step = jnp.linalg.solve(hessian(g, x, V, a).reshape(x.size, x.size), slope.ravel()).reshape(x.shape)
        new_slope, new_norm = norm_at(x - step)
        better = new_norm < norm  # false for NaN: the point stays
        x, slope = jnp.where(better, x - step, x), jnp.where(better, new_slope, slope)
        return x, slope, jnp.where(better, new_norm, norm), new_norm < 0.5 * norm, count + 1

    def goes_on(carry: tuple) -> Bool[Array, ""]:
        _, _, _, halves, count = carry
        return halves & (count < iterations)

    slope, norm = norm_at(W)
    x, _, norm, _, _ = jax.lax.while_loop(goes_on, body, (W, slope, norm, jnp.asarray(True), 0))
    return x, norm


# Compiled once per activation and shape.
compiled_polish = jax.jit(polish, static_argnums=0)

# The damping of the first step, an eigenvalue, by which it grows or falls, and beyond which nothing is found.
_FIRST_DAMPING, _DAMPS, _MOST_DAMPING = 1e-4, 5.0, 10.0

# Part of a step at which its curvature is probed, and the largest correction for it, over half the step: the values of
# Transtrum & Sethna (2012), section 4.
_PROBED, _MOST_BEND = 0.1, 0.75

# The norm is given up that has not halved in so many steps: it halves in two or three where there is a point to reach.
_PATIENCE = 6

# A norm below this part of that of the teachers has few digits left; when it no longer falls by half it has none.
_ROUNDING = 1e-12


def _overdamped(damping: float) -> bool:
    """Whether no step is worth trying at this damping."""
    return damping > _MOST_DAMPING


def _bends_little(step: NDArray[np.float64], bend: NDArray[np.float64]) -> bool:
    """Whether the correction of a step for its curvature is small beside it."""
    return bool(2 * np.linalg.norm(bend) <= _MOST_BEND * np.linalg.norm(step))


def _converged(norms: list[float], rounding: float) -> bool:
    """Whether the last of the norms is rounding, and no longer falls by half."""
    return norms[-1] > 0.5 * norms[-2] and norms[-1] <= rounding


def _stalled(norms: list[float]) -> bool:
    """Whether the norm has not halved in `_PATIENCE` steps."""
    return len(norms) > _PATIENCE and norms[-1] > 0.5 * norms[-1 - _PATIENCE]


def nearest_stationary(
    g: Activation,
    W: NDArray[np.float64],
    V: NDArray[np.float64],
    a: NDArray[np.float64] | None = None,
    iterations: int = 60,
) -> tuple[NDArray[np.float64], float]:
    """The stationary point that the norm of the gradient leads to from W (K, r), and that norm there.

    Levenberg-Marquardt on |grad L|^2 (Nocedal & Wright 2006, section 10.3) with the symmetric Hessian diagonalised,
    and with the geodesic acceleration of Transtrum & Sethna (2012, arXiv:1201.5885): it reaches minima and saddles
    alike, also near-degenerate ones, to which curved valleys lead, and where plain Newton steps overshoot. Ten to
    thirty times the cost of `polish`. The norm may also come to rest elsewhere: the caller decides.
    """
    x, teachers, damping = W, jnp.asarray(V), _FIRST_DAMPING
    rounding = _ROUNDING * float(np.linalg.norm(V))

    def slope(point: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        rate = np.asarray(compiled_gradient(g, jnp.asarray(point), teachers, a))
        return rate, float(np.linalg.norm(rate))

    at, norm = slope(x)
    norms = [norm]
    for _ in range(iterations):
        H = np.asarray(compiled_hessian(g, jnp.asarray(x), teachers, a)).reshape(x.size, x.size)
        values, vectors = np.linalg.eigh(H)
        while not _overdamped(damping):
            inverse = values / (values**2 + damping**2)
            step = -(vectors @ (inverse * (vectors.T @ at.ravel()))).reshape(x.shape)
            # The gradient along the step is at + H step + bend/2: what its curvature adds to the way.
            change = (slope(x + _PROBED * step)[0] - at) / _PROBED - (H @ step.ravel()).reshape(x.shape)
            bend = -(vectors @ (inverse * (vectors.T @ (2 * change / _PROBED).ravel()))).reshape(x.shape)
            bend = bend if norm > rounding else np.zeros_like(bend)  # which would be a difference of roundings
            new_at, new_norm = slope(x + step + bend / 2)
            if new_norm < norm and _bends_little(step, bend):
                x, at, norm, damping = x + step + bend / 2, new_at, new_norm, damping / _DAMPS
                break
            damping *= _DAMPS
        else:
            break
        norms.append(norm)
        if _converged(norms, rounding) or _stalled(norms):
            break
    return x, norm


def distance_by_one_step(
    g: Activation, W: NDArray[np.float64], V: NDArray[np.float64], a: NDArray[np.float64] | None, definite: float
) -> float:
    """Length of Newton's step from W (K, D), the shortest: how far a family of stationary points is to first order.

    Eigenvalues of at most the part `definite` of the largest vanish.
    """
    at, teachers = jnp.asarray(W), jnp.asarray(V)
    slope = np.asarray(compiled_gradient(g, at, teachers, a)).ravel()
    H = np.asarray(compiled_hessian(g, at, teachers, a)).reshape(W.size, W.size)
    return float(np.linalg.norm(np.linalg.lstsq(H, slope, rcond=definite)[0]))
