"""No answer depends on the unit of length: teachers and starts a thousand times shorter or longer."""

import numpy as np
import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.dynamics.symmetric_starts import coherent_classes
from enumerator.errors import InputError
from enumerator.follow import follow_shard
from enumerator.loss.overlaps import check_feasible
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape
from enumerator.verification.verify import verify
from tests.support.shapes import FEW

STARTS = 100


def solved(unit, students=7, teachers=7):
    """The same starts with all lengths times sqrt(unit)."""
    landscape = Landscape(students, teachers, T=unit * np.eye(teachers))
    campaign = Campaign(landscape, Dynamics("newton"), InitialLaw(teachers, scale=np.sqrt(unit)))
    return follow_shard(campaign, 0, STARTS, FEW)


@pytest.fixture(scope="module")
def plain():
    return solved(1.0)


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_the_same_minima_in_any_unit_of_length(plain, unit, tmp_path):
    result = solved(unit)
    # The unit is a power of four: the scaled numbers round alike, and every lane takes the same steps.
    assert np.array_equal(result.starts.outcome, plain.starts.outcome)
    assert np.array_equal(result.starts.point, plain.starts.point)
    assert len({round(point.loss, 9) for point in plain.points}) > 1
    for ours, theirs in zip(result.points, plain.points, strict=True):
        assert ours.loss == pytest.approx(unit * theirs.loss, abs=1e-14 * unit)
        assert (ours.verdict, ours.verdict_above) == (theirs.verdict, theirs.verdict_above)
        assert (ours.isotropy, ours.orbit_size_log10) == (theirs.isotropy, theirs.orbit_size_log10)
        assert np.abs(ours.hessian_spectrum - theirs.hessian_spectrum).max() < 1e-11
    atlas = Catalogue(tmp_path / "atlas", create=True)
    for shard in (plain, result):
        atlas.register(shard.campaign, STARTS, "cpu")
        atlas.commit_shard(shard, 0, STARTS)
        atlas.finish(shard.campaign.id)
    ids = atlas.minima(columns="minimum_id").num_rows + atlas.saddles(columns="minimum_id").num_rows
    assert ids == 2 * len(plain.points)
    assert verify(atlas, sample=4).to_pylist() == []


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_fewer_students_than_teachers_in_any_unit_of_length(unit):
    here, there = solved(1.0, 4, 5), solved(unit, 4, 5)
    assert (there.starts.outcome == here.starts.outcome).all()
    losses = [sorted(point.loss for point in result.points) for result in (here, there)]
    assert losses[1] == pytest.approx(unit * np.array(losses[0]), rel=1e-9)


def test_starts_far_shorter_than_the_teachers_arrive():
    result = follow_shard(Campaign(Landscape(4, 4), law=InitialLaw(100, scale=1e-6)), 0, 10, FEW)
    assert (result.starts.outcome == 0).all()
    assert max(point.loss for point in result.points) < 1e-12


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_given_overlaps_are_judged_by_the_norms_of_their_own_neurons(scale):
    rng = np.random.default_rng(0)
    W = scale * np.pad(rng.normal(size=(3, 4)), ((0, 0), (3, 0)))
    Q, R, T = W @ W.T, W[:, :3], np.eye(3) + 0.1
    # Without a symmetry every entry is in a class of its own, but for the symmetry of Q and T.
    assert len(np.unique(coherent_classes(Q, R, Landscape(3, 3, T))[:3, :3])) == 9
    check_feasible(Q[None], R[None], T)
    # Longer than its own norm allows, by a cosine of 2.
    R = np.zeros((3, 3))
    R[0, 0] = 2 * np.sqrt(Q[0, 0] * T[0, 0])
    with pytest.raises(InputError, match="row 0"):
        check_feasible(Q[None], R[None], T)
