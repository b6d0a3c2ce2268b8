"""docs/concepts/identity.md: two starts end in one minimum, with their students in different orders."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scripts.pictures.look import WIDTH
from scripts.pictures.runs import enumeration, path

Matrix = NDArray[np.float64]


def orders() -> Figure:
    """Q and R of two starts as they retired, and of their minimum in canonical order."""
    found = enumeration(7, 7, 60)
    shown = next(row for row in found.minima.to_pylist() if row["anti_aligned"] == 1)
    ends = [row["start_index"] for row in found.starts.to_pylist() if row["minimum_id"] == shown["minimum_id"]]
    columns: list[tuple[str, Matrix, Matrix]] = []
    for index in ends[:2]:
        way = path(found.result.campaign, index)
        columns.append((f"start {index}", way.Q[-1], way.R[-1]))
    minimum = found.minimum(shown["minimum_id"])
    columns.append(("canonical order", minimum.Q, minimum.R))
    return _drawn(columns)


def _drawn(columns: list[tuple[str, Matrix, Matrix]]) -> Figure:
    drawn = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = drawn.subplots(2, len(columns))
    for (title, *matrices), column in zip(columns, axes.T, strict=True):
        column[0].set_title(title)
        for name, matrix, ax in zip("QR", matrices, column, strict=True):
            image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[], xlabel="student" if name == "Q" else "teacher")
            if ax in axes[:, 0]:
                ax.set_ylabel(f"{name}, student")
    drawn.colorbar(image, ax=axes, ticks=[-1, 0, 1], shrink=0.6, aspect=15)
    return drawn


PICTURES = {"identity_orders": orders}
