"""A network as somebody gives it: weights or overlaps, of some precision, in either units; in reduced weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enumerator.errors import InputError
from enumerator.loss.overlaps import FEASIBLE, check_feasible, lift
from enumerator.problem import Landscape

Matrix = NDArray[np.float64]

# Rounding of the overlaps of a network, over the last digit of its numbers: products of some hundreds of them.
_ROUNDINGS = 100
# The network that holds weights: as a rule, and where they are reduced already.
HELD, REDUCED = "f(x) = sum g(w.x/sqrt d)", "f(x) = sum g(w.x)"


@dataclass(frozen=True, eq=False)
class Given:
    """Reduced weights W (K, d) with teachers V (M, d), or None for the first unit vectors; or Q (K, K), R (K, M), T.

    `rounding` is the part of the largest overlap that the precision of these numbers explains.
    """

    W: Matrix | None
    V: Matrix | None
    Q: Matrix | None
    R: Matrix | None
    T: Matrix | None
    rounding: float
    units: str

    @property
    def students(self) -> int:
        """K."""
        return len(self.Q if self.W is None else self.W)  # type: ignore[arg-type]  # one of them is given

    @property
    def teachers(self) -> int | None:
        """M, None if W alone is given."""
        if self.R is not None:
            return self.R.shape[1]
        return None if self.V is None else len(self.V)

    @property
    def dimension(self) -> int | None:
        """d, None if overlaps are given."""
        return None if self.W is None else self.W.shape[1]

    @property
    def teacher_overlaps(self) -> Matrix | None:
        """T (M, M) as given."""
        return self.T if self.V is None else self.V @ self.V.T

    def weights_in(self, landscape: Landscape) -> Matrix:
        """Reduced weights (K, r + K) in the basis of the teacher factor of the landscape, and beyond.

        Teachers given are turned onto those of the landscape, which they match up to rounding: so weights that lie in
        their span stay there. Raises InputError for overlaps that no weights have.
        """
        F, manifold = landscape.teacher_factor, landscape.equations.manifold
        if self.W is not None:
            V = np.eye(len(F), self.W.shape[1]) if self.V is None else self.V
            left, _, right = np.linalg.svd(F.T @ V, full_matrices=False)
            basis = left @ right  # (r, d), orthonormal rows: F basis is as near to V as can be
            parallel = self.W @ basis.T
            left, sizes, _ = np.linalg.svd(self.W - parallel @ basis, full_matrices=False)
            sizes = np.where(sizes > self.rounding * np.linalg.norm(self.W), sizes, 0.0)
            perpendicular = (left * sizes) @ left.T
        else:
            Q, R = np.asarray(self.Q), np.asarray(self.R)
            check_feasible(Q[None], R[None], landscape.T, self.rounding)
            parallel, perpendicular = lift((Q + Q.T) / 2, R, F)
        W = np.concatenate([parallel, perpendicular], axis=1)
        missed = manifold.deviation(W @ W.T)
        return np.asarray(manifold.project(W)) if FEASIBLE < missed <= self.rounding else W


def given_network(W: Any, V: Any, Q: Any, R: Any, T: Any, reduced: bool) -> Given:
    """Weights W (K, d), alone or with teachers V (M, d), or overlaps Q (K, K), R (K, M), alone or with T (M, M).

    Weights as a network holds them, f(x) = sum_k g(w_k.x/sqrt d), are divided by sqrt d; `reduced` ones, f(x) =
    sum_k g(w_k.x), and overlaps are taken as they are. Raises InputError for anything else.
    """
    names = [name for name, array in (("W", W), ("V", V), ("Q", Q), ("R", R), ("T", T)) if array is not None]
    if names not in (["W"], ["W", "V"], ["Q", "R"], ["Q", "R", "T"]):
        listed = ", ".join(names) or "none of them"
        raise InputError(f"expected weights W, alone or with V, or overlaps Q and R, alone or with T, got {listed}.")
    if reduced and W is None:
        raise InputError("`reduced` goes with weights W: overlaps are always reduced.")
    given = zip("WVQRT", (W, V, Q, R, T), strict=True)
    matrices = [None if array is None else _matrix(name, array) for name, array in given]
    precision = max(_precision(matrix) for matrix in matrices if matrix is not None)
    w, v, q, r, t = (None if matrix is None else matrix.astype(np.float64) for matrix in matrices)
    rounding = max(FEASIBLE, _ROUNDINGS * precision)
    if w is None:
        assert q is not None and r is not None
        K, M = r.shape
        if q.shape != (K, K) or (t is not None and t.shape != (M, M)):
            shapes = ", ".join(str(matrix.shape) for matrix in (q, r, t) if matrix is not None)
            raise InputError(f"expected Q (K, K), R (K, M) and T (M, M), got {shapes}.")
        return Given(None, None, q, r, t, rounding, "overlaps")
    if v is not None and v.shape[1] != w.shape[1]:
        raise InputError(f"expected W (K, d) and V (M, d), got {w.shape} and {v.shape}: both of the same dimension d.")
    scale = 1.0 if reduced else np.sqrt(w.shape[1])
    w, v = w / scale, None if v is None else v / scale
    with np.errstate(over="ignore"):
        if not all(np.isfinite((x * x).sum()) for x in (w, v) if x is not None):
            raise InputError("expected weights whose squares are numbers, got larger ones.")
    return Given(w, v, None, None, None, rounding, REDUCED if reduced else HELD)


def _matrix(name: str, array: Any) -> NDArray:
    try:
        matrix = np.asarray(array)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.ndim != 2 or 0 in matrix.shape or matrix.dtype.kind not in "fiu" or not np.isfinite(matrix).all():
        found = f"{matrix.dtype} of shape {matrix.shape}" if matrix.size else "no such matrix"
        raise InputError(f"expected {name} as a matrix of finite real numbers, rows of one length, got {found}.")
    return matrix


def _precision(matrix: NDArray) -> float:
    """Relative size of the last digit: that of the type, or of single precision where all numbers have but so many.

    Short numbers, such as those of a unit matrix, are taken to be exact.
    """
    if matrix.dtype.kind != "f":
        return 0.0
    if matrix.dtype.itemsize < 8:
        return float(np.finfo(matrix.dtype).eps)
    with np.errstate(over="ignore", under="ignore"):
        single, short = matrix == matrix.astype(np.float32), matrix == matrix.astype(np.float16)
    return float(np.finfo(np.float32 if single.all() and not short.all() else np.float64).eps)
