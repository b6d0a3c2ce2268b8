"""Mixed precision: single while the gradient is large, with the ends, and everything stored, of double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import RELU

from cluster.inputs import request
from enumerator.errors import InputError
from enumerator.flow import gradient_flow, in_single_precision
from enumerator.geometry import fast_arccos
from enumerator.problem import Campaign, InitialLaw, Landscape, Tolerances
from enumerator.solve import BatchShape, Outcome, solve_shard
from enumerator.symmetry import canonical_form

LANDSCAPES = {
    "relu": Landscape(9, 9),
    "more students": Landscape(7, 6),
    "general teachers": Landscape(4, 3, T=np.array([[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 1.5]])),
    "leaky": Landscape(5, 5, activation="leaky_relu", activation_slope=0.2),
    "erf": Landscape(5, 5, activation="erf"),
    "normalized": Landscape(5, 5, constraint="normalized"),
    "trained": Landscape(4, 4, second_layer="trained"),
}


def test_single_arccos_is_exact_to_rounding():
    c = np.concatenate([np.linspace(-1, 1, 100_001), [np.nextafter(np.float32(1), 0)]]).astype(np.float32)
    angles = np.asarray(fast_arccos(jnp.asarray(c)))
    assert angles.dtype == np.float32
    assert np.abs(angles - np.arccos(c.astype(np.float64))).max() < 1e-6


@pytest.mark.parametrize("name", LANDSCAPES)
def test_single_field_is_the_double_one_to_single_rounding(name):
    landscape, rng = LANDSCAPES[name], np.random.default_rng(0)
    V = jnp.asarray(landscape.teacher_factor)
    width = V.shape[1] + (2 if landscape.equations.is_trained else 0)
    for _ in range(20):
        W = jnp.asarray(rng.normal(size=(landscape.students, width)))
        single = in_single_precision(lambda V: gradient_flow(landscape.equations, V), V)(W)
        double = gradient_flow(landscape.equations, V)(W)
        assert single.dtype == jnp.float64
        error = float(jnp.abs(single - double).max())
        # Rounding, 6e-8, of sums of some dozen products of entries up to 3.
        assert 0 < error < 5e-6


def test_a_neuron_at_rest_stays_at_rest_in_single_precision():
    W = jnp.zeros((3, 3)).at[0, 0].set(1.0).at[1].set(1e-30)  # the second one vanishes in single precision alone
    landscape = Landscape(3, 3)
    rate = in_single_precision(lambda V: gradient_flow(landscape.equations, V), jnp.eye(3))(W)
    assert landscape.g == RELU and bool(jnp.isfinite(rate).all())
    assert not np.asarray(rate[1:]).any() and np.asarray(rate[0]).any()


def campaign(landscape: Landscape, single_above: float, **fields) -> Campaign:
    law = InitialLaw(dimension=12)
    return Campaign(landscape, law=law, tolerances=Tolerances(single_above=single_above, **fields))


@pytest.mark.parametrize(("name", "starts"), [("relu", 200), ("more students", 60), ("trained", 40), ("erf", 40)])
def test_starts_end_where_they_do_in_double_precision(name, starts):
    double, mixed = (solve_shard(campaign(LANDSCAPES[name], above), 0, starts) for above in (0.0, 3e-3))
    assert double.campaign.id != mixed.campaign.id
    losses = [np.array([found.points[point].loss for point in found.starts.point]) for found in (double, mixed)]
    # 99.5% are promised; so few starts are all to agree. Losses of one point agree to rounding.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-11, atol=1e-13)
    assert np.array_equal(mixed.starts.outcome, double.starts.outcome)
    assert not np.array_equal(mixed.starts.flow_time, double.starts.flow_time)
    for point in mixed.points:
        assert point.W.dtype == np.float64 and point.gradient_norm < 1e-11


def test_no_end_depends_on_the_size_of_a_batch():
    wide, narrow = (
        solve_shard(campaign(LANDSCAPES["relu"], 3e-3), 0, 50, BatchShape(lanes, ticks))
        for lanes, ticks in ((64, 64), (8, 16))
    )
    losses = [[found.points[point].loss for point in found.starts.point] for found in (wide, narrow)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-11, atol=1e-13)
    assert wide.starts.index.tolist() == narrow.starts.index.tolist() == list(range(50))


def test_a_budget_spent_in_single_precision_is_spent():
    found = solve_shard(campaign(LANDSCAPES["relu"], 3e-3, max_evaluations=60), 0, 20)
    assert found.starts.outcome.tolist() == [Outcome.UNFINISHED] * 20
    assert (found.starts.evaluations >= 60).all()


def test_a_start_with_a_symmetry_keeps_it():
    """All students alike up to a permutation: the flow of such a start ends on a saddle, in either precision."""
    K, found = 4, []
    Q, R = 0.5 * np.eye(K) + 0.2, np.full((K, K), 0.1) + 0.05 * np.eye(K)
    for above in (0.0, 3e-3):
        law = InitialLaw(Q=Q[None], R=R[None])
        result = solve_shard(Campaign(Landscape(K, K), law=law, tolerances=Tolerances(single_above=above)), 0, 1)
        point = result.points[result.starts.point[0]]
        found.append((point.loss, canonical_form(point.Q, point.R, np.eye(K), 1e-7).isotropy))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12) and found[0][1] == found[1][1]


def test_it_is_asked_for_by_name_and_goes_with_gradient_flow():
    settings = {"students": 4, "teachers": 4}
    assert request(settings).campaign.id == request(settings | {"precision": "double"}).campaign.id
    assert request(settings | {"precision": "mixed"}).campaign.tolerances.single_above == 3e-3
    with pytest.raises(InputError, match="`precision` must be one of double, mixed, got 'half'"):
        request(settings | {"precision": "half"})
    with pytest.raises(InputError, match="`precision` mixed goes with dynamics gradient-flow, got newton"):
        request(settings | {"precision": "mixed", "dynamics": "newton"})


def test_double_is_double_throughout():
    text = str(jax.make_jaxpr(gradient_flow(Landscape(4, 4).equations, np.eye(4)))(jnp.ones((4, 4))))
    assert "f64" in text and "f32" not in text
