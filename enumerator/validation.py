"""Checks of what users hand in: numbers, choices, teacher overlaps. Each raises InputError with the way out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from enumerator.errors import InputError
from enumerator.parsing import shown
from enumerator.symmetry.teachers import NEARLY, snapped

# Entries of a teacher overlap matrix may miss symmetry by this much of the largest entry: ten
# thousand roundings, what a product of long weight vectors leaves; more is a wrong matrix.
SYMMETRY_TOLERANCE = 1e-12
# A pivot of the Cholesky factor below this part of the largest diagonal entry counts as zero: the
# rounding of a Gram matrix of some hundred vectors, far below any overlap that a user writes down.
RANK_TOLERANCE = 1e-10
# The most students, and teachers: there is a Hessian of (K M)^2 entries, 8 TB at a thousand of each.
MOST_NEURONS = 1024
# The most starts of a campaign, and of a shard: months of a thousand cores. The driver lists the missing shards.
MOST_STARTS = 10**9
# Counts are stored as 64-bit integers and pass through JSON: up to here both hold all of them.
MOST_COUNT = 2**53 - 1
# Powers of the overlaps up to the third, and ratios of them, are finite in double precision within these.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-100, 1e100


def check_count(name: str, value: Any, least: int = 1, most: int = MOST_COUNT) -> int:
    """A whole number from `least` to `most`, or InputError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"`{name}` must be a whole number >= {least}, got {shown(value)}.")
    if value > most:
        raise InputError(f"`{name}` must be at most {most}, got a larger number.")
    return int(value)


def check_number(name: str, value: Any, kind: str = "a finite number", above: float = -np.inf) -> float:
    """A finite number above `above`, or InputError, which says that it must be `kind`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not (np.isfinite(number) and number > above):
        raise InputError(f"`{name}` must be {kind}, got {shown(value)}.")
    return number


def check_positive(name: str, value: Any) -> float:
    """A positive finite number, or InputError."""
    return check_number(name, value, "a positive finite number", above=0.0)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """One of `choices`, or InputError."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"`{name}` must be one of {', '.join(choices)}, got {shown(value)}.")
    return value


def check_text(name: str, value: Any) -> str:
    """A string, or InputError."""
    if not isinstance(value, str):
        raise InputError(f"`{name}` must be a string, got {value!r}.")
    return value


def check_made(owner: Any, **kinds: type) -> None:
    """Raise InputError unless these fields of `owner` are of these classes."""
    for name, kind in kinds.items():
        if not isinstance(value := getattr(owner, name), kind):
            raise InputError(f"`{name}` must be made by enumerator.{kind.__name__}(...), got {value!r}.")


def real_array(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Numbers in float64, in an array of any shape, or InputError."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"`{name}` must be an array: its rows must have the same length.") from None
    if array.dtype.kind not in "fiu":
        raise InputError(f"`{name}` must hold real numbers, got an array of {array.dtype}: save it with numpy.save.")
    return array.astype(np.float64)


def check_teacher_overlaps(T: ArrayLike, teachers: int, snap: bool = False) -> NDArray[np.float64]:
    """A symmetric positive semidefinite (M, M) matrix, symmetrised exactly, or InputError; `snap` rounds it before."""
    matrix = real_array("T", T)
    if matrix.shape != (teachers, teachers):
        raise InputError(
            f"`T` must have shape (M, M) = ({teachers}, {teachers}), got {matrix.shape}: "
            "pass one row and one column per teacher."
        )
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(f"`T` must be finite, got {matrix[row, column]} at row {row}, column {column}.")
    largest = np.abs(matrix).max()
    if largest != 0 and not _SMALLEST_SCALE <= largest <= _LARGEST_SCALE:
        raise InputError(
            f"`T` must have its largest entry between {_SMALLEST_SCALE:g} and {_LARGEST_SCALE:g}, got {largest:.3g}: "
            "choose another unit."
        )
    excess = np.abs(matrix - matrix.T)
    if excess.max() > (NEARLY if snap else SYMMETRY_TOLERANCE) * largest:
        row, column = np.unravel_index(excess.argmax(), excess.shape)
        raise InputError(
            f"`T` must be symmetric, got T[{row},{column}] = {matrix[row, column]} and "
            f"T[{column},{row}] = {matrix[column, row]}: pass the overlaps V V^T of the teachers."
        )
    matrix = (matrix + matrix.T) / 2
    if snap and (matrix.diagonal() >= 0).all():
        matrix = snapped(matrix)
    smallest = np.linalg.eigvalsh(matrix)[0]
    if smallest < -RANK_TOLERANCE * largest:
        raise InputError(
            f"`T` must be positive semidefinite, got the eigenvalue {smallest:.3g}: "
            "pass the overlaps V V^T of the teachers."
        )
    if largest == 0:
        raise InputError("`T` must have a teacher of positive norm, got all zeros: there is nothing to learn.")
    if np.abs(matrix - np.eye(teachers)).max() <= SYMMETRY_TOLERANCE:
        return np.eye(teachers)  # orthonormal up to rounding is orthonormal: one landscape, one id
    return matrix + 0.0  # -0.0 becomes 0.0: the id must not depend on it


def gram_factor(gram: NDArray[np.float64], tolerance: float = RANK_TOLERANCE) -> NDArray[np.float64]:
    """Factor V (n, rank) with V V^T = `gram`, by Cholesky with diagonal pivoting (Higham 1990).

    Deterministic (no eigenvectors, whose basis depends on the linear algebra library), and the
    identity for the identity matrix.
    """
    remainder = gram.copy()
    columns = []
    for _ in range(len(gram)):
        diagonal = np.diag(remainder)
        pivot = int(np.argmax(diagonal))
        if diagonal[pivot] <= tolerance * max(1e-300, float(np.diag(gram).max())):
            break
        column = remainder[:, pivot] / np.sqrt(diagonal[pivot])
        columns.append(column)
        remainder = remainder - np.outer(column, column)
    return np.stack(columns, axis=1) if columns else np.zeros((len(gram), 0))
