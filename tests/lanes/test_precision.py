"""Mixed precision: single while the gradient is large, with the ends, and everything stored, of double precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from cluster.inputs import request
from enumerator.activations.geometry import fast_arccos
from enumerator.catalogue.catalogue import Catalogue
from enumerator.dynamics.implicit import STEP_COST
from enumerator.dynamics.vector_field import gradient_flow, in_single_precision
from enumerator.errors import InputError
from enumerator.follow import check_solvable, follow_shard
from enumerator.lanes.batch import BatchShape
from enumerator.lanes.kernels import kernels_of
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances
from enumerator.starts import Outcome
from enumerator.symmetry.canonical import canonical_form
from enumerator.verification.verify import verify
from tests.support.references import RELU
from tests.support.shapes import FEW

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
    in_single = jax.jit(in_single_precision(lambda V: gradient_flow(landscape.equations, V), V))
    in_double = jax.jit(gradient_flow(landscape.equations, V))
    for _ in range(20):
        W = jnp.asarray(rng.normal(size=(landscape.students, width)))
        single, double = in_single(W), in_double(W)
        assert single.dtype == jnp.float64
        error = float(jnp.abs(single - double).max())
        # Rounding, 6e-8, of sums of some dozen products of entries up to 3.
        assert 0 < error < 5e-6


def test_a_neuron_at_rest_stays_at_rest_in_single_precision():
    W = jnp.zeros((3, 3)).at[0, 0].set(1.0).at[1].set(1e-30)  # the second one vanishes in single precision alone
    landscape = Landscape(3, 3)
    rate = jax.jit(in_single_precision(lambda V: gradient_flow(landscape.equations, V), jnp.eye(3)))(W)
    assert landscape.g == RELU and bool(jnp.isfinite(rate).all())
    assert not np.asarray(rate[1:]).any() and np.asarray(rate[0]).any()


def campaign(landscape: Landscape, single_above: float, **fields) -> Campaign:
    law = InitialLaw(dimension=12)
    return Campaign(landscape, law=law, tolerances=Tolerances(single_above=single_above, **fields))


@pytest.mark.parametrize(
    ("name", "starts", "shape"),
    [("relu", 200, BatchShape()), ("more students", 60, FEW), ("trained", 40, FEW), ("erf", 40, FEW)],
    ids=["relu", "more students", "trained", "erf"],
)
def test_starts_end_where_they_do_in_double_precision(name, starts, shape):
    double, mixed = (follow_shard(campaign(LANDSCAPES[name], above), 0, starts, shape) for above in (0.0, 3e-3))
    assert double.campaign.id != mixed.campaign.id
    losses = [np.array([found.points[point].loss for point in found.starts.point]) for found in (double, mixed)]
    # 99.5% are promised; so few starts are all to agree. Losses of one point agree to rounding.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-11, atol=1e-13)
    assert np.array_equal(mixed.starts.outcome, double.starts.outcome)
    assert not np.array_equal(mixed.starts.flow_time, double.starts.flow_time)
    for point in mixed.points:
        assert point.W.dtype == np.float64 and point.gradient_norm < 1e-11


# What a start is when it retires, and at early stops.
NUMBERS = ("evaluations", "flow_time", "loss", "stop_flow_time", "stop_loss", "stop_anti_aligned")


def test_no_number_depends_on_the_neighbours_of_a_lane():
    """One program, of eight lanes: a start alone, among others, and after others is the same to the last bit."""
    mixed, shape = campaign(LANDSCAPES["relu"], 3e-3), BatchShape(8, 64)
    follow_shard(mixed, 0, 40, shape)  # now all minima are in hand, and looks at a lane tell the same
    together = follow_shard(mixed, 0, 40, shape).starts
    for first, last in ((17, 18), (12, 31)):
        apart = follow_shard(mixed, first, last, shape).starts
        for name in NUMBERS:
            assert np.array_equal(getattr(apart, name), getattr(together, name)[first:last], equal_nan=True), name


def test_no_end_depends_on_the_size_of_a_batch():
    mixed = campaign(LANDSCAPES["relu"], 3e-3)
    follow_shard(mixed, 0, 50)
    shapes = (BatchShape(8, 64), BatchShape(8, 16), BatchShape(64, 64))
    seldom, often, wide = (follow_shard(mixed, 0, 50, shape) for shape in shapes)
    losses = [[found.points[point].loss for point in found.starts.point] for found in (seldom, often, wide)]
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-11, atol=1e-13)
    assert wide.starts.index.tolist() == often.starts.index.tolist() == list(range(50))
    # Another number of ticks: a lane is looked at more often, and passes the same until it retires.
    seen = ~np.isnan(often.starts.stop_loss) & ~np.isnan(seldom.starts.stop_loss)
    assert seen.sum() > 50
    for name in ("stop_flow_time", "stop_loss", "stop_anti_aligned"):
        assert np.array_equal(getattr(often.starts, name)[seen], getattr(seldom.starts, name)[seen]), name
    # Another number of lanes is another program, which rounds otherwise, 3e-7 of the weights. That may put the
    # hand-over a step later, of some dozen evaluations, and so the retirement to the next look, 64 later.
    moved = np.abs(wide.starts.evaluations - seldom.starts.evaluations)
    assert moved.max() <= 128 and np.median(moved) <= 2


def test_a_budget_spent_in_single_precision_is_spent():
    found = follow_shard(campaign(LANDSCAPES["relu"], 3e-3, max_evaluations=60), 0, 20, BatchShape(8, 16))
    assert found.starts.outcome.tolist() == [Outcome.UNFINISHED] * 20
    # Explicit steps: the budget, at the most two to begin anew in double precision, and the ticks until the host looks.
    # Implicit ones spend it once more, in whole steps of 16.
    implicit = 4 * STEP_COST
    assert (found.starts.evaluations >= 60 + implicit).all()
    assert (found.starts.evaluations <= 60 + 2 + 16 + implicit).all()


def test_starts_with_symmetries_keep_them():
    """Four starts in a batch: without symmetry, with that of two students, and with those of all, at the end."""
    K, rng = 4, np.random.default_rng(0)
    free = rng.normal(size=(K, 2 * K)) / np.sqrt(2 * K)
    pair = free.copy()  # alike under an exchange of the first two students, and of the first two teachers
    pair[0, :K], pair[1, :K], pair[2:, 0] = [0.4, 0.1, 0.2, 0.2], [0.1, 0.4, 0.2, 0.2], pair[2:, 1]
    pair[:, K:] = 0.0
    pair[2, K], pair[3, K + 1] = 0.3, 0.2
    all_alike = 0.5 * np.eye(K) + 0.2
    given = [(W @ W.T, W[:, :K]) for W in (free, pair)]
    given += [(all_alike, sign * (0.1 + 0.05 * np.eye(K))) for sign in (1, -1)]
    law, found = InitialLaw(Q=np.stack([Q for Q, _ in given]), R=np.stack([R for _, R in given])), []
    for above in (0.0, 3e-3):
        result = follow_shard(Campaign(Landscape(K, K), law=law, tolerances=Tolerances(single_above=above)), 0, 4, FEW)
        outcomes = [Outcome.CONVERGED, Outcome.SADDLE, Outcome.CONVERGED, Outcome.SADDLE]
        assert result.starts.outcome.tolist() == outcomes
        points = [result.points[point] for point in result.starts.point]
        found.append([(point.loss, canonical_form(point.Q, point.R, np.eye(K), 1e-7).isotropy) for point in points])
    for (loss, isotropy), (mixed_loss, mixed_isotropy) in zip(*found, strict=True):
        assert mixed_loss == pytest.approx(loss, abs=1e-12) and mixed_isotropy == isotropy
    assert [isotropy for _, isotropy in found[0]] == ["S4", "S3 x S1", "S4", "S4"]


def test_it_is_asked_for_by_name_and_goes_with_gradient_flow():
    settings = {"students": 4, "teachers": 4}
    assert request(settings).campaign.id == request(settings | {"precision": "double"}).campaign.id
    assert request(settings | {"precision": "mixed"}).campaign.tolerances.single_above == 3e-3
    with pytest.raises(InputError, match="`precision` must be one of double, mixed, got 'half'"):
        request(settings | {"precision": "half"})
    with pytest.raises(InputError, match="`precision` mixed goes with dynamics gradient-flow, got newton"):
        request(settings | {"precision": "mixed", "dynamics": "newton"})


def test_it_does_not_contradict_a_given_tolerance():
    def above(given, **settings):
        tolerances = {"tolerances": {"single_above": given}}
        return request({"students": 4, "teachers": 4} | tolerances | settings).campaign.tolerances.single_above

    assert above(0.01) == above(0.01, precision="mixed") == 0.01
    assert above(0) == above(0, precision="double") == 0
    with pytest.raises(InputError, match="`precision` mixed goes with a tolerance single_above above 0, got 0"):
        above(0, precision="mixed")
    with pytest.raises(InputError, match="`precision` double goes with a tolerance single_above of 0, got"):
        above(0.01, precision="double")
    with pytest.raises(InputError, match=r"`single_above` must be 0 or at least 0\.0001, got 9e-05"):
        above(9e-5)


def test_dynamics_without_single_precision_refuse_it_wherever_they_are_asked():
    tolerances = Tolerances(single_above=3e-3)
    with pytest.raises(InputError, match="`precision` mixed goes with dynamics gradient-flow, got newton"):
        follow_shard(Campaign(Landscape(4, 4), Dynamics("newton"), tolerances=tolerances), 0, 1)
    with pytest.raises(InputError, match="got one-pass-sgd"):
        check_solvable(Campaign(Landscape(4, 4), Dynamics("one-pass-sgd", 0.1, 10.0), tolerances=tolerances))


def operations(jaxpr):
    """The operations of a program, and of the programs within it."""
    for operation in jaxpr.eqns:
        yield operation
        for inner in jaxprs_in_params(operation.params):
            yield from operations(inner)


@pytest.mark.parametrize("name", LANDSCAPES)
def test_products_in_single_precision_are_not_rounded_further(name):
    """On a GPU the default is TF32: ten bits of each factor."""
    landscape = LANDSCAPES[name]
    width = landscape.teacher_rank + (2 if landscape.equations.is_trained else 0)
    field = in_single_precision(partial(gradient_flow, landscape.equations), landscape.teacher_factor)
    program = jax.make_jaxpr(field)(jnp.ones((landscape.students, width)))
    products = [entry for entry in operations(program.jaxpr) if entry.primitive.name == "dot_general"]
    assert products
    highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    assert all(entry.params["precision"] == highest for entry in products)


def test_double_is_double_throughout():
    """The program that advances the lanes; that of single precision has both precisions."""
    landscape, tolerances = Landscape(4, 4), Tolerances(single_above=3e-3)
    W, V = jnp.ones((2, 4, 4)), jnp.eye(4)
    for is_single in (False, True):
        kernels = kernels_of(Dynamics(), landscape.equations, tolerances, 16, None, is_single)
        text = str(jax.make_jaxpr(kernels.advance)(V, None, kernels.empty(V, None, W)))
        assert "f64" in text and ("f32" in text) == is_single


def test_what_is_stored_is_verified_and_ends_there_when_it_is_run_again(tmp_path):
    mixed = campaign(Landscape(5, 5), 3e-3)
    atlas = Catalogue(tmp_path / "atlas", create=True)
    atlas.register(mixed, shard_size=40, device="cpu")
    atlas.commit_shard(follow_shard(mixed, 0, 40, FEW), 0, 40)
    assert verify(atlas, sample=20).num_rows == 0
