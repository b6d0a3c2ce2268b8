"""Basins are the flow's: a lane retired early ends where a stiff solver, run to the end, ends."""

import jax.numpy as jnp
import numpy as np
import pytest

from enumerator.dynamics.symmetric_starts import lane_classes
from enumerator.follow import follow_shard
from enumerator.lanes.batch import BatchShape
from enumerator.lanes.sampling import initial_weights
from enumerator.minima.distinct import match_points
from enumerator.minima.polish import compiled_polish
from enumerator.minima.stability import network_of
from enumerator.points import Student
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances
from enumerator.starts import Outcome
from tests.support.shapes import FEW
from tests.support.stiff_reference import flow_end


def ends_by_stiff_solver(campaign, points, count):
    """Position of the point where BDF ends, for each start; -2 for a point that is not among them."""
    landscape = campaign.landscape
    weights = initial_weights(campaign, np.arange(count))
    ends = []
    for W in weights:
        end = flow_end(W, landscape.teacher_factor, 1e6)[:, : landscape.teacher_rank]
        polished = compiled_polish(landscape.g, jnp.asarray(end), jnp.asarray(landscape.teacher_factor))[0]
        polished = np.asarray(polished)
        # The end is the stationary point itself, to the accuracy of a stop at 1e-9.
        assert np.linalg.norm(polished - end) < 1e-5
        ends.append(match_points([network_of(Student(landscape, polished, None))], points)[0])
    return np.array(ends)


@pytest.mark.parametrize("dimension", [9, 40])
def test_minima_reached_are_those_of_a_stiff_solver(dimension):
    """30 starts in all, at K = M = 9; `scripts/validate basins` compares 200 at K = M = 17."""
    campaign = Campaign(Landscape(9, 9), law=InitialLaw(dimension))
    count, shape = (20, BatchShape()) if dimension == 9 else (10, FEW)
    result = follow_shard(campaign, 0, count, shape)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    assert len(result.points) >= 2
    assert np.array_equal(result.starts.point, ends_by_stiff_solver(campaign, result.points, count))


def test_batch_and_shard_do_not_change_where_a_start_ends():
    campaign = Campaign(Landscape(8, 8), law=InitialLaw(30))
    whole = follow_shard(campaign, 0, 90, BatchShape(lanes=64, ticks=64))
    parts = [follow_shard(campaign, a, b, BatchShape(lanes=8, ticks=10)) for a, b in ((0, 17), (17, 60), (60, 90))]
    losses = np.concatenate([np.array([p.loss for p in part.points])[part.starts.point] for part in parts])
    assert np.abs(losses - np.array([p.loss for p in whole.points])[whole.starts.point]).max() < 1e-14
    assert len(np.unique(np.round(losses, 9))) >= 2
    # Nor what it passes. It may retire before a stop in one batch and not in the other: there it is where it ends.
    stops, others = whole.starts.stop_loss, np.concatenate([part.starts.stop_loss for part in parts])
    both, one = np.isfinite(stops) & np.isfinite(others), np.isfinite(stops) != np.isfinite(others)
    assert both[:, 0].all()  # each falls below a gradient norm of 1e-3 before it retires
    assert np.allclose(stops[both], others[both], rtol=1e-6, atol=1e-12)
    orders = np.concatenate([part.starts.stop_anti_aligned for part in parts])
    assert np.array_equal(whole.starts.stop_anti_aligned[both], orders[both])
    ends = np.broadcast_to(losses[:, None], stops.shape)
    assert np.abs(np.fmax(stops, others)[one] - ends[one]).max(initial=0) < 1e-4


def test_what_does_not_finish_is_counted_with_its_state():
    campaign = Campaign(Landscape(6, 6), law=InitialLaw(6), tolerances=Tolerances(max_evaluations=100))
    starts = follow_shard(campaign, 0, 20, FEW).starts
    assert len(starts) == 20
    unfinished = starts.outcome == Outcome.UNFINISHED
    assert unfinished.any()
    assert (starts.point[unfinished] == -1).all()
    assert np.isfinite(starts.Q[unfinished]).all()
    assert (starts.gradient_norm[unfinished] > 0).all()


