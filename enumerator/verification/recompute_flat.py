"""Flat directions of the whole student, counted: the rank of its Hessian at a generic student of the effective network.

In the weights of both layers where the second is trained. The only thing taken over from the effective network is the
network itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from enumerator.problem import Landscape
from enumerator.verification.recompute import rectifier_derivatives, student_weights, teacher_weights
from enumerator.verification.recompute_smooth import smooth_derivatives

Matrix = NDArray[np.float64]


def flat_directions(Q: Matrix, R: Matrix, landscape: Landscape, a: Matrix | None, definite: float) -> int:
    """Vanishing eigenvalues, in the span, of the Hessian of K free students that compute what Q (k, k) and R (k, M) do.

    One vanishes below the part `definite` of the largest. `a` (k,) are second-layer weights of a trained layer. Counted
    at a few further neurons: each more, or each more pair of an odd activation, adds what the one before does, since
    their Hessian decouples from the rest.
    """
    g, further = landscape.g, landscape.students - len(Q)
    if g.is_homogeneous and not len(Q):  # all at rest, without a Hessian; a second layer does nothing
        return 0 if a is None else further
    V = teacher_weights(landscape.T)
    W = student_weights(R, V)

    def count(neurons: int) -> int:
        return _vanishing(_hessian(W, V, neurons, landscape, a), definite)

    period = 2 if g.is_odd and not g.is_homogeneous else 1
    repeats = max(0, -(-(further - 2 * period) // period))
    if not repeats:
        return count(further)
    few = further - repeats * period
    return count(few) + repeats * (count(few) - count(few - period))


def _vanishing(H: Matrix, definite: float) -> int:
    spectrum = np.linalg.eigvalsh((H + H.T) / 2)
    return int((np.abs(spectrum) <= definite * spectrum.max(initial=0.0)).sum())


def _hessian(W: Matrix, V: Matrix, further: int, landscape: Landscape, a: Matrix | None) -> Matrix:
    """The Hessian at a generic student of the network W (k, r) with so many further neurons."""
    rng, k, rank = np.random.default_rng(0), len(W), W.shape[1]
    if not landscape.g.is_homogeneous:
        pairs = further // 2 if landscape.g.is_odd else 0
        moved = landscape.teacher_scale * rng.normal(size=(pairs, rank))
        students = np.concatenate([W, moved, -moved, np.zeros((further - 2 * pairs, rank))])
        blocks = smooth_derivatives(landscape.g, students, V)[1]
        return blocks.transpose(0, 2, 1, 3).reshape(students.size, students.size)
    groups = np.append(np.arange(k), rng.integers(k, size=further))
    shares = rng.uniform(0.2, 1.0, size=len(groups))
    shares /= np.bincount(groups, weights=shares)[groups]
    signs = np.ones(len(groups)) if a is None else a[groups]
    students = shares[:, None] * W[groups]
    blocks = rectifier_derivatives(students, V, landscape.g.slopes, signs)[1]
    H = blocks.transpose(0, 2, 1, 3).reshape(students.size, students.size)
    if a is None:
        return H
    # With layers c_i and w_i = u_i/|c_i| the loss is that at u: its gradient vanishes, so that of u in both is all.
    size = rng.uniform(0.5, 2.0, size=len(groups))
    J = np.zeros((len(groups), rank, len(groups), rank + 1))
    for i in range(len(groups)):
        J[i, :, i, :rank] = size[i] * np.eye(rank)
        J[i, :, i, rank] = signs[i] * students[i] / size[i]
    J = J.reshape(students.size, -1)
    return J.T @ H @ J
