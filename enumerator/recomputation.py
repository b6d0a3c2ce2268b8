"""What a stationary point must satisfy, recomputed from Q, R, T alone, by formulas that the solvers do not use.

Numpy and mpmath only, nothing of `loss`, `newton` or `stability`: angles come from a residual and a
cosine instead of two distances, derivatives from the formulas of Safran & Shamir (2018), section 2,
and the sample in high precision from the definition. Row by row, float64: a millisecond to some tens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Digits of the high-precision reference: far beyond what 50 digits lose in any cancellation here.
DIGITS = 50


@dataclass(frozen=True)
class Recomputed:
    """What follows from Q, R and T of a stationary point; spectra ascending, flat directions not left out.

    `splitting` (K,) holds the lowest eigenvalue of each S_i in the span (infinite if r = 1), `alphas` (K,) that above.
    """

    loss: float
    gradient_norm: float
    hessian: Matrix
    perpendicular: Matrix
    splitting: Matrix
    alphas: Matrix
    anti_aligned: int | None


def teacher_weights(T: Matrix) -> Matrix:
    """Some V (M, r) with V V^T = T, by the eigenvectors of T."""
    values, vectors = np.linalg.eigh(T)
    kept = values > 1e-10 * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])


def student_weights(R: Matrix, V: Matrix) -> Matrix:
    """W (K, r) with W V^T = R, by least squares."""
    return np.asarray(np.linalg.lstsq(V, R.T, rcond=None)[0].T, np.float64)


def _angles(W: Matrix, others: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Angle t (K, N) of each w to each other neuron, and the unit normal and part orthogonal to w, (K, N, r)."""
    units = W / np.linalg.norm(W, axis=1)[:, None]
    lengths = np.linalg.norm(others, axis=1)
    directions = others / np.where(lengths > 0, lengths, 1.0)[:, None]
    along = units @ directions.T
    # Twice: the first subtraction leaves rounding along w, which would turn a zero residual into noise.
    residual = directions[None] - along[:, :, None] * units[:, None]
    residual -= np.einsum("kna,ka->kn", residual, units)[:, :, None] * units[:, None]
    sine = np.linalg.norm(residual, axis=2)
    normal = residual / np.where(sine > 0, sine, 1.0)[:, :, None]
    return np.arctan2(sine, along), normal, units


def recompute(Q: Matrix, R: Matrix, T: Matrix, diagonal_teachers: bool) -> Recomputed:
    """All derivable columns of a stationary point in the span of the teachers, from Q (K, K), R (K, M), T (M, M)."""
    K, M = R.shape
    if K == 0:
        empty = np.zeros(0)
        return Recomputed(loss_of(Q, R, T), 0.0, empty, empty, empty, empty, 0 if diagonal_teachers else None)
    V = teacher_weights(T)
    W = student_weights(R, V)
    r = V.shape[1]
    others = np.concatenate([W, V])
    norms, other_norms = np.linalg.norm(W, axis=1), np.linalg.norm(others, axis=1)
    t, normal, units = _angles(W, others)
    own = np.eye(K, K + M, dtype=bool)
    t = np.where(own, 0.0, t)
    signs = np.where(np.arange(K + M) < K, 1.0, -1.0)

    # Gradient: w_i/2 + sum over the others of +-(|v| sin t w/|w| + (pi - t) v)/(2 pi).
    pull = np.where(own, 0.0, signs * other_norms * np.sin(t))
    turn = np.where(own, 0.0, signs * (np.pi - t))
    gradient = W / 2 + (pull.sum(axis=1)[:, None] * units + turn @ others) / (2 * np.pi)

    strength = pull / (2 * np.pi * norms[:, None])
    alphas = strength.sum(axis=1)
    identity = np.eye(r)
    # normal[i, j]: the unit vector along what of w_j is orthogonal to w_i.
    mixed = np.einsum("ia,ijb->ijab", units, normal[:, :K]) + np.einsum("ja,jib->ijab", units, normal[:, :K])
    blocks = ((np.pi - t[:, :K])[:, :, None, None] * identity + mixed) / (2 * np.pi)
    own_blocks = 0.5 * identity + alphas[:, None, None] * (identity - units[:, :, None] * units[:, None, :])
    blocks[np.arange(K), np.arange(K)] = own_blocks + (normal * strength[:, :, None]).transpose(0, 2, 1) @ normal
    H = blocks.transpose(0, 2, 1, 3)
    C = (np.pi - t[:, :K]) / (2 * np.pi) + np.diag(alphas)
    return Recomputed(
        loss=loss_of(Q, R, T),
        gradient_norm=float(np.linalg.norm(gradient)),
        hessian=np.asarray(np.linalg.eigvalsh(_symmetric(H.reshape(K * r, K * r))), np.float64),
        perpendicular=np.asarray(np.linalg.eigvalsh(_symmetric(C)), np.float64),
        splitting=_splitting(blocks[np.arange(K), np.arange(K)], units),
        alphas=alphas,
        anti_aligned=_anti_aligned(R, T) if diagonal_teachers else None,
    )


