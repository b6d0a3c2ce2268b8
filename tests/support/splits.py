"""Splitting a neuron of a minimum at random, and following the flow of the wider student."""

import numpy as np

from enumerator.lanes.solve import solve_starts
from enumerator.points import StationaryPoint
from enumerator.problem import Campaign, InitialLaw, Landscape

# Length of a split over the norm of its neuron: the second order decides, third order is a hundredth of it.
SPLIT = 1e-2


def split_students(W: np.ndarray, neuron: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Students (count, K + 1, r): neuron w becomes b w + e and (1 - b) w - e, b in (0.2, 0.8), e orthogonal to w."""
    weights = W[neuron]
    e = rng.normal(size=(count, len(weights)))
    e -= np.outer(e @ weights, weights) / (weights @ weights)
    e *= SPLIT * np.linalg.norm(weights) / np.linalg.norm(e, axis=1, keepdims=True)
    b = rng.uniform(0.2, 0.8, size=(count, 1))
    others = np.broadcast_to(np.delete(W, neuron, axis=0), (count, len(W) - 1, len(weights)))
    return np.concatenate([others, (b * weights + e)[:, None], ((1 - b) * weights - e)[:, None]], axis=1)


def descends(students: np.ndarray, point: StationaryPoint) -> np.ndarray:
    """Whether the flow from each of these students (n, K + 1, r) ends below the loss of the minimum that was split."""
    landscape = Landscape(len(point.W) + 1, point.landscape.teachers, point.landscape.T)
    law = InitialLaw(Q=students @ students.transpose(0, 2, 1), R=students @ landscape.teacher_factor.T)
    result = solve_starts(Campaign(landscape, law=law), np.arange(len(students)))
    losses = np.array([p.loss for p in result.points] + [np.inf])[result.starts.point]
    return losses < point.loss - 1e-6
