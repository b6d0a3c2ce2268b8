"""Networks and stationary points as they are passed on and stored: their overlaps, verdicts and orders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enumerator.problem import Landscape

MINIMUM, FLAT_MINIMUM, UNDECIDED, SADDLE = "minimum", "flat-minimum", "undecided", "saddle"

# A student's cosine of largest magnitude counts as positive when a positive one comes this close
# (design, section 4): ties occur by symmetry, and rounding must not break them.
TIE = 1e-9
# A loss below this part of the largest squared norm of a teacher is zero up to rounding (1e-15 per pair of neurons).
ZERO_LOSS = 1e-12


@dataclass(frozen=True, eq=False)
class Student:
    """Neurons of a landscape in normal form, reduced weights W (K, D): a lane, a merged network, or a point.

    `second_layer_weights` (K,) are +-1 where the second layer is trained, and None where it is fixed.
    """

    landscape: Landscape
    W: NDArray[np.float64]
    second_layer_weights: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Network(Student):
    """A student in the span of the teachers, W (K, r + p), with overlaps Q (K, K) and R (K, M), and its loss."""

    Q: NDArray[np.float64]
    R: NDArray[np.float64]
    loss: float

    @property
    def norms(self) -> NDArray[np.float64]:
        """Norms of the students (K,)."""
        return np.linalg.norm(self.W, axis=1)

    @property
    def scale_directions(self) -> int:
        """Directions in which scale moves between the layers of a student, at no loss: one each if both are trained."""
        return 0 if self.second_layer_weights is None else self.landscape.students

    @property
    def coloured(self) -> NDArray[np.float64]:
        """Q with its diagonal negative for neurons of negative weight: what symmetry tells apart."""
        if self.second_layer_weights is None:
            return self.Q
        return self.Q - np.diag(np.where(self.second_layer_weights < 0, 2 * np.diag(self.Q), 0.0))

    @property
    def teacher_norms(self) -> NDArray[np.float64]:
        """Norms of the teachers (M,)."""
        return np.sqrt(np.diag(self.landscape.T))


def has_zero_loss(loss: float, landscape: Landscape) -> bool:
    """Whether a student of this loss is the teacher: all such stationary points of a landscape are one class."""
    return loss <= ZERO_LOSS * landscape.overlap_scale


@dataclass(frozen=True, eq=False)
class StationaryPoint(Network):
    """A stationary point of an effective network in the span of the teachers, with its second-order verdicts.

    W (K_eff, r + p) are reduced weights in the basis of `landscape.teacher_factor` and p dimensions beyond, see
    `curvature`; Q (K_eff, K_eff) and
    R (K_eff, M) its overlaps. `radius` is the Frobenius distance within which the gradient flow, in
    any dimension, provably ends here (0 where nothing is proven).
    """

    gradient_norm: float
    verdict: str
    verdict_above: str
    anti_aligned: int | None
    effective_students: int
    hessian_min: float
    hessian_max: float
    hessian_spectrum: NDArray[np.float64]
    perpendicular_min: float
    perpendicular_spectrum: NDArray[np.float64]
    flat_dimension: int
    splitting_min: float | None
    splitting_min_perpendicular: float | None
    radius: float
    isotropy: str | None = None
    orbit_size_log10: float | None = None
    family: str | None = None

    @property
    def is_degenerate(self) -> bool:
        """Whether a direction is flat beside those of scale."""
        return self.flat_dimension > self.scale_directions

    @property
    def is_isolated(self) -> bool:
        """Whether this is a minimum of a student without further neurons, and no direction but scale is flat."""
        whole = len(self.W) == self.landscape.students
        return whole and not self.is_degenerate and self.verdict in (MINIMUM, FLAT_MINIMUM)


def anti_aligned(R: NDArray[np.float64]) -> NDArray[np.int64]:
    """k1: the students whose entry of largest magnitude in R, cosines with orthogonal teachers, is negative.

    (*n,) numbers for R (*n, K, M). A student of zero overlaps is none of them.
    """
    scale = np.abs(R).max(axis=-1, initial=0.0)
    return np.count_nonzero(R.max(axis=-1, initial=-np.inf) < (1 - TIE) * scale, axis=-1)


def orders_of(R: NDArray[np.float64], landscape: Landscape) -> NDArray[np.int64] | None:
    """`anti_aligned` of students with teacher overlaps R (*n, K, M); None unless T is diagonal and a = a* = 1."""
    if not landscape.has_orders:
        return None
    # Each column by its teacher's norm: cosines up to a factor per student.
    return anti_aligned(R / np.where(landscape.teacher_norms > 0, landscape.teacher_norms, np.inf))
