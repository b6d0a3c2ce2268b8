"""A trained second layer: the balance is kept, minima in normal form with signs, dead neurons of negative weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enumerator import Campaign, Catalogue, Dynamics, InitialLaw, InputError, Landscape
from enumerator.dynamics.steppers import stepper_for
from enumerator.follow import check_solvable, follow_shard
from enumerator.identification.identify import identify
from enumerator.lanes.sampling import initial_weights
from enumerator.loss.population import exact_loss
from enumerator.loss.second_layer import balanced, lane_of, normal_form
from enumerator.minima.collapse import nearest_member
from enumerator.minima.distinct import is_same
from enumerator.minima.effective import merged_student
from enumerator.minima.stability import examine, network_of
from enumerator.points import Student
from enumerator.replay import replay
from enumerator.starts import Outcome
from enumerator.verification.verify import verify
from tests.support.references import RELU
from tests.support.shapes import FEW


def trained(students, teachers=None, **settings):
    return Landscape(students, teachers or students, second_layer="trained", **settings)


def layered_loss(X, V):
    """Cho & Saul (2009), eq. 6, of lanes [W | a | c], for automatic differentiation away from collinear pairs."""
    W, a = X[:, :-2], X[:, -2]
    neurons = jnp.concatenate([W, jnp.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))])
    weights = jnp.concatenate([a, -jnp.ones(len(V))])
    gram, own = neurons @ neurons.T, jnp.eye(len(neurons), dtype=bool)
    norms = jnp.sqrt(jnp.diagonal(gram))
    product = norms[:, None] * norms[None, :]
    t = jnp.arccos(jnp.where(own | (jnp.abs(gram) >= product), 0.0, gram / product))
    kernel = jnp.where(own, gram / 2, product * (jnp.sin(t) + (jnp.pi - t) * jnp.cos(t)) / (2 * jnp.pi))
    return 0.5 * weights @ kernel @ weights


_layered_loss, _layered_slope = jax.jit(layered_loss), jax.jit(jax.grad(layered_loss))


@pytest.mark.parametrize("law", ["ones", "signs", "normal"])
def test_the_flow_keeps_the_balance_and_descends(law):
    """Q_kk - a_k^2 stays what it was to 1e-8 along the flow: to rounding, since each step restores it."""
    campaign = Campaign(trained(5, 4), law=InitialLaw(20, second_layer=law))
    X, V = initial_weights(campaign, np.array([3]))[0], jnp.eye(4)
    balance = (X[:, :-2] ** 2).sum(axis=1) - X[:, -2] ** 2
    stepper = stepper_for(campaign.dynamics, campaign.landscape.equations, campaign.tolerances)
    state = jax.jit(lambda X: stepper.init(V, lambda rate: rate, X))(jnp.asarray(X))
    tick = jax.jit(lambda state: stepper.tick(V, lambda rate: rate, state))
    losses = []
    for _ in range(300):
        state = tick(state)
        W, a = np.asarray(state.W[:, :-2]), np.asarray(state.W[:, -2])
        assert np.abs((W**2).sum(axis=1) - a**2 - balance).max() < 1e-12
        losses.append(float(_layered_loss(state.W, V)))
    assert (np.diff(losses) <= 1e-6).all()
    assert losses[-1] < losses[0] / 2


def test_the_rate_is_minus_the_gradient_in_both_layers():
    campaign = Campaign(trained(3, 2), law=InitialLaw(6, second_layer="normal"))
    X, V = jnp.asarray(initial_weights(campaign, np.array([0]))[0]), jnp.eye(2)
    stepper = stepper_for(campaign.dynamics, campaign.landscape.equations, campaign.tolerances)
    slope = _layered_slope(X, V).at[:, -1].set(0.0)
    begun = jax.jit(lambda X: stepper.init(V, lambda rate: rate, X))(X)
    assert np.abs(begun.rate + slope).max() < 1e-12


def test_gradient_descent_is_that_in_both_layers():
    dynamics = Dynamics("gradient-descent", step=0.1)
    campaign = Campaign(trained(3, 2), dynamics, InitialLaw(6, second_layer="normal"))
    X, V = jnp.asarray(initial_weights(campaign, np.array([0]))[0]), jnp.eye(2)
    stepper = stepper_for(dynamics, campaign.landscape.equations, campaign.tolerances)
    state, plain = jax.jit(lambda X: stepper.init(V, lambda rate: rate, X))(X), X
    tick = jax.jit(lambda state: stepper.tick(V, lambda rate: rate, state))
    for _ in range(20):
        state = tick(state)
        plain = plain - 0.1 * _layered_slope(plain, V).at[:, -1].set(0.0)
    assert np.abs(state.W - plain).max() < 1e-12


def test_balancing_changes_no_output():
    rng = np.random.default_rng(0)
    W, a = rng.normal(size=(6, 4)), rng.normal(size=6)
    X = lane_of(W, a)
    scale = rng.uniform(0.5, 2.0, size=6)
    moved = np.concatenate([scale[:, None] * W, (a / scale)[:, None], X[:, -1:]], axis=1)
    again = np.asarray(balanced(jnp.asarray(moved)))
    assert np.abs(again - X).max() < 1e-12
    before, after = normal_form(X), normal_form(moved)
    assert np.abs(before[0] - after[0]).max() < 1e-12
    assert np.array_equal(before[1], np.sign(a))


def test_minima_with_ones_are_those_of_the_fixed_layer_and_flat_by_scale():
    """The stationary points at (a, w) are those at u = |a| w; each neuron adds one flat direction."""
    law = InitialLaw(7)
    fixed = follow_shard(Campaign(Landscape(7, 7), law=law), 0, 100)
    layered = follow_shard(Campaign(trained(7), law=law), 0, 100)
    assert (layered.starts.outcome == Outcome.CONVERGED).all()
    losses = sorted(point.loss for point in fixed.points)
    assert np.abs(np.array(sorted(point.loss for point in layered.points)) - losses).max() < 1e-12
    H = jax.jit(jax.hessian(lambda y: layered_loss(jnp.pad(y, ((0, 0), (0, 1))), jnp.eye(7))))
    for point in layered.points:
        assert (point.verdict, point.flat_dimension) == ("flat-minimum", 7)
        # The Hessian in both layers, at a balanced student: K directions are flat, the others bend up.
        norms = np.sqrt(np.linalg.norm(point.W, axis=1))
        X = lane_of(point.W / norms[:, None], norms)
        if point.loss > 0:  # at zero loss automatic differentiation meets collinear pairs
            spectrum = np.linalg.eigvalsh(np.asarray(H(jnp.asarray(X[:, :-1]))).reshape(56, 56))
            assert np.abs(spectrum[:7]).max() < 1e-9
            assert spectrum[7] > 1e-3


@pytest.mark.parametrize("students", [7, pytest.param(9, marks=pytest.mark.slow)])
def test_a_negative_start_can_end_with_dead_neurons_that_stay(students):
    """From a_k = -1 a neuron of negative balance keeps its sign: dead, at a positive loss, it is a minimum."""
    campaign = Campaign(trained(students, 7), law=InitialLaw(7, second_layer="signs"))
    result = follow_shard(campaign, 0, 24, FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).mean() > 0.9
    spurious = [point for point in result.points if point.loss > 1e-3 and len(point.W) < students]
    assert spurious
    point = spurious[0]
    assert point.verdict == "flat-minimum"
    # Growing a small neuron of negative weight along any direction raises the loss.
    rng = np.random.default_rng(0)
    for _ in range(50):
        u = rng.normal(size=7)
        W = np.concatenate([point.W, 1e-4 * u[None] / np.linalg.norm(u)])
        a = np.append(point.second_layer_weights, -1.0)
        assert exact_loss(RELU, W, np.eye(7), a) > point.loss


def test_students_of_both_signs_merge_and_cancel():
    W = np.array([[2.0, 0.0], [0.5, 0.0], [0.0, 1.0], [0.3, 0.4], [0.3, 0.4]])
    signs = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    network = network_of(Student(trained(5, 2), W, signs))
    assert np.abs(np.sort(network.W, axis=0) - np.sort([[1.5, 0], [0, 1]], axis=0)).max() < 1e-12
    merged = merged_student(Student(trained(5, 2), W, signs), np.array([0, 0, 1, 2, 2]))
    assert merged.second_layer_weights is not None and merged.second_layer_weights[:2].tolist() == [1.0, 1.0]
    assert np.abs(merged.W[2]).max() < 1e-15
    # Near zero loss: the pair that cancels is left where it points.
    W = np.array([[1.5, 0.0], [0.5, 0.0], [0.0, 1.0], [0.31, 0.4], [0.3, 0.41]])
    target = nearest_member(Student(trained(5, 2), W, signs), Student(trained(5, 2), np.eye(2), np.ones(2)))
    assert exact_loss(RELU, target, np.eye(2), signs) < 1e-15
    assert np.linalg.norm(target - W) < 0.1


def test_signs_tell_points_apart():
    landscape = trained(2)
    tolerances = Campaign(landscape).tolerances
    W = np.array([[1.0, 0.2], [0.2, 1.0]])
    points = [examine(Student(landscape, W, np.array(signs)), tolerances) for signs in ((1.0, -1.0), (-1.0, 1.0))]
    assert is_same(points[0], points[1])
    other = network_of(Student(landscape, W, np.array([1.0, 1.0])))
    assert not is_same(other, points[0])


def test_what_does_not_go_with_a_trained_layer_is_said():
    with pytest.raises(InputError, match="trained goes with constraint none and activation relu or"):
        check_solvable(Campaign(trained(3, activation="erf")))
    with pytest.raises(InputError, match="newton goes with constraint none and second layer fixed"):
        check_solvable(Campaign(trained(3), Dynamics("newton")))
    with pytest.raises(InputError, match="goes with second layer trained"):
        Campaign(Landscape(3, 3), law=InitialLaw(3, second_layer="signs"))


@pytest.mark.parametrize("law", ["ones", "signs"])
def test_verification_agrees_by_its_own_route(tmp_path, law):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    campaign = Campaign(trained(7), law=InitialLaw(7, second_layer=law))
    atlas.register(campaign, 16, "cpu")
    atlas.commit_shard(follow_shard(campaign, 0, 16, FEW), 0, 16)
    atlas.finish(campaign.id)
    assert atlas.minima().num_rows >= 1
    assert verify(atlas, sample=4).to_pylist() == []


def test_a_start_is_replayed_and_its_end_identified(tmp_path):
    campaign = Campaign(trained(5, 4), law=InitialLaw(20, second_layer="signs"))
    result = follow_shard(campaign, 0, 6, FEW)
    trajectory = replay(campaign, 4).to_pydict()
    first = initial_weights(campaign, np.array([4]))[0]
    assert np.array_equal(trajectory["second_layer"][0], first[:, -2])
    assert set(first[:, -2]) == {-1.0, 1.0}
    assert np.abs(np.array(trajectory["second_layer"][-1]) - result.starts.second_layer[4]).max() < 1e-12
    assert trajectory["loss"][-1] < trajectory["loss"][0]

    atlas = Catalogue(tmp_path, create=True)
    atlas.register(campaign, 6, "cpu")
    atlas.commit_shard(result, 0, 6)
    zero = next(point for point in result.points if point.loss == 0)
    W = np.concatenate([zero.W * 1.001, np.full((5 - len(zero.W), zero.W.shape[1]), 1e-4)])
    found = identify(atlas, Q=W @ W.T, R=W[:, :4], landscape=campaign.landscape)
    assert found.reached == found.nearest
    assert found.reached_loss == 0
    assert 0 < found.distance < 0.1
    assert not found.inside  # no distance proves it here


def test_given_overlaps_have_a_second_layer_of_ones():
    Q, R = np.eye(3)[None], np.eye(3)[None, :, :2]
    start = initial_weights(Campaign(trained(3, 2), law=InitialLaw(Q=Q, R=R)), np.array([0]))[0]
    assert np.array_equal(start[:, -2], np.ones(3))
    with pytest.raises(InputError, match="start with a second layer of ones: leave `second_layer_law` out"):
        InitialLaw(Q=Q, R=R, second_layer="signs")


def test_a_student_of_dead_neurons_alone_merges_into_nothing():
    student = Student(trained(3, 2), np.full((3, 2), 1e-12), np.array([1.0, -1.0, 1.0]))
    network = merged_student(student, np.full(3, -1))
    assert network.W.shape == (0, 2)
    assert network.second_layer_weights is not None and network.second_layer_weights.shape == (0,)