def test_a_lane_near_a_saddle_flows_on():
    """Started 1e-5 beside the merged saddle of K = M = 2, where the gradient is tiny, it reaches the global minimum."""
    direction = np.ones(2) / np.sqrt(2)
    saddle = np.tile(0.6366 * direction, (2, 1))  # close to the stationary norm; the flow settles the rest
    W = saddle + 1e-7 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    law = InitialLaw(Q=(W @ W.T)[None], R=W[None])
    result = follow_shard(Campaign(Landscape(2, 2), law=law), 0, 1, FEW)
    assert result.starts.outcome[0] == Outcome.CONVERGED
    assert abs(result.points[0].loss) < 1e-15
    # It lingered: the escape at the saddle's negative eigenvalue takes a long time.
    assert result.starts.flow_time[0] > 30


@pytest.mark.parametrize("name", ["gradient-flow", "newton"])
def test_a_symmetric_start_ends_exactly_on_a_saddle(name):
    """One student and one teacher on a line, pointing away: the neuron dies, where another direction descends."""
    law = InitialLaw(Q=np.array([[[1.0]]]), R=np.array([[[-1.0]]]))
    result = follow_shard(Campaign(Landscape(1, 1), Dynamics(name), law=law), 0, 1, FEW)
    assert result.starts.outcome[0] == Outcome.SADDLE
    assert result.points[0].verdict == "saddle"
    assert result.points[0].loss == pytest.approx(0.25)


SYMMETRIC_STARTS = {
    "two equal students": np.array([[0.9, 0.2, -0.3], [0.9, 0.2, -0.3], [-0.1, 0.4, 0.8]]),
    "all students equal": np.full((4, 4), 0.1),
    "all anti-aligned": 0.2 * np.ones((4, 4)) - 0.9 * np.eye(4),
}


@pytest.mark.parametrize("W", SYMMETRIC_STARTS.values(), ids=SYMMETRIC_STARTS.keys())
def test_the_symmetry_of_a_start_is_kept_to_its_end(W):
    """Such a lane would leave the saddle on its rounding errors; the flow itself never does."""
    law = InitialLaw(Q=(W @ W.T)[None], R=W[None])
    result = follow_shard(Campaign(Landscape(len(W), len(W)), law=law), 0, 1, FEW)
    assert result.starts.outcome[0] == Outcome.SADDLE
    point = result.points[0]
    assert min(point.hessian_min, point.splitting_min) < 0
    # The same start without its symmetry leaves for a minimum.
    broken = W + 1e-6 * np.random.default_rng(0).normal(size=W.shape)
    law = InitialLaw(Q=(broken @ broken.T)[None], R=broken[None])
    assert follow_shard(Campaign(Landscape(len(W), len(W)), law=law), 0, 1, FEW).starts.outcome[0] == Outcome.CONVERGED


def test_coherent_classes_are_what_the_flow_cannot_tell_apart():
    R = np.eye(3) + 0.1
    Q = R @ R.T
    assert lane_classes(Q, R, Landscape(3, 3)).max() + 1 == 4  # diagonal and off-diagonal entries of R and of Q
    generic = np.random.default_rng(0).normal(size=(3, 3))
    assert lane_classes(generic @ generic.T, generic, Landscape(3, 3)) is None


def test_newton_finds_the_minima_of_the_flow():
    flow = follow_shard(Campaign(Landscape(9, 9), law=InitialLaw(9)), 0, 200).points
    newton = follow_shard(Campaign(Landscape(9, 9), Dynamics("newton"), InitialLaw(9)), 0, 200).points
    common = match_points(newton, flow)
    assert sum(position >= 0 for position in common) >= 2
