"""Second order of constrained students, recomputed: derivatives restricted to a null space of the constraints.

Written with Lagrange multipliers found by least squares, and null spaces by singular values: nothing of `curvature`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space

Matrix = NDArray[np.float64]


def perpendicular_weights(S: Matrix) -> Matrix:
    """Some X (K, p) with X X^T = S (K, K), of rank p: what of the students lies outside the span of the teachers."""
    values, vectors = np.linalg.eigh((S + S.T) / 2)
    kept = values > 1e-12
    return vectors[:, kept] * np.sqrt(values[kept])


def _constraint_gradients(constraint: str, W: Matrix) -> tuple[Matrix, Matrix]:
    """Gradients (n, K D) of the functions that are held constant, and their second derivatives (n, K, K)."""
    K = len(W)
    pairs = [(i, i) for i in range(K)]
    if constraint == "orthonormalized":
        pairs = [(i, j) for i in range(K) for j in range(i, K)]
    first, second = np.zeros((len(pairs), *W.shape)), np.zeros((len(pairs), K, K))
    for n, (i, j) in enumerate(pairs):  # w_i.w_j/(1 + [i = j])
        first[n, i] += W[j] / (2 if i == j else 1)
        first[n, j] += W[i] / (2 if i == j else 1)
        second[n, i, j] = second[n, j, i] = 1
    return first.reshape(len(pairs), -1), second


def on_manifold(
    constraint: str, W: Matrix, rank: int, gradient: Matrix, H: Matrix, C: Matrix
) -> tuple[Matrix, Matrix, Matrix]:
    """Gradient (K, D), Hessian (m, m) in the tangent space without rotations beyond the span, and the block above.

    From those of free weights at W (K, D), whose first `rank` columns are in the span of the teachers.
    """
    first, second = _constraint_gradients(constraint, W)
    multipliers = np.linalg.lstsq(first.T, gradient.ravel(), rcond=None)[0]
    Lambda = np.einsum("n,nij->ij", multipliers, second)
    lagrange = H - np.kron(Lambda, np.eye(W.shape[1]))
    turns = []
    for a in range(rank, W.shape[1]):
        for b in range(a + 1, W.shape[1]):
            turn = np.zeros_like(W)
            turn[:, a], turn[:, b] = W[:, b], -W[:, a]
            turns.append(turn.ravel())
    tangent = null_space(np.array([*first, *turns]))
    outside = W[:, rank:]
    above = null_space(outside.T) if outside.shape[1] else np.eye(len(W))
    rest = gradient.ravel() - multipliers @ first
    return rest.reshape(W.shape), tangent.T @ lagrange @ tangent, above.T @ (C - Lambda) @ above


def geodesic_radius(constraint: str, third: float, second: float, slope: float, smallest: float) -> tuple[float, float]:
    """Frobenius radius of the ball that flows into a point, and the bend of the loss in it, see `geodesic_ball`.

    `third` bounds the third derivative, `second` and `slope` are the norms of free Hessian and gradient at the point.
    """
    jerk = {"normalized": 1, "orthonormalized": 3}[constraint]
    # s bend(s) is a cubic in s, with the value 2 `smallest` at the end.
    cubic = [jerk * third / 2, 3 * third + jerk * second, third + 3 * second + jerk * slope, -2 * smallest]
    ends = [root.real for root in np.roots(cubic) if abs(root.imag) < 1e-12 * abs(root) and root.real > 0]
    s = min(min(ends), 1.0)
    return 0.9 * s * 2 / np.pi, 2 * smallest / s if s < 1 else float(np.polyval(cubic[:3], 1.0))
