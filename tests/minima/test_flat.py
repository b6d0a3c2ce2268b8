"""More students than teachers: flat families at zero loss, how lanes end on them, and the directions along them."""

import jax.numpy as jnp
import numpy as np
import pytest

from enumerator.follow import follow_shard
from enumerator.loss.population import exact_loss, hessian
from enumerator.minima.collapse import collapsed, loss_falls, nearest_groups, possible_groups
from enumerator.minima.effective import effective_network, groups_of, zero_loss_network
from enumerator.minima.flat import share_out, tangent_basis
from enumerator.minima.stability import examine
from enumerator.points import Student
from enumerator.problem import Campaign, InitialLaw, Landscape, Tolerances
from enumerator.starts import Outcome
from tests.support.references import RELU
from tests.support.shapes import FEW


def generic_member(students: int, teachers: int, seed: int = 0) -> np.ndarray:
    """A student (K, M) of zero loss: every teacher shared out among parallel students at random."""
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(teachers), rng.integers(teachers, size=students - teachers)])
    return share_out(np.eye(teachers), groups, rng.uniform(0.2, 1, size=students))


def hessian_matrix(W: np.ndarray) -> np.ndarray:
    """The Hessian (K M, K M) at W (K, M), orthonormal teachers."""
    return np.asarray(hessian(RELU, jnp.asarray(W), jnp.eye(W.shape[1]))).reshape(W.size, W.size)


def rank_of_features(W: np.ndarray, samples: int = 4000) -> int:
    """Rank of the derivatives of the output by the weights W (K, D): that of the Hessian at zero loss."""
    x = np.random.default_rng(1).normal(size=(samples, W.shape[1]))
    features = ((x @ W.T > 0)[:, :, None] * x[:, None, :]).reshape(samples, -1)
    return int(np.linalg.matrix_rank(features))


@pytest.mark.parametrize(("students", "teachers", "starts"), [(8, 3, 192), (30, 5, 32)])
def test_all_starts_reach_one_class_of_zero_loss(students, teachers, starts):
    result = follow_shard(Campaign(Landscape(students, teachers)), 0, starts)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    (point,) = result.points
    assert (point.loss, point.verdict, point.verdict_above) == (0.0, "flat-minimum", "flat-minimum")
    assert point.effective_students == teachers
    assert np.array_equal(point.Q, np.eye(teachers))
    # Counted independently, at a generic student of the family.
    member = generic_member(students, teachers)
    values = np.linalg.eigvalsh(hessian_matrix(member))
    assert point.flat_dimension == int((np.abs(values) < 1e-12).sum())
    assert point.flat_dimension == member.size - rank_of_features(member)
    assert len(point.hessian_spectrum) + point.flat_dimension == students * teachers


def test_the_tangent_basis_spans_the_moves_of_norm_between_copies():
    W = generic_member(8, 3)
    basis = tangent_basis(W, np.sqrt(3))
    assert basis.shape == (5, 8, 3)
    assert np.abs(np.einsum("aij,bij->ab", basis, basis) - np.eye(5)).max() < 1e-14
    H = hessian_matrix(W)
    for direction in basis:
        assert np.abs(H @ direction.ravel()).max() < 1e-14
        assert exact_loss(RELU, W + 0.1 * direction, np.eye(3)) < 1e-15


