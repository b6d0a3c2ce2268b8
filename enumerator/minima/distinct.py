"""From polished points to distinct ones: three answers, decided by balls that hold one stationary point only.

Two points are compared up to S_K x Aut(T) by `canonical.match`: the same below SAME, different above
DIFFERENT, polished again in between. What still falls between is decided by the isolation radius:
two exact stationary points closer than that are one (see `isolation_radius`), so "same" is an
equivalence relation and the classes do not depend on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import jax.numpy as jnp
import numpy as np

from enumerator.loss.population import as_numpy
from enumerator.minima.balls import isolation_radius
from enumerator.minima.curvature import lifted_distance, polish_on_manifold
from enumerator.minima.polish import compiled_polish
from enumerator.points import Network, StationaryPoint, has_zero_loss
from enumerator.problem import Landscape
from enumerator.symmetry.canonical import Answer, canonical_form, group_of, match, orbit_size_log10
from enumerator.symmetry.colouring import Permutation

# All in units of the largest squared norm of a teacher, so that no answer depends on the unit of length.

# Largest difference of two overlap entries that rounding explains: a polished point is off by the
# gradient's rounding (1e-15) over the smallest eigenvalue, 1e-10 at the flattest minimum known.
SAME = 1e-9
# Above this difference two points are different without a further look.
DIFFERENT = 1e-6
# Losses of one stationary point agree to 1e-15; this is the gap at which points are split into
# blocks before any matching, wide enough for clusters whose losses agree to 11 digits.
LOSS_GAP = 1e-9

# Entries of one point's Q and R closer than this are equal by symmetry when its canonical order and isotropy group are
# found: between the rounding (1e-10) and the smallest splitting of a symmetric pair. Under a permutation that leaves T
# unchanged a point goes over into itself, or into another stationary point, far away.
SYMMETRIC = 1e-7


def _repolished(network: Network) -> tuple[np.ndarray, np.ndarray]:
    landscape, V = network.landscape, network.landscape.teacher_factor
    if landscape.equations.manifold.is_free:
        W = as_numpy(
            compiled_polish(landscape.g, jnp.asarray(network.W), jnp.asarray(V), network.second_layer_weights)[0]
        )
    else:
        W = polish_on_manifold(landscape.equations, network.W, V)[0]
    polished = replace(network, W=W, Q=W @ W.T, R=W[:, : V.shape[1]] @ V.T)
    return polished.coloured, polished.R


def loss_gap(point: Network) -> float:
    """The largest difference of losses at which another point may still be the same one."""
    return LOSS_GAP * max(point.landscape.overlap_scale, abs(point.loss))


def is_same(a: Network, b: StationaryPoint) -> bool:
    """Whether polished a is the stationary point b up to permutations of students and of symmetric teachers.

    All points of zero loss are one.
    """
    if has_zero_loss(a.loss, a.landscape) and has_zero_loss(b.loss, b.landscape):
        return True
    if len(a.W) != len(b.W) or abs(a.loss - b.loss) > loss_gap(b):
        return False
    T, unit = b.landscape.teacher_classes, b.landscape.overlap_scale
    found = match(a.coloured, a.R, b.coloured, b.R, T, SAME * unit, DIFFERENT * unit)
    if found.answer == Answer.REPOLISH:
        found = match(*_repolished(a), *_repolished(b), T, SAME * unit, DIFFERENT * unit)
    if found.answer != Answer.REPOLISH or found.students is None or found.teachers is None:
        return found.answer == Answer.SAME
    return lifted_distance(
        a.W, _permuted(b, found.students, found.teachers), b.landscape.teacher_rank
    ) <= isolation_radius(b)


def _permuted(point: Network, students: Permutation, teachers: Permutation) -> np.ndarray:
    """Weights (K, r + p) of a point with its students, and teachers, in another order."""
    rank = point.landscape.teacher_rank
    parallel = point.R[students][:, teachers] @ np.linalg.pinv(point.landscape.teacher_factor).T
    return np.concatenate([parallel, point.W[students, rank:]], axis=1)


class HasLoss(Protocol):
    """A point, or a record of one."""

    @property
    def loss(self) -> float:
        """Its loss."""
        ...


Point = TypeVar("Point", bound=HasLoss)


class ByLoss(Generic[Point]):
    """A growing list of points, found by their losses without a look at all the others."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._points = list(points)
        self.losses = np.array([point.loss for point in self._points])

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, position: int) -> Point:
        return self._points[position]

    def add(self, point: Point) -> None:
        """Append a point."""
        self._points.append(point)
        self.losses = np.append(self.losses, point.loss)

    def near(self, loss: float, width: float) -> list[int]:
        """Positions of the points whose loss is at most `width` from this one."""
        return np.flatnonzero(np.abs(self.losses - loss) <= width).tolist()


def match_points(new: Sequence[Network], known: Sequence[StationaryPoint]) -> list[int]:
    """For each new point the position of the same point in `known`, or -1. Only points of nearby loss are matched."""
    by_loss = ByLoss(known)
    near = (by_loss.near(point.loss, loss_gap(point)) for point in new)
    return [next((k for k in ks if is_same(point, by_loss[k])), -1) for point, ks in zip(new, near, strict=True)]


@lru_cache(maxsize=64)
def teacher_automorphisms(landscape: Landscape) -> int:
    """|Aut T|, the number of permutations of teachers that leave T unchanged."""
    return group_of(landscape.teacher_classes)[1]


def canonical(point: StationaryPoint) -> StationaryPoint:
    """The same point with students and teachers in canonical order, its isotropy group and its orbit size.

    A flat minimum has no orbit size: its permuted copies are connected.
    """
    gap = SYMMETRIC * point.landscape.overlap_scale
    form = canonical_form(point.coloured, point.R, point.landscape.teacher_classes, gap)
    students, signs = len(point.W), point.second_layer_weights
    size = orbit_size_log10(students, teacher_automorphisms(point.landscape), form.stabiliser_order)
    return replace(
        point,
        W=_permuted(point, form.students, form.teachers),
        Q=point.Q[np.ix_(form.students, form.students)],
        R=point.R[form.students][:, form.teachers],
        isotropy=form.isotropy,
        orbit_size_log10=None if point.is_degenerate else size,
        second_layer_weights=None if signs is None else signs[form.students],
    )
