"""How many directions the Hessian of the whole student vanishes in: stored, verified, and counted by other means."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.enumeration import enumerate_minima
from enumerator.loss.population import exact_loss, fast_layer_gradients
from enumerator.minima.flat import share_out
from enumerator.minima.polish import compiled_polish
from enumerator.minima.stability import examine
from enumerator.points import Student
from enumerator.problem import InitialLaw, Landscape, Tolerances
from enumerator.verification.recompute_flat import flat_directions
from enumerator.verification.repair import repair
from enumerator.verification.verify import find_disagreements
from tests.support.networks import block
from tests.support.references import RELU

DEFINITE = Tolerances().definite


def generic_copies(network: np.ndarray, students: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second layer (K, r), (K,) of a student whose neurons are copies of those of a network (k, r)."""
    rng = np.random.default_rng(0)
    groups = np.concatenate([np.arange(len(network)), rng.integers(len(network), size=students - len(network))])
    W = share_out(network, groups, rng.uniform(0.2, 1, size=students))
    a = rng.uniform(0.5, 2, size=students)
    return W / a[:, None], a


def features_rank(W: np.ndarray, a: np.ndarray, layers: int, samples: int = 4000) -> int:
    """Rank of the derivatives of the output by the weights of one layer, or both: that of the Hessian at zero loss."""
    x = np.random.default_rng(1).normal(size=(samples, W.shape[1]))
    first = (a * (x @ W.T > 0))[:, :, None] * x[:, None, :]
    second = np.maximum(x @ W.T, 0)
    return int(
        np.linalg.matrix_rank(np.concatenate([first.reshape(samples, -1), second[:, : len(a) * (layers - 1)]], 1))
    )


@pytest.mark.parametrize(("students", "teachers"), [(2, 1), (3, 2), (3, 3), (7, 3), (9, 2)])
@pytest.mark.parametrize("second_layer", ["fixed", "trained"])
def test_flat_directions_at_zero_loss(students, teachers, second_layer):
    landscape = Landscape(students, teachers, second_layer=second_layer)
    layers = 1 if second_layer == "fixed" else 2
    signs = None if second_layer == "fixed" else np.ones(teachers)
    W, a = generic_copies(np.eye(teachers), students)
    expected = students * (teachers + layers - 1) - features_rank(W, a, layers)
    assert expected == (students if layers == 2 else 0) + (students - teachers) * teachers
    point = examine(Student(landscape, np.eye(teachers), signs), Tolerances())
    assert point.flat_dimension == expected
    assert point.is_degenerate == (students > teachers)
    assert flat_directions(point.Q, point.R, landscape, signs, DEFINITE) == expected


def one_anti_aligned(teachers: int) -> np.ndarray:
    """W of the minimum of K = M with one anti-aligned student."""
    W = np.eye(teachers)
    W[0, 0] -= 1.8
    W[:, 0] += 0.09
    W, slope = (np.asarray(x) for x in compiled_polish(RELU, jnp.asarray(W), jnp.eye(teachers), None))
    assert slope < 1e-12 and exact_loss(RELU, W, np.eye(teachers)) > 0.02
    return W


def vanishing_by_differences(W: np.ndarray, a: np.ndarray, V: np.ndarray) -> int:
    """Eigenvalues of the Hessian in both layers that vanish, by differences of the gradient.

    Off by 1e-5, the step: copies that part bend the loss at third order. The smallest other eigenvalue is 1e-3 or more.
    """
    shape, step = W.shape, 1e-5
    gradients = jax.jit(lambda first, second: fast_layer_gradients(RELU, first, jnp.asarray(V), second))

    def slopes(x: np.ndarray) -> np.ndarray:
        by_first, by_second = gradients(x[: W.size].reshape(shape), x[W.size :])
        return np.concatenate([np.ravel(by_first), by_second])

    x = np.concatenate([W.ravel(), a])
    H = np.array([(slopes(x + step * e) - slopes(x - step * e)) / (2 * step) for e in np.eye(x.size)])
    return int((np.abs(np.linalg.eigvalsh((H + H.T) / 2)) < 1e-4).sum())


def test_flat_directions_at_positive_loss():
    W = one_anti_aligned(6)
    for students in (6, 7, 9):
        landscape = Landscape(students, 6, second_layer="trained")
        point = examine(Student(landscape, W, np.ones(6)), Tolerances())
        assert point.flat_dimension == students + (students - 6)
        assert point.is_degenerate == (students > 6)
        assert flat_directions(point.Q, point.R, landscape, np.ones(6), DEFINITE) == point.flat_dimension
        assert vanishing_by_differences(*generic_copies(W, students), np.eye(6)) == point.flat_dimension
        fixed = examine(Student(Landscape(students, 6), W, None), Tolerances())
        assert fixed.flat_dimension == students - 6
        assert flat_directions(fixed.Q, fixed.R, Landscape(students, 6), None, DEFINITE) == students - 6


def test_many_more_students_are_counted_from_a_few():
    landscape = Landscape(1000, 3, second_layer="trained")
    point = examine(Student(landscape, np.eye(3), np.ones(3)), Tolerances())
    counted = flat_directions(point.Q, point.R, landscape, np.ones(3), DEFINITE)
    assert counted == point.flat_dimension == 1000 + 997 * 3


@pytest.mark.parametrize("students", [3, 4, 5, 6, 9])
def test_flat_directions_of_opposite_pairs(students):
    landscape = Landscape(students, 3, block(3, 1, 0.3), activation="erf")
    point = examine(Student(landscape, landscape.teacher_factor, None), Tolerances())
    assert point.flat_dimension == (students - 3) // 2 * 3
    assert flat_directions(point.Q, point.R, landscape, None, DEFINITE) == point.flat_dimension


def test_verification_finds_nothing_in_a_trained_catalogue_and_a_wrong_count_is_mended(tmp_path):
    """K = 3, M = 2: three directions of scale, and two of a further neuron at zero loss."""
    landscape = Landscape(3, 2, second_layer="trained")
    found = enumerate_minima(landscape, 8, law=InitialLaw(4))
    assert [row["flat_dimension"] for row in found.minima.to_pylist() if row["loss"] == 0] == [5]
    atlas, campaign = Catalogue(tmp_path / "atlas", create=True), found.result.campaign
    atlas.register(campaign, 8, "cpu")
    atlas.commit_shard(found.result, 0, 8)
    atlas.finish(campaign.id)
    assert find_disagreements(atlas) == []

    other = Catalogue(tmp_path / "wrong", create=True)
    points = [dataclasses.replace(point, flat_dimension=4) for point in found.result.points]
    other.register(campaign, 8, "cpu")
    other.commit_shard(dataclasses.replace(found.result, points=points), 0, 8)
    other.finish(campaign.id)
    wrong = [entry for entry in find_disagreements(other) if entry.column == "flat_dimension"]
    assert [(entry.stored, entry.computed) for entry in wrong] == [("4", "5")]
    before = other.minima().to_pylist()
    assert all(repair(other)["repaired"].to_pylist())
    after = other.minima().to_pylist()
    assert [row["flat_dimension"] for row in after if row["loss"] == 0] == [5]
    assert [row["minimum_id"] for row in after] == [row["minimum_id"] for row in before]
