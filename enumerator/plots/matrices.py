"""What a minimum looks like: its overlaps Q and R, block by block, and the spectra of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enumerator.errors import InputError
from enumerator.plots.style import COLOURS, PAGE, Figure, figure, order_colours, styled

if TYPE_CHECKING:
    from enumerator.catalogue.catalogue import Catalogue

# Students are of one block if their overlaps agree, sorted, within this part of the largest: stored to 1e-12.
SAME = 1e-6
# Minima in one picture of spectra: more rows cannot be read.
MOST_MINIMA = 14


def blocks(Q: NDArray[np.float64], R: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Places of the lines between blocks of students, and of teachers, in the order of Q (K, K) and R (K, M).

    Neighbours are of one block where Q_ii, their rows of Q and of R (for teachers: columns of R), sorted, are the same.
    """
    tolerance = SAME * max(1.0, float(np.abs(Q).max(initial=0)))
    students = np.column_stack([Q.diagonal(), np.sort(Q, axis=1), np.sort(R, axis=1)])
    teachers = np.sort(R, axis=0).T

    def lines(rows: NDArray[np.float64]) -> list[int]:
        return [k for k in range(1, len(rows)) if np.abs(rows[k] - rows[k - 1]).max(initial=0) > tolerance]

    return lines(students), lines(teachers)


@styled
def overlaps(catalogue: Catalogue, minimum: str) -> Figure:
    """Q and R of one minimum, in canonical order, with lines between the blocks of equal neurons.

    White is zero. Both have one scale, the same to either side of zero.

    Args:
        catalogue: A catalogue.
        minimum: Label or id of the minimum.

    Raises:
        InputError: For an unknown minimum, or one without students.
    """
    row = catalogue.minimum(minimum)
    K, M = row["effective_students"], row["teachers"]
    if K == 0:
        raise InputError(f"minimum {row['label']} has no students left: there are no overlaps to draw.")
    Q, R = np.array(row["Q"]).reshape(K, K), np.array(row["R"]).reshape(K, M)
    students, teachers = blocks(Q, R)
    bound = float(max(np.abs(Q).max(), np.abs(R).max()))
    drawn = figure(PAGE, 3.1)
    parts = drawn.subplots(1, 2, width_ratios=(K, M))
    for axes, matrix, columns, name in ((parts[0], Q, students, "Q"), (parts[1], R, teachers, "R")):
        # Blue and red of this map differ in lightness too only by distance from white: the sign stands in the lines.
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
        for place in students:
            axes.axhline(place - 0.5, color="black", linewidth=0.9)
        for place in columns:
            axes.axvline(place - 0.5, color="black", linewidth=0.9)
        rows_of, columns_of = np.nonzero(matrix < -SAME * bound)
        axes.scatter(columns_of, rows_of, marker="_", s=140 / max(K, M), color="black", linewidths=0.6)
        axes.set(xlabel="student" if name == "Q" else "teacher", ylabel="student", title=name)
        axes.set_xticks(_ticks(matrix.shape[1]), [str(k + 1) for k in _ticks(matrix.shape[1])])
        axes.set_yticks(_ticks(K), [str(k + 1) for k in _ticks(K)])
        axes.spines[:].set_visible(True)
    drawn.colorbar(image, ax=list(parts), shrink=0.85, label="overlap (-: negative)")
    order = "" if row["anti_aligned"] is None else f", order {row['anti_aligned']}"
    symmetry = "" if row["isotropy"] is None else f", isotropy {row['isotropy']}"
    drawn.suptitle(f"{row['label']}: loss {row['loss']:.9g}{order}{symmetry}", fontsize=8.5)
    return drawn


def _ticks(size: int) -> list[int]:
    step = max(1, round(size / 8))
    return list(range(0, size, step))


@styled
def spectra(catalogue: Catalogue, most: int = MOST_MINIMA, **selection: Any) -> Figure:
    """Hessian eigenvalues of the minima selected, one row each, by loss.

    Bars: in the span of the teachers, flat directions left out. Crosses: perpendicular to it.

    Args:
        catalogue: A catalogue.
        most: Number of minima that are drawn, those that were hit most often.
        **selection: Which minima, by the keywords of `Catalogue.minima`.

    Raises:
        InputError: If no minimum is selected.
    """
    rows = catalogue.minima(**selection, sort="-hits", limit=most).to_pylist()
    if not rows:
        raise InputError("no minima selected: there are no spectra to draw.")
    rows.sort(key=lambda row: (row["students"], row["teachers"], row["loss"]))
    colours = order_colours([row["anti_aligned"] for row in rows if row["anti_aligned"] is not None])
    drawn = figure(PAGE, 0.9 + 0.24 * len(rows))
    axes = drawn.add_subplot()
    for place, row in enumerate(rows):
        colour = colours.get(row["anti_aligned"], COLOURS[0])
        inside, outside = row["hessian_spectrum"], row["perpendicular_spectrum"]
        axes.vlines(inside, place - 0.36, place + 0.36, color=colour, linewidth=1.0, alpha=0.75)
        axes.plot(outside, [place] * len(outside), "x", color="black", markersize=3, markeredgewidth=0.7)
    names = [
        f"{row['label']}  ({row['anti_aligned']})" if row["anti_aligned"] is not None else row["label"] for row in rows
    ]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.7)
    lowest = min(
        [value for row in rows for value in (*row["hessian_spectrum"], *row["perpendicular_spectrum"])], default=0
    )
    if lowest > 0:
        # A flat minimum and a firm one differ by a factor: only a logarithm shows it.
        axes.set(xscale="log", xlim=(0.7 * lowest, None))
    axes.set(xlabel="Hessian eigenvalue (bars: in the span of the teachers; crosses: perpendicular to it)")
    has_orders = any(row["anti_aligned"] is not None for row in rows)
    axes.set_title("spectra; in brackets: anti-aligned students" if has_orders else "spectra")
    return drawn
