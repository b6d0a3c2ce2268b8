"""The flow by SciPy's BDF with the analytic Jacobian: slow, independent of the integrator and of the capture."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from enumerator.loss import gradient, hessian
from tests.references import RELU

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
