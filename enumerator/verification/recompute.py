"""What a stationary point must satisfy, recomputed from Q, R, T alone, by formulas that the solvers do not use.

Nothing of `loss` or `minima`. Of a homogeneous activation only its slopes are asked: angles come from a
residual and a cosine instead of two distances, derivatives from the formulas of Safran & Shamir (2018), section 2.
Of any other its plain kernel, which is differentiated here. The sample in high precision comes from the definition.
Row by row, float64: a millisecond to some tens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from enumerator.activations.base import Activation, Norms
from enumerator.problem import Landscape
from enumerator.validation import gram_factor
from enumerator.verification.recompute_manifold import geodesic_radius, on_manifold, perpendicular_weights
from enumerator.verification.recompute_smooth import plain_slopes, smooth_derivatives

Matrix = NDArray[np.float64]

# Digits of the high-precision reference: far beyond what 50 digits lose in any cancellation here.
DIGITS = 50
# Sines below this are rounding: copies of one neuron, and students that are a teacher.
PARALLEL = 1e-12


@dataclass(frozen=True)
class Recomputed:
    """What follows from Q, R and T of a stationary point; spectra ascending, flat directions not left out.

    `splitting` (K,) holds the lowest eigenvalue of each S_i in the span (infinite if r = 1, and for constrained
    students), `alphas` (K,) that above; `free` the norms of Hessian and gradient of free weights at constrained ones.
    """

    loss: float
    gradient_norm: float
    hessian: Matrix
    perpendicular: Matrix
    splitting: Matrix
    alphas: Matrix
    anti_aligned: int | None
    free: tuple[float, float] = (0.0, 0.0)


def teacher_weights(T: Matrix) -> Matrix:
    """Teachers (M, r) by eigenvectors of T; r is the rank that the landscape has by definition, see `gram_factor`.

    Where T is nearly of lower rank, two decisions of it could differ.
    """
    values, vectors = np.linalg.eigh(T)
    rank = gram_factor(T).shape[1]
    return vectors[:, -rank:] * np.sqrt(values[-rank:])


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
    # What is parallel up to rounding has no direction of its own: a block of the Hessian tends to a limit there.
    normal = residual / np.where(sine > PARALLEL, sine, np.inf)[:, :, None]
    return np.arctan2(sine, along), normal, units


def recompute(Q: Matrix, R: Matrix, landscape: Landscape, a: Matrix | None = None) -> Recomputed:
    """All derivable columns of a stationary point from Q (K, K), R (K, M), T, and second-layer weights a (K,)."""
    T, K = landscape.T, len(Q)
    diagonal = not (T - np.diag(np.diag(T))).any()
    order = _anti_aligned(R, T) if diagonal and a is None else None
    if K == 0:
        empty = np.zeros(0)
        return Recomputed(loss_of(Q, R, landscape, a), 0.0, empty, empty, empty, empty, order)
    V = teacher_weights(T)
    W = student_weights(R, V)
    if landscape.constraint != "none":
        outside = perpendicular_weights(Q - W @ W.T)
        W, V = np.concatenate([W, outside], axis=1), np.pad(V, ((0, 0), (0, outside.shape[1])))
    size, splitting = W.size, np.full(K, np.inf)
    if landscape.g.is_homogeneous:
        slopes = landscape.g.slopes
        gradient, blocks, C, alphas, units = rectifier_derivatives(W, V, slopes, np.ones(K) if a is None else a)
        splitting = _splitting(blocks[np.arange(K), np.arange(K)], units, (slopes[0] ** 2 + slopes[1] ** 2) / 2)
    else:
        gradient, blocks, C = smooth_derivatives(landscape.g, W, V)
        alphas = splitting
    H = blocks.transpose(0, 2, 1, 3).reshape(size, size)
    free = (0.0, 0.0)
    if landscape.constraint != "none":
        free = float(np.abs(np.linalg.eigvalsh(_symmetric(H))).max()), float(np.linalg.norm(gradient))
        gradient, H, C = on_manifold(landscape.constraint, W, landscape.teacher_rank, gradient, H, C)
        splitting, alphas = np.full(K, np.inf), np.full(K, np.inf)
    return Recomputed(
        loss=loss_of(Q, R, landscape, a),
        gradient_norm=float(np.linalg.norm(gradient)),
        hessian=np.asarray(np.linalg.eigvalsh(_symmetric(H)), np.float64),
        perpendicular=np.asarray(np.linalg.eigvalsh(_symmetric(C)), np.float64),
        splitting=splitting,
        alphas=alphas,
        anti_aligned=order,
        free=free,
    )


def rectifier_derivatives(
    W: Matrix, V: Matrix, slopes: tuple[float, float], a: Matrix
) -> tuple[Matrix, Matrix, Matrix, Matrix, Matrix]:
    """Gradient, Hessian blocks (K, K, r, r), C, alphas and unit vectors of a homogeneous activation with these slopes.

    With slopes p and s those of ReLU times (p - s)^2, and those of p s/2 |sum a w - sum v|^2.
    """
    K, M, r = len(W), len(V), V.shape[1]
    others = np.concatenate([W, V])
    norms, other_norms = np.linalg.norm(W, axis=1), np.linalg.norm(others, axis=1)
    t, normal, units = _angles(W, others)
    own = np.eye(K, K + M, dtype=bool)
    t = np.where(own, 0.0, t)
    signs = np.concatenate([a, -np.ones(M)])

    # Gradient: a_i (a_i w_i/2 + sum over the others of +-(|v| sin t w/|w| + (pi - t) v)/(2 pi)).
    pull = np.where(own, 0.0, signs * other_norms * np.sin(t))
    turn = np.where(own, 0.0, signs * (np.pi - t))
    around = (pull.sum(axis=1)[:, None] * units + turn @ others) / (2 * np.pi)
    gradient = a[:, None] * (a[:, None] * W / 2 + around)

    strength = a[:, None] * pull / (2 * np.pi * norms[:, None])
    alphas = strength.sum(axis=1)
    identity = np.eye(r)
    # normal[i, j]: the unit vector along what of w_j is orthogonal to w_i.
    mixed = np.einsum("ia,ijb->ijab", units, normal[:, :K]) + np.einsum("ja,jib->ijab", units, normal[:, :K])
    layers = np.outer(a, a)
    blocks = ((np.pi - t[:, :K])[:, :, None, None] * identity + mixed) / (2 * np.pi) * layers[:, :, None, None]
    own_blocks = 0.5 * identity + alphas[:, None, None] * (identity - units[:, :, None] * units[:, None, :])
    blocks[np.arange(K), np.arange(K)] = own_blocks + (normal * strength[:, :, None]).transpose(0, 2, 1) @ normal
    C = layers * (np.pi - t[:, :K]) / (2 * np.pi) + np.diag(alphas)
    bend, line, error = (slopes[0] - slopes[1]) ** 2, slopes[0] * slopes[1], a @ W - V.sum(axis=0)
    gradient = bend * gradient + line * a[:, None] * error
    linear = line * layers[:, :, None, None] * identity
    return gradient, bend * blocks + linear, bend * C + line * layers, bend * alphas, units


def ball_radius(smallest: float, Q: Matrix, landscape: Landscape, value: Recomputed) -> float:
    """Nine tenths of the largest rho, at most the shortest norm, with rho L(rho) <= 2 `smallest`; 0 if none.

    L(rho) bounds the change of the Hessian in that ball, from the bounds on third derivatives that the activation
    gives. 0 too unless L |gradient| <= smallest^2/2, by which an exact minimum exists (Kantorovich).
    """
    students, teachers = np.sqrt(np.diag(Q)), np.sqrt(np.diag(landscape.T)).sum()
    K, M = len(students), landscape.teachers
    if not smallest > 0:
        return 0.0

    def change(rho: float) -> float:
        others = students.sum() - students + teachers + math.sqrt(K - 1) * rho
        own, mixed = landscape.g.third_derivatives(Norms(students - rho, students + rho, others, K + M - 1))
        return float(np.sqrt(own**2 + (K - 1) * mixed**2).max())

    if landscape.constraint != "none":
        radius, lipschitz = geodesic_radius(landscape.constraint, change(0.0), *value.free, smallest)
        return radius if lipschitz * value.gradient_norm <= smallest**2 / 2 else 0.0
    # rho L(rho) rises from 0 beyond 2 `smallest`: the root is bracketed, and halved.
    low, high = 0.0, 2 * smallest / change(0.0)
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if middle * change(middle) <= 2 * smallest else (low, middle)
    radius = 0.9 * low
    return radius if change(radius) * value.gradient_norm <= smallest**2 / 2 else 0.0


def group_order(Q: Matrix, R: Matrix, T: NDArray[np.intp], gap: float) -> int:
    """Number of permutations that leave Q and R unchanged within `gap`, and T, the classes of its entries (M, M).

    By orbits and stabilisers: the images that each neuron may take when those before it stay put, each
    found by a plain search with backtracking. Tenths of a second at K = M = 17.
    """
    joint, gap = np.block([[Q / gap, R / gap], [R.T / gap, 2.0 * T]]), 1.0
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


def _splitting(own: Matrix, units: Matrix, own_weight: float) -> Matrix:
    """Lowest eigenvalue of each H_ii - own_weight orthogonally to w_i, in the span; `own` holds H_ii."""
    K, r = units.shape
    if r == 1:
        return np.full(K, np.inf)
    # H_ii - own_weight maps w_i to zero; lifted out of the way, that eigenvalue does not take part.
    rest = (own + own.transpose(0, 2, 1)) / 2 - own_weight * np.eye(r)
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


def loss_of(Q: Matrix, R: Matrix, landscape: Landscape, a: Matrix | None = None) -> float:
    """The population loss by the two-point kernel of every pair of entries, summed exactly."""
    joint = np.block([[Q, R], [R.T, landscape.T]])
    K = len(Q)
    lengths = np.sqrt(np.diag(joint))
    product = np.outer(lengths, lengths)
    cosine = np.clip(joint / np.where(product > 0, product, 1.0), -1.0, 1.0)
    np.fill_diagonal(cosine, 1.0)
    if landscape.g.is_homogeneous:
        t, (above, below) = np.arccos(cosine), landscape.g.slopes
        arc = product * (np.sin(t) + (np.pi - t) * cosine) / (2 * np.pi)
        kernel = (above - below) ** 2 * arc + above * below * joint
    else:
        kernel = landscape.g.plain_kernel(lengths[:, None] ** 2, lengths**2, joint, np)
    signs = np.concatenate([np.ones(K) if a is None else a, -np.ones(len(joint) - K)])
    return math.fsum((np.outer(signs, signs) * kernel).ravel()) / 2


def precise_loss(Q: Matrix, R: Matrix, landscape: Landscape, a: Matrix | None = None) -> float:
    """`loss_of` in 50 digits, rounded once at the end."""
    joint = np.block([[Q, R], [R.T, landscape.T]])
    K, n = len(Q), len(joint)
    with mpmath.workdps(DIGITS):
        entries = [[mpmath.mpf(float(value)) for value in row] for row in joint]
        total = mpmath.mpf(0)
        layer = [1.0 if a is None else float(a[i]) for i in range(K)] + [-1.0] * (n - K)
        for i in range(n):
            for j in range(i + 1):
                kernel = _precise_kernel(entries[i][i], entries[j][j], entries[i][j], landscape.g)
                total += (1 if i == j else 2) * layer[i] * layer[j] * kernel
        return float(total / 2)


def _precise_kernel(own: Any, other: Any, mutual: Any, g: Activation) -> Any:
    """E[g(u.x) g(v.x)] from u.u, v.v and u.v."""
    if not g.is_homogeneous:
        return g.plain_kernel(own, other, mutual, mpmath)
    (above, below), product = map(mpmath.mpf, g.slopes), mpmath.sqrt(own * other)
    if product == 0:
        return mpmath.mpf(0)
    cosine = min(mpmath.mpf(1), max(mpmath.mpf(-1), mutual / product))
    t = mpmath.acos(cosine)
    arc = product * (mpmath.sin(t) + (mpmath.pi - t) * cosine) / (2 * mpmath.pi)
    return (above - below) ** 2 * arc + above * below * mutual


def precise_gradient_norm(Q: Matrix, R: Matrix, landscape: Landscape, a: Matrix | None = None) -> float:
    """Frobenius norm of the gradient from the overlaps: sqrt tr(X T^+ X^T) with X = C R - B T in 50 digits.

    X is the gradient against the teachers, dR/dt = -X; T^+ only measures it, and stays in float64.
    """
    T, (K, M) = landscape.T, R.shape
    layer = [1.0] * K if a is None else [float(value) for value in a]
    with mpmath.workdps(DIGITS):
        q, o, s = (mpmath.matrix(matrix.tolist()) if matrix.size else mpmath.matrix(0, 0) for matrix in (Q, R, T))
        B, C = mpmath.matrix(K, M), mpmath.matrix(K, K)
        for i in range(K):
            alpha = mpmath.mpf(0)
            for j in range(K):
                turn, pull = _precise_slopes(q[i, i], q[j, j], q[i, j], i == j, landscape.g)
                C[i, j] += layer[i] * layer[j] * turn
                alpha += layer[i] * layer[j] * pull
            for m in range(M):
                turn, pull = _precise_slopes(q[i, i], s[m, m], o[i, m], False, landscape.g)
                B[i, m] = layer[i] * turn
                alpha -= layer[i] * pull
            C[i, i] += alpha
        against = np.array((C * o - B * s).tolist(), dtype=np.float64).reshape(K, M)
    return float(np.linalg.norm(student_weights(against, teacher_weights(T))))


def _precise_slopes(own: Any, other: Any, mutual: Any, is_self: bool, g: Activation) -> tuple[Any, Any]:
    """dk/d(u.v) and 2 dk/d(u.u) of the kernel, from u.u, v.v and u.v."""
    if not g.is_homogeneous:
        return plain_slopes(g, own, other, mutual)
    (above, below), lengths = map(mpmath.mpf, g.slopes), (mpmath.sqrt(own), mpmath.sqrt(other))
    t = mpmath.mpf(0) if is_self else _precise_angle(mutual, *lengths)
    bend = (above - below) ** 2 / (2 * mpmath.pi)
    return bend * (mpmath.pi - t) + above * below, bend * lengths[1] * mpmath.sin(t) / lengths[0]


def _precise_angle(overlap: Any, a: Any, b: Any) -> Any:
    if a * b == 0:
        return mpmath.pi / 2
    return mpmath.acos(min(mpmath.mpf(1), max(mpmath.mpf(-1), overlap / (a * b))))
