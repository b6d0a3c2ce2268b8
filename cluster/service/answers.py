"""Answers that are no tables: one minimum with its matrices, and what given overlaps are near."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from cluster.encoding.values import plain
from enumerator.catalogue.catalogue import Catalogue
from enumerator.identification.identify import identify

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
    """What `enumerator.identify` tells of a network, given by the names of its arguments. Raises InputError."""
    return plain(vars(identify(atlas, **body)))
