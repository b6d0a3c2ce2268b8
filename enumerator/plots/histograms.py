"""Starts counted: the quantised losses, the shares of the orders, and the flow times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enumerator.errors import InputError
from enumerator.plots.style import (
    COLOURS,
    COLUMN,
    GREY,
    PAGE,
    Figure,
    figure,
    order_colours,
    percent,
    styled,
    title,
    wrapped,
)
from enumerator.statistics.counting import ENDED, Sample, StartSelection, one_sample, opened
from enumerator.statistics.shares import frequencies
from enumerator.storage.sql import one_of

if TYPE_CHECKING:
    from enumerator.catalogue.catalogue import Catalogue
    from enumerator.enumeration import Enumeration

# Numbers in place of an order: of starts that end in no minimum, and of those in minima that have no order.
_NONE, _UNORDERED = -1, -2


def _binned(
    source: Catalogue | Enumeration, sample: Sample, value: str, edges: NDArray[Any], where: str | None
) -> dict[int, NDArray[np.int64]]:
    """Counts by order in each bin of the SQL `value`; those in no minimum, or in one without order, apart."""
    selected = opened(source, StartSelection(campaign=sample.campaign_ids, where=where))
    first, width, last = float(edges[0]), float(edges[1] - edges[0]), len(edges) - 2
    rows = selected.query(f"""
        with points as (select minimum_id, anti_aligned from minima),
        chosen as (
            select minimum_id, least(greatest(floor(({value} - {first!r}) / {width!r}), 0), {last})::int as bin
            from starts where {one_of("campaign_id", sample.campaign_ids)} and {selected.condition}
        )
        select case when minimum_id is null then {_NONE} else coalesce(anti_aligned, {_UNORDERED}) end as n_order, bin,
            count(*) as n
        from chosen left join points using (minimum_id) where bin is not null group by all""")
    counts: dict[int, NDArray[np.int64]] = {}
    for row in rows.to_pylist():
        counts.setdefault(row["n_order"], np.zeros(len(edges) - 1, np.int64))[row["bin"]] += row["n"]
    return counts


def _stacked(axes: Any, edges: NDArray[Any], counts: dict[int, NDArray[np.int64]], starts: int) -> None:
    """Bars of all orders on top of each other, as shares of all starts."""
    drawn = {
        order: (str(order), colour, None) for order, colour in order_colours([n for n in counts if n >= 0]).items()
    }
    drawn |= {_NONE: ("no minimum", GREY, "////"), _UNORDERED: ("minimum", COLOURS[0], None)}
    below = np.zeros(len(edges) - 1)
    for order in sorted(counts, key=lambda order: (order == _NONE, order)):
        name, colour, hatch = drawn[order]
        heights = counts[order] / starts
        axes.stairs(below + heights, edges, baseline=below, fill=True, color=colour, hatch=hatch, label=name)
        axes.stairs(np.where(heights > 0, below + heights, np.nan), edges, baseline=None, color="white", linewidth=0.5)
        # A new array: matplotlib keeps the one it was given.
        below = below + heights


@styled
def losses(source: Catalogue | Enumeration, bins: int = 160, where: str | None = None, **selection: Any) -> Figure:
    """The loss of every start as it retired, as shares of all starts in bins, over the levels of the minima.

    A dashed line stands at the loss of each minimum, with its order above.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        bins: Number of bins of the loss.
        where: An SQL condition on the columns of table `starts`.
        **selection: Which starts, by the keywords of `enumerator.statistics.StartSelection`; they must be one sample.

    Raises:
        InputError: If the selection is not one sample.
    """
    sample = one_sample(source, where=where, **selection)
    minima = [row for row in sample.ends() if row["hits"]]
    top = max([row["loss"] for row in minima], default=0.0)
    # Zero, where the global minimum lies, is in the middle of a bin.
    width = 1.07 * (top or 1.0) / bins
    edges = (np.arange(bins + 1) - 2.5) * width
    drawn = figure(PAGE, 2.8)
    axes = drawn.add_subplot()
    counts = _binned(source, sample, "loss", edges, where)
    _stacked(axes, edges, counts, sample.starts)
    colours = order_colours([row["anti_aligned"] for row in minima if row["anti_aligned"] is not None])
    # Labels of levels that lie close together stand in two rows.
    last, raised = -np.inf, False
    for row in minima:
        near = row["loss"] - last < 0.022 * (edges[-1] - edges[0])
        raised = near and not raised
        axes.axvline(row["loss"], color="0.35", linestyle=(0, (4, 3)), linewidth=0.7, zorder=0)
        if row["anti_aligned"] is not None:
            axes.annotate(
                str(row["anti_aligned"]),
                (row["loss"], 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 11 if raised else 2),
                textcoords="offset points",
                ha="center",
                color=colours[row["anti_aligned"]],
                fontweight="bold",
            )
        last = row["loss"]
    axes.set(yscale="log", ylim=(0.5 / sample.starts, 1), xlim=(edges[0], edges[-1]))
    axes.set(xlabel="population loss", ylabel="share of the starts")
    percent(axes)
    above = "" if lacks_orders(sample) else "; above: number of anti-aligned students"
    axes.set_title(f"{title(sample)}{above}", pad=22)
    return drawn


def lacks_orders(sample: Sample) -> bool:
    """Whether its minima have no number of anti-aligned students."""
    return any(row["anti_aligned"] is None for row in sample.ends())


@styled
def orders(source: Catalogue | Enumeration, confidence: float = 0.95, **selection: Any) -> Figure:
    """The share of all starts that ends in each order, with exact intervals; starts in no minimum stand beside.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        confidence: Of the intervals.
        **selection: Which starts, by the keywords of `enumerator.statistics.StartSelection`; they must be one sample.

    Raises:
        InputError: If the selection is not one sample, or its minima have no orders.
    """
    sample = one_sample(source, **selection)
    if lacks_orders(sample):
        raise InputError(
            f"the minima of {sample.campaign_names} have no orders, as T is not diagonal, or the second layer is "
            'trained: `frequencies` with by="minimum" has their shares.'
        )
    rows = frequencies(source, by="order", confidence=confidence, **selection).to_pylist()
    rows = [row for row in rows if row["hits"] or row["outcome"] == ENDED]
    places, names = _places(rows)
    colours = order_colours([row["anti_aligned"] for row in rows if row["anti_aligned"] is not None])
    shares = np.array([row["frequency"] for row in rows])
    ends = np.array([[row["exact_low"] for row in rows], [row["exact_high"] for row in rows]])
    drawn = figure(max(COLUMN, 0.32 * (max(places) + 1) + 0.8), 2.5)
    axes = drawn.add_subplot()
    axes.bar(
        places,
        shares,
        color=[GREY if row["anti_aligned"] is None else colours[row["anti_aligned"]] for row in rows],
        yerr=np.abs(ends - shares),
        error_kw={"elinewidth": 0.9, "capsize": 2.5, "ecolor": "black"},
    )
    axes.set_xticks(places, names)
    for place, share, high in zip(places, shares, ends[1], strict=True):
        axes.annotate(
            f"{100 * share:.3g}", (place, high), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7
        )
    axes.set(xlabel="anti-aligned students", ylabel="share of the starts", ylim=(0, 1.1 * max([*ends[1], 0.01])))
    percent(axes)
    axes.set_title(wrapped(f"{title(sample)}; {100 * confidence:g}% intervals"))
    return drawn


def _places(rows: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
    """Where the bars stand, and what is under them: each order at its number, what has none behind."""
    places, names = [], []
    for row in rows:
        order = row["anti_aligned"]
        places.append(order if order is not None else max([*places, -1]) + 1)
        names.append(row["outcome"] if row["outcome"] != ENDED else "?" if order is None else str(order))
    return places, names


@styled
def flow_times(source: Catalogue | Enumeration, bins: int = 80, where: str | None = None, **selection: Any) -> Figure:
    """When starts retired: shares of all starts in bins of the logarithm of the flow time, orders on top of each other.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        bins: Number of bins of the flow time.
        where: An SQL condition on the columns of table `starts`.
        **selection: Which starts, by the keywords of `enumerator.statistics.StartSelection`; they must be one sample.

    Raises:
        InputError: If the selection is not one sample.
    """
    sample = one_sample(source, where=where, **selection)
    selected = opened(source, StartSelection(campaign=sample.campaign_ids, where=where))
    condition = f"{one_of('campaign_id', sample.campaign_ids)} and flow_time > 0 and {selected.condition}"
    query = f"select min(flow_time) as low, max(flow_time) as high from starts where {condition}"
    (row,) = selected.query(query).to_pylist()
    low, high = (float(np.log10(row[name] or 1.0)) for name in ("low", "high"))
    edges = np.linspace(low - 0.02, max(high, low + 0.1) + 0.02, bins + 1)
    counts = _binned(source, sample, "log10(greatest(flow_time, 1e-300))", edges, where)
    drawn = figure(COLUMN, 2.6)
    axes = drawn.add_subplot()
    _stacked(axes, 10**edges, counts, sample.starts)
    axes.set(xscale="log", xlabel="flow time", ylabel="share of the starts")
    percent(axes)
    axes.legend(
        title=None if lacks_orders(sample) else "order",
        ncols=2,
        loc="upper right",
        handlelength=1,
        columnspacing=0.8,
        labelspacing=0.25,
    )
    axes.set_title(wrapped(title(sample)))
    return drawn
