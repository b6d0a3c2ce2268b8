"""Order parameters Q, R, T of student and teacher, their lift to reduced weights, and their feasibility."""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.errors import InputError
from enumerator.validation import RANK_TOLERANCE

# An eigenvalue of the cosines of all neurons may fall below zero by this part of the largest: overlaps
# computed from weights of a million dimensions in float64 miss by less. Of the cosines, because the rounding
# of an overlap is relative to its two norms, and students may be far shorter or longer than the teachers.
FEASIBLE = 1e-9

# Users hold their matrices in NumPy, programs in JAX.
Matrix = Array | np.ndarray


@struct.dataclass
class Overlaps:
    """Order parameters of student and teacher (Saad & Solla 1995): Q = W W^T, R = W V^T, T = V V^T.

    W and V are reduced weights, w / sqrt d. Each matrix may have batch dimensions in front.

    Attributes:
        Q: Overlaps (K, K) of the students with each other.
        R: Overlaps (K, M) of the students with the teachers.
        T: Overlaps (M, M) of the teachers with each other.
    """

    Q: Float[Matrix, "*batch K K"]
    R: Float[Matrix, "*batch K M"]
    T: Float[Matrix, "*batch M M"]

    @classmethod
    def from_weights(cls, W: Float[Matrix, "K D"], V: Float[Matrix, "M r"]) -> Overlaps:
        """The overlaps of a student and a teacher with these weights.

        Args:
            W: Reduced weights (K, D) of the students.
            V: Reduced weights (M, r) of the teachers, r <= D, in the first r of these coordinates.
        """
        return cls(Q=W @ W.T, R=W[:, : V.shape[1]] @ V.T, T=V @ V.T)


def feasibility(Q: NDArray[np.float64], R: NDArray[np.float64], T: NDArray[np.float64]) -> float:
    """Smallest eigenvalue of [[Q, R], [R^T, T]], brought to unit norms, over the largest: feasible from -FEASIBLE on.

    A neuron of zero norm is measured by the longest: whatever it overlaps with shows.
    """
    joint = np.block([[Q, R], [R.T, T]])
    lengths = np.sqrt(np.abs(np.diag(joint)))
    lengths = np.where(lengths > 0, lengths, lengths.max())
    spectrum = np.linalg.eigvalsh(joint / np.outer(lengths, lengths))
    return float(spectrum[0] / max(spectrum[-1], np.finfo(float).tiny))


def check_feasible(
    Q: NDArray[np.float64], R: NDArray[np.float64], T: NDArray[np.float64], rounding: float = FEASIBLE
) -> None:
    """Raise InputError, with row and eigenvalue, unless every (Q, R) of a table (n, K, K), (n, K, M) is feasible."""
    for row, (q, r) in enumerate(zip(Q, R, strict=True)):
        if not (np.isfinite(q).all() and np.isfinite(r).all()):
            raise InputError(f"initial overlaps must be finite, row {row} is not.")
        if np.abs(q - q.T).max() > rounding * np.abs(q).max():
            raise InputError(
                f"initial overlaps must have symmetric Q, row {row} misses by {np.abs(q - q.T).max():.3g}."
            )
        smallest = feasibility(q, r, T)
        if smallest < -rounding:
            raise InputError(
                f"initial overlaps must be feasible, [[Q, R], [R^T, T]] positive semidefinite, but row {row} has the "
                f"relative eigenvalue {smallest:.3g}: no weights have these overlaps."
            )


def lift(
    Q: NDArray[np.float64], R: NDArray[np.float64], V: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reduced weights with overlaps Q (K, K), R (K, M): parallel (K, r) and perpendicular (K, K) part.

    The parallel part solves W V^T = R; the perpendicular part is the symmetric square root of
    S = Q - R T^+ R^T, which has every symmetry of the overlaps. Eigenvalues of S below the rank
    tolerance of Q are rounding, and count as zero.
    """
    parallel = R @ np.linalg.pinv(V).T
    remainder = Q - parallel @ parallel.T
    eigenvalues, vectors = np.linalg.eigh((remainder + remainder.T) / 2)
    kept = np.where(eigenvalues > RANK_TOLERANCE * np.diag(Q).max(initial=0.0), eigenvalues, 0.0)
    return parallel, (vectors * np.sqrt(kept)) @ vectors.T
