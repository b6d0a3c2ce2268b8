"""Newton's method: as dynamics it descends to minima, as polish it reaches rounding in a few steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from enumerator.loss import fast_derivatives, gradient, hessian, teacher_constant, weight_loss
from enumerator.newton import newton_init, newton_tick, polish
from tests.references import RELU


@partial(jax.jit, static_argnames="ticks")
def run(W, V, ticks):
    """The state after some ticks, and the loss after each."""
    constant = teacher_constant(RELU, V)

    def model(x, direction):
        return fast_derivatives(RELU, x, V, direction, constant)

    def step(state, _):
        state = newton_tick(model, 2.0, state)
        return state, state.loss

    return jax.lax.scan(step, newton_init(model, W, 0.5), length=ticks)


def test_the_loss_falls_monotonically_and_the_end_is_a_minimum():
    V = jnp.eye(5)
    for seed in range(3):
        state, losses = run(jnp.asarray(np.random.default_rng(seed).normal(size=(5, 5))), V, 150)
        # Up to the rounding at which the loss no longer judges a step.
        assert np.diff(losses).max() < 1e-12
        assert state.gradient_norm < 1e-9
        assert np.linalg.eigvalsh(np.asarray(hessian(RELU, state.W, V)).reshape(25, 25))[0] > 0


def test_negative_curvature_is_followed_away_from_a_saddle():
    """Two equal students on two teachers: by symmetry the merged point is a saddle; a nudge must lead away from it."""
    V = jnp.eye(2)
    W = jnp.asarray([[0.6, 0.6], [0.6, 0.6]]) + 1e-6 * jnp.asarray([[1.0, -1.0], [-1.0, 1.0]])
    state, _ = run(W, V, 60)
    assert weight_loss(RELU, state.W, V) < 1e-15


def test_polish_converges_quadratically_to_rounding():
    rng = np.random.default_rng(4)
    V = jnp.eye(6)
    state, _ = run(jnp.asarray(rng.normal(size=(6, 6))), V, 200)
    nearby = state.W + 1e-3 * jnp.asarray(rng.normal(size=(6, 6)))
    polished, norm = jax.jit(partial(polish, RELU))(nearby, V)
    assert norm < 1e-14
    assert np.linalg.norm(gradient(RELU, polished, V)) < 1e-14
    assert np.abs(polished - state.W).max() < 1e-7


def test_polish_of_garbage_returns_without_convergence():
    _, norm = jax.jit(partial(polish, RELU))(jnp.full((3, 3), jnp.nan), jnp.eye(3))
    assert not norm < 1e-3
