"""One-pass SGD: each update is what is written, on average it is the flow, and it ends around the flow's minimum."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import kstest

from enumerator.errors import InputError
from enumerator.lanes.sampling import initial_weights, start_key
from enumerator.lanes.solve import solve_starts
from enumerator.loss.population import gradient
from enumerator.minima.distinct import match_points
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape
from enumerator.sgd.fluctuation import average_of_blocks, lifted, solve_sgd
from enumerator.sgd.one_pass import draw_sample, plan_runs, sample_key, sgd_update, trajectories
from enumerator.sgd.step_bias import flow_along, joined, joined_overlaps, overlap_bias
from enumerator.starts import Outcome
from tests.support.references import RELU
from tests.support.shapes import FEW

LANDSCAPES = {
    "relu": Landscape(3, 2, activation="relu"),
    "leaky": Landscape(3, 2, activation="leaky_relu", activation_slope=0.2),
    "erf": Landscape(3, 2, activation="erf"),
    "trained": Landscape(3, 2, second_layer="trained"),
    "normalized": Landscape(3, 2, constraint="normalized"),
    "erf-trained": Landscape(3, 2, activation="erf", second_layer="trained"),
}
# g and g' of each activation, by hand.
FORMULAS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z: np.where(z > 0, 1, 0.2)),
    "erf": (lambda z: erf(z / np.sqrt(2)), lambda z: np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2)),
}


def sgd_campaign(landscape=LANDSCAPES["relu"], law=None, step=0.2, flow_time=1.0, seed=0):
    return Campaign(landscape, Dynamics("one-pass-sgd", step=step, flow_time=flow_time), law or InitialLaw(30), seed)


def parameters_of(landscape, d, rng):
    parameters = {"first_layer": jnp.asarray(rng.normal(size=(landscape.students, d)) / np.sqrt(d))}
    if landscape.second_layer == "trained":
        parameters["second_layer"] = jnp.asarray(rng.normal(size=landscape.students))
    if landscape.constraint == "normalized":
        W = parameters["first_layer"]
        parameters["first_layer"] = W / jnp.linalg.norm(W, axis=1, keepdims=True)
    return parameters


@pytest.mark.parametrize("name", LANDSCAPES)
def test_an_update_is_the_formula(name):
    landscape, d, rate, rng = LANDSCAPES[name], 7, 0.3, np.random.default_rng(0)
    V, x, before = rng.normal(size=(2, 2)), rng.normal(size=d), parameters_of(landscape, d, rng)
    W, a = np.asarray(before["first_layer"]), np.asarray(before.get("second_layer", np.ones(3)))
    g, slope = FORMULAS[landscape.activation]
    error = a @ g(W @ x) - g(V @ x[:2]).sum()
    moved = W - rate * error * np.outer(a * slope(W @ x), x)
    if landscape.constraint == "normalized":
        moved /= np.linalg.norm(moved, axis=1)[:, None]
    after = sgd_update(landscape, jnp.asarray(V), rate)(before, jnp.asarray(x))
    assert np.abs(after["first_layer"] - moved).max() < 1e-14
    if landscape.second_layer == "trained":
        assert np.abs(after["second_layer"] - (a - rate * error * g(W @ x))).max() < 1e-14


def monte_carlo_gradient(landscape, V, parameters, count):
    """Gradients of `count` samples, (count, ...) each, of a fresh stream."""
    key = sample_key(11, jnp.asarray(0, jnp.int64))
    d = parameters["first_layer"].shape[1]
    update = sgd_update(replace(landscape, constraint="none"), jnp.asarray(V), 1.0)

    def slope(k):
        moved = update(parameters, draw_sample(key, k, d))
        return jax.tree.map(jnp.subtract, parameters, moved)

    return jax.jit(jax.vmap(slope))(jnp.arange(count))


def quadrature_gradient(landscape, V, W, a):
    """Of the population loss of W (K, 2) and a in two dimensions, by the trapezoidal rule: 1e-3 off at the kinks."""
    axis = np.linspace(-8, 8, 801)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = np.exp(-(x**2).sum(axis=1) / 2) * (axis[1] - axis[0]) ** 2 / (2 * np.pi)
    g, slope = FORMULAS[landscape.activation]
    error = mass * (g(x @ W.T) @ a - g(x @ V.T).sum(axis=1))
    return {"first_layer": a[:, None] * (slope(x @ W.T) * error[:, None]).T @ x, "second_layer": error @ g(x @ W.T)}


@pytest.mark.parametrize("name", ["leaky", "erf", "trained", "erf-trained"])
def test_updates_on_average_descend_the_population_loss(name):
    landscape, rng = LANDSCAPES[name], np.random.default_rng(1)
    V, parameters = rng.normal(size=(2, 2)), parameters_of(landscape, 2, rng)
    W, a = np.array(parameters["first_layer"]), np.array(parameters.get("second_layer", np.ones(3)))
    expected = quadrature_gradient(landscape, V, W, a)
    for layer, slopes in monte_carlo_gradient(landscape, V, parameters, 40_000).items():
        error = slopes.std(axis=0) / np.sqrt(40_000)
        assert (np.abs(slopes.mean(axis=0) - expected[layer]) < 4 * error + 1e-3).all()


def test_updates_on_average_are_the_gradient_of_the_flow():
    """In five dimensions against the closed form: -step/d times it is the mean update, within 4 standard errors."""
    landscape, rng = Landscape(3, 2), np.random.default_rng(2)
    V, parameters = rng.normal(size=(2, 2)), parameters_of(landscape, 5, rng)
    slopes = monte_carlo_gradient(landscape, V, parameters, 40_000)["first_layer"]
    expected = gradient(landscape.g, parameters["first_layer"], jnp.asarray(V))
    assert (np.abs(slopes.mean(axis=0) - expected) < 4 * slopes.std(axis=0) / np.sqrt(40_000)).all()


def test_samples_in_single_precision_are_gaussian():
    """All 2^23 values that the inverse of the distribution function is taken at, each as likely as the next."""
    uniform = (np.arange(1, 2**23) / 2**22 - 1).astype(np.float32)
    x = np.asarray(np.sqrt(np.float32(2)) * jax.lax.erf_inv(jnp.asarray(uniform))).astype(np.float64)
    drawn = draw_sample(jax.random.key(0), jnp.asarray(0), 200_000)
    assert drawn.dtype == jnp.float64
    assert kstest(np.asarray(drawn), "norm").pvalue > 1e-3
    for power, moment, error in ((2, 1, 4e-6), (4, 3, 5e-5), (6, 15, 3e-4)):
        assert np.mean(x**power) == pytest.approx(moment, rel=error)
    assert abs(np.mean(x)) < 1e-12


def test_samples_are_fresh_and_those_of_their_start_alone():
    keys = [sample_key(seed, jnp.asarray(index, jnp.int64)) for seed, index in ((0, 0), (0, 1), (1, 0))]
    keys.append(start_key(0, jnp.asarray(0, jnp.int64)))  # that of the initial weights
    draws = [draw_sample(key, jnp.asarray(k), 500) for key in keys for k in (0, 1)]
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 5 / np.sqrt(500)


def test_a_run_starts_from_the_overlaps_of_the_flow_whatever_its_batch():
    campaign = sgd_campaign(Landscape(4, 4), InitialLaw(40), flow_time=5.0)
    alone = trajectories(campaign, np.array([5]), intervals=2)
    together = trajectories(campaign, np.array([8, 5, 0, 2, 9]), intervals=4)
    # Rounding may differ between batches; the flow, which contracts in the end, does not blow it up.
    assert np.abs(alone.Q[0] - together.Q[1, ::2]).max() < 1e-11
    assert np.abs(alone.R[0] - together.R[1, ::2]).max() < 1e-11
    assert alone.flow_time == pytest.approx([0, 2.5, 5])
    W = initial_weights(campaign, np.array([5]))[0]
    assert np.abs(alone.Q[0, 0] - W @ W.T).max() < 1e-14
    assert np.abs(alone.R[0, 0] - W[:, :4]).max() < 1e-14
    other = trajectories(replace(campaign, law=table_law(W[None], 40), seed=1), np.array([0]), intervals=2)
    assert np.abs(alone.Q[0, 0] - other.Q[0, 0]).max() < 1e-14
    assert np.abs(alone.Q[0, 1] - other.Q[0, 1]).max() > 1e-2


def table_law(W, dimension):
    """The overlaps of W (n, K, D) with orthonormal teachers, as many as students."""
    return InitialLaw(dimension, Q=W @ W.transpose(0, 2, 1), R=W[..., : W.shape[1]])


def gaps(step, dimension, runs, flow_time):
    """SGD less the flow from one start (runs, P, K, K + M), and the bias predicted per unit of step (P, K, K + M)."""
    landscape = Landscape(3, 3)
    W = initial_weights(Campaign(landscape, law=InitialLaw(20)), np.arange(1))[0]
    campaign = sgd_campaign(landscape, table_law(np.repeat(W[None], runs, axis=0), dimension), step, flow_time)
    found = trajectories(campaign, np.arange(runs), intervals=10)
    V, times = landscape.teacher_factor, found.flow_time
    flow = joined_overlaps(flow_along(RELU, W, V, times), V)
    return joined(found.Q, found.R) - flow, overlap_bias(landscape, W, times)


def norms(matrices):
    return np.sqrt((matrices**2).sum(axis=(-2, -1)))


def test_the_mean_of_the_overlaps_is_off_the_flow_by_the_predicted_bias():
    step = 0.1
    deviation, bias = gaps(step, 200, 32, 2.0)
    along = (deviation * bias).sum(axis=(-2, -1))[:, 1:] / (bias**2).sum(axis=(-2, -1))[1:]
    error = along.std(axis=0, ddof=1) / np.sqrt(32)
    assert error.max() < step / 4
    assert (np.abs(along.mean(axis=0) - step) < 4 * error + step * step).all()  # to first order in the step


def test_overlaps_follow_the_flow_as_closely_as_step_and_dimension_say():
    """Bias of order step, noise of order sqrt(step/d): a quarter of the step at four times d, a quarter of both."""
    coarse, fine = (norms(gaps(step, d, 8, 4.0)[0]).max(axis=1) for step, d in ((0.2, 40), (0.05, 160)))
    ratio = fine.mean() / coarse.mean()
    error = ratio / np.sqrt(8) * np.hypot(coarse.std(ddof=1) / coarse.mean(), fine.std(ddof=1) / fine.mean())
    assert error < 0.1
    assert abs(ratio - 1 / 4) < 4 * error
    assert fine.max() < 0.5


def test_the_error_of_an_average_is_that_of_independent_repeats():
    """Of an autoregressive process, relaxing within 10 updates, in blocks of 100."""
    rng, path = np.random.default_rng(0), [np.zeros((200, 2, 3))]
    for _ in range(499):
        path.append(0.9 * path[-1] + rng.normal(size=(200, 2, 3)))
    blocks = np.stack(path)[100:].reshape(4, 100, 200, 2, 3).mean(axis=1)
    average = average_of_blocks(blocks)
    spread = np.sqrt((average.W**2).sum(axis=(1, 2)).mean())
    # Neighbouring blocks are a little alike, which makes the error a tenth too small.
    assert np.sqrt((average.error**2).mean()) == pytest.approx(spread, rel=0.15)


def test_lifting_keeps_the_overlaps():
    W = np.random.default_rng(0).normal(size=(4, 50))
    short = lifted(W, 3)
    assert short.shape == (4, 7)
    assert np.array_equal(short[:, :3], W[:, :3])
    assert np.abs(short @ short.T - W @ W.T).max() < 1e-13


def test_what_one_pass_sgd_does_not_do_is_refused():
    flow = Campaign(Landscape(3, 3))
    with pytest.raises(InputError, match=r"one-pass-sgd, with `step` and `flow_time`, got gradient-flow"):
        solve_sgd(flow, np.arange(2))
    W = np.random.default_rng(0).normal(size=(1, 3, 6))
    with pytest.raises(InputError, match=r"at least 6 for these initial overlaps.*got 5"):
        solve_sgd(sgd_campaign(Landscape(3, 3), table_law(W, 5)), np.arange(1))
    with pytest.raises(InputError, match="orthonormalized"):
        trajectories(sgd_campaign(Landscape(3, 3, constraint="orthonormalized")), np.arange(2))
    with pytest.raises(InputError, match=r"below 2.32 updates.*larger step"):
        trajectories(sgd_campaign(Landscape(3, 3), step=1e-9), np.arange(2))
    with pytest.raises(InputError, match="second_layer"):
        solve_sgd(sgd_campaign(LANDSCAPES["trained"]), np.arange(2))


def test_runs_end_around_the_minimum_of_the_flow():
    """One from near the minimum with an anti-aligned student, two from near the teachers, at K = M = 6."""
    W = np.eye(6) + 0.1 * np.random.default_rng(0).normal(size=(3, 6, 6))
    W[0] = np.eye(6)
    W[0, 0] = 0.1
    W[0, 0, 0] = -0.8
    campaign = sgd_campaign(Landscape(6, 6), table_law(W, 60), step=0.04, flow_time=60.0)
    flow = solve_starts(replace(campaign, dynamics=Dynamics()), np.arange(3), FEW)
    told = []
    found = solve_sgd(campaign, np.array([2, 0, 1]), told.append)
    starts = found.starts
    assert sum(told) == 3
    assert list(starts.index) == [0, 1, 2]
    assert (starts.outcome == Outcome.CONVERGED).all()
    assert match_points([found.points[k] for k in starts.point], flow.points) == list(flow.starts.point)
    assert found.points[starts.point[0]].loss > 1e-3
    assert starts.flow_time == pytest.approx(60.0, rel=1e-3)
    assert (starts.evaluations == plan_runs(campaign, 20).total).all()
    # Where the loss is zero there is no noise; at the other the average is off by its error and the bias of the step.
    assert (starts.distance[1:] < 0.05).all()
    assert 0 < starts.distance_error[0] < starts.distance[0] < 4 * starts.distance_error[0]


def test_a_step_that_is_too_large_diverges_and_keeps_its_row():
    campaign = sgd_campaign(Landscape(3, 3), InitialLaw(20), step=50.0, flow_time=5000.0)
    found = solve_sgd(campaign, np.arange(2))
    assert (found.starts.outcome == Outcome.DIVERGED).all()
    assert (found.starts.point == -1).all()
    assert found.points == []
    assert np.isnan(found.starts.distance_error).all()
