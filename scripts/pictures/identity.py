"""docs/concepts/identity.md: two starts end in one minimum, with their students in different orders."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import enumerator as en
from enumerator.replay import replay
from scripts.pictures.look import WIDTH

SIZE, STARTS = 7, 60


def orders() -> Figure:
    """Q and R of two starts as they retired, and of their minimum in canonical order."""
    landscape = en.Landscape(SIZE, SIZE)
    found = en.enumerate_minima(landscape, starts=STARTS)
    shown = next(row for row in found.minima.to_pylist() if row["anti_aligned"] == 1)
    ends = [row["start_index"] for row in found.starts.to_pylist() if row["minimum_id"] == shown["minimum_id"]]
    columns = [(f"start {index}", *_retired(found.result.campaign, index)) for index in ends[:2]]
    minimum = found.minimum(shown["minimum_id"])
    columns.append(("canonical order", minimum.Q, minimum.R))
    return _drawn(columns)


def _retired(campaign: en.Campaign, index: int) -> list[NDArray[np.float64]]:
    """Q and R of a start as it retired."""
    last = replay(campaign, index).to_pylist()[-1]
    return [np.array(last[name]).reshape(SIZE, SIZE) for name in "QR"]


def _drawn(columns: list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    drawn = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = drawn.subplots(2, len(columns))
    for (title, *matrices), column in zip(columns, axes.T, strict=True):
        column[0].set_title(title)
        for name, matrix, ax in zip("QR", matrices, column, strict=True):
            image = ax.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[], xlabel="student" if name == "Q" else "teacher")
            if ax in axes[:, 0]:
                ax.set_ylabel(f"{name}, student")
    drawn.colorbar(image, ax=axes, ticks=[-1, 0, 1], shrink=0.6, aspect=15)
    return drawn


PICTURES = {"identity_orders": orders}
