"""Answers that are no tables: one minimum with its matrices, and what given overlaps are near."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.checks import TEACHERS_AGREE, landscape_like, landscape_named
from cluster.values import plain
from enumerator.catalogue import Catalogue
from enumerator.errors import InputError
from enumerator.identify import identify, overlaps_of_weights
from enumerator.problem import Landscape

# Columns that hold a matrix, with those that tell its numbers of rows and columns.
_MATRICES = {"Q": ("effective_students", "effective_students"), "R": ("effective_students", "teachers")}


def point_as_json(rows: pa.Table) -> dict[str, Any]:
    """The row of a minimum or saddle, its matrices as lists of rows."""
    (row,) = rows.to_pylist()
    for name, (down, across) in _MATRICES.items():
        if row[name] is not None:
            row[name] = np.reshape(row[name], (row[down], row[across])).tolist()
    return plain(row)


def identification(atlas: Catalogue, body: dict[str, Any]) -> dict[str, Any]:
    """Which minimum overlaps Q, R, or weights W with teachers V, are at; where the flow leads. Raises InputError."""
    if body.get("W") is not None:
        W = _matrix(body, "W")
        V = np.sqrt(W.shape[1]) * np.eye(_size(body), W.shape[1]) if body.get("V") is None else _matrix(body, "V")
        Q, R = overlaps_of_weights(W, V)
        T = V @ V.T / V.shape[1]
    else:
        Q, R = _matrix(body, "Q"), _matrix(body, "R")
        T = None if body.get("T") is None else _matrix(body, "T")
    landscape = _landscape(atlas, body, Q, T)
    if (Q.shape, R.shape) != ((landscape.students,) * 2, (landscape.students, landscape.teachers)):
        raise InputError(
            f"{landscape.students} students and {landscape.teachers} teachers have Q and R of shapes "
            f"{(landscape.students,) * 2} and {(landscape.students, landscape.teachers)}, got {Q.shape} and {R.shape}."
        )
    if T is not None and (
        T.shape != landscape.T.shape or np.abs(T - landscape.T).max() > TEACHERS_AGREE * landscape.overlap_scale
    ):
        raise InputError(f"the teachers given are not those of the landscape {landscape.id}.")
    return plain(vars(identify(atlas, landscape, Q, R)))


def _landscape(
    atlas: Catalogue, body: dict[str, Any], Q: NDArray[np.float64], T: NDArray[np.float64] | None
) -> Landscape:
    if body.get("landscape") is not None:
        return landscape_named(atlas, body["landscape"])
    if T is None and body.get("teachers") is not None:
        return Landscape(len(Q), body["teachers"])
    return landscape_like(atlas, len(Q), T)


def _size(body: dict[str, Any]) -> int:
    if body.get("teachers") is None:
        raise InputError("weights W need teachers: V (M, d), or `teachers`, the number M of orthonormal ones.")
    return body["teachers"]


def _matrix(body: dict[str, Any], name: str) -> NDArray[np.float64]:
    rows = body.get(name)
    try:
        matrix = np.array(rows, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
        raise InputError(
            f"expected {name} as a matrix of finite numbers, a list of rows of one length: give Q and R, or W."
        )
    return matrix
