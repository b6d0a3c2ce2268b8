"""The flow by SciPy's BDF with the analytic Jacobian: slow, independent of the integrator and of the capture."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from enumerator.loss.population import gradient, hessian
from tests.support.references import RELU

_gradient, _hessian = jax.jit(partial(gradient, RELU)), jax.jit(partial(hessian, RELU))


def flow_end(W: np.ndarray, V: np.ndarray, flow_time: float, rtol: float = 1e-8, at_rest: float = 1e-9) -> np.ndarray:
    """Reduced weights (K, D) at the given flow time, from W; stops early at a gradient norm of `at_rest`."""
    shape, size, V = W.shape, W.size, jnp.asarray(V)

    # SciPy calls these as (time, state).
    def rate(t, y):
        return -np.asarray(_gradient(jnp.asarray(y.reshape(shape)), V)).ravel()

    def jacobian(t, y):
        return -np.asarray(_hessian(jnp.asarray(y.reshape(shape)), V)).reshape(size, size)

    def rests(t, y):
        return np.linalg.norm(rate(t, y)) - at_rest

    rests.terminal = True
    # At rest SciPy's differences of higher order may overflow as the step grows; the end itself is checked.
    with np.errstate(invalid="ignore", over="ignore"):
        solution = solve_ivp(
            rate, (0, flow_time), W.ravel(), method="BDF", jac=jacobian, rtol=rtol, atol=1e-10, events=rests
        )
    assert solution.success, solution.message
    assert np.isfinite(solution.y[:, -1]).all()
    return solution.y[:, -1].reshape(shape)


# Norm at which a neuron has come to zero, and the number of directions in which a dead one may leave.
ZERO, DIRECTIONS = 1e-6, 4000


def dying_flow_end(
    W: np.ndarray, V: np.ndarray, a: np.ndarray | None, flow_time: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and second layer (K,) where the flow ends, neurons of zero norm held there or let go.

    By SciPy's BDF from the death of one neuron to that of the next. A neuron that comes to zero is held there as long
    as the loss rises along every one of many directions, and then leaves along the lowest; looked at ten times a unit
    of flow time, and ever more rarely. `a` None: all ones, not trained.
    """
    trained, rng = a is not None, np.random.default_rng(0)
    W, a, t = W.copy(), np.ones(len(W)) if a is None else a.copy(), 0.0
    shape, teachers = W.shape, jnp.asarray(V)
    padded = np.pad(V, ((0, 0), (0, shape[1] - V.shape[1])))

    def kernel(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        norms = np.linalg.norm(u, axis=1)[:, None] * np.linalg.norm(v, axis=1)
        angle = np.arccos(np.clip(u @ v.T / np.where(norms > 0, norms, 1), -1, 1))
        return norms * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)

    def excess(u: np.ndarray, W: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Mean of relu(u.x) (f - f*), for each u."""
        return kernel(u, W) @ a - kernel(u, padded).sum(axis=1)

    def rate(t, y):
        W, a = y[:W_size].reshape(shape), y[W_size:]
        slope = np.asarray(gradient(RELU, jnp.asarray(W), teachers, jnp.asarray(a)))
        slope = np.where(alive[:, None], slope, 0.0)
        layer = np.where(alive, excess(W, W, a), 0.0) if trained else np.zeros(len(a))
        return -np.concatenate([slope.ravel(), layer])

    def death(t, y):
        norms = np.linalg.norm(y[:W_size].reshape(shape), axis=1)
        return np.where(alive, norms, np.inf).min() - ZERO

    def rest(t, y):
        return np.linalg.norm(rate(t, y)) - 1e-12

    death.terminal, death.direction, rest.terminal = True, -1, True
    W_size, alive, look = W.size, np.ones(len(W), bool), 0.1
    while t < flow_time:
        solution = solve_ivp(
            rate,
            (t, flow_time if alive.all() else min(t + look, flow_time)),
            np.concatenate([W.ravel(), a]),
            method="BDF",
            rtol=1e-8,
            atol=1e-11,
            events=(death, rest),
        )
        t, W, a = solution.t[-1], solution.y[:W_size, -1].reshape(shape), solution.y[W_size:, -1]
        look = max(0.1, t / 20)
        if len(solution.t_events[0]):
            dying = int(np.argmin(np.where(alive, np.linalg.norm(W, axis=1), np.inf)))
            if a[dying] * excess(W[dying][None], W, a)[0] >= 0:
                W[dying], alive[dying] = 0.0, False
            else:
                W[dying] *= 2
        units = np.concatenate([rng.normal(size=(DIRECTIONS, shape[1])), padded, -W[alive]])
        units = units[np.linalg.norm(units, axis=1) > 0]
        units /= np.linalg.norm(units, axis=1)[:, None]
        for neuron in np.flatnonzero(~alive):
            slopes = a[neuron] * excess(units, W, a)
            if slopes.min() < -1e-6:
                W[neuron], alive[neuron] = 2 * ZERO * units[np.argmin(slopes)], True
                break
        if len(solution.t_events[1]) or not alive.any():
            break
    return W, a
