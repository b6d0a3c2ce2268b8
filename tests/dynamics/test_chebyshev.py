"""The integrator against exact solutions, a stiff solver, and the promises of a gradient flow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from enumerator.dynamics.chebyshev import STAGE_COUNTS, _method, rkc_init, rkc_tick
from enumerator.dynamics.vector_field import gradient_flow
from enumerator.loss.population import fast_gradient, weight_loss
from tests.support.references import FREE, RELU


def advancing(field, tolerance, ticks):
    """A compiled function that lets a lane do some ticks."""
    return jax.jit(lambda s: jax.lax.fori_loop(0, ticks, lambda _, x: rkc_tick(field, tolerance, x), s))


@pytest.mark.parametrize("stages", STAGE_COUNTS)
def test_stage_polynomials_are_second_order_and_stable(stages):
    """On y' = -z y a step multiplies y by P(-z): exp(-z) to second order, at most one in magnitude up to beta."""
    method = _method(stages)

    def polynomial(z):
        older, newer = np.ones_like(z), 1 - method.coefficients[1, 2] * z
        for mu, nu, mu_rate, gamma_rate in method.coefficients[2:]:
            older, newer = newer, (1 - mu - nu) + mu * newer + nu * older - z * (mu_rate * newer + gamma_rate)
        return newer

    small = np.array([1e-3, 2e-3])
    errors = np.abs(polynomial(small) - np.exp(-small))
    assert 7.5 < errors[1] / errors[0] < 8.5  # a local error of third order: twice the step, 2^3 times the error
    inside = np.linspace(0, method.stability, 20_000)
    assert np.abs(polynomial(inside)).max() <= 1 + 1e-9
    if stages >= 5:
        # The interval 0.653 (s + 1)^2 of the paper, from which few stages fall short.
        assert method.stability > 0.62 * stages**2


def test_at_the_longest_steps_every_mode_decays():
    """The polynomial of 200 stages has a hundred crests where it damps next to nothing: no mode may stay on one."""
    rates = jnp.asarray(np.geomspace(1e-3, 2, 400).reshape(20, 20))
    state = rkc_init(lambda W: -rates * (W - 1), jnp.full((20, 20), 1 + 1e-6))
    advance = advancing(lambda W: -rates * (W - 1), 1e-4, 400)
    while state.evaluations < 14_000:
        state = advance(state)
    # 1e-13 was measured, and 1e-10 with one and the same step.
    assert 0.49 < state.step * state.stiffness / _method(200).stability <= 1
    assert np.abs(state.W - 1).max() < 1e-12


def test_a_stiff_linear_problem_is_followed_at_the_requested_accuracy():
    """Rates from 5 to 5e-4, as at a minimum: at flow time 2,000 the slow mode has decayed as it should."""
    rates = jnp.asarray(np.geomspace(5e-4, 5, 12).reshape(3, 4))
    start = jnp.ones((3, 4))
    counts = {}
    for tolerance in (1e-4, 1e-6):
        state = rkc_init(lambda W: -rates * W, start)
        advance = advancing(lambda W: -rates * W, tolerance, 20)
        while state.flow_time < 2000:
            state = advance(state)
        exact = np.exp(-rates * state.flow_time)
        counts[tolerance] = int(state.evaluations)
        # Global error: the local ones summed over at most a few hundred steps, in units of the norm of W.
        assert np.abs(state.W - exact).max() < 300 * tolerance
    # An explicit method needs lambda_max t/2 = 5,000 evaluations for stability alone; 1,381 were measured here.
    assert counts[1e-4] < 5000 / 3


def test_the_flow_agrees_with_a_stiff_solver():
    rng = np.random.default_rng(3)
    W0, V = rng.normal(size=(4, 6)), jnp.eye(4)
    field = gradient_flow(FREE, V)
    state, advance = rkc_init(field, jnp.asarray(W0)), advancing(field, 1e-6, 10)
    while state.flow_time < 30:
        state = advance(state)
    rate = jax.jit(partial(fast_gradient, RELU))
    solution = solve_ivp(
        lambda t, y: -np.asarray(rate(y.reshape(4, 6), V)).ravel(),
        (0, float(state.flow_time)),
        W0.ravel(),
        method="LSODA",
        rtol=1e-10,
        atol=1e-12,
    )
    assert np.abs(solution.y[:, -1].reshape(4, 6) - state.W).max() < 1e-4


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 10.0]))
def test_the_flow_never_raises_the_loss(seed, scale):
    rng = np.random.default_rng(seed)
    W, V = jnp.asarray(scale * rng.normal(size=(3, 4))), jnp.eye(4)
    state, before = start_small(W, V), np.inf
    for _ in range(12):
        state, loss = advance_small(state, V)
        now = float(loss)
        # The integrator follows the flow to 1e-4 of the weights, so the loss to 1e-4 of its scale.
        assert now <= before * (1 + 1e-4) + 1e-12
        before = now


@jax.jit
def start_small(W, V):
    return rkc_init(gradient_flow(FREE, V), W)


@jax.jit
def advance_small(state, V):
    state = jax.lax.fori_loop(0, 10, lambda _, s: rkc_tick(gradient_flow(FREE, V), 1e-4, s), state)
    return state, weight_loss(RELU, state.W, V)


def test_a_lane_that_blows_up_does_not_spoil_its_neighbour():
    field = gradient_flow(FREE, jnp.eye(3))
    rng = np.random.default_rng(0)
    starts = jnp.asarray(np.stack([rng.normal(size=(3, 3)), np.full((3, 3), np.nan)]))
    states = jax.vmap(lambda w: rkc_init(field, w))(starts)
    both = jax.vmap(lambda s: rkc_tick(field, 1e-4, s))(states)
    alone = rkc_tick(field, 1e-4, rkc_init(field, starts[0]))
    assert not np.isfinite(both.gradient_norm[1])
    assert np.abs(both.stage[0] - alone.stage).max() < 1e-15
