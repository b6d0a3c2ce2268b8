"""The loss and its derivatives against automatic differentiation, Monte Carlo, and exact values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enumerator.activations.geometry import fast_arccos
from enumerator.loss import population
from enumerator.loss.overlaps import Overlaps
from tests.support.references import RELU, exact_global_spectrum, plain_loss

# Rounding of sums of some hundred terms of size one, amplified by derivatives up to 1/norm.
ROUNDING = 1e-12


hessian, perpendicular_block, gradient, derivatives, weight_loss = (
    jax.jit(partial(function, RELU))
    for function in (
        population.hessian,
        population.perpendicular_block,
        population.gradient,
        population.fast_derivatives,
        population.weight_loss,
    )
)


def random_networks(seed, K=4, M=5, D=6, r=3):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(K, D))), jnp.asarray(rng.normal(size=(M, r)))


def as_matrix(H):
    size = H.shape[0] * H.shape[1]
    return np.asarray(H).reshape(size, size)


def test_fast_arccos_is_exact_to_rounding():
    c = np.concatenate([np.linspace(-1, 1, 100_001), 1 - np.logspace(-16, 0, 1000), np.logspace(-16, 0, 1000) - 1])
    assert np.abs(np.asarray(fast_arccos(jnp.asarray(c))) - np.arccos(c)).max() < 1e-15


@pytest.mark.parametrize("seed", range(2))
def test_value_gradient_and_hessian_agree_with_automatic_differentiation(seed):
    W, V = random_networks(seed)
    value = plain_loss(W, V)
    assert abs(weight_loss(W, V) - value) < ROUNDING
    assert abs(population.fast_loss(RELU, W, V, population.teacher_constant(RELU, V)) - value) < ROUNDING
    assert abs(population.population_loss(Overlaps.from_weights(W, V)) - value) < ROUNDING
    assert abs(population.exact_loss(RELU, np.asarray(W), np.asarray(V)) - value) < ROUNDING
    slope = jax.jit(jax.grad(plain_loss))(W, V)
    assert np.abs(gradient(W, V) - slope).max() < ROUNDING
    assert np.abs(population.fast_gradient(RELU, W, V) - slope).max() < ROUNDING
    curvature = jax.jit(jax.hessian(plain_loss))(W, V)
    assert np.abs(hessian(W, V) - curvature).max() < ROUNDING
    direction = jax.random.normal(jax.random.key(seed), W.shape)
    product = derivatives(W, V, direction, population.teacher_constant(RELU, V)).hessian_product
    assert np.abs(product - jnp.einsum("iajb,jb->ia", curvature, direction)).max() < ROUNDING


def test_teachers_that_are_known_to_be_the_axes_change_nothing():
    """A numpy identity is a constant of the program, which leaves the products with it out."""
    W, _ = random_networks(3, K=5, D=6)
    axes = np.eye(4)
    P, constant = W[::-1], population.teacher_constant(RELU, axes)
    for function in (
        lambda V: population.fast_gradient(RELU, W, V),
        lambda V: population.fast_loss(RELU, W, V, constant),
        lambda V: population.fast_derivatives(RELU, W, V, P, constant).hessian_product,
        lambda V: population.fast_layer_gradients(RELU, W, V, jnp.arange(5.0))[0],
    ):
        assert np.abs(function(axes) - function(jnp.asarray(axes))).max() < 1e-15
    products = [
        str(jax.make_jaxpr(lambda w, V=V: population.fast_gradient(RELU, w, V))(W)) for V in (axes, jnp.asarray(axes))
    ]
    assert [text.count("dot_general") for text in products] == [3, 5]


def test_loss_is_half_the_mean_squared_error_by_monte_carlo():
    W, V = random_networks(7, K=3, M=4, D=5, r=4)
    x = jax.random.normal(jax.random.key(0), (400_000, 5))
    errors = jax.nn.relu(x @ W.T).sum(axis=1) - jax.nn.relu(x[:, :4] @ V.T).sum(axis=1)
    samples = np.asarray(errors**2 / 2)
    standard_error = samples.std() / np.sqrt(len(samples))
    # Four standard errors: a fixed key, so this either holds or the formula is wrong.
    assert abs(samples.mean() - weight_loss(W, V)) < 4 * standard_error


def test_perpendicular_block_is_the_hessian_beyond_the_span():
    W, V = random_networks(3, K=4, M=5, D=3, r=3)
    wider = jnp.pad(W, ((0, 0), (0, 2)))
    H = hessian(wider, V)
    assert np.abs(H[:, 3, :, 3] - perpendicular_block(W, V)).max() < ROUNDING
    assert np.abs(H[:, 3, :, 4]).max() < ROUNDING
    assert np.abs(H[:, 3, :, :3]).max() < ROUNDING


def test_the_flow_closes_on_the_overlaps():
    W, V = random_networks(11)
    now = Overlaps.from_weights(W, V)
    step = 1e-6
    later = Overlaps.from_weights(W - step * gradient(W, V), V)
    C = perpendicular_block(W, V)
    geometry = population.exact_geometry(W, V)
    B = (np.pi - geometry.angle[:, len(W) :]) / (2 * np.pi)
    change = C @ now.Q - B @ now.R.T
    # First order in the step: what remains is of the size of the step.
    assert np.abs((later.R - now.R) / step + C @ now.R - B @ now.T).max() < 1e-4
    assert np.abs((later.Q - now.Q) / step + change + change.T).max() < 1e-4


# Students collinear with, antiparallel to, or equal to students and teachers; one dead.
DEGENERATE = {
    "global minimum": np.eye(3),
    "parallel students": np.array([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]]),
    "antiparallel students": np.array([[1.0, 2, 0], [-2, -4, 0], [0, 0, 1]]),
    "antiparallel to a teacher": np.array([[-1.0, 0, 0], [0, 2, 0], [0, 0.1, 1]]),
    "dead neuron": np.array([[1.0, 2, 0], [0, 0, 0], [0, 0, 1]]),
}


@pytest.mark.parametrize("W", DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize("offset", [1e-4, 1e-8, 1e-12])
def test_derivatives_are_continuous_at_degenerate_pairs(W, offset):
    """The Hessian is Lipschitz across collinear pairs, so it moves by no more than a few offsets."""
    W, V = jnp.asarray(W), jnp.eye(3)
    rng = np.random.default_rng(5)
    alive = np.linalg.norm(W, axis=1) > 0
    nearby = W + offset * rng.normal(size=W.shape) * alive[:, None]
    for function in (hessian, perpendicular_block, gradient):
        here = np.asarray(function(W, V))
        there = np.asarray(function(nearby, V))
        assert np.isfinite(here).all()
        assert np.abs(here - there).max() < 60 * offset + 1e-14


@pytest.mark.parametrize("W", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_hessian_at_degenerate_pairs_is_the_derivative_of_the_gradient(W):
    """Central differences of the arctangent gradient, error h^2/h plus 1e-16/h at h = 1e-6 for a C^2 loss."""
    W, V = jnp.asarray(W), jnp.eye(3)
    alive = np.linalg.norm(W, axis=1) > 0
    H = np.asarray(hessian(W, V))
    rng = np.random.default_rng(9)
    for _ in range(5):
        direction = rng.normal(size=W.shape) * alive[:, None]
        h = 1e-6
        slope = (gradient(W + h * direction, V) - gradient(W - h * direction, V)) / (2 * h)
        product = np.einsum("iajb,jb->ia", H, direction)
        assert np.abs(np.asarray(slope) - product)[alive].max() < 1e-4
        fast = derivatives(W, V, jnp.asarray(direction), population.teacher_constant(RELU, V))
        # The cosine route loses half the digits of the angle at collinear pairs; the product is bounded by them.
        assert np.abs(fast.hessian_product - product).max() < 1e-6


def test_near_collinear_hessian_keeps_its_digits():
    """Against automatic differentiation in a frame where the small angle itself is the variable.

    For two students at angle 1e-7 the arccos route would be wrong by 1e-9; the entry checked is
    the off-diagonal block's (pi - t) + O(sin t) along a third direction, known in closed form.
    """
    t = 1e-7
    W = jnp.array([[1.0, 0, 0], [np.cos(t), np.sin(t), 0]])
    H = hessian(W, jnp.eye(3))
    # Out of the plane the block is (pi - t)/(2 pi).
    assert abs(H[0, 2, 1, 2] - (np.pi - t) / (2 * np.pi)) < 1e-16
    # Along the bisector it is (pi - t + sin t)/(2 pi), across it (pi - t - sin t)/(2 pi).
    bisector = np.array([np.cos(t / 2), np.sin(t / 2), 0])
    assert abs(bisector @ H[0, :, 1] @ bisector - (np.pi - t + np.sin(t)) / (2 * np.pi)) < 1e-15


def test_stored_loss_is_rounded_once():
    """The global minimum of K = M = 17 sums to zero within 1e-15, where plain summation leaves 1e-13."""
    assert abs(population.exact_loss(RELU, np.eye(17), np.eye(17))) < 1e-15


@pytest.mark.parametrize("M", [3, 6, 13, 24])
def test_exact_spectrum_at_the_global_minimum_in_any_rotation(M):
    rotation = np.linalg.qr(np.random.default_rng(M).normal(size=(M, M)))[0]
    spectrum = np.linalg.eigvalsh(as_matrix(hessian(jnp.asarray(rotation), jnp.asarray(rotation))))
    assert np.abs(spectrum - exact_global_spectrum(M)).max() < 1e-12
    block = np.linalg.eigvalsh(np.asarray(perpendicular_block(jnp.asarray(rotation), jnp.asarray(rotation))))
    assert np.abs(block - np.array([1 / 4] * (M - 1) + [(M + 1) / 4])).max() < 1e-12


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.permutations(range(4)), st.permutations(range(5)))
def test_loss_is_invariant_under_permutations(seed, students, teachers):
    W, V = random_networks(seed, D=4, r=4)
    permuted = weight_loss(W[jnp.asarray(students)], V[jnp.asarray(teachers)])
    assert abs(permuted - weight_loss(W, V)) < ROUNDING


def test_one_sided_derivative_is_the_slope_of_a_small_new_neuron():
    W, V = random_networks(2, K=3, M=4, D=4, r=4)
    direction = np.array([0.3, -0.4, 0.5, 0.1])
    size = 1e-6
    neuron = jnp.asarray(size * direction / np.linalg.norm(direction))[None]
    slope = (weight_loss(jnp.concatenate([W, neuron]), V) - weight_loss(W, V)) / size
    # The loss is linear plus quadratic in the norm: the difference is of the size of the neuron.
    assert abs(slope - population.one_sided_derivative(RELU, direction, np.asarray(W), np.asarray(V))) < 1e-5
