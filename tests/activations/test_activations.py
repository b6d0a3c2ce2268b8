"""Leaky ReLU and erf beside ReLU: kernels and derivatives, known landscapes, verification; gradient descent."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enumerator import Campaign, Catalogue, Dynamics, InitialLaw, Landscape
from enumerator.activations import activation_named
from enumerator.dynamics.steppers import stepper_for
from enumerator.follow import follow_shard
from enumerator.lanes.sampling import initial_weights
from enumerator.loss import population
from enumerator.loss.population import exact_loss, gradient, hessian, perpendicular_block, weight_loss
from enumerator.minima.balls import basin_radius, hessian_lipschitz
from enumerator.minima.distinct import match_points
from enumerator.minima.stability import examine
from enumerator.points import Student
from enumerator.starts import Outcome
from enumerator.verification.verify import verify
from tests.support.references import plain_loss
from tests.support.shapes import FEW

LEAKY, ERF = activation_named("leaky_relu", 0.3), activation_named("erf")
# Rounding of sums of some dozens of terms of size one, amplified by derivatives up to 1/norm.
ROUNDING = 1e-12


def leaky_loss(W, V):
    """(1 - s)^2 times the loss of ReLU, and s/2 |sum w - sum v|^2, for automatic differentiation."""
    total = W.sum(axis=0).at[: V.shape[1]].add(-V.sum(axis=0))
    return 0.7**2 * plain_loss(W, V) + 0.15 * (total * total).sum()


def erf_loss(W, V):
    """Saad & Solla (1995), eq. 2: the kernel (2/pi) arcsin(u.v/sqrt((1 + u.u)(1 + v.v))) of all pairs."""
    neurons = jnp.concatenate([W, jnp.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))])
    signs = jnp.concatenate([jnp.ones(len(W)), -jnp.ones(len(V))])
    gram = neurons @ neurons.T
    scale = jnp.sqrt(1 + jnp.diagonal(gram))
    return 0.5 * signs @ (2 / jnp.pi * jnp.arcsin(gram / scale[:, None] / scale[None, :])) @ signs


def networks(seed, K=3, M=4, D=5, r=3):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(K, D))), jnp.asarray(rng.normal(size=(M, r)))


@pytest.mark.parametrize(("g", "plain"), [(LEAKY, leaky_loss), (ERF, erf_loss)], ids=["leaky", "erf"])
def test_value_gradient_and_hessian_agree_with_automatic_differentiation(g, plain):
    W, V = networks(1)
    slope, curvature = jax.grad(plain)(W, V), jax.jit(jax.hessian(plain))(W, V)
    constant = population.teacher_constant(g, V)
    assert abs(weight_loss(g, W, V) - plain(W, V)) < ROUNDING
    assert abs(population.fast_loss(g, W, V, constant) - plain(W, V)) < ROUNDING
    assert abs(exact_loss(g, np.asarray(W), np.asarray(V)) - plain(W, V)) < ROUNDING
    assert np.abs(gradient(g, W, V) - slope).max() < ROUNDING
    assert np.abs(population.fast_gradient(g, W, V) - slope).max() < ROUNDING
    assert np.abs(hessian(g, W, V) - curvature).max() < ROUNDING
    wider = hessian(g, jnp.pad(W, ((0, 0), (0, 1))), V)
    assert np.abs(wider[:, 5, :, 5] - perpendicular_block(g, W, V)).max() < ROUNDING
    direction = jnp.asarray(np.random.default_rng(2).normal(size=W.shape))
    product = population.fast_derivatives(g, W, V, direction, constant).hessian_product
    assert np.abs(product - jnp.einsum("iajb,jb->ia", curvature, direction)).max() < ROUNDING


@pytest.mark.parametrize("g", [LEAKY, ERF], ids=["leaky", "erf"])
def test_a_second_layer_weighs_neurons(g):
    """A second layer of ones changes nothing; a neuron of weight zero adds nothing; weights scale the output."""
    W, V = networks(3)
    a = jnp.asarray([1.0, 1.0, 0.0])
    assert abs(weight_loss(g, W, V, jnp.ones(3)) - weight_loss(g, W, V)) < ROUNDING
    assert abs(weight_loss(g, W, V, a) - weight_loss(g, W[:2], V)) < ROUNDING
    rates = jax.grad(lambda a: weight_loss(g, W, V, a))(a)
    assert np.abs(population.fast_layer_gradients(g, W, V, a)[1] - rates).max() < ROUNDING


@pytest.mark.parametrize("g", [LEAKY, ERF], ids=["leaky", "erf"])
def test_kernel_gradient_and_hessian_by_monte_carlo(g):
    """Half the mean squared error, its gradient, and the Gauss-Newton part of the Hessian at zero loss."""
    W, V = networks(7, K=2, M=2, D=3, r=3)
    x = jax.random.normal(jax.random.key(0), (400_000, 3), jnp.float64)
    errors = g.apply(x @ W.T).sum(axis=1) - g.apply(x @ V.T).sum(axis=1)
    slope = jax.vmap(jax.vmap(jax.grad(g.apply)))(x @ W.T)
    samples = errors[:, None, None] * slope[:, :, None] * x[:, None, :]
    for values, exact in ((errors**2 / 2, weight_loss(g, W, V)), (samples, gradient(g, W, V))):
        error = np.asarray(values.std(axis=0)) / np.sqrt(len(x))
        assert (np.abs(values.mean(axis=0) - exact) < 4 * error).all()
    at_teacher = jax.vmap(jax.vmap(jax.grad(g.apply)))(x @ V.T)
    outer = (at_teacher[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    products = outer[:, :, None] * outer[:, None, :]
    error = np.asarray(products.std(axis=0)) / np.sqrt(len(x))
    exact = np.asarray(hessian(g, V, V)).reshape(6, 6)
    assert (np.abs(products.mean(axis=0) - exact) < 4.5 * error).all()  # 36 entries, one chance in 4,000


@pytest.mark.parametrize("g", [LEAKY, ERF], ids=["leaky", "erf"])
def test_the_hessian_moves_by_no_more_than_the_lipschitz_bound(g):
    rng = np.random.default_rng(5)
    W, V, radius = rng.normal(size=(4, 4)), rng.normal(size=(3, 4)), 0.1
    bound = hessian_lipschitz(g, np.linalg.norm(W, axis=1), np.linalg.norm(V, axis=1), radius)
    curvature = jax.jit(partial(hessian, g))
    before = np.asarray(curvature(jnp.asarray(W), jnp.asarray(V))).reshape(16, 16)
    for _ in range(50):
        step = rng.normal(size=W.shape)
        step *= radius / np.linalg.norm(step)
        after = np.asarray(curvature(jnp.asarray(W + step), jnp.asarray(V))).reshape(16, 16)
        assert np.linalg.norm(after - before, 2) <= bound * radius
    assert 0 < basin_radius(g, 0.1, np.ones(4), np.ones(3)) < 1


def test_slope_zero_gives_the_relu_catalogue():
    law = InitialLaw(7)
    relu = follow_shard(Campaign(Landscape(7, 7), law=law), 0, 200)
    leaky = follow_shard(Campaign(Landscape(7, 7, activation="leaky_relu", activation_slope=0.0), law=law), 0, 200)
    assert match_points(leaky.points, relu.points) == list(range(len(relu.points)))
    assert len(relu.points) == 2
    assert np.array_equal(relu.starts.point, leaky.starts.point)


def test_slope_near_one_is_the_landscape_of_a_linear_network():
    """Only zero loss: M directions of curvature K s, those of s/2 |sum w - sum v|^2, the rest of order (1 - s)^2."""
    slope = 0.9
    landscape = Landscape(4, 4, activation="leaky_relu", activation_slope=slope)
    result = follow_shard(Campaign(landscape, law=InitialLaw(4)), 0, 100, FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    (point,) = [point for point in result.points if point.verdict != "saddle"]
    spectrum = np.sort(point.hessian_spectrum)
    assert point.loss < 1e-15
    assert np.abs(spectrum[-4:] - 4 * slope).max() < 4 * (1 - slope) ** 2
    assert spectrum[0] > 0 and spectrum[-5] < 4 * (1 - slope) ** 2


@pytest.mark.parametrize("M", [2, 3])
def test_erf_specialises_and_its_symmetric_plateau_is_a_saddle(M):
    """Saad & Solla (1995), section 4: the plateau has Q_ij = 1/(2M - 1) and R_im = 1/sqrt(M (2M - 1))."""
    landscape = Landscape(M, M, activation="erf")
    plateau = np.full((M, M), 1 / np.sqrt(M * (2 * M - 1)))
    point = examine(Student(landscape, plateau, None), Campaign(landscape).tolerances)
    assert point.gradient_norm < 1e-15
    assert point.verdict == "saddle"
    # Students that are short and nearly equal, as in the paper: they linger there, and specialise.
    W = plateau / 2 + 1e-7 * np.random.default_rng(0).normal(size=(10, M, M))
    result = follow_shard(Campaign(landscape, law=InitialLaw(Q=W @ W.transpose(0, 2, 1), R=W)), 0, 10, FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    ends = [result.points[k] for k in set(result.starts.point.tolist())]
    assert [end.verdict for end in ends] == ["minimum"]
    assert np.abs(np.sort(ends[0].R.ravel())[-M:] - 1).max() < 1e-9
    passed = [result.points[entry.point] for entry in result.lingerings]
    assert any(np.abs(saddle.R - plateau).max() < 1e-6 for saddle in passed)


def test_erf_with_more_students_has_opposite_pairs():
    """Two students beyond the teachers cancel; one vanishes: both are the class of zero loss."""
    pairs = follow_shard(Campaign(Landscape(4, 2, activation="erf"), law=InitialLaw(10)), 0, 40, FEW)
    (end,) = [pairs.points[k] for k in set(pairs.starts.point.tolist())]
    assert (end.loss < 1e-15, end.verdict, end.flat_dimension, end.effective_students) == (True, "flat-minimum", 2, 2)
    alone = examine(Student(Landscape(4, 3, activation="erf"), np.eye(3), None), Campaign(Landscape(4, 3)).tolerances)
    assert (alone.verdict, alone.flat_dimension) == ("minimum", 0)
    W = np.concatenate([np.eye(3), np.zeros((1, 3))])
    H = np.asarray(hessian(ERF, jnp.asarray(W), jnp.eye(3))).reshape(12, 12)
    assert np.linalg.eigvalsh(H)[0] > 0  # nothing is flat: the student at rest is held by 2/pi


def test_gradient_descent_is_that_on_weights_step_by_step():
    """In d = 9 dimensions, by automatic differentiation of the loss of the weights themselves."""
    campaign = Campaign(Landscape(3, 2), Dynamics("gradient-descent", step=0.2), InitialLaw(9))
    lifted = initial_weights(campaign, np.array([4]))[0]
    W, V = jnp.pad(jnp.asarray(lifted), ((0, 0), (0, 4))), jnp.eye(2)
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(9, 9)))[0])
    turned, teachers = W @ rotation, jnp.pad(V, ((0, 0), (0, 7))) @ rotation
    for _ in range(30):
        turned = turned - 0.2 * jax.grad(plain_loss)(turned, teachers)
    stepper = stepper_for(campaign.dynamics, campaign.landscape.equations, campaign.tolerances)
    state = stepper.init(V, lambda rate: rate, jnp.asarray(lifted))
    for _ in range(30):
        state = stepper.tick(V, lambda rate: rate, state)
    assert np.abs(state.W @ state.W.T - turned @ turned.T).max() < 1e-12
    assert np.abs(state.W[:, :2] @ V.T - turned @ teachers.T).max() < 1e-12
    assert float(state.flow_time) == pytest.approx(6.0)


def test_gradient_descent_ends_in_minima_and_a_step_too_large_in_none():
    small = follow_shard(Campaign(Landscape(6, 6), Dynamics("gradient-descent", step=0.2), InitialLaw(6)), 0, 64, FEW)
    assert (small.starts.outcome == Outcome.CONVERGED).all()
    large = Campaign(Landscape(6, 6), Dynamics("gradient-descent", step=2.0), InitialLaw(6))
    assert not (follow_shard(large, 0, 2).starts.outcome == Outcome.CONVERGED).any()


@pytest.mark.parametrize(
    "landscape",
    [Landscape(6, 3, activation="leaky_relu", activation_slope=0.2), Landscape(4, 3, activation="erf")],
    ids=["leaky", "erf"],
)
def test_verification_agrees_by_its_own_route(tmp_path, landscape):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    campaign = Campaign(landscape, law=InitialLaw(20))
    atlas.register(campaign, 60, "cpu")
    atlas.commit_shard(follow_shard(campaign, 0, 60, FEW), 0, 60)
    atlas.finish(campaign.id)
    assert atlas.minima().num_rows >= 1
    assert verify(atlas, sample=4).to_pylist() == []
