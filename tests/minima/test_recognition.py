"""Recognition: bounds and searches that may pass over a point, and never claim one."""

import numpy as np
import pytest

from enumerator.follow import follow_shard
from enumerator.minima.distinct import SAME
from enumerator.minima.recognition import Recogniser
from enumerator.minima.stability import network_of
from enumerator.points import Student
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.symmetry.canonical import Answer, match
from tests.support.shapes import FEW

NOISE = np.random.default_rng(5).normal(scale=0.2, size=(6, 6))
TEACHERS = {"orthonormal": np.eye(6), "general": np.eye(6) + NOISE @ NOISE.T, "scaled": 100 * np.eye(6)}


@pytest.mark.parametrize("name", TEACHERS)
def test_the_bound_never_passes_over_a_point_within_reach(name):
    landscape = Landscape(6, 6, T=TEACHERS[name])
    points = follow_shard(Campaign(landscape, law=InitialLaw(6)), 0, 60, FEW).points
    recogniser, rng = Recogniser(landscape), np.random.default_rng(0)
    passed_over = 0
    for point in points:
        levels = np.sort(point.R, axis=None)
        for size in (1e-6, 1e-3, 0.1, 1.0) * np.array(landscape.teacher_scale):
            W = point.W[rng.permutation(6)] + size * rng.normal(size=point.W.shape) / 6
            distance = recogniser.distance(Student(landscape, W, None), point)
            assert distance < 2 * size
            assert not recogniser.is_beyond(W, levels, distance * (1 + 1e-9))
            passed_over += recogniser.is_beyond(W, levels, distance / 10)
    assert passed_over > 0  # it is of use


@pytest.mark.parametrize(("T", "starts"), [(np.eye(10), 120), (TEACHERS["scaled"], 60)], ids=["orthonormal", "scaled"])
def test_what_it_calls_the_same_has_the_same_overlaps_and_nothing_else_does(T, starts):
    landscape = Landscape(len(T), len(T), T=T)
    points = follow_shard(Campaign(landscape, law=InitialLaw(len(T))), 0, starts, FEW).points
    recogniser, rng = Recogniser(landscape), np.random.default_rng(0)
    assert len(points) > 1
    answers = []
    for point in points:
        for other in points:
            # Students in any order, and teachers, here axes of equal length.
            order = np.ix_(rng.permutation(len(T)), rng.permutation(len(T)))
            for size in (1e-14, 1e-11, 1e-9, 1e-6):
                W = point.W[order] + size * landscape.teacher_scale * rng.normal(size=point.W.shape) / 6
                network = network_of(Student(landscape, W, None))
                if recogniser.is_same(network, other):
                    overlaps = (network.Q, network.R, other.Q, other.R, landscape.T)
                    same = SAME * landscape.overlap_scale
                    assert other is point and match(*overlaps, same, same).answer == Answer.SAME
                    answers.append(size)
    # Every one is found that differs by rounding, none that differs by a thousand times the tolerance.
    assert answers.count(1e-14) == len(points) and answers.count(1e-6) == 0
