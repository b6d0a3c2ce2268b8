"""From polished points to distinct ones: three answers, decided by balls that hold one stationary point only.

Two points are compared up to S_K x Aut(T) by `symmetry.match`: the same below SAME, different above
DIFFERENT, polished again in between. What still falls between is decided by the isolation radius:
two exact stationary points closer than that are one (see `isolation_radius`), so "same" is an
equivalence relation and the classes do not depend on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from enumerator.effective import Network, has_zero_loss
from enumerator.loss import as_numpy
from enumerator.newton import polish
from enumerator.problem import Landscape
from enumerator.stability import StationaryPoint, hessian_lipschitz
from enumerator.symmetry import Answer, automorphism_order, canonical_form, match, orbit_size_log10

# All in units of the largest squared norm of a teacher, so that no answer depends on the unit of length.

# Largest difference of two overlap entries that rounding explains: a polished point is off by the
# gradient's rounding (1e-15) over the smallest eigenvalue, 1e-10 at the flattest minimum known.
SAME = 1e-9
# Above this difference two points are different without a further look.
DIFFERENT = 1e-6
# Losses of one stationary point agree to 1e-15; this is the gap at which points are split into
# blocks before any matching, wide enough for clusters whose losses agree to 11 digits.
LOSS_GAP = 1e-9

# Entries of one point closer than this are equal by symmetry when its canonical order and isotropy
# group are found: between the rounding (1e-10) and the smallest splitting of a symmetric pair.
SYMMETRIC = 1e-7

_polish = jax.jit(polish)


def isolation_radius(point: StationaryPoint) -> float:
    """Frobenius radius within which a nondegenerate stationary point is the only one; 0 if degenerate.

    Between two stationary points at distance s the mean Hessian is singular, but differs from the
    Hessian at either by at most L s/2: so s >= 2 min|eigenvalue|/L.
    """
    if point.flat_dimension or len(point.hessian_spectrum) == 0:
        return 0.0
    smallest = float(np.abs(point.hessian_spectrum).min())
    trial = min(0.5 * float(point.norms.min()), smallest)
    return min(trial, 2 * smallest / hessian_lipschitz(point.norms, point.teacher_norms, trial))


def _repolished(network: Network) -> tuple[np.ndarray, np.ndarray]:
    V = jnp.asarray(network.landscape.teacher_factor)
    W = as_numpy(_polish(jnp.asarray(network.W), V)[0])
    return W @ W.T, W @ network.landscape.teacher_factor.T


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
    T, unit = b.landscape.T, b.landscape.overlap_scale
    found = match(a.Q, a.R, b.Q, b.R, T, SAME * unit, DIFFERENT * unit)
    if found.answer == Answer.REPOLISH:
        found = match(*_repolished(a), *_repolished(b), T, SAME * unit, DIFFERENT * unit)
    if found.answer != Answer.REPOLISH or found.students is None or found.teachers is None:
        return found.answer == Answer.SAME
    R = b.R[found.students][:, found.teachers]
    distance = np.linalg.norm((a.R - R) @ np.linalg.pinv(b.landscape.teacher_factor).T)
    return bool(distance <= isolation_radius(b))


def match_points(new: Sequence[Network], known: Sequence[StationaryPoint]) -> list[int]:
    """For each new point the position of the same point in `known`, or -1. Only points of nearby loss are matched."""
    order = np.argsort([point.loss for point in known], kind="stable")
    losses = np.array([known[position].loss for position in order])
    answers = []
    for point in new:
        width = loss_gap(point)
        first, last = np.searchsorted(losses, [point.loss - width, point.loss + width])
        answers.append(next((int(k) for k in order[first:last] if is_same(point, known[k])), -1))
    return answers


@lru_cache(maxsize=64)
def teacher_automorphisms(landscape: Landscape) -> int:
    """|Aut T|, the number of permutations of teachers that leave T unchanged."""
    return automorphism_order(landscape.T, SYMMETRIC * landscape.overlap_scale)


def canonical(point: StationaryPoint) -> StationaryPoint:
    """The same point with students and teachers in canonical order, its isotropy group and its orbit size.

    A flat minimum has no orbit size: its permuted copies are connected.
    """
    gap = SYMMETRIC * point.landscape.overlap_scale
    form = canonical_form(point.Q, point.R, point.landscape.T, gap)
    students = len(point.W)
    size = orbit_size_log10(students, teacher_automorphisms(point.landscape), form.stabiliser_order)
    R = point.R[form.students][:, form.teachers]
    W = R @ np.linalg.pinv(point.landscape.teacher_factor).T
    return replace(
        point,
        W=W,
        Q=point.Q[np.ix_(form.students, form.students)],
        R=R,
        isotropy=form.isotropy,
        orbit_size_log10=None if point.flat_dimension else size,
    )
