"""Which overlaps of teachers are equal: decided here alone, and with that Aut(T), the permutations that keep T.

Whatever speaks of Aut(T) (canonical order, isotropy, orbit, matching, recognition, symmetric starts, verification)
takes the classes of `Landscape.teacher_classes` in the place of T, and compares them exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from enumerator.symmetry.canonical import group_of
from enumerator.symmetry.colouring import coherent_refinement

Matrix = NDArray[np.floating]

# Squared norms that differ by this part of the larger, and cosines that differ by so much, are equal: what rounding
# leaves of V V^T in float64 for weights of a thousand dimensions. A permutation in the group then moves an entry by
# less than the stored overlaps are off anyway, so a permuted point is as stationary as the point itself. T is not
# rounded for that: the ids of all landscapes stay as they are.
ROUNDING = 32 * float(np.finfo(np.float64).eps)
# The same for teachers that were meant to be symmetric: single precision leaves 1e-7 to 1e-6.
NEARLY = 1e-5


class NearSymmetry(NamedTuple):
    """A T is symmetric only nearly: names of its group and of that of the T nearby, and the largest `deviation`."""

    own: str
    nearby: str
    deviation: float

    def text(self, remedy: str) -> str:
        """One line for people; `remedy` is how to have T rounded."""
        return (
            f"`T` is symmetric only nearly: its group is {self.own}, that of a T within {self.deviation:.2g} is "
            f"{self.nearby}. Minima that only the larger group takes onto each other are counted apart; {remedy} "
            "rounds T to the symmetric one."
        )


def teacher_classes(T: Matrix, width: float = ROUNDING) -> NDArray[np.intp]:
    """Classes (M, M), whole numbers, of the entries of T (M, M) that are equal up to `width`.

    Relative for squared norms; for others it is a part of both norms, in classes of their own. No class is wider: a
    chain of values, each near the next, is cut.
    """
    squared = np.maximum(T.diagonal(), 0.0)  # rounding may leave a teacher of no norm just below
    lengths = np.outer(np.sqrt(squared), np.sqrt(squared))
    cosines = T / np.where(lengths > 0, lengths, 1.0)
    own = _ranks(squared, lambda least: least * (1 + width))
    classes = _ranks(cosines, lambda least: least + width) + own.max() + 1
    np.fill_diagonal(classes, own)
    return classes


def _ranks(values: Matrix, reach: Callable[[float], float]) -> NDArray[np.intp]:
    """For each value the number of its class, from below; one that begins at a value ends at its reach."""
    ordered, starts = np.unique(values), list[float]()
    while ordered.size:
        starts.append(ordered[0])
        ordered = ordered[np.searchsorted(ordered, reach(ordered[0]), side="right") :]
    return np.searchsorted(starts, values, side="right") - 1


def snapped(T: Matrix) -> NDArray[np.float64]:
    """The symmetric T nearby: entries (M, M) that symmetry up to `NEARLY` makes equal are averaged.

    Teachers orthogonal up to that become orthogonal, and orthonormal ones orthonormal. T itself where that changes
    nothing but rounding. The average over classes that a product of matrices keeps leaves T positive semidefinite.
    """
    norms, S = np.sqrt(np.maximum(T.diagonal(), 0.0)), np.array(T, np.float64)
    if (np.abs(T - np.diag(T.diagonal())) <= NEARLY * np.outer(norms, norms)).all():
        S = np.diag(T.diagonal()).astype(np.float64)
        if np.abs(S - np.eye(len(S))).max() <= NEARLY:
            S = np.eye(len(S))
    classes = coherent_refinement(teacher_classes(S, NEARLY))
    least, most = np.full(classes.max() + 1, np.inf), np.full(classes.max() + 1, -np.inf)
    np.minimum.at(least, classes, S)
    np.maximum.at(most, classes, S)
    means = np.bincount(classes.ravel(), weights=S.ravel()) / np.bincount(classes.ravel())
    # Equal entries stay as they are: a mean of them may be off by a rounding.
    S = np.where(least == most, least, means)[classes]
    S = (S + S.T) / 2
    return S if np.abs(S - T).max() > ROUNDING * T.diagonal().max() else np.array(T, np.float64)


def near_symmetry(T: Matrix) -> NearSymmetry | None:
    """How T (M, M) is nearly symmetric; None where the T nearby has no larger group."""
    S = snapped(T)
    (own, less), (nearby, more) = (group_of(teacher_classes(matrix)) for matrix in (T, S))
    return NearSymmetry(own, nearby, float(np.abs(S - T).max())) if more > less else None
