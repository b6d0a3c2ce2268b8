"""Recognition: bounds and searches that may pass over a point, and never claim one."""

import numpy as np
import pytest

from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.recognition import Recogniser
from enumerator.solve import solve_shard

NOISE = np.random.default_rng(5).normal(scale=0.2, size=(6, 6))
TEACHERS = {"orthonormal": np.eye(6), "general": np.eye(6) + NOISE @ NOISE.T, "scaled": 100 * np.eye(6)}


@pytest.mark.parametrize("name", TEACHERS)
def test_the_bound_never_passes_over_a_point_within_reach(name):
    landscape = Landscape(6, 6, T=TEACHERS[name])
    points = solve_shard(Campaign(landscape, law=InitialLaw(6)), 0, 60).points
    recogniser, rng = Recogniser(landscape), np.random.default_rng(0)
    passed_over = 0
    for point in points:
        levels = np.sort(point.R, axis=None)
        for size in (1e-6, 1e-3, 0.1, 1.0) * np.array(landscape.teacher_scale):
            W = point.W[rng.permutation(6)] + size * rng.normal(size=point.W.shape) / 6
            distance = recogniser.distance(W, point)
            assert distance < 2 * size
            assert not recogniser.is_beyond(W, levels, distance * (1 + 1e-9))
            passed_over += recogniser.is_beyond(W, levels, distance / 10)
    assert passed_over > 0  # it is of use
