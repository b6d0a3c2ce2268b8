"""Figures of a catalogue, ready for print: each function returns a matplotlib Figure, and `plot_all` writes them all.

    from enumerator import plots
    plots.losses(atlas, students=17, teachers=17).savefig("losses.pdf")

Shares are of all starts, whatever became of them.
"""

from enumerator.plots.all_figures import plot_all
from enumerator.plots.curves import accumulation, stopped_early, trend
from enumerator.plots.histograms import flow_times, losses, orders
from enumerator.plots.matrices import overlaps, spectra

__all__ = [
    "accumulation",
    "flow_times",
    "losses",
    "orders",
    "overlaps",
    "plot_all",
    "spectra",
    "stopped_early",
    "trend",
]
