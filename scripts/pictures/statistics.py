"""docs/concepts/statistics.md: how often the two intervals of a share cover it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from enumerator.statistics import coverage, exact_interval, wilson_interval
from scripts.pictures.look import BLACK, BLUE, ORANGE, WIDTH

STARTS = 500


def coverage_of_intervals() -> Figure:
    """The probability that an interval from so many starts covers the true share, against that share: exact sums."""
    shares = np.geomspace(1e-3, 0.5, 1500)
    drawn = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = drawn.subplots()
    for interval, name, colour in ((wilson_interval, "Wilson", ORANGE), (exact_interval, "exact", BLUE)):
        axes.plot(shares, coverage(interval, STARTS, shares), color=colour, linewidth=1, label=name)
    axes.axhline(0.95, color=BLACK, linewidth=0.8, linestyle=":")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xscale="log", xlim=(shares[0], shares[-1]), ylim=(0.88, 1.002))
    axes.set(xlabel=f"true share of a minimum ({STARTS} starts)", ylabel="covers the share")
    axes.legend(loc="lower right")
    return drawn


PICTURES = {"statistics_coverage": coverage_of_intervals}
