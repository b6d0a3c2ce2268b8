"""What a stationary point of erf networks must satisfy, recomputed by a route of its own: complex steps.

The gradient is written out from Saad & Solla (1995); its derivatives are imaginary parts of the same formula at
points moved by 1e-30 along the imaginary axis, exact to rounding and free of any formula for second derivatives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Its square is below the rounding of anything it is added to.
_STEP = 1e-30


def erf_gradient(W: NDArray, V: Matrix) -> NDArray:
    """Gradient (K, r) at W (K, r), which may be complex: sum_n +-(2/pi)(n - u.n u/(1 + u.u))/sqrt(s)."""
    others = np.concatenate([W, V])
    own, length = 1 + (W * W).sum(axis=1)[:, None], 1 + (others * others).sum(axis=1)[None]
    mutual = W @ others.T
    weight = np.where(np.arange(len(others)) < len(W), 1.0, -1.0) * 2 / np.pi / np.sqrt(own * length - mutual**2)
    return weight @ others - (weight * mutual / own).sum(axis=1)[:, None] * W


def erf_derivatives(W: Matrix, V: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Gradient (K, r), Hessian blocks (K, K, r, r), C (K, K) and its alphas (K,) at W (K, r) against V (M, r)."""
    K, r = W.shape
    blocks = np.zeros((K, K, r, r))
    for j in range(K):
        for b in range(r):
            moved = W.astype(complex)
            moved[j, b] += 1j * _STEP
            blocks[:, j, :, b] = np.imag(erf_gradient(moved, V)) / _STEP
    # Perpendicular to all: a further coordinate, in which student j moves.
    wider, teachers = np.pad(W, ((0, 0), (0, 1))), np.pad(V, ((0, 0), (0, 1)))
    C = np.zeros((K, K))
    for j in range(K):
        moved = wider.astype(complex)
        moved[j, r] += 1j * _STEP
        C[:, j] = np.imag(erf_gradient(moved, teachers))[:, r] / _STEP
    return erf_gradient(W, V), blocks, C, np.full(K, np.inf)
