"""Statistics of starts: how often each minimum is reached, what was not seen, which dynamics does better.

    from enumerator import statistics
    statistics.frequencies(atlas, students=17, teachers=17)    # a pyarrow.Table

Functions of a catalogue (or of what `enumerate_minima` found) give Arrow tables, one row or block for each sample:
the starts of one landscape, dynamics, initial law and set of tolerances; `early_stops` is of one campaign of a
catalogue. Functions of counts give numbers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enumerator.statistics.comparison import compare, g_test, holm, marginal_test
    from enumerator.statistics.counting import PLAIN, Sample, StartSelection, samples
    from enumerator.statistics.intervals import (
        coverage,
        difference_interval,
        exact_interval,
        paired_difference_interval,
        wilson_interval,
    )
    from enumerator.statistics.missing import missing_mass, new_minima, rarefaction, richness
    from enumerator.statistics.shares import accumulation, distributions, frequencies, unseen
    from enumerator.statistics.stopped_early import early_stops
    from enumerator.statistics.trends import fit_mean, fit_share, trend

__all__ = [
    "PLAIN",
    "Sample",
    "StartSelection",
    "accumulation",
    "compare",
    "coverage",
    "difference_interval",
    "distributions",
    "early_stops",
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

# Where the names above are found: each module loads when one of its own is first used, and SciPy with it.
_MODULES = {
    "comparison": ("compare", "g_test", "holm", "marginal_test"),
    "counting": ("PLAIN", "Sample", "StartSelection", "samples"),
    "shares": ("accumulation", "distributions", "frequencies", "unseen"),
    "intervals": (
        *("coverage", "difference_interval", "exact_interval"),
        *("paired_difference_interval", "wilson_interval"),
    ),
    "stopped_early": ("early_stops",),
    "trends": ("fit_mean", "fit_share", "trend"),
    "missing": ("missing_mass", "new_minima", "rarefaction", "richness"),
}


def __getattr__(name: str) -> Any:
    """Load what is first used."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"enumerator.statistics.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What users call, whether it has been loaded or not."""
    return sorted([*__all__, "__doc__"])
