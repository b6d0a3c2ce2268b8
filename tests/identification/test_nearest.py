"""The nearest known point to given weights, against all permutations of students and teachers."""

from itertools import permutations

import numpy as np
import pytest

from enumerator import Landscape, Tolerances
from enumerator.identification.nearest import nearest_point
from enumerator.loss.population import exact_loss
from enumerator.minima.polish import nearest_stationary
from enumerator.minima.recognition import Recogniser
from enumerator.minima.stability import examine
from enumerator.points import Student
from tests.support.networks import teacher_group

CIRCULANT = np.eye(4) + 0.3 * np.roll(np.eye(4), 1, axis=0) + 0.3 * np.roll(np.eye(4), -1, axis=0)
LANDSCAPES = {
    "orthonormal": Landscape(4, 4),
    "fewer teachers": Landscape(5, 4),
    "two classes": Landscape(4, 4, np.diag([1.0, 1.0, 2.0, 2.0])),
    # No two neighbours can be exchanged, but all four turned round.
    "a ring": Landscape(4, 4, CIRCULANT),
    "no symmetry": Landscape(4, 4, np.diag([1.0, 1.1, 1.2, 1.3])),
}


def by_all_permutations(W, point):
    """The least distance of W (K, r) to a copy of the point."""
    T, inverse = point.landscape.T, np.linalg.pinv(point.landscape.teacher_factor).T
    R = W @ point.landscape.teacher_factor.T
    distances = [
        np.linalg.norm((R - point.R[np.ix_(students, teachers)]) @ inverse)
        for teachers in teacher_group(T)
        for students in permutations(range(len(W)))
    ]
    return min(distances)


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
def test_it_is_the_nearest_of_all_copies_of_all_points(landscape):
    rng = np.random.default_rng(0)
    shape = landscape.students, landscape.teacher_rank
    points = [examine(Student(landscape, rng.normal(size=shape), None), Tolerances()) for _ in range(3)]
    for noise in (0.02, 0.5, 2.0):
        W = points[1].W[rng.permutation(len(points[1].W))] + noise * rng.normal(size=shape)
        distances = [by_all_permutations(W, point) for point in points]
        found = nearest_point(Student(landscape, W, None), points)
        assert found.position == int(np.argmin(distances))
        assert found.distance == pytest.approx(min(distances), rel=1e-12)
        assert found.proven


def anti_aligned(k):
    """The minimum of K = M = 8 with k anti-aligned students."""
    landscape, W = Landscape(8, 8), np.eye(8) + 0.1
    W[np.arange(k), np.arange(k)] = -0.7
    point = examine(Student(landscape, nearest_stationary(landscape.g, W, np.eye(8))[0], None), Tolerances())
    assert (point.verdict, point.anti_aligned) == ("minimum", k)
    return point


@pytest.fixture(scope="module")
def minima():
    return [examine(Student(Landscape(8, 8), np.eye(8), None), Tolerances()), *map(anti_aligned, (1, 2, 8))]


# Which of the four minima is nearest to the weights of a seed, and at what distance: the best assignment of students
# for each of the 40,320 orders of the teachers.
TRUTH = {0: (2, 2.990771065), 6: (2, 3.77775792), 17: (2, 5.435499292), 23: (2, 6.920558439)}


