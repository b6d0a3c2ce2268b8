"""One minimum in words and matrices, as `enumerator show` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.commands.output import format_value
from cluster.terminal import printable

# Entries of one block agree to rounding; what differs by more is another block.
SAME_BLOCK = 1e-8
# The teachers of most landscapes.
ORTHONORMAL = "orthonormal"


def describe(
    minimum: dict[str, Any],
    width: int | None = None,
    counted: Sequence[dict[str, Any]] = (),
    teacher: str = ORTHONORMAL,
) -> str:
    """The row of a minimum as lines of text; matrices wider than `width` characters go on below.

    `counted` has `campaign_name`, `hits` and `starts` of each campaign, where the campaigns are not alike. `teacher`
    says what T is, as in `landscapes`; it is told unless it is `orthonormal`.
    """
    K, M = minimum["effective_students"], minimum["teachers"]
    Q = np.array(minimum["Q"], dtype=float).reshape(K, K)
    R = np.array(minimum["R"], dtype=float).reshape(K, M)
    facts = _facts(minimum, teacher)
    indent = max(map(len, facts)) + 2
    lines = [f"{minimum['label']}  ({minimum['minimum_id']})", ""]
    for name, fact in facts.items():
        lines.append(f"{name.ljust(indent)}{fact}")
        if name == "frequency":
            lines += [f"{' ' * indent}{share}" for share in _shares(counted)]
    students, teachers = _blocks(Q, R)
    if K:
        lines += ["", f"Q, student with student ({K} x {K}), canonical order"]
        lines += matrix_lines(Q, students, students, width)
        lines += ["", f"R, student with teacher ({K} x {M})"]
        lines += matrix_lines(R, students, teachers, width)
    return "\n".join(map(printable, lines))


def _facts(minimum: dict[str, Any], teacher: str) -> dict[str, str]:
    def shown(name: str) -> str:
        return format_value(name, minimum.get(name))

    def between(name: str, values: list[float] | None) -> str:
        if not values:
            return "none"
        return f"{format_value('', values[0])} to {format_value('', values[-1])} ({len(values)} eigenvalues)"

    # Where no number is known that agrees with it, the stored logarithm.
    logarithm = minimum.get("orbit_size_log10")
    size = minimum.get("orbit_size") or ("-" if logarithm is None else f"10^{logarithm:.4f}")
    found_by = minimum.get("first_campaign_name") or shown("first_campaign_id")
    facts = {
        "landscape": (
            f"K = {minimum['students']}, M = {minimum['teachers']}, {minimum['activation']}, "
            f"constraint {minimum['constraint']}, second layer {minimum['second_layer']}  ({minimum['landscape_id']})"
        ),
        "teachers": teacher,
        "loss": f"{minimum['loss']:.15g}",
        "verdict": f"{minimum['verdict']} at d = r, {minimum['verdict_above']} at every d > r",
        "anti-aligned": f"{shown('anti_aligned')} of {minimum['effective_students']} students of the effective network",
        "gradient norm": shown("gradient_norm"),
        "Hessian": f"{between('hessian', minimum.get('hessian_spectrum'))}, {shown('flat_dimension')} flat directions",
        "perpendicular": between("perpendicular", minimum.get("perpendicular_spectrum")),
        "splitting": (
            f"{shown('splitting_min')} in the span, {shown('splitting_min_perpendicular')} above it: "
            "the smallest eigenvalue when a student is doubled"
        ),
        "isotropy": shown("isotropy"),
        "orbit size": size,
        "family": shown("family"),
        "second layer": shown("second_layer_weights"),
        "frequency": _frequency(minimum),
        "found by": f"{found_by}, {shown('created_at')} UTC, {shown('software')}",
    }
    left_out = {"family": "family", "second layer": "second_layer_weights", "frequency": "hits"}
    if teacher == ORTHONORMAL:
        del facts["teachers"]
    return {name: fact for name, fact in facts.items() if minimum.get(left_out.get(name, ""), "") is not None}


def _frequency(minimum: dict[str, Any]) -> str:
    """The share of the starts, or that it is one of each campaign."""
    if has_unlike_campaigns(minimum):
        return "of each campaign, as they differ in more than the seed:"
    return _share(minimum)


def has_unlike_campaigns(minimum: dict[str, Any]) -> bool:
    """Whether starts of campaigns are counted that differ in more than the seed: together they have no frequency."""
    return minimum.get("frequency") is None and bool(minimum.get("starts"))


def _shares(counted: Sequence[dict[str, Any]]) -> list[str]:
    width = max((len(row["campaign_name"]) for row in counted), default=0)
    return [f"{row['campaign_name'].ljust(width)}  {_share(row)}" for row in counted]


def _share(counted: dict[str, Any]) -> str:
    hits, starts, share = (counted.get(name) for name in ("hits", "starts", "frequency"))
    return f"{format_value('frequency', share)} ({format_value('', hits)} of {format_value('', starts)} starts)"


def _blocks(Q: NDArray[np.float64], R: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Where the blocks of equivalent students, and of equivalent teachers, begin after the first."""
    students = np.hstack([np.diag(Q)[:, None], np.sort(Q, axis=1), np.sort(R, axis=1)])
    return _breaks(students), _breaks(np.sort(R, axis=0).T)


def _breaks(signatures: NDArray[np.float64]) -> list[int]:
    """Rows that differ from the row before; none if every row stands alone: lines everywhere would tell nothing."""
    scale = max(1.0, float(np.abs(signatures).max(initial=0)))
    jumps = np.abs(np.diff(signatures, axis=0)).max(axis=1, initial=0) > SAME_BLOCK * scale
    return [] if jumps.all() else [int(row) + 1 for row in np.flatnonzero(jumps)]


def matrix_lines(
    matrix: NDArray[np.float64], row_breaks: list[int], column_breaks: list[int], width: int | None = None
) -> list[str]:
    """Aligned rows of a matrix, with lines between its blocks, cut into stretches of columns that fit into `width`."""
    texts = [[f"{value + 0.0:.4f}" for value in row] for row in np.round(matrix, 4)]
    size = max(len(text) for row in texts for text in row) + 1
    columns = matrix.shape[1]
    # Two characters for each line between blocks; one column at least, however narrow the terminal.
    at_once = columns if width is None else max(1, (width - 2 * len(column_breaks)) // size)
    lines: list[str] = []
    for begin in range(0, columns, at_once):
        end = min(begin + at_once, columns)
        if at_once < columns:
            lines.append(f"columns {begin + 1} to {end}")
        for index, row in enumerate(texts):
            cells = [
                (" |" if column in column_breaks and column > begin else "") + row[column].rjust(size)
                for column in range(begin, end)
            ]
            line = "".join(cells)
            if index in row_breaks:
                lines.append("".join("+" if mark == "|" else "-" for mark in line))
            lines.append(line)
    return lines