def ball_radius(smallest: float, Q: Matrix, T: Matrix, gradient_norm: float) -> float:
    """Nine tenths of the largest rho, at most the shortest norm, with rho L(rho) <= 2 `smallest`; 0 if none.

    L(rho) bounds the change of the Hessian in that ball: 3 sqrt(3)/(4 pi) |v|/|u|^2 for each pair and
    3/(pi |u|) for its mixed terms, see `hessian_lipschitz`. 0 too unless L |gradient| <= smallest^2/2,
    by which an exact minimum exists (Kantorovich).
    """
    students, teachers = np.sqrt(np.diag(Q)), np.sqrt(np.diag(T)).sum()
    K = len(students)
    if not smallest > 0:
        return 0.0

    def change(rho: float) -> float:
        left = students - rho
        own = (students.sum() - students + teachers + math.sqrt(K - 1) * rho) / left**2
        own *= math.sqrt(27) / (4 * math.pi)
        mixed = 3 / (math.pi * left)
        return float(np.sqrt(own**2 + (K - 1) * mixed**2).max())

    # rho L(rho) rises from 0 to infinity at the shortest norm: the root is bracketed, and halved.
    low, high = 0.0, float(students.min())
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if middle * change(middle) <= 2 * smallest else (low, middle)
    radius = 0.9 * low
    return radius if change(radius) * gradient_norm <= smallest**2 / 2 else 0.0


def group_order(Q: Matrix, R: Matrix, T: Matrix, gap: float) -> int:
    """Number of permutations of students and of teachers that leave Q, R and T unchanged within `gap`.

    By orbits and stabilisers: the images that each neuron may take when those before it stay put, each
    found by a plain search with backtracking. Tenths of a second at K = M = 17.
    """
    joint = np.block([[Q, R], [R.T, T]])
    kinds = np.arange(len(joint)) < len(Q)
    # May neuron u go to v? Never to one of the other kind, or of another norm.
    allowed = kinds[:, None] == kinds
    allowed &= np.abs(np.diag(joint)[:, None] - np.diag(joint)) <= gap
    order = 1
    for base in range(len(joint)):
        order *= sum(_completes(joint, allowed, base, int(image), gap) for image in np.flatnonzero(allowed[base]))
        allowed = _assigned(joint, allowed, base, base, gap)
    return order


def _assigned(joint: Matrix, allowed: NDArray[np.bool_], node: int, image: int, gap: float) -> NDArray[np.bool_]:
    """What is still allowed once a neuron has its image: the overlaps with it must agree."""
    narrowed = allowed & (np.abs(joint[:, node, None] - joint[None, :, image]) <= gap)
    narrowed[node], narrowed[:, image] = False, False
    narrowed[node, image] = True
    return narrowed


def _completes(joint: Matrix, allowed: NDArray[np.bool_], node: int, image: int, gap: float) -> bool:
    """Whether all neurons find an image once `node` has gone to `image`."""
    narrowed = _assigned(joint, allowed, node, image, gap)
    choices = narrowed.sum(axis=1)
    if choices.min() == 0:
        return False
    if choices.max() == 1:
        images = narrowed.argmax(axis=1)
        return len(set(images)) == len(images) and bool(np.abs(joint - joint[np.ix_(images, images)]).max() <= gap)
    # The neuron with the fewest images to choose from: a wrong one shows soonest.
    following = int(np.where(choices > 1, choices, len(choices) + 1).argmin())
    return any(_completes(joint, narrowed, following, int(image), gap) for image in np.flatnonzero(narrowed[following]))


def _symmetric(matrix: Matrix) -> Matrix:
    return (matrix + matrix.T) / 2


