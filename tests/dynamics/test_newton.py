"""Newton's method: as dynamics it descends to minima, as polish it reaches rounding in a few steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

from enumerator.dynamics.trust_region import trust_region_init, trust_region_tick
from enumerator.follow import follow_shard
from enumerator.lanes.batch import BatchShape
from enumerator.loss.population import fast_derivatives, gradient, hessian, teacher_constant, weight_loss
from enumerator.minima.polish import nearest_stationary, polish
from enumerator.problem import Campaign, InitialLaw, Landscape
from tests.support.references import RELU

_gradient, _hessian = jax.jit(partial(gradient, RELU)), jax.jit(partial(hessian, RELU))


@partial(jax.jit, static_argnames="ticks")
def run(W, V, ticks):
    """The state after some ticks, and the loss after each."""
    constant = teacher_constant(RELU, V)

    def model(x, direction):
        return fast_derivatives(RELU, x, V, direction, constant)

    def step(state, _):
        state = trust_region_tick(model, 2.0, state)
        return state, state.loss

    return jax.lax.scan(step, trust_region_init(model, W, 0.5), length=ticks)


def test_the_loss_falls_monotonically_and_the_end_is_a_minimum():
    V = jnp.eye(5)
    for seed in range(3):
        state, losses = run(jnp.asarray(np.random.default_rng(seed).normal(size=(5, 5))), V, 150)
        # Up to the rounding at which the loss no longer judges a step.
        assert np.diff(losses).max() < 1e-12
        assert state.gradient_norm < 1e-9
        assert np.linalg.eigvalsh(np.asarray(_hessian(state.W, V)).reshape(25, 25))[0] > 0


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


def test_the_nearest_stationary_point_is_that_of_another_solver_and_takes_few_hessians(monkeypatch):
    """From around the spurious minimum of K = M = 7, whose smallest eigenvalue is 0.014, beside SciPy's MINPACK."""
    (centre,) = (
        point.W
        for point in follow_shard(Campaign(Landscape(7, 7), law=InitialLaw(7)), 0, 40, BatchShape(lanes=8)).points
        if point.loss > 0.01
    )
    V, rng, spectra, agree = np.eye(7), np.random.default_rng(0), [], 0
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda H: spectra.append(H) or eigh(H))
    for _ in range(20):
        W = centre + 0.2 * rng.normal(size=(7, 7)) / 7
        spectra.clear()
        found, norm = nearest_stationary(RELU, W, V)
        assert len(spectra) <= 10
        theirs = least_squares(
            lambda x: np.asarray(_gradient(x.reshape(7, 7), V)).ravel(),
            W.ravel(),
            lambda x: np.asarray(_hessian(x.reshape(7, 7), V)).reshape(49, 49),
            method="lm",
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        # To rounding, not to its neighbourhood; a saddle stands beside the minimum, and either solver may find it.
        assert norm < 1e-14 and np.linalg.norm(theirs.fun) < 1e-14
        agree += bool(np.linalg.norm(found - theirs.x.reshape(7, 7)) < 1e-9)
    assert agree >= 15
