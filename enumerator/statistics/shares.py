"""How often starts end in each minimum, in each order, and in no minimum; what was not seen; distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from enumerator.errors import InputError
from enumerator.statistics.counting import ENDED, OUTCOMES, SAMPLE_FIELDS, Sample, StartSelection, opened, samples
from enumerator.statistics.intervals import check_confidence, exact_interval, wilson_interval
from enumerator.statistics.missing import RARE_NEEDED, missing_mass, new_minima, rarefaction, richness
from enumerator.storage.sql import one_of

if TYPE_CHECKING:
    from enumerator.statistics.counting import Countable

# The unit of a frequency: a minimum, all minima of one order, or an outcome.
UNITS = ("minimum", "order", "outcome")
# Quantities that are distributed over starts: columns of table `starts`.
QUANTITIES = ("loss", "flow_time", "evaluations", "gradient_norm", "distance")
# Points of a curve: more than a plot can show.
CURVE_POINTS = 200

_INTERVALS = [(name, pa.float64()) for name in ("exact_low", "exact_high", "wilson_low", "wilson_high")]
_FREQUENCIES = pa.schema(
    [
        *SAMPLE_FIELDS[:2],
        ("outcome", pa.string()),
        ("label", pa.string()),
        ("anti_aligned", pa.int32()),
        ("loss", pa.float64()),
        ("hits", pa.int64()),
        ("starts", pa.int64()),
        ("frequency", pa.float64()),
        *_INTERVALS,
        ("orbit_size_log10", pa.float64()),
        ("frequency_per_copy_log10", pa.float64()),
        ("minimum_id", pa.string()),
        *SAMPLE_FIELDS[2:],
    ]
)
# Columns that only a single minimum has.
_OF_MINIMA = ["label", "loss", "orbit_size_log10", "frequency_per_copy_log10", "minimum_id"]


def frequencies(source: Countable, by: str = "minimum", confidence: float = 0.95, **selection: Any) -> pa.Table:
    """The share of the starts that ended in each minimum, with exact and Wilson intervals, for each sample.

    Shares are of all starts of the sample: nothing is conditional on having converged, and hits add up to `starts`.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        by: What has a row: each `minimum` of the landscape, those that no start reached included, with each other
            outcome beside; each `order` (number of anti-aligned students); or each `outcome`.
        confidence: Of every interval, between 0 and 1.
        **selection: Which starts, by the keywords of `StartSelection`.

    Returns:
        `hits`, `starts`, `frequency`, `exact_low` to `exact_high` (Clopper-Pearson), `wilson_low` to `wilson_high`, and
            what names the row and its sample. `frequency_per_copy_log10` is the decimal logarithm of the frequency over
            the number of copies of the minimum under permutations; null without hits, or where copies are connected.

    Raises:
        InputError: For names that do not exist, or another `by`.

    Examples:
        >>> atlas = en.Catalogue("atlas")
        >>> table = en.statistics.frequencies(atlas, students=7, teachers=7)
        >>> table.select(["label", "hits", "frequency", "exact_low", "exact_high"]).to_pandas().round(3)
                      label  hits  frequency  exact_low  exact_high
        0        relu.7.7.0    60      0.938      0.848       0.983
        1  relu.7.7.0232027     4      0.062      0.017       0.152
    """
    if by not in UNITS:
        raise InputError(f"`by` must be one of {', '.join(UNITS)}, got {by!r}.")
    check_confidence(confidence)
    rows = []
    for sample in samples(source, **selection):
        classes = _classes(sample, by)
        hits, starts = np.array([row["hits"] for row in classes], np.int64), sample.starts
        exact, wilson = exact_interval(hits, starts, confidence), wilson_interval(hits, starts, confidence)
        for position, row in enumerate(classes):
            frequency = row["hits"] / starts
            ends = [float(bound[position]) for bound in (*exact, *wilson)]
            rows.append(
                sample.row()
                | row
                | {"starts": starts, "frequency": frequency, "frequency_per_copy_log10": _per_copy(frequency, row)}
                | dict(zip((name for name, _ in _INTERVALS), ends, strict=True))
            )
    table = pa.Table.from_pylist(rows, schema=_FREQUENCIES)
    return (
        table if by == "minimum" else table.drop_columns([*_OF_MINIMA, *(["anti_aligned"] if by == "outcome" else [])])
    )


def _classes(sample: Sample, by: str) -> list[dict[str, Any]]:
    """The rows of a sample, or their sums by order and outcome, or by outcome alone."""
    rows = sample.classes.to_pylist()
    if by == "minimum":
        return rows
    sums: dict[tuple[str, int | None], int] = {}
    if by == "outcome":
        sums = {(outcome, None): 0 for outcome in OUTCOMES}
    for row in rows:
        order = row["anti_aligned"] if by == "order" and row["outcome"] == ENDED else None
        sums[row["outcome"], order] = sums.get((row["outcome"], order), 0) + row["hits"]
    ordered = sorted(sums, key=lambda key: (OUTCOMES.index(key[0]), key[1] is None, key[1] or 0))
    return [{"outcome": key[0], "anti_aligned": key[1], "hits": sums[key]} for key in ordered]


def _per_copy(frequency: float, row: dict[str, Any]) -> float | None:
    size = row.get("orbit_size_log10")
    return None if size is None or frequency == 0 else float(np.log10(frequency) - size)


# Of a prediction from few minima that were hit once or twice.
NEVER_ALONE = "do not quote new_minima without its interval"
_UNSEEN = pa.schema(
    [
        *SAMPLE_FIELDS[:2],
        ("starts", pa.int64()),
        ("in_no_minimum", pa.int64()),
        ("minima", pa.int64()),
        ("hit_once", pa.int64()),
        ("hit_twice", pa.int64()),
        ("missing_mass", pa.float64()),
        ("missing_low", pa.float64()),
        ("missing_high", pa.float64()),
        ("missing_bound", pa.float64()),
        ("chao1", pa.float64()),
        ("chao1_low", pa.float64()),
        ("chao1_high", pa.float64()),
        ("ichao1", pa.float64()),
        ("more", pa.int64()),
        ("new_minima", pa.float64()),
        ("new_low", pa.float64()),
        ("new_high", pa.float64()),
        ("more_limit", pa.int64()),
        ("note", pa.string()),
        *SAMPLE_FIELDS[2:],
    ]
)


def unseen(source: Countable, more: int | None = None, confidence: float = 0.95, **selection: Any) -> pa.Table:
    """What the starts selected have not seen: missing mass, number of minima, and what more starts would find.

    Starts that ended in no minimum (`in_no_minimum`) count as ends that were seen. Minima that they might have reached
    are not in any of these numbers.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        more: Number of further starts to predict for; as many as there are, if not given.
        confidence: Of every interval, between 0 and 1.
        **selection: Which starts, by the keywords of `StartSelection`.

    Returns:
        A row for each sample. `missing_mass` is the probability that the next start ends in a minimum that none has
            ended in (see `missing_mass`). `missing_bound` is an upper bound that always holds, with this confidence.
            `chao1` and `ichao1` are lower bounds of the number of minima that this law reaches (see `richness`).
            `new_minima` is the number expected in `more` further starts (see `new_minima`), null beyond `more_limit`.
            An interval is null where none is valid, and `note` says why. It also says where `new_minima` rests on so
            few minima that it means nothing without its interval.

    Raises:
        InputError: For names that do not exist, or a negative `more`.
    """
    rows = []
    for sample in samples(source, **selection):
        hits, starts = sample.hits(), sample.starts
        mass = missing_mass(hits, starts, sample.held_out(), confidence)
        rich = richness(hits, starts, confidence)
        new = new_minima(hits, starts, starts if more is None else more, confidence)
        is_rare = np.isin(hits, (1, 2)).sum() < RARE_NEEDED and new.low is not None
        notes = (mass.reason, rich.reason, new.reason, NEVER_ALONE if is_rare else None)
        rows.append(
            sample.row()
            | {
                "starts": starts,
                "in_no_minimum": starts - int(hits.sum()),
                "minima": rich.observed,
                "hit_once": int((hits == 1).sum()),
                "hit_twice": int((hits == 2).sum()),
                "missing_mass": mass.estimate,
                "missing_low": mass.low,
                "missing_high": mass.high,
                "missing_bound": mass.bound,
                "chao1": rich.chao1,
                "chao1_low": rich.chao1_low,
                "chao1_high": rich.chao1_high,
                "ichao1": rich.ichao1,
                "more": new.more,
                "new_minima": new.expected,
                "new_low": new.low,
                "new_high": new.high,
                "more_limit": new.limit,
                "note": "; ".join(text for text in notes if text) or None,
            }
        )
    return pa.Table.from_pylist(rows, schema=_UNSEEN)


def accumulation(source: Countable, confidence: float = 0.95, **selection: Any) -> pa.Table:
    """Distinct minima against the number of starts, for each sample: found in order, and expected in any order.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        confidence: Of every interval, between 0 and 1.
        **selection: Which starts, by the keywords of `StartSelection`.

    Returns:
        Up to 200 rows for each sample. `found` counts the minima among the first `starts` in the order of their
            indices; `expected`, `low` and `high` are the rarefaction curve (see `rarefaction`).

    Raises:
        InputError: For names that do not exist.
    """
    fields = [("starts", pa.int64()), ("found", pa.int64())]
    fields += [(name, pa.float64()) for name in ("expected", "low", "high")]
    tables = []
    for sample in samples(source, **selection):
        sizes = np.unique(np.geomspace(1, sample.starts, CURVE_POINTS).round().astype(np.int64))
        curve = rarefaction(sample.hits(), sample.starts, sizes, confidence)
        firsts = np.sort([row["first"] for row in sample.ends() if row["hits"]])
        columns = {name: [value] * len(sizes) for name, value in sample.row().items()}
        columns |= {"starts": sizes, "found": np.searchsorted(firsts, sizes), "expected": curve["minima"]}
        columns |= {"low": curve["low"], "high": curve["high"]}
        tables.append(pa.table(columns).select([name for name, _ in (*SAMPLE_FIELDS[:2], *fields, *SAMPLE_FIELDS[2:])]))
    schema = pa.schema([*SAMPLE_FIELDS[:2], *fields, *SAMPLE_FIELDS[2:]])
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


def distributions(source: Countable, of: str = "flow_time", by: str = "minimum", **selection: Any) -> pa.Table:
    """Quantiles of a column of the starts, by campaign and minimum, order or outcome.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        of: The column: `flow_time`, `loss`, `evaluations`, `gradient_norm` or `distance`.
        by: What has a row of each campaign: each `minimum`, `order` or `outcome`.
        **selection: Which starts, by the keywords of `StartSelection`.

    Returns:
        `mean`, `least`, `q05`, `q25`, `median`, `q75`, `q95` and `largest`. `null` counts the starts without a finite
            value; they are in `starts` all the same.

    Raises:
        InputError: For names that do not exist, or another `of` or `by`.
    """
    if of not in QUANTITIES:
        raise InputError(f"`of` must be one of {', '.join(QUANTITIES)}, got {of!r}.")
    if by not in UNITS:
        raise InputError(f"`by` must be one of {', '.join(UNITS)}, got {by!r}.")
    selected = opened(source, StartSelection(**selection))
    unit = {
        "minimum": "outcome, points.label, points.anti_aligned",
        "order": "outcome, null as label, case when outcome = 'converged' then points.anti_aligned end as anti_aligned",
        "outcome": "outcome, null as label, null::int as anti_aligned",
    }[by]
    found = selected.query(f"""
        with points as (
            select minimum_id, label, anti_aligned from minima
            union all select minimum_id, label, anti_aligned from saddles
        ),
        chosen as (
            select campaign_id, outcome, coalesce(minimum_id, saddle_id) as point, {of} as value from starts
            where {one_of("campaign_id", [entry[0] for entry in selected.campaigns])} and {selected.condition}
        ),
        named as (
            select campaign_id, {unit}, value from chosen left join points on chosen.point = points.minimum_id
        ),
        grouped as (
            select campaign_id, outcome, label::varchar as label, anti_aligned, count(*) as starts,
                count(*) - count(value) as "null", avg(value) as mean,
                quantile_cont(value, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]) as q
            from named group by all
        )
        select campaign_id, '{of}' as quantity, outcome, label, anti_aligned, starts, "null", mean, q[1] as least,
            q[2] as q05, q[3] as q25, q[4] as median, q[5] as q75, q[6] as q95, q[7] as largest
        from grouped order by campaign_id, outcome, anti_aligned, label""")
    names = {entry.id: entry.name for entry in selected.campaigns}
    called = [names[campaign] for campaign in found["campaign_id"].to_pylist()]
    return found.add_column(1, "campaign_name", pa.array(called, pa.string()))
