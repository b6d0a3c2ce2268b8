"""docs/concepts/ends.md: starts that come into the ball of their minimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

import enumerator as en
from enumerator.loss.overlaps import lift
from enumerator.minima.recognition import Recogniser
from enumerator.points import StationaryPoint, Student
from scripts.pictures.look import BLACK, BLUE, GREEN, RED, WIDTH
from scripts.pictures.runs import Path, enumeration, path

# Looks so late that the way goes on far into the ball; they do not change the steps.
LATE = en.Tolerances(first_look=1e-9, collapse_below=1e-9, newton_below=1e-9)


def balls() -> Figure:
    """Distance to the minimum against flow time, with the radius of its ball; a start for each order."""
    found = enumeration(9, 9, 1000)
    campaign, starts = found.result.campaign, found.result.starts
    late = replace(campaign, tolerances=LATE)
    drawn = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    ax = drawn.subplots()
    for order, colour in zip((0, 1, 2), (BLUE, GREEN, RED), strict=True):
        position = next(k for k, point in enumerate(found.result.points) if point.anti_aligned == order)
        start = int(np.argmax(starts.point == position))
        point = found.result.points[position]
        way = path(late, start)
        ax.plot(way.flow_time, distances(way, point), color=colour)
        ax.axhline(point.radius, color=colour, linestyle="--", linewidth=1.2, zorder=0)
        ax.text(1.1, point.radius * 1.08, f"radius, order {order}", color=colour, va="bottom")
        ax.plot(starts.flow_time[start], starts.distance[start], "s", color=colour, zorder=4)
    ax.plot([], [], "s", color=BLACK, label="where the start retired")
    ax.legend(loc="lower left", handletextpad=0.2)
    ax.set(xscale="log", yscale="log", xlim=(1, 4000), ylim=(1e-5, 4), xlabel="flow time")
    ax.set_ylabel("distance to the minimum")
    return drawn


def distances(way: Path, point: StationaryPoint) -> list[float]:
    """Distance of each step to the nearest permuted copy of a minimum."""
    recogniser, V = Recogniser(point.landscape), point.landscape.teacher_factor
    lifted = (np.concatenate(lift(Q, R, V), axis=1) for Q, R in zip(way.Q, way.R, strict=True))
    return [recogniser.distance(Student(point.landscape, W, None), point) for W in lifted]


PICTURES = {"ends_balls": balls}
