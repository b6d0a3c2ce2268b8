"""Initial overlaps: the law of w ~ N(0, s^2 I_d) for any d, and tables."""

import numpy as np
import pytest
from scipy import stats

from enumerator.lanes import sampling
from enumerator.lanes.sampling import initial_weights, lane_width
from enumerator.loss.overlaps import check_feasible, feasibility, lift
from enumerator.problem import Campaign, InitialLaw, Landscape
from tests.support.references import RELU


def overlaps_of(campaign, count):
    W = initial_weights(campaign, np.arange(count))
    V = campaign.landscape.teacher_factor
    return W @ W.transpose(0, 2, 1), W[:, :, : V.shape[1]] @ V.T


@pytest.mark.parametrize("dimension", [3, 4, 5, 7, 40])
def test_overlaps_have_the_law_of_gaussian_weights(dimension):
    """Kolmogorov-Smirnov against weights drawn in d dimensions, for entries and for a joint invariant."""
    K, M, scale, n = 3, 3, 1.7, 4000
    rng = np.random.default_rng(dimension)
    V = rng.normal(size=(M, M))
    campaign = Campaign(Landscape(K, M, V @ V.T), law=InitialLaw(dimension, scale))
    Q, R = overlaps_of(campaign, n)
    W = scale * rng.normal(size=(n, K, dimension)) / np.sqrt(dimension)
    Q_direct, R_direct = W @ W.transpose(0, 2, 1), W[:, :, :M] @ V.T
    pairs = {
        "norm": (Q[:, 0, 0], Q_direct[:, 0, 0]),
        "last norm": (Q[:, 2, 2], Q_direct[:, 2, 2]),
        "student overlap": (Q[:, 0, 2], Q_direct[:, 0, 2]),
        "teacher overlap": (R[:, 1, 2], R_direct[:, 1, 2]),
        "volume": (np.linalg.det(Q), np.linalg.det(Q_direct)),
        "joint": (Q[:, 1, 2] * R[:, 1, 0], Q_direct[:, 1, 2] * R_direct[:, 1, 0]),
    }
    for name, (ours, direct) in pairs.items():
        # 30 tests in all: a true law fails one of them with probability below 3%, for fixed keys never again.
        assert stats.ks_2samp(ours, direct).pvalue > 1e-3, name


def test_any_dimension_costs_the_same_width():
    widths = [lane_width(Campaign(Landscape(4, 3), law=InitialLaw(d))) for d in (3, 4, 7, 1000, 10**6)]
    assert widths == [3, 4, 7, 7, 7]
    W = initial_weights(Campaign(Landscape(4, 3), law=InitialLaw(10**6)), np.arange(50))
    # Norms concentrate at the scale, within the 1/sqrt(d) of the law.
    assert np.abs(np.linalg.norm(W, axis=2) - 1).max() < 5e-3


def test_all_dimensions_of_one_shape_share_a_program(monkeypatch):
    """Drawing takes milliseconds, and its program, which is the longest of a run, seconds to compile."""
    traced, draw = [], sampling.sample_weights
    monkeypatch.setattr(sampling, "sample_weights", lambda *given: (traced.append(given), draw(*given))[1])
    sampling._sampler.cache_clear()
    starts = [
        initial_weights(Campaign(Landscape(2, 2), law=law), np.arange(count))
        for law, count in ((InitialLaw(20), 5), (InitialLaw(10**6, scale=0.5), 3))
    ]
    sampling._sampler.cache_clear()
    assert len(traced) == 1
    assert [W.shape for W in starts] == [(5, 2, 4), (3, 2, 4)]


def test_a_start_depends_on_seed_and_index_alone():
    campaign = Campaign(Landscape(3, 3), law=InitialLaw(10), seed=5)
    everything = initial_weights(campaign, np.arange(20))
    assert np.array_equal(everything[7:12], initial_weights(campaign, np.arange(7, 12), block=64))
    other = initial_weights(Campaign(Landscape(3, 3), law=InitialLaw(10), seed=6), np.arange(20))
    assert np.abs(everything - other)[:, :, :3].min() > 0  # the perpendicular part has zeros in common
    far = initial_weights(campaign, np.array([7, 7 + 2**32]))
    assert np.array_equal(far[0], everything[7])
    assert not np.array_equal(far[0], far[1])


@pytest.mark.parametrize("rank", [2, 4])
def test_lift_reproduces_the_overlaps(rank):
    rng = np.random.default_rng(rank)
    V = rng.normal(size=(4, rank))
    W = rng.normal(size=(5, rank + 3))
    Q, R = W @ W.T, W[:, :rank] @ V.T
    parallel, perpendicular = lift(Q, R, V)
    assert np.linalg.matrix_rank(perpendicular, tol=1e-6) == 3
    lifted = np.concatenate([parallel, perpendicular], axis=1)
    assert np.abs(lifted @ lifted.T - Q).max() < 1e-12
    assert np.abs(parallel @ V.T - R).max() < 1e-12
    assert feasibility(Q, R, V @ V.T) > -1e-12


def test_infeasible_overlaps_name_row_and_eigenvalue():
    Q, R = np.stack([np.eye(2), np.eye(2)]), np.stack([np.zeros((2, 2)), 2 * np.eye(2)])
    with pytest.raises(ValueError, match=r"row 1 has the relative eigenvalue -0\.33"):
        check_feasible(Q, R, np.eye(2))


def test_starts_from_a_table_have_its_overlaps():
    rng = np.random.default_rng(1)
    W = rng.normal(size=(6, 3, 5))
    table = InitialLaw(Q=W @ W.transpose(0, 2, 1), R=W[:, :, :3].copy())
    Q, R = overlaps_of(Campaign(Landscape(3, 3), law=table), 6)
    assert np.abs(Q - table.Q).max() < 1e-12
    assert np.abs(R - table.R).max() < 1e-12


def test_a_dead_neuron_leaves_along_its_steepest_descent():
    from enumerator.loss.population import one_sided_derivative

    W = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]])
    campaign = Campaign(Landscape(3, 3), law=InitialLaw(Q=(W @ W.T)[None], R=W[None]))
    released = initial_weights(campaign, np.array([0]))[0]
    norm = np.linalg.norm(released[2])
    assert 0 < norm < 1e-8
    direction = released[2] / norm
    slope = one_sided_derivative(RELU, direction, released[:2], np.pad(np.eye(3), ((0, 0), (0, 0))))
    rng = np.random.default_rng(0)
    others = [one_sided_derivative(RELU, u, released[:2], np.eye(3)) for u in rng.normal(size=(50, len(direction)))]
    assert slope < min(others)
    # Only the third teacher is not learned yet, and the new neuron turns to it.
    assert direction[2] > 0.9
