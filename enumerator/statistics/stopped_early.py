"""As if stopped early: what a campaign would have reported at a small gradient or a flow time, beside the truth."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import InputError
from enumerator.statistics.intervals import wilson_interval
from enumerator.stop_levels import FLOW_TIMES, GRADIENT_NORMS
from enumerator.storage.sql import quoted
from enumerator.validation import check_number, check_text

# A loss below this part of the largest squared norm of a teacher is reported as the global minimum: at a
# gradient norm of 1e-3 merging students still have 1e-5, spurious minima above 1e-3 up to 300 teachers.
FOUND = 1e-4

_SCHEMA = pa.schema(
    [
        ("anti_aligned", pa.int32()),
        ("zero_loss", pa.bool_()),
        ("stopped", pa.int64()),
        ("stopped_frequency", pa.float64()),
        ("stopped_low", pa.float64()),
        ("stopped_high", pa.float64()),
        ("hits", pa.int64()),
        ("frequency", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)


def early_stops(
    catalogue: Catalogue | Snapshot, campaign: str, gradient_norm: float | None = None, flow_time: float | None = None
) -> pa.Table:
    """Frequencies by order as a stop at this gradient norm, or at this flow time, would have reported, and true ones.

    A start that retired before the stop is counted where it ends.

    Args:
        catalogue: A catalogue.
        campaign: Name or id of a campaign.
        gradient_norm: A gradient norm to stop at, over the root mean square norm of a teacher: 1e-3, 1e-4 or 1e-6.
        flow_time: Or a flow time: 1e2, 1e3, 1e4 or 1e5. Give one of the two.

    Returns:
        A row for each order, that of zero loss apart (a loss below 1e-4 of the largest squared norm of a teacher).
            `stopped` starts would have been counted there, and `hits` end there; both with their shares of all starts
            of the campaign and 95% intervals (Wilson). Order null has the starts whose order is not defined, or that
            reached neither the stop nor an end.

    Raises:
        InputError: For another stop, or an unknown campaign.
    """
    position = _position(gradient_norm, flow_time)
    check_text("campaign", campaign)
    if not isinstance(catalogue, Catalogue | Snapshot):
        raise InputError(f"expected a catalogue on disk, got {catalogue!r}: a service has `early_stops` of its own.")
    tables = catalogue if isinstance(catalogue, Snapshot) else catalogue.snapshot()
    (row,) = tables.select("campaigns", {"campaign": campaign, "columns": "campaign_id,landscape_id"}).to_pylist()
    (landscape,) = tables.select("landscapes", {"landscape": row["landscape_id"], "columns": "teachers,T"}).to_pylist()
    found = FOUND * max(landscape["T"][:: landscape["teachers"] + 1])
    query = f"""
        with ends as (
            select s.stop_loss[{position}] as early_loss, s.stop_anti_aligned[{position}] as early_order,
                p.loss, p.anti_aligned
            from starts s left join (
                select minimum_id, loss, anti_aligned from minima union all
                select minimum_id, loss, anti_aligned from saddles
            ) p on p.minimum_id = coalesce(s.minimum_id, s.saddle_id)
            where s.campaign_id = {quoted(row["campaign_id"])}
        ),
        counted as (
            select anti_aligned, coalesce(loss, 1e300) < {found} as zero_loss, 0 as stopped, 1 as hits from ends
            union all
            select case when early_loss is null then anti_aligned else early_order end,
                coalesce(early_loss, loss, 1e300) < {found}, 1, 0
            from ends
        )
        select anti_aligned, zero_loss, sum(stopped)::bigint as stopped, sum(hits)::bigint as hits
        from counted group by all order by zero_loss desc, anti_aligned nulls last"""
    rows = tables.query(query).to_pylist()
    total = sum(entry["hits"] for entry in rows)
    return pa.Table.from_pylist([_with_intervals(entry, total) for entry in rows], schema=_SCHEMA)


def _position(gradient_norm: float | None, flow_time: float | None) -> int:
    """Place of a stop in the lists of the starts, from 1."""
    if (gradient_norm is None) == (flow_time is None):
        raise InputError("an early stop is at a gradient norm or at a flow time: give one of the two.")
    name, offered = ("gradient_norm", GRADIENT_NORMS) if flow_time is None else ("flow_time", FLOW_TIMES)
    value = check_number(name, gradient_norm if flow_time is None else flow_time)
    if value not in offered:
        raise InputError(f"`{name}` must be one of {', '.join(f'{entry:g}' for entry in offered)}, got {value!r}.")
    return offered.index(value) + 1 + (0 if flow_time is None else len(GRADIENT_NORMS))


def _with_intervals(row: dict[str, Any], total: int) -> dict[str, Any]:
    result = dict(row)
    for count, prefix in (("stopped", "stopped_"), ("hits", "")):
        low, high = wilson_interval(row[count], total)
        result |= {
            f"{prefix}frequency": row[count] / total,
            f"{prefix}low": float(low),
            f"{prefix}high": float(high),
        }
    return result
