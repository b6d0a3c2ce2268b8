"""A start again, and given overlaps identified."""

import numpy as np
import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import InputError
from enumerator.follow import follow_shard
from enumerator.identification.identify import identify
from enumerator.lanes.batch import BatchShape
from enumerator.lanes.sampling import initial_weights
from enumerator.problem import SINGLE_ABOVE, Campaign, Dynamics, InitialLaw, Landscape, Tolerances
from enumerator.replay import replay
from tests.support.stiff_reference import flow_end

LANDSCAPE = Landscape(7, 7)


@pytest.mark.parametrize(
    ("name", "single_above"),
    [("gradient-flow", 0.0), ("newton", 0.0), ("gradient-flow", SINGLE_ABOVE)],
    ids=["gradient-flow", "newton", "mixed"],
)
def test_a_replay_walks_from_the_initial_overlaps_to_the_retired_lane(name, single_above):
    campaign = Campaign(LANDSCAPE, Dynamics(name), InitialLaw(20), tolerances=Tolerances(single_above=single_above))
    starts = follow_shard(campaign, 0, 8, BatchShape(lanes=8)).starts
    trajectory = replay(campaign, 5).to_pydict()
    W = initial_weights(campaign, np.array([5]))[0]
    assert np.array_equal(np.array(trajectory["Q"][0]).reshape(7, 7), W @ W.T)
    assert (np.diff(trajectory["evaluations"]) > 0).all()
    # Up to the tolerance of the integrator, 1e-4 of the weights, the loss falls at every step.
    assert (np.diff(trajectory["loss"]) < 1e-4).all()
    # In single precision a lane rounds otherwise than within a batch, 3e-7 of the weights. That changes its steps, and
    # where it retires by some per cent of what is left to the minimum, 1e-4 in the overlaps.
    apart, within = (1e-12, 1e-6) if single_above == 0 else (1e-5, 0.1)
    assert np.abs(np.array(trajectory["Q"][-1]).reshape(7, 7) - starts.Q[5]).max() < apart
    assert trajectory["gradient_norm"][-1] == pytest.approx(starts.gradient_norm[5], rel=within)
    if name == "gradient-flow":
        assert (np.diff(trajectory["flow_time"]) > 0).all()
        assert trajectory["flow_time"][-1] == pytest.approx(starts.flow_time[5], rel=within)
        # Halfway, the overlaps are those of a stiff solver at the same time, to the integrator's error.
        middle = len(trajectory["loss"]) // 2
        end = flow_end(W, LANDSCAPE.teacher_factor, trajectory["flow_time"][middle])
        assert np.abs(np.array(trajectory["Q"][middle]).reshape(7, 7) - end @ end.T).max() < 1e-2


def test_a_start_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="got -1"):
        replay(Campaign(LANDSCAPE), -1)
    table = InitialLaw(Q=np.eye(7)[None], R=0.5 * np.eye(7)[None])
    with pytest.raises(InputError, match="below 1, got 3"):
        replay(Campaign(LANDSCAPE, law=table), 3)


def test_weights_are_identified_with_the_minimum_that_they_are_at(tmp_path):
    campaign = Campaign(LANDSCAPE, Dynamics("newton"), InitialLaw(7))
    atlas = Catalogue(tmp_path / "atlas", create=True)
    atlas.register(campaign, shard_size=200, device="cpu")
    atlas.commit_shard(follow_shard(campaign, 0, 200), 0, 200)
    spurious = next(row for row in atlas.minima().to_pylist() if row["loss"] > 1e-3)
    rng = np.random.default_rng(0)
    d = 30
    teachers = np.sqrt(d) * np.eye(7, d)
    minimum = np.sqrt(d) * np.pad(np.array(spurious["R"]).reshape(7, 7), ((0, 0), (0, d - 7)))
    weights = minimum[rng.permutation(7)] + 1e-4 * rng.normal(size=(7, d))
    found = identify(atlas, W=weights, V=teachers, landscape=LANDSCAPE)
    assert (found.nearest, found.reached, found.outcome) == (spurious["label"], spurious["label"], "converged")
    assert found.inside
    # 7 d numbers of standard deviation 1e-4, in units of 1/sqrt d.
    assert found.distance == pytest.approx(1e-4 * np.sqrt(7), rel=0.3)
    far = identify(atlas, W=np.sqrt(d) * rng.normal(size=(7, d)), V=teachers, landscape=LANDSCAPE)
    assert not far.inside
    assert far.outcome == "converged"
    with pytest.raises(InputError, match="row 0"):
        identify(atlas, Q=np.eye(7), R=2 * np.eye(7), landscape=LANDSCAPE)