def test_parting_copies_cost_third_order():
    """Where the second order vanishes: the loss grows like the cube of the angle between two copies."""
    W = np.array([[0.5, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    direction = np.zeros_like(W)
    direction[0, 1], direction[1, 1] = 1, -1
    assert np.abs(hessian_matrix(W) @ direction.ravel()).max() < 1e-15
    losses = [exact_loss(RELU, W + step * direction, np.eye(3)) for step in (1e-2, 5e-3)]
    assert losses[0] > 0
    assert losses[0] / losses[1] == pytest.approx(8, rel=0.01)


def test_a_lane_collapses_only_where_the_loss_falls_all_the_way():
    V = np.eye(3)
    rng = np.random.default_rng(3)
    member = generic_member(6, 3)
    lane = member + 0.01 * rng.normal(size=member.shape)
    student, teacher = Student(Landscape(6, 3), lane, None), Student(Landscape(6, 3), V, None)
    target = collapsed(student, teacher, nearest_groups(lane, V))
    assert target is not None
    assert exact_loss(RELU, target, V) < 1e-15
    assert np.linalg.norm(target - lane) < 0.1
    assert loss_falls(student, target)
    # A spurious minimum of K = M = 6 is separated from zero loss by a barrier.
    points = follow_shard(Campaign(Landscape(6, 6), law=InitialLaw(6)), 0, 200).points
    spurious = next(point for point in points if point.loss > 0.01)
    assert not loss_falls(spurious, spurious.W[:, ::-1])
    flat = Student(Landscape(6, 3), np.abs(lane) * [1, 1, 0], None)
    assert collapsed(flat, teacher, nearest_groups(lane * [1, 1, 0], np.eye(3))) is None


def test_groups_that_may_be_merging():
    W = np.array([[1, 0, 0], [0.5, 0.02, 0], [0, 1, 0], [0, 0, 1e-3]])
    assert [groups.tolist() for groups in possible_groups(W, 1.0)] == [
        [0, 0, 1, -1],
        [0, 1, 2, -1][:0] or [0, 2, 1, -1],
    ]
    assert possible_groups(np.eye(3), 1.0) == []
    assert groups_of(W, 1.0).tolist() == [0, 2, 1, 3]


def test_a_merged_spurious_minimum_is_a_saddle_of_more_students():
    """Every spurious minimum of K = M = 6 opens when a student is duplicated or a dead one is added."""
    points = follow_shard(Campaign(Landscape(6, 6), law=InitialLaw(6)), 0, 200).points
    spurious = [point for point in points if point.loss > 0.01]
    assert spurious
    for point in spurious:
        wider = examine(Student(Landscape(7, 6), point.W, None), Tolerances())
        assert (wider.verdict, wider.effective_students, wider.radius) == ("saddle", 6, 0.0)
        assert wider.splitting_min == pytest.approx(point.splitting_min, abs=1e-12) and point.splitting_min < -0.01


def test_parallel_teachers_are_one_neuron_of_the_zero_loss_class():
    T = np.array([[1, 0.5, 0], [0.5, 0.25, 0], [0, 0, 1.0]])
    landscape = Landscape(3, 3, T)
    network = zero_loss_network(landscape)
    assert network is not None and len(network.W) == 2
    result = follow_shard(Campaign(landscape, law=InitialLaw(10)), 0, 64, FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    assert [point.loss for point in result.points] == [0.0]
    assert result.points[0].verdict == "flat-minimum"
    assert zero_loss_network(Landscape(1, 3, T)) is None


def test_zero_loss_of_teachers_that_sum_to_zero_is_one_class():
    """W = -V has zero loss too: the same class."""
    angles = 2 * np.pi * np.arange(3) / 3
    V = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    landscape = Landscape(3, 3, V @ V.T)
    factor = landscape.teacher_factor
    assert exact_loss(RELU, -factor, factor) < 1e-15
    rng = np.random.default_rng(0)
    W = np.concatenate([sign * factor[None] + 0.01 * rng.normal(size=(4, 3, 2)) for sign in (1, -1)])
    law = InitialLaw(Q=W @ W.transpose(0, 2, 1), R=W @ factor.T)
    result = follow_shard(Campaign(landscape, law=law), 0, 8, FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    assert [point.loss for point in result.points] == [0.0]


def test_neurons_of_both_directions_are_at_zero_loss_where_teachers_sum_to_zero():
    """b v and -(1 - b) v in the place of each teacher v, for any b: at rest, and far from all that merges into V."""
    angles = 2 * np.pi * np.arange(3) / 3
    V = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    landscape = Landscape(6, 3, V @ V.T)
    factor = landscape.teacher_factor
    members = np.stack([np.concatenate([b * factor, (b - 1) * factor]) for b in (0.55, 0.3)])
    assert all(exact_loss(RELU, W, factor) < 1e-15 for W in members)
    W = members + 0.01 * np.random.default_rng(0).normal(size=members.shape)
    law = InitialLaw(Q=W @ W.transpose(0, 2, 1), R=W @ factor.T)
    result = follow_shard(Campaign(landscape, law=law), 0, 2, FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    assert [point.loss for point in result.points] == [0.0]
    assert (result.starts.distance < 1e-3).all()


def test_effective_network_of_a_member_is_the_teacher():
    network = effective_network(generic_member(8, 3), np.sqrt(3))
    assert np.abs(np.sort(network, axis=0) - np.sort(np.eye(3), axis=0)).max() < 1e-15
