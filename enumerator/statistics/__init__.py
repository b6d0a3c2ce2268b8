"""Statistics of starts: how often each minimum is reached, what was not seen, which dynamics does better.

    from enumerator import statistics
    statistics.frequencies(atlas, students=17, teachers=17)    # a pyarrow.Table

Functions of a catalogue (or of what `enumerate_minima` found) give Arrow tables, one row or block for each sample:
the starts of one landscape, dynamics, initial law and set of tolerances. Functions of counts give numbers.
"""

from enumerator.statistics.comparison import compare, g_test, holm, marginal_test
from enumerator.statistics.counting import PLAIN, Sample, StartSelection, samples
from enumerator.statistics.frequencies import accumulation, distributions, frequencies, unseen
from enumerator.statistics.intervals import (
    coverage,
    difference_interval,
    exact_interval,
    paired_difference_interval,
    wilson_interval,
)
from enumerator.statistics.trend import fit_mean, fit_share, trend
from enumerator.statistics.unseen import missing_mass, new_minima, rarefaction, richness

__all__ = [
    "PLAIN",
    "Sample",
    "StartSelection",
    "accumulation",
    "compare",
    "coverage",
    "difference_interval",
    "distributions",
    "exact_interval",
    "fit_mean",
    "fit_share",
    "frequencies",
    "g_test",
    "holm",
    "marginal_test",
    "missing_mass",
    "new_minima",
    "paired_difference_interval",
    "rarefaction",
    "richness",
    "samples",
    "trend",
    "unseen",
    "wilson_interval",
]
