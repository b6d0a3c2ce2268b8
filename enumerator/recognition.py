"""Recognising a lane: is it inside the certified ball of a minimum in hand, up to symmetry?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from enumerator.problem import Landscape
from enumerator.stability import StationaryPoint
from enumerator.symmetry import interchangeable_teachers


class Recogniser:
    """Finds permutations that bring a lane close to a known point by alternating assignments.

    A fast path only: a permutation that it finds is checked by the distance itself, and one that it
    misses (the assignments are local) costs a polish of the lane, never a wrong answer.
    """

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.classes = interchangeable_teachers(landscape.T)
        self.inverse_factor = np.linalg.pinv(landscape.teacher_factor).T  # (M, r): W = R V^{+T}

    def _profile(self, Q: NDArray[np.float64], R: NDArray[np.float64]) -> NDArray[np.float64]:
        """Per student (K, features): overlaps, sorted over students and over interchangeable teachers."""
        parts = [np.sort(R[:, members], axis=1) for members in self.classes]
        return np.concatenate([*parts, np.sort(Q, axis=1), np.diag(Q)[:, None]], axis=1)

    def distance(self, W: NDArray[np.float64], point: StationaryPoint) -> float:
        """Upper bound on the Frobenius distance of a lane W (K, D) to the orbit of the point (the best found)."""
        rank = self.landscape.teacher_rank
        parallel, perpendicular = W[:, :rank], W[:, rank:]
        if len(point.W) != len(W):
            return np.inf
        R = parallel @ self.landscape.teacher_factor.T
        students = _assign(self._profile(W @ W.T, R), self._profile(point.Q, point.R))
        teachers = np.arange(self.landscape.teachers)
        best = np.inf
        for _ in range(4):  # alternation has converged after two rounds wherever it converges at all
            candidate = point.R[students]
            for members in self.classes:
                if len(members) > 1:
                    chosen = _assign(R[:, members].T, candidate[:, members].T)
                    teachers[members] = members[chosen]
            gap = float(np.linalg.norm((R - candidate[:, teachers]) @ self.inverse_factor))
            if gap >= best:
                break
            best = gap
            students = _assign(R, point.R[:, teachers])
        return float(np.hypot(best, np.linalg.norm(perpendicular)))


def _assign(rows: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each row the target row assigned to it, least sum of squared distances."""
    cost = (rows**2).sum(axis=1)[:, None] + (targets**2).sum(axis=1)[None, :] - 2 * rows @ targets.T
    return linear_sum_assignment(cost)[1]


def loss_window(point: StationaryPoint, radius: float, lipschitz: float) -> float:
    """How far above the point's loss a lane inside a ball of that radius can be: (lambda_max/2 + L rho/6) rho^2."""
    largest = max(point.hessian_max, float(point.perpendicular_spectrum.max(initial=0.0)))
    return (largest / 2 + lipschitz * radius / 6) * radius**2 if radius > 0 else 0.0
