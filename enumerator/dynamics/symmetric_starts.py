"""Symmetric starts: the subspace that the flow from a start with symmetric overlaps never leaves.

dQ/dt and dR/dt are made of Q, R, T by matrix products and by functions of single entries. So entries
that no such operation tells apart stay equal for ever: the classes are the coarsest coherent
configuration that refines the values, see `coherent_refinement`. Rounding would break the
symmetry and, at an unstable point, let a lane leave on its own noise; averaging over the classes in
every evaluation keeps it exactly, and such a lane ends where the flow does, if need be on a saddle.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer
from numpy.typing import NDArray

from enumerator.activations.geometry import Teachers
from enumerator.problem import Landscape
from enumerator.symmetry.colouring import coherent_refinement

# Overlaps closer than this part of the largest product of norms in their block (Q or R: students may
# be a million times shorter or longer than the teachers) are equal by symmetry: hundreds of roundings of a given
# table, and never by chance (a thousand random entries come this close with probability 1e-6).
EQUAL = 1e-12

# Maps a rate of change (K, D) of a lane to one that respects the lane's symmetry.
Projection = Callable[[Float[Array, "K D"]], Float[Array, "K D"]]


def coherent_classes(Q: NDArray[np.float64], R: NDArray[np.float64], landscape: Landscape) -> NDArray[np.intp]:
    """Classes (K + M, K + M) of the entries of [[Q, R], [R^T, T]] that the flow can never tell apart."""
    # Students at rest have no norm: their block is zero, whatever it is divided by.
    students, teachers = np.sqrt([Q.diagonal().max() or 1.0, landscape.overlap_scale])
    own, cross = Q / students**2, R / (students * teachers)
    values = np.sort(np.concatenate([own.ravel(), cross.ravel()]))
    starts = values[np.append(True, np.diff(values) > EQUAL)]
    own, cross = (np.searchsorted(starts, block, side="right") for block in (own, cross))
    # Four kinds of pairs: none of one kind has a colour of another.
    classes = landscape.teacher_classes
    return coherent_refinement(np.block([[own * 4, cross * 4 + 1], [cross.T * 4 + 2, classes * 4 + 3]]))


def lane_classes(Q: NDArray[np.float64], R: NDArray[np.float64], landscape: Landscape) -> NDArray[np.int32] | None:
    """Classes (K, M + K) of the entries of R and of the square root of S = Q - R T^+ R^T; None if no two are equal."""
    K, M = R.shape
    classes = coherent_classes(Q, R, landscape)
    # The student block of S is a combination of the same matrices, so its entries share the classes of Q.
    own = np.concatenate([classes[:K, K:], classes[:K, :K]], axis=1)
    upper = own[:, :M].size + K * (K + 1) // 2  # all distinct, but for the symmetry of Q
    distinct = len(np.unique(np.minimum(own[:, M:], own[:, M:].T))) + len(np.unique(own[:, :M]))
    return None if distinct == upper else np.unique(own, return_inverse=True)[1].reshape(own.shape).astype(np.int32)


def all_different(students: int, teachers: int) -> NDArray[np.int32]:
    """The classes of a lane without symmetry, which a projection leaves as it is."""
    return np.arange(students * (students + teachers), dtype=np.int32).reshape(students, students + teachers)


def projection(classes: Integer[Array, "K N"] | None, V: Teachers) -> Projection:
    """Averages the teacher overlaps and the perpendicular part of a rate over the classes of `lane_classes`."""
    if classes is None:
        return lambda rate: rate
    M, r = V.shape
    inverse = jnp.linalg.pinv(V).T

    def average(entries: Float[Array, "K N"], members: Integer[Array, "K N"]) -> Float[Array, "K N"]:
        size = classes.size
        total = jax.ops.segment_sum(entries.ravel(), members.ravel(), size)
        weight = jax.ops.segment_sum(jnp.ones(entries.size), members.ravel(), size)
        return (total / jnp.maximum(weight, 1.0))[members]

    def project(rate: Float[Array, "K D"]) -> Float[Array, "K D"]:
        parallel = average(rate[:, :r] @ V.T, classes[:, :M]) @ inverse
        K = len(classes)
        beyond = average(rate[:, r : r + K], classes[:, M:])
        # What belongs to a student alone, such as its second layer, goes with its class on the diagonal.
        own = jnp.diagonal(classes[:, M:])
        alike = (own[:, None] == own[None, :]).astype(rate.dtype)
        rest = (alike / alike.sum(axis=1, keepdims=True)) @ rate[:, r + K :]
        return jnp.concatenate([parallel, beyond, rest], axis=1)

    return project
