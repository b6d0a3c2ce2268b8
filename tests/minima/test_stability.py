"""Verdicts, and the ball that is proven to flow into its minimum."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from enumerator.follow import follow_shard
from enumerator.loss.population import gradient, hessian
from enumerator.minima.balls import basin_radius, certified_radius, hessian_lipschitz
from enumerator.minima.effective import effective_network
from enumerator.minima.stability import examine
from enumerator.points import Student, anti_aligned
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances
from tests.support.references import RELU

_hessian, _gradient = jax.jit(partial(hessian, RELU)), jax.jit(partial(gradient, RELU))


@pytest.fixture(scope="module")
def minima():
    """The minima of K = M = 9, by Newton's method."""
    campaign = Campaign(Landscape(9, 9), Dynamics("newton"), InitialLaw(9))
    return follow_shard(campaign, 0, 200).points


def third_derivative_extremum(mixed):
    """Largest third derivative of J(u, v) at |u| = |v| = 1, along (e, 0) or (e, e, f), over all directions.

    By differentiating the closed-form Hessian of a pair; nothing of the bound's derivation is used.
    """

    def kernel(u, v):
        c = u @ v / jnp.sqrt((u @ u) * (v @ v))
        t = jnp.arccos(c)
        return jnp.sqrt((u @ u) * (v @ v)) * (jnp.sin(t) + (jnp.pi - t) * jnp.cos(t)) / (2 * jnp.pi)

    def value(x):
        t = jnp.pi * jax.nn.sigmoid(x[0])
        u, v = jnp.array([1.0, 0, 0]), jnp.array([jnp.cos(t), jnp.sin(t), 0])
        e, f = x[1:4] / jnp.linalg.norm(x[1:4]), x[4:] / jnp.linalg.norm(x[4:])
        along = lambda g, w: lambda p: jax.jvp(g, (p,), (w,))[1]  # noqa: E731 - directional derivative
        if mixed:
            second = lambda b: along(along(lambda a: kernel(a, b), e), e)(u)  # noqa: E731
            return -jnp.abs(jax.jvp(second, (v,), (f,))[1])
        return -jnp.abs(along(along(along(lambda a: kernel(a, v), e), e), e)(u))

    both = jax.jit(jax.value_and_grad(value))
    rng = np.random.default_rng(0)
    ends = [
        minimize(lambda x: tuple(np.asarray(part) for part in both(x)), rng.normal(size=7), jac=True).fun
        for _ in range(12)
    ]
    return -np.nanmin(ends)


def test_the_lipschitz_constants_are_the_extrema_of_the_third_derivative():
    """3 sqrt(3)/(4 pi) for one neuron against a fixed one; 1/pi for the mixed term."""
    own, mixed = third_derivative_extremum(False), third_derivative_extremum(True)
    assert own == pytest.approx(3 * np.sqrt(3) / (4 * np.pi), abs=1e-6)
    assert mixed == pytest.approx(1 / np.pi, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_hessian_moves_by_no_more_than_the_lipschitz_bound(seed):
    rng = np.random.default_rng(seed)
    K, M, radius = 5, 4, 0.1
    W, V = rng.normal(size=(K, 4)), rng.normal(size=(M, 4))
    bound = hessian_lipschitz(RELU, np.linalg.norm(W, axis=1), np.linalg.norm(V, axis=1), radius)
    for _ in range(20):
        step = rng.normal(size=W.shape)
        step *= radius * rng.uniform() / np.linalg.norm(step)
        change = np.asarray(_hessian(jnp.asarray(W + step), jnp.asarray(V)) - _hessian(jnp.asarray(W), jnp.asarray(V)))
        assert np.linalg.norm(change.reshape(20, 20), 2) <= bound * np.linalg.norm(step)


def test_on_the_certified_sphere_the_gradient_points_inwards(minima):
    """The certificate itself: towards the centre everywhere in the ball, also in perpendicular directions."""
    rng = np.random.default_rng(0)
    V = jnp.eye(9)
    assert len(minima) >= 2
    for point in minima:
        assert point.verdict_above == "minimum"
        centre = np.pad(point.W, ((0, 0), (0, 3)))
        for _ in range(40):
            step = rng.normal(size=centre.shape)
            step *= point.radius / np.linalg.norm(step)
            slope = np.asarray(_gradient(jnp.asarray(centre + step), V))
            assert (slope * step).sum() > 0


def test_the_worst_direction_of_the_ball_also_points_inwards(minima):
    """Along the softest eigenvector, both ways, where the margin is smallest."""
    V = jnp.eye(9)
    for point in minima:
        H = np.asarray(_hessian(jnp.asarray(point.W), V)).reshape(81, 81)
        softest = np.linalg.eigh(H)[1][:, 0].reshape(9, 9)
        for sign in (1, -1):
            step = sign * point.radius * softest
            assert (np.asarray(_gradient(jnp.asarray(point.W + step), V)) * step).sum() > 0


def test_no_ball_around_anything_but_a_minimum():
    assert basin_radius(RELU, -0.1, np.ones(3), np.ones(3)) == 0
    assert basin_radius(RELU, 0.0, np.ones(3), np.ones(3)) == 0
    # A neuron that may vanish within the ball: the radius stays below its norm.
    assert basin_radius(RELU, 1.0, np.array([1e-3, 1, 1]), np.ones(3)) < 1e-3


def test_the_two_verdicts():
    """Students that coincide with orthonormal teachers are a minimum; halves of one are not one effective network."""
    landscape = Landscape(3, 3)
    point = examine(Student(landscape, np.eye(3), None), Tolerances())
    assert (point.verdict, point.verdict_above, point.anti_aligned) == ("minimum", "minimum", 0)
    assert certified_radius(point, above=True) > 0
    # All students equal, at the stationary norm: unstable by splitting.
    direction = np.ones(3) / np.sqrt(3)
    slope = lambda a: float(np.sum(np.asarray(_gradient(a * np.tile(direction, (3, 1)), jnp.eye(3)))[0] * direction))  # noqa: E731
    from scipy.optimize import brentq

    merged = examine(Student(landscape, brentq(slope, 0.1, 2.0) * np.tile(direction, (3, 1)), None), Tolerances())
    assert merged.effective_students == 1
    assert merged.verdict == "saddle"
    assert merged.splitting_min < 0


def test_a_dead_student_is_a_saddle_while_a_teacher_is_unlearned():
    point = examine(Student(Landscape(3, 3), np.diag([1.0, 1.0, 0.0]), None), Tolerances())
    assert point.effective_students == 2
    assert point.verdict == "saddle"


def test_effective_network_merges_and_drops_without_changing_the_function():
    rng = np.random.default_rng(2)
    W = rng.normal(size=(3, 4))
    student = np.stack([0.3 * W[0], W[1], 0.7 * W[0], 0 * W[0], W[2]])
    network = effective_network(student, scale=1.0)
    assert network.shape == (3, 4)
    x = rng.normal(size=(50, 4))
    outputs = [np.maximum(x @ weights.T, 0).sum(axis=1) for weights in (student, network)]
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-12


def test_anti_aligned_counts_ties_as_positive():
    R = np.array([[1.0, 0.1], [-1.0, 0.2], [-0.5, 0.5], [-0.5, 0.5 - 1e-12]])
    assert anti_aligned(R) == 1
