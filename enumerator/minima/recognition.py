"""Recognising a lane: is it inside the certified ball of a minimum in hand, up to symmetry?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from enumerator.minima.collapse import nearest_member
from enumerator.minima.curvature import lifted_distance
from enumerator.minima.distinct import SAME
from enumerator.points import Network, StationaryPoint, Student, has_zero_loss
from enumerator.problem import Landscape
from enumerator.symmetry.canonical import interchangeable_teachers


class Recogniser:
    """Finds permutations that bring a lane close to a known point by alternating assignments.

    A fast path only: a permutation that it finds is checked by the distance itself, and one that it
    misses (the assignments are local) costs a polish of the lane, never a wrong answer.
    """

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.classes = interchangeable_teachers(landscape.teacher_classes)
        self.inverse_factor = np.linalg.pinv(landscape.teacher_factor).T  # (M, r): W = R V^{+T}
        self.stretch = float(np.linalg.norm(landscape.teacher_factor, 2))  # |R| <= stretch |W|

    def _profile(self, Q: NDArray[np.float64], R: NDArray[np.float64]) -> NDArray[np.float64]:
        """Per student (K, features): overlaps, sorted over students and over interchangeable teachers."""
        parts = [np.sort(R[:, members], axis=1) for members in self.classes]
        return np.concatenate([*parts, np.sort(Q, axis=1), np.diag(Q)[:, None]], axis=1)

    def is_beyond(self, W: NDArray[np.float64], levels: NDArray[np.float64], radius: float) -> bool:
        """Whether the orbit of a point is farther than `radius` from a lane W (K, D), by a bound that needs no search.

        `levels` are the sorted overlaps (K M,) of the point with the teachers. No permutation brings two sets of
        numbers nearer to each other than sorting does.
        """
        overlaps = np.sort(W[:, : self.landscape.teacher_rank] @ self.landscape.teacher_factor.T, axis=None)
        return len(levels) != len(overlaps) or float(np.linalg.norm(overlaps - levels)) >= radius * self.stretch

    def distance(self, student: Student, point: StationaryPoint) -> float:
        """Upper bound on the Frobenius distance of a lane W (K, D) to the orbit of the point (the best found).

        Where the second layer is trained only neurons of equal sign are matched.
        """
        W, signs = student.W, student.second_layer_weights
        rank = self.landscape.teacher_rank
        parallel, perpendicular = W[:, :rank], W[:, rank:]
        own = point.second_layer_weights
        apart = 0.0
        if len(point.W) != len(W):
            return np.inf
        if signs is not None and own is not None:
            if np.sum(signs < 0) != np.sum(own < 0):
                return np.inf
            apart = _FORBIDDEN * (signs[:, None] != own[None, :])
        R = parallel @ self.landscape.teacher_factor.T
        students = _assign(self._profile(W @ W.T, R), self._profile(point.Q, point.R), apart)
        teachers = np.arange(self.landscape.teachers)
        best, nearest = np.inf, students
        for _ in range(4):  # alternation has converged after two rounds wherever it converges at all
            candidate = point.R[students]
            for members in self.classes:
                if len(members) > 1:
                    chosen = _assign(R[:, members].T, candidate[:, members].T)
                    teachers[members] = members[chosen]
            gap = float(np.linalg.norm((R - candidate[:, teachers]) @ self.inverse_factor))
            if gap >= best:
                break
            best, nearest = gap, students
            students = _assign(R, point.R[:, teachers], apart)
        beyond = lifted_distance(perpendicular, point.W[nearest, rank:], 0)
        return float(np.hypot(best, beyond))

    def is_same(self, network: Network, point: StationaryPoint) -> bool:
        """Whether no entry of Q and R differs by more than `SAME` under a permutation that `distance` finds.

        An entry of Q differs by at most |w_i| |e_j| + |e_i| |w_j| + |e_i| |e_j|, one of R by |e_i| |v|.
        """
        apart = self.distance(network, point)
        longest = max(2 * float(point.norms.max(initial=0.0)) + apart, float(point.teacher_norms.max()))
        return apart * longest <= SAME * self.landscape.overlap_scale


# Added to the cost of a pair that must not be matched: far above any squared distance of recognised students.
_FORBIDDEN = 1e12


def _assign(
    rows: NDArray[np.float64], targets: NDArray[np.float64], added: NDArray[np.float64] | float = 0.0
) -> NDArray[np.intp]:
    """For each row the target row assigned to it, least sum of squared distances and of what is `added` (n, n)."""
    cost = (rows**2).sum(axis=1)[:, None] + (targets**2).sum(axis=1)[None, :] - 2 * rows @ targets.T
    return linear_sum_assignment(cost + added)[1]


def distance_to(recogniser: Recogniser, student: Student, point: StationaryPoint) -> float:
    """Distance of a student to the orbit of a point, or to the nearest one of zero loss; infinite if not known."""
    if len(point.W) == len(student.W) or not has_zero_loss(point.loss, point.landscape):
        return recogniser.distance(student, point)
    target = nearest_member(student, point)
    return np.inf if target is None else float(np.linalg.norm(student.W - target))


def loss_window(point: StationaryPoint, radius: float, lipschitz: float) -> float:
    """How far above the point's loss a lane inside a ball of that radius can be: (lambda_max/2 + L rho/6) rho^2."""
    largest = max(point.hessian_max, float(point.perpendicular_spectrum.max(initial=0.0)))
    return (largest / 2 + lipschitz * radius / 6) * radius**2 if radius > 0 else 0.0
