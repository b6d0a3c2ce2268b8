"""docs/concepts/constraints.md: where three students end in the space of two teachers and one direction more."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import enumerator as en
from scripts.pictures.look import BLACK, BLUE, GREEN, GREY, ORANGE, WIDTH

STUDENTS, TEACHERS, DIMENSION, STARTS = 3, 2, 20, 40


def students_in_space() -> Figure:
    """The students of the lowest minimum that was found under each constraint, as arrows; the plane is the span."""
    panels = []
    for constraint in ("none", "normalized", "orthonormalized"):
        landscape = en.Landscape(STUDENTS, TEACHERS, constraint=constraint)
        found = en.enumerate_minima(landscape, starts=STARTS, law=en.InitialLaw(DIMENSION))
        lowest = found.minimum(found.minima.sort_by("loss")["label"][0].as_py())
        panels.append((constraint, lowest["loss"], lowest.W))
    return _drawn(panels)


def _drawn(panels: list[tuple[str, float, NDArray[np.float64]]]) -> Figure:
    drawn = Figure(figsize=(WIDTH, 2.0))
    for place, (constraint, loss, W) in enumerate(panels):
        axes = drawn.add_axes((place / 3, -0.12, 1 / 3, 1.05), projection="3d")
        drawn.text((place + 0.5) / 3, 0.985, f"{constraint}\nloss {loss:.4g}", ha="center", va="top")
        _arrows(axes, W)
    return drawn


def _arrows(axes: Any, W: NDArray[np.float64]) -> None:
    """Students W (K, D) with D up to 3, those that reach out of the plane of the teachers with a line to it."""
    edge = np.array([-0.4, 1.05])
    axes.plot_surface(*np.meshgrid(edge, edge), np.zeros((2, 2)), color=GREY, alpha=0.25, linewidth=0)
    for teacher in np.eye(2):
        axes.plot([0, teacher[0]], [0, teacher[1]], [0, 0], color=BLACK, linewidth=4, alpha=0.35, solid_capstyle="butt")
    heads = np.pad(W, ((0, 0), (0, 3 - W.shape[1])))
    for head, colour in zip(heads, (BLUE, ORANGE, GREEN), strict=False):
        axes.quiver(0, 0, 0, *head, color=colour, arrow_length_ratio=0.15, linewidth=2)
        axes.plot([head[0]] * 2, [head[1]] * 2, [0, head[2]], color=colour, linewidth=1, linestyle=":")
    axes.set(xlim=(-0.35, 1), ylim=(-0.35, 1), zlim=(-0.75, 0.75))
    axes.set_box_aspect((1, 1, 1.1), zoom=1.15)
    axes.view_init(elev=22, azim=-62)
    axes.set_axis_off()


PICTURES = {"constraints_students": students_in_space}
