"""How figures look: sizes of a printed column, colours that survive grey print and colour blindness."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from enumerator.statistics.counting import Sample

# Inches: the width of a text column of a journal, and of both.
COLUMN, PAGE = 3.4, 6.9
# Okabe & Ito's colours (2008), told apart by all, in an order whose greys differ; each curve has its own marker too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# What is no minimum: unfinished, diverged, saddles.
GREY = "0.65"
_SETTINGS = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "figure.dpi": 110,
    # Text stays text in SVG and PDF, and files are the same at every run.
    "svg.fonttype": "none",
    "svg.hashsalt": "enumerator",
    "pdf.fonttype": 42,
}

Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """The same figure in the style of this module, whatever the user's settings."""

    @functools.wraps(draw)
    def in_style(*arguments: Arguments.args, **named: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]
            return draw(*arguments, **named)

    return in_style


def figure(width: float = COLUMN, height: float = 2.5) -> Figure:
    """An empty figure, sizes in inches, outside pyplot: nothing stays behind, and no window opens."""
    return Figure(figsize=(width, height), layout="constrained")


def order_colours(orders: list[int]) -> dict[int, tuple[float, float, float, float]]:
    """A colour for each order, from dark (0) to light: viridis without its palest end, which paper swallows.

    The same at every size, and spread widest over the low orders, in which most starts end.
    """
    colours = matplotlib.colormaps["viridis"]
    return {order: colours(min(1.15 * order / (order + 4.0), 0.93)) for order in orders}


def percent(axes: Axes, which: str = "y") -> None:
    """Ticks in percent, with as many digits as they need."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")


def whole_numbers() -> MaxNLocator:
    """Ticks at whole numbers, for counts."""
    return MaxNLocator(integer=True)


def title(sample: Sample) -> str:
    """K = M = 17, gradient-flow, d=1000 scale=1, 10,000 starts"""
    K, M = sample.students, sample.teachers
    sizes = f"K = M = {K}" if K == M else f"K = {K}, M = {M}"
    activation = [] if sample.activation == "relu" else [sample.activation]
    law = sample.law.replace(" ", ", ")
    return ", ".join([sizes, *activation, sample.dynamics, law, *sample.unusual, f"{sample.starts:,} starts"])


def wrapped(text: str, letters: int = 46) -> str:
    """A title for a narrow figure: two entries, then lines of so many letters at most, broken between entries."""
    parts = text.split(", ")
    lines = [", ".join(parts[:2]), ""]
    for part in parts[2:]:
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(longer) <= letters:
            lines[-1] = longer
        else:
            lines.append(part)
    return "\n".join(line for line in lines if line)
