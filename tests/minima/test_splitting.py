"""S_i predicts what happens when neuron i is split, at every minimum of K = M = 10; more in `scripts/validate`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enumerator.follow import follow_shard
from enumerator.loss.population import exact_loss, hessian, perpendicular_block
from enumerator.minima.stability import splitting_of
from enumerator.problem import Campaign, InitialLaw, Landscape
from tests.support.references import RELU
from tests.support.splits import descends, split_students

_hessian, _perpendicular = jax.jit(partial(hessian, RELU)), jax.jit(partial(perpendicular_block, RELU))


@pytest.fixture(scope="module")
def minima():
    points = follow_shard(Campaign(Landscape(10, 10), law=InitialLaw(10)), 0, 300).points
    spurious = [point for point in points if point.loss > 0]
    assert len(spurious) >= 3
    return spurious


def test_the_form_is_the_change_of_the_loss(minima):
    """1/2 e S_i e (1/b + 1/(1 - b)), to third order in e."""
    rng = np.random.default_rng(0)
    V = jnp.eye(10)
    for point in minima:
        H = np.asarray(_hessian(jnp.asarray(point.W), V))
        for neuron in range(10):
            S = H[neuron, :, neuron] - np.eye(10) / 2
            e = rng.normal(size=10)
            e -= (e @ point.W[neuron]) / (point.W[neuron] @ point.W[neuron]) * point.W[neuron]
            e *= 1e-4 / np.linalg.norm(e)
            b = rng.uniform(0.3, 0.7)
            split = np.concatenate(
                [np.delete(point.W, neuron, axis=0), [b * point.W[neuron] + e, (1 - b) * point.W[neuron] - e]]
            )
            change = exact_loss(RELU, split, np.eye(10)) - point.loss
            assert change == pytest.approx(e @ S @ e * (1 / b + 1 / (1 - b)) / 2, abs=2e-12)


def test_splits_descend_where_the_form_says_so(minima):
    rng = np.random.default_rng(1)
    for point in minima:
        V = jnp.eye(10)
        W = jnp.asarray(point.W)
        splitting = splitting_of(np.asarray(_hessian(W, V)), np.asarray(_perpendicular(W, V)), point.W)
        students = np.concatenate([split_students(point.W, neuron, 2, rng) for neuron in range(10)])
        fell = descends(students, point)
        predicted = np.repeat(splitting.inside < 0, 2)
        assert np.array_equal(fell, predicted), (point.loss, splitting.inside)
