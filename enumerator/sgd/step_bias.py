"""How far one-pass SGD strays from the gradient flow: the bias of its overlaps to first order in the step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

from enumerator.activations.base import Activation
from enumerator.loss.overlaps import lift
from enumerator.loss.population import compiled_gradient
from enumerator.problem import Landscape

# Nine digits, where SGD is compared with the flow to three.
_RTOL, _ATOL = 1e-9, 1e-11
# The multiple of the source at which the response to it is taken, by central differences.
_SMALL = 1e-4


def joined(Q: Float[np.ndarray, "*n K K"], R: Float[np.ndarray, "*n K M"]) -> Float[np.ndarray, "*n K N"]:
    """(Q, R) side by side: distances of overlaps are Frobenius norms of differences of these."""
    return np.concatenate([Q, R], axis=-1)


def joined_overlaps(W: Float[np.ndarray, "*n K D"], V: Float[np.ndarray, "M r"]) -> Float[np.ndarray, "*n K N"]:
    """`joined` overlaps of reduced weights."""
    return joined(W @ np.swapaxes(W, -1, -2), W[..., : V.shape[1]] @ V.T)


def flow_along(
    g: Activation, W: Float[np.ndarray, "K D"], V: Float[np.ndarray, "M r"], times: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "P K D"]:
    """Weights of the gradient flow at each of the times, the first 0, from W: a method of order 8, to nine digits."""
    teachers = jnp.asarray(V)

    def rate(_: float, y: np.ndarray) -> np.ndarray:
        return -np.asarray(compiled_gradient(g, jnp.asarray(y.reshape(W.shape)), teachers)).ravel()

    found = solve_ivp(rate, (0, times[-1]), W.ravel(), "DOP853", times, rtol=_RTOL, atol=_ATOL)
    return found.y.T.reshape(-1, *W.shape)


def overlap_bias(
    landscape: Landscape, W: Float[np.ndarray, "K D"], times: Float[np.ndarray, " P"], samples: int = 20_000
) -> Float[np.ndarray, "P K N"]:
    """First-order deviation of the mean `joined` overlaps of SGD from those of the flow, per unit of `step`.

    With delta_i = (f - f*) g'(h_i) and fields h = W x, y = V x, one update changes the overlaps by

        Q_ij: -step/d (delta_i h_j + delta_j h_i) + (step/d)^2 delta_i delta_j |x|^2,    R_im: -step/d delta_i y_m,

    and a unit of flow time has d/step updates. The means of the first order add up to the flow, that of the second
    to step G_ij, G_ij = E[delta_i delta_j], as |x|^2/d is 1 to order d^-1/2. The fluctuations add up to the
    variance step/d Var[delta_i h_j + delta_j h_i] per unit of time. So the deviation D of the overlaps from the
    flow, whose Jacobian is J, obeys

        dD/dt = J D + step (G, 0) + sqrt(step/d) (white noise of order one):

    within a fixed flow time a bias of order step and a noise of order sqrt(step/d); that the flow is followed in
    steps of step/d costs step/d. With step = c d^-p these fall as d^-p and d^-(1+p)/2, and the slower fall rules:
    the distance has the slope -p for p < 1, where bias rules, and -(1+p)/2 for p > 1, where noise does. At a fixed
    step SGD does not approach this flow but the one with G (Saad & Solla 1995; Goldt et al. 2019).

    Returned is the solution of dD/dt = J D + (G, 0), D(0) = 0: the difference of two flows of overlaps, with and
    against a small multiple of G, which is a mean over `samples` Gaussian inputs (relative error samples^-1/2).
    """
    V, K, rank = landscape.teacher_factor, len(W), landscape.teacher_rank
    x = np.random.default_rng(0).normal(size=(samples, rank + K))
    source = _source(landscape, x)

    def rate(strength: float) -> Callable[[float, np.ndarray], np.ndarray]:
        def of_overlaps(_: float, y: np.ndarray) -> np.ndarray:
            Q, R = np.split(y.reshape(K, -1), [K], axis=1)
            weights = np.concatenate(lift((Q + Q.T) / 2, R, V), axis=1)
            slope = np.asarray(compiled_gradient(landscape.g, jnp.asarray(weights), jnp.asarray(V)))
            drift = slope @ weights.T
            return joined(strength * source(weights) - drift - drift.T, -slope[:, :rank] @ V.T).ravel()

        return of_overlaps

    start = joined_overlaps(W, V)
    ends = [
        solve_ivp(rate(strength), (0, times[-1]), start.ravel(), "RK45", times, rtol=_RTOL, atol=_ATOL).y.T
        for strength in (_SMALL, -_SMALL)
    ]
    return ((ends[0] - ends[1]) / (2 * _SMALL)).reshape(-1, *start.shape)


def _source(
    landscape: Landscape, x: Float[np.ndarray, "n D"]
) -> Callable[[Float[np.ndarray, "K D"]], Float[np.ndarray, "K K"]]:
    """G of weights (K, D): the mean of delta delta^T over the inputs x."""
    g = landscape.g.apply
    slope = jax.vmap(jax.vmap(jax.grad(g)))
    inputs, V = jnp.asarray(x), jnp.asarray(landscape.teacher_factor)
    target = g(inputs[:, : V.shape[1]] @ V.T).sum(axis=1)

    @jax.jit
    def source(W: jax.Array) -> jax.Array:
        fields = inputs @ W.T
        delta = (g(fields).sum(axis=1) - target)[:, None] * slope(fields)
        return delta.T @ delta / len(x)

    return lambda W: np.asarray(source(jnp.asarray(W)))