def _splitting(own: Matrix, units: Matrix) -> Matrix:
    """Lowest eigenvalue of each H_ii - 1/2 orthogonally to w_i, in the span; `own` holds H_ii."""
    K, r = units.shape
    if r == 1:
        return np.full(K, np.inf)
    # H_ii - 1/2 maps w_i to zero; lifted out of the way, that eigenvalue does not take part.
    rest = (own + own.transpose(0, 2, 1)) / 2 - 0.5 * np.eye(r)
    rest += (1 + np.abs(rest).sum(axis=(1, 2)))[:, None, None] * units[:, :, None] * units[:, None, :]
    return np.asarray(np.linalg.eigvalsh(rest)[:, 0], np.float64)


def _anti_aligned(R: Matrix, T: Matrix) -> int:
    """Students whose cosine of largest magnitude is negative; a tie within 1e-9 counts as positive."""
    count = 0
    lengths = np.sqrt(np.diag(T))
    for row in R:
        cosines = [value / length for value, length in zip(row, lengths, strict=True) if length > 0]
        largest = max(abs(value) for value in cosines)
        count += max(cosines) < largest - 1e-9 * largest
    return count


def loss_of(Q: Matrix, R: Matrix, T: Matrix) -> float:
    """The population loss by the arc-cosine kernel of every pair of entries, summed exactly."""
    joint = np.block([[Q, R], [R.T, T]])
    K = len(Q)
    lengths = np.sqrt(np.diag(joint))
    product = np.outer(lengths, lengths)
    cosine = np.clip(joint / np.where(product > 0, product, 1.0), -1.0, 1.0)
    np.fill_diagonal(cosine, 1.0)
    t = np.arccos(cosine)
    kernel = product * (np.sin(t) + (np.pi - t) * cosine) / (2 * np.pi)
    signs = np.where(np.arange(len(joint)) < K, 1.0, -1.0)
    return math.fsum((np.outer(signs, signs) * kernel).ravel()) / 2


def precise_loss(Q: Matrix, R: Matrix, T: Matrix) -> float:
    """`loss_of` in 50 digits, rounded once at the end."""
    joint = np.block([[Q, R], [R.T, T]])
    K, n = len(Q), len(joint)
    with mpmath.workdps(DIGITS):
        entries = [[mpmath.mpf(float(value)) for value in row] for row in joint]
        lengths = [mpmath.sqrt(entries[i][i]) for i in range(n)]
        total = mpmath.mpf(0)
        for i in range(n):
            total += entries[i][i] / 2
            for j in range(i):
                product = lengths[i] * lengths[j]
                if product == 0:
                    continue
                cosine = min(mpmath.mpf(1), max(mpmath.mpf(-1), entries[i][j] / product))
                t = mpmath.acos(cosine)
                kernel = product * (mpmath.sin(t) + (mpmath.pi - t) * cosine) / (2 * mpmath.pi)
                total += 2 * kernel if (i < K) == (j < K) else -2 * kernel
        return float(total / 2)


def precise_gradient_norm(Q: Matrix, R: Matrix, T: Matrix) -> float:
    """Frobenius norm of the gradient from the overlaps: sqrt tr(X T^+ X^T) with X = C R - B T in 50 digits.

    X is the gradient against the teachers, dR/dt = -X; T^+ only measures it, and stays in float64.
    """
    K, M = R.shape
    with mpmath.workdps(DIGITS):
        q, o, s = (mpmath.matrix(matrix.tolist()) if matrix.size else mpmath.matrix(0, 0) for matrix in (Q, R, T))
        students = [mpmath.sqrt(q[i, i]) for i in range(K)]
        teachers = [mpmath.sqrt(s[m, m]) for m in range(M)]
        B, C = mpmath.matrix(K, M), mpmath.matrix(K, K)
        for i in range(K):
            alpha = mpmath.mpf(0)
            for j in range(K):
                t = mpmath.mpf(0) if i == j else _precise_angle(q[i, j], students[i], students[j])
                C[i, j] += (mpmath.pi - t) / (2 * mpmath.pi)
                alpha += students[j] * mpmath.sin(t)
            for m in range(M):
                t = _precise_angle(o[i, m], students[i], teachers[m])
                B[i, m] = (mpmath.pi - t) / (2 * mpmath.pi)
                alpha -= teachers[m] * mpmath.sin(t)
            C[i, i] += alpha / (2 * mpmath.pi * students[i])
        against = np.array((C * o - B * s).tolist(), dtype=np.float64).reshape(K, M)
    return float(np.linalg.norm(student_weights(against, teacher_weights(T))))


def _precise_angle(overlap: Any, a: Any, b: Any) -> Any:
    if a * b == 0:
        return mpmath.pi / 2
    return mpmath.acos(min(mpmath.mpf(1), max(mpmath.mpf(-1), overlap / (a * b))))
