"""docs/concepts/lingering.md: gradient norm and loss of starts that pass a saddle."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.pictures.look import BLACK, BLUE, GREEN, GREY, RED, WIDTH
from scripts.pictures.runs import Path, enumeration, path

STUDENTS, TEACHERS, STARTS = 18, 17, 60
# Where published runs were stopped.
STOP = 1e-4


def plateaus() -> Figure:
    """The two starts that lingered longest, each on a saddle of its own, and one that lingered on none."""
    found = enumeration(STUDENTS, TEACHERS, STARTS)
    chosen: dict[int, int] = {}  # start by saddle
    for passed in sorted(found.result.lingerings, key=lambda entry: entry.entered - entry.left):
        if passed.start not in chosen.values():
            chosen.setdefault(passed.point, passed.start)
    lingered = {entry.start for entry in found.result.lingerings}
    ends = found.starts.to_pylist()
    direct = next(row["start_index"] for row in ends if row["start_index"] not in lingered and row["end_loss"] > 1e-3)
    drawn = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for start, colour in zip([*list(chosen.values())[:2], direct], (RED, BLUE, GREEN), strict=True):
        _draw(upper, lower, path(found.result.campaign, start), ends[start]["end_loss"], colour)
    upper.axhline(STOP, color=GREY, linestyle="--", linewidth=1.2, zorder=0)
    upper.text(1.1, STOP, r"stop at $10^{-4}$", va="bottom", color="0.35")
    upper.plot([], [], "o", color=BLACK, markerfacecolor="white", label="where an early stop ends it")
    upper.plot([], [], "s", color=BLACK, label="where it retired")
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, handletextpad=0.2, columnspacing=1)
    upper.set(xscale="log", yscale="log", xlim=(1, None), ylabel="gradient norm")
    lower.text(1.2, 2e-6, "those that linger end at zero loss", color="0.35")
    lower.set(yscale="log", ylim=(1e-6, 1), ylabel="loss", xlabel="flow time")
    return drawn


def _draw(upper: Axes, lower: Axes, way: Path, end: float, colour: str) -> None:
    """One start in both panels."""
    times = way.flow_time
    stop = int(np.argmax(way.gradient_norm <= STOP))
    for ax, values in ((upper, way.gradient_norm), (lower, way.loss)):
        ax.plot(times, values, color=colour)
        ax.plot(times[-1], values[-1], "s", color=colour, zorder=4)
        ax.plot(times[stop], values[stop], "o", color=colour, markerfacecolor="white", markersize=7, zorder=5)
    if end > 1e-9:
        lower.annotate(f"loss {end:.4f}", (times[-1], end), textcoords="offset points", xytext=(8, 5), color=colour)


PICTURES = {"lingering_plateaus": plateaus}
