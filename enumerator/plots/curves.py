"""Curves: minima found against starts, the global minimum against the width, orders against an early stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from enumerator.errors import InputError
from enumerator.plots.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    PAGE,
    Figure,
    figure,
    order_colours,
    percent,
    styled,
    title,
    whole_numbers,
    wrapped,
)
from enumerator.statistics.counting import ENDED, PLAIN, Sample, one_sample
from enumerator.statistics.missing import richness
from enumerator.statistics.shares import accumulation as accumulation_table
from enumerator.statistics.shares import frequencies
from enumerator.statistics.stopped_early import early_stops
from enumerator.statistics.trends import curve_key, fitted
from enumerator.statistics.trends import trend as trend_table
from enumerator.stop_levels import FLOW_TIMES, GRADIENT_NORMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from enumerator.catalogue.catalogue import Catalogue
    from enumerator.enumeration import Enumeration
# An order that never holds so large a share of the starts is left out where shares are drawn against the stop.
LEAST = 0.001


@styled
def accumulation(source: Catalogue | Enumeration, confidence: float = 0.95, **selection: Any) -> Figure:
    """Distinct minima against starts: as they were found, and as expected in any order, with its spread.

    A dashed line stands at Chao1, a lower bound of the number of minima.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        confidence: The part of all orders of the starts whose counts lie in the band.
        **selection: Which starts, by the keywords of `enumerator.statistics.StartSelection`; they must be one sample.

    Raises:
        InputError: If the selection is not one sample.
    """
    sample = one_sample(source, **selection)
    table = accumulation_table(source, confidence, **selection)
    starts = table["starts"].to_numpy()
    drawn = figure(COLUMN, 2.5)
    axes = drawn.add_subplot()
    band = table["low"].to_numpy(), table["high"].to_numpy()
    axes.fill_between(
        starts, *band, color=COLOURS[4], alpha=0.35, linewidth=0, label=f"{100 * confidence:g}% of all orders"
    )
    axes.plot(starts, table["expected"].to_numpy(), color=COLOURS[0], label="in any order")
    axes.step(starts, table["found"].to_numpy(), where="post", color="black", linewidth=0.9, label="as found")
    chao = richness(sample.hits(), sample.starts).chao1
    axes.axhline(chao, color="0.35", linestyle=(0, (4, 3)), linewidth=0.8, label=f"at least {chao:.3g} (Chao1)")
    axes.set(xscale="log", xlabel="starts", ylabel="distinct minima", ylim=(0, None), xlim=(1, sample.starts))
    axes.yaxis.set_major_locator(whole_numbers())
    axes.legend(loc="lower right")
    axes.set_title(wrapped(title(sample)))
    return drawn


# The columns of a point with its interval.
_POINTS = ("students", "value", "low", "high")


@styled
def trend(
    catalogue: Catalogue,
    of: str = "global",
    confidence: float = 0.95,
    reference: pa.Table | None = None,
    reference_name: str = "reference",
    **selection: Any,
) -> Figure:
    """The share of the global minimum, or the mean order, against K, with a curve through it at each K - M.

    Args:
        catalogue: A catalogue.
        of: `global`, the share of the global minimum, or `order`, the mean number of anti-aligned students.
        confidence: Of the intervals of the points and of the curve.
        reference: Numbers from elsewhere, drawn beside: columns students, value, low and high.
        reference_name: What the legend calls them.
        **selection: Which starts, by the keywords of `enumerator.statistics.StartSelection`.

    Raises:
        InputError: If nothing is selected.
    """
    rows = trend_table(catalogue, of, confidence, **selection).to_pylist()
    if not rows:
        raise InputError("no starts selected: there is no trend to draw.")
    drawn = figure(1.25 * COLUMN, 2.9)
    axes = drawn.add_subplot()
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(curve_key(row), []).append(row)
    names = _curve_names(list(groups))
    for position, members in enumerate(groups.values()):
        columns = {name: np.array([row[name] for row in members]) for name in _POINTS}
        colour, marker = COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]
        _points(axes, columns, names[position], fmt=marker, color=colour)
        x = columns["students"]
        at = np.linspace(x.min(), x.max(), 200)
        if curve := fitted(of, members, at, None, confidence):
            axes.plot(at, curve.value, color=colour, linewidth=1)
            axes.fill_between(at, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    if reference is not None:
        columns = {name: reference[name].to_numpy() for name in _POINTS}
        beside = columns | {"students": columns["students"] + 0.15}
        _points(axes, beside, reference_name, fmt="s", color="black", mfc="white")
    ylabel = "share of the global minimum" if of == "global" else "mean number of anti-aligned students"
    axes.set(xlabel="students K", ylabel=ylabel, ylim=(0, None))
    axes.xaxis.set_major_locator(whole_numbers())
    if of == "global":
        percent(axes)
        axes.set_ylim(0, 1.02 * max(1e-3, max(row["high"] for row in rows)))
    axes.legend()
    axes.set_title(f"{100 * confidence:g}% intervals of points and of the curve")
    return drawn


def _points(axes: Axes, columns: dict[str, NDArray[Any]], label: str, **style: Any) -> None:
    """The values of some widths, with their intervals."""
    x, value, low, high = (columns[name] for name in _POINTS)
    axes.errorbar(x, value, [value - low, high - value], capsize=2, elinewidth=0.8, label=label, **style)


def _curve_names(keys: list[tuple[Any, ...]]) -> list[str]:
    """What tells the curves apart, K - M always."""
    varies = [len({key[k] for key in keys}) > 1 for k in range(1, 5)]
    names = []
    for gap, *others in keys:
        sizes = "K = M" if gap == 0 else f"K = M {'+' if gap > 0 else '-'} {abs(gap)}"
        more = [text for text, differs in zip(others, varies, strict=True) if differs]
        _, dynamics, law, settings = others
        alone = [dynamics, law, *([] if settings == PLAIN else [settings])]
        names.append(", ".join([sizes, *(text.replace(" ", ", ") for text in more or alone)]))
    return names


@styled
def stopped_early(catalogue: Catalogue, campaign: str | Sequence[str]) -> Figure:
    """Shares of the orders as a solver that stops early would have reported them, and where the starts end.

    Left at a gradient norm, right at a flow time. Starts are counted by the order that is seen at the stop.

    Args:
        catalogue: A catalogue.
        campaign: Name or id of a campaign, or several, which must be one sample.

    Raises:
        InputError: For an unknown campaign, several samples, or minima without orders.
    """
    sample = one_sample(catalogue, campaign=campaign)
    ends = {
        row["anti_aligned"]: row["frequency"]
        for row in frequencies(catalogue, by="order", campaign=campaign).to_pylist()
        if row["outcome"] == ENDED and row["anti_aligned"] is not None
    }
    if not ends:
        raise InputError(f"the minima of campaign {sample.campaign_names} have no order: there is nothing to draw.")
    stops = [("gradient_norm", value) for value in GRADIENT_NORMS], [("flow_time", value) for value in FLOW_TIMES]
    drawn = figure(PAGE, 2.9)
    parts = drawn.subplots(1, 2, sharey=True, width_ratios=(4, 5))
    shares = [[_shares(catalogue, sample, name, value) for name, value in kind] for kind in stops]
    all_orders = sorted({order for kind in shares for one in kind for order in one} | set(ends))
    shown = [
        o for o in all_orders if max([ends.get(o, 0), *(one.get(o, 0) for kind in shares for one in kind)]) >= LEAST
    ]
    colours = order_colours(shown)
    for axes, kind, found, name in zip(parts, stops, shares, ("gradient norm", "flow time"), strict=True):
        ticks = [f"$10^{{{round(np.log10(value))}}}$" for _, value in kind] + ["end"]
        for position, order in enumerate(shown):
            values = [one.get(order, 0.0) for one in found] + [ends.get(order, 0.0)]
            marker = MARKERS[position % len(MARKERS)]
            axes.plot(range(len(ticks)), values, marker=marker, color=colours[order], label=str(order))
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set(xlabel=f"as if stopped at this {name}", ylim=(0, None))
        percent(axes)
    parts[0].set_ylabel("share of the starts")
    drawn.legend(*parts[0].get_legend_handles_labels(), title="order", loc="outside right center")
    drawn.suptitle(title(sample), fontsize=8.5)
    return drawn


def _shares(catalogue: Catalogue, sample: Sample, name: str, value: float) -> dict[int, float]:
    """By order, zero loss included: the shares that a stop would have reported."""
    stopped: dict[int, int] = {}
    for campaign in sample.campaign_ids:
        for row in early_stops(catalogue, campaign, **{name: value}).to_pylist():
            if row["anti_aligned"] is not None:
                stopped[row["anti_aligned"]] = stopped.get(row["anti_aligned"], 0) + row["stopped"]
    return {order: starts / sample.starts for order, starts in stopped.items()}