@pytest.mark.parametrize(("seed", "expected"), TRUTH.items(), ids=map(str, TRUTH))
def test_far_from_all_minima_it_is_still_the_nearest(minima, seed, expected):
    """Random weights, and minima with noise: one local search from each finds another minimum, or a farther copy."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        centre = minima[1 + seed % 3].W[rng.permutation(8)][:, rng.permutation(8)]
        W = centre + 0.1 * (1 + seed / 3) * rng.normal(size=(8, 8))
    else:
        W = rng.normal(size=(8, 8)) * (0.4 + 0.03 * seed)
    found = nearest_point(Student(Landscape(8, 8), W, None), minima)
    assert found.position == expected[0]
    assert found.distance == pytest.approx(expected[1], abs=1e-8)
    assert found.proven
    assert nearest_point(Student(Landscape(8, 8), W, None), minima, thorough=False).distance >= found.distance - 1e-12
    once = [Recogniser(Landscape(8, 8)).distance(Student(Landscape(8, 8), W, None), point) for point in minima]
    assert min(once) > found.distance + 0.05


def test_where_not_all_is_tried_the_distance_is_an_upper_bound():
    """K = M = 12: half a billion orders of teachers. At a minimum its ball proves the distance, elsewhere nothing."""
    landscape, rng = Landscape(12, 12), np.random.default_rng(0)
    zero = examine(Student(landscape, np.eye(12), None), Tolerances())
    other = examine(Student(landscape, rng.normal(size=(12, 12)), None), Tolerances())
    W = np.eye(12)[rng.permutation(12)] + 1e-5 * rng.normal(size=(12, 12))
    assert nearest_point(Student(landscape, W, None), [zero, other]).proven
    far = nearest_point(Student(landscape, rng.normal(size=(12, 12)), None), [other])
    assert not far.proven
    hidden = other.W[rng.permutation(12)][:, rng.permutation(12)] + 0.3 * rng.normal(size=(12, 12))
    assert nearest_point(Student(landscape, hidden, None), [zero, other])[:2] == (1, pytest.approx(0.3 * 12, rel=0.2))


def test_a_flat_family_of_positive_loss_has_a_distance_too():
    """A student of two neurons that the three of W share: each third of the way along it."""
    landscape = Landscape(3, 2)
    two = np.array([[0.9, 0.2], [-0.1, 1.1]])
    family = examine(Student(landscape, two, None), Tolerances())
    assert (family.loss > 1e-3, len(family.W)) == (True, 2)
    W = np.array([0.3 * two[0], two[1], 0.7 * two[0]])[:, ::-1]
    found = nearest_point(Student(landscape, W, None), [family])
    assert found.distance < 1e-12
    assert not found.proven


def test_a_neuron_of_negative_weight_is_shared_by_students_of_negative_weight():
    """Positive students along a negative neuron compute another function: that family is not where they are."""
    landscape = Landscape(3, 2, second_layer="trained")
    two = np.array([[0.9, 0.2], [-0.1, 1.1]])
    family = examine(Student(landscape, two, np.array([1.0, -1.0])), Tolerances())
    assert (family.loss > 1e-3, len(family.W)) == (True, 2)
    W = np.array([0.3 * two[0], two[1], 0.7 * two[0]])
    own, positive = (Student(landscape, W, np.array(signs)) for signs in ([1.0, -1.0, 1.0], [1.0, 1.0, 1.0]))
    assert nearest_point(own, [family]).distance < 1e-12
    # Some student must carry the negative neuron: a positive one has none of its copies nearer than zero norm.
    assert nearest_point(positive, [family]).distance > np.linalg.norm(two[1]) / 2


def around(directions):
    """The teachers (M, 2) of unit norm at these angles, in degrees."""
    angles = np.radians(directions)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


BALANCED = [
    ((0, 120, 240), (-1, -1, -1)),
    ((0, 72, 144, 216, 288), (-1, -1, -1, -1, -1)),
    ((0, 180, 120, 240), (-2, 0, -1, -1)),
]


@pytest.mark.parametrize(("directions", "factors"), BALANCED, ids=str)
def test_teachers_that_balance_each_other_can_be_turned_round(directions, factors):
    """-V computes what V does: a student near it is far from the stored minimum, and near zero loss nevertheless."""
    V = around(directions)
    landscape = Landscape(len(V), len(V), V @ V.T)
    V = landscape.teacher_factor
    zero = examine(Student(landscape, V, None), Tolerances())
    turned = np.array(factors)[:, None] * V
    assert exact_loss(landscape.g, turned, V) < 1e-15 > zero.loss
    found = nearest_point(
        Student(landscape, turned + 1e-3 * np.random.default_rng(0).normal(size=V.shape), None), [zero]
    )
    assert found.distance > 1
    assert not found.proven
    assert not nearest_point(Student(landscape, V + 1e-3, None), [zero]).proven


@pytest.mark.parametrize("directions", [(0, 180), (0, 180, 90, 270), (0, 60, 120), (0, 100, 180)], ids=str)
def test_other_teachers_in_few_dimensions_have_one_zero_loss(directions):
    """Opposite ones too: two kinks of the loss along one line, and nothing that could balance a turn."""
    V = around(directions)
    landscape = Landscape(len(V), len(V), V @ V.T)
    V = landscape.teacher_factor
    zero = examine(Student(landscape, V, None), Tolerances())
    for seed in range(6):
        W = np.random.default_rng(seed).normal(size=V.shape)
        end = nearest_stationary(landscape.g, W, V)[0]
        if exact_loss(landscape.g, end, V) < 1e-20:
            assert nearest_point(Student(landscape, end, None), [zero]).distance < 1e-6
    W = V + 1e-3 * np.random.default_rng(0).normal(size=V.shape)
    found = nearest_point(Student(landscape, W, None), [zero])
    assert (found.distance, found.proven) == (pytest.approx(np.linalg.norm(W - V)), True)


def test_a_flat_family_of_turned_neurons_has_no_lower_bound():
    """K = 4, M = 3: beside the stored minimum lies a family along the opposite directions."""
    V = around((0, 120, 240))
    landscape = Landscape(4, 3, V @ V.T)
    V = landscape.teacher_factor
    other = examine(Student(landscape, np.random.default_rng(0).normal(size=(4, 2)), None), Tolerances())
    zero = examine(Student(landscape, np.concatenate([V, np.zeros((1, 2))]), None), Tolerances())
    W = -V[[0, 0, 1, 2]] * np.array([0.4, 0.6, 1, 1])[:, None]
    assert exact_loss(landscape.g, W, V) < 1e-15
    assert not nearest_point(Student(landscape, W, None), [zero, other]).proven
