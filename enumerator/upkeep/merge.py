"""Another catalogue, or what was exported from one, into this one: ids reconciled, no start twice.

The same order and the same conditional commits as those of a run, so runs may go on meanwhile. What
is there already is passed over, so a merge that was stopped is finished by doing it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from enumerator.catalogue import records
from enumerator.catalogue.campaign_table import DELETING, campaign_from, overlaps_of
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.point_table import Candidate
from enumerator.catalogue.row_checks import check_rows
from enumerator.catalogue.schema import table_schema
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import CatalogueError, InputError
from enumerator.problem import Landscape
from enumerator.storage.sql import quoted, run
from enumerator.upkeep.compaction import Progress

# The table of points that each of these columns of `starts` names a row of.
NAMED_IN = {"minimum_id": "minima", "saddle_id": "saddles"}
# Starts are appended in pieces of about this size in memory: some hundred thousand at once, or fewer
# with their overlaps; a stop throws away no more than one.
PIECE_BYTES = 64 * 2**20
# Rows read at a time; unfinished starts of K = M = 100 take 160 kB each.
ROWS_AT_ONCE = 8192

# By a column of NAMED_IN: our names of points, by theirs.
Names = dict[str, dict[str, str]]
_NAMED = pa.schema([("theirs", pa.string()), ("ours", pa.string())])


@dataclass(frozen=True)
class MergeSummary:
    """What a merge added. `disagreeing` starts were in both, with another outcome or minimum; ours stay."""

    campaigns: int = 0
    minima: int = 0
    saddles: int = 0
    starts: int = 0
    disagreeing: int = 0
    text_of_first: str = ""


def merge(target: Catalogue, source: Catalogue, progress: Progress | None = None) -> MergeSummary:
    """Add everything in `source` to `target`, which keeps its ids and labels; `source` is only read.

    A point of `source` is that of `target` which the matcher takes for the same; a new one keeps its id
    and label if they are free. Either order gives the same content, up to names, to the rounding of
    points, and to how much work a start that both have had taken. Campaigns in deletion are left out.
    Raises InputError if both are one catalogue, or a campaign id has other settings; CatalogueError
    where a row of `source` is not what the schemas allow, before anything is written.
    """
    if _place(target.store.address) == _place(source.store.address):
        raise InputError(f"a catalogue cannot be merged into itself, got {source.store.address} twice: name another.")
    found = dict(source.snapshot())
    # A campaign that was deleted since its starts were opened does not come in, and they are no fault.
    there = run("select campaign_id from campaigns", {"campaigns": found["campaigns"]})["campaign_id"]
    found["starts"] = found["starts"].filter(ds.field("campaign_id").isin(there))
    tables = Snapshot(found, found.__getitem__)
    if (problem := next(check_rows(tables), None)) is not None:
        raise CatalogueError(f"cannot merge {source.store.address}: {problem}. `enumerator verify` says more.")
    return merge_tables(target, tables, progress)


def _place(address: str) -> str:
    return address if "://" in address else os.path.realpath(address)


def merge_tables(target: Catalogue, tables: Snapshot, progress: Progress | None = None) -> MergeSummary:
    """Add the rows of all tables to `target`, once they have passed `check_rows`."""
    tell = progress or (lambda part, done, total: None)
    campaigns = tables.rows(f"select * from campaigns where status != {quoted(DELETING)} order by campaign_id")
    added = {"minima": 0, "saddles": 0, "starts": 0}
    landscapes = {}
    for row in tables.rows("select * from landscapes order by landscape_id"):
        landscapes[row["landscape_id"]] = landscape = records.landscape_from_row(row)
        target.campaign_table.enter_landscape(landscape, row["created_at"])
    before = len(target.campaigns(columns="campaign_id"))
    for row in campaigns:
        _enter(target, tables, row)
    entered = len(target.campaigns(columns="campaign_id")) - before
    names: Names = {column: {} for column in NAMED_IN}
    for done, landscape in enumerate(landscapes.values()):
        tell("landscapes", done, len(landscapes))
        for column, table in NAMED_IN.items():
            found, new = _merge_points(target, tables, table, landscape)
            names[column] |= found
            added[table] += new
    total = sum(row["n"] for row in tables.rows("select count(*) as n from starts"))
    seen, disagreeing, first = 0, 0, ""
    for row in campaigns:
        passed_over = 0
        before_it = _reopen(target, tables, row)
        for piece in _pieces(tables["starts"], row["campaign_id"], names):
            tell("starts", seen, total)
            new = target.append_starts(row["campaign_id"], piece)
            added["starts"] += new
            seen += len(piece)
            passed_over += len(piece) - new
        _settle(target, row, before_it)
        if passed_over:
            differing = _disagreements(target, tables, row["campaign_id"], names)
            first = first or (f"start {differing[0]} of {row['campaign_id']}" if len(differing) else "")
            disagreeing += len(differing)
    return MergeSummary(entered, **added, disagreeing=disagreeing, text_of_first=first)


def _enter(target: Catalogue, tables: Snapshot, row: dict[str, Any]) -> None:
    """Enter a campaign as running, or find it there; the earliest registration is kept."""
    name, settings = row["campaign_id"], records.settings_of(row["campaign_id"], row["campaign"])
    overlaps = Q = R = None
    if "table" in settings["law"]:
        condition = f"campaign_id = {quoted(name)} order by start_index"
        found = tables.query(f"select * from initial_overlaps where {condition}")
        if found.num_rows:
            overlaps = found.cast(table_schema("initial_overlaps").arrow)
            Q, R = overlaps_of(overlaps)
    if Q is not None or "table" not in settings["law"]:
        campaign_from(name, settings, Q, R)
    target.campaign_table.enter(row | {"status": "running", "starts": 0, "finished_at": None}, overlaps)
    registered = {key: row[key] for key in ("created_at", "software", "device")}
    target.campaign_table.change(
        name, lambda ours: ours | min(registered, {key: ours[key] for key in registered}, key=_in_order)
    )


def _in_order(registered: dict[str, Any]) -> tuple[datetime, str, str]:
    return registered["created_at"], registered["software"], registered["device"]


def _merge_points(target: Catalogue, tables: Snapshot, name: str, landscape: Landscape) -> tuple[dict[str, str], int]:
    """Our ids of their points of a landscape, by theirs, and how many were new."""
    rows = tables.rows(f"select * from {name} where landscape_id = {quoted(landscape.id)}")
    points = target.point_tables[name]
    ids, new = points.commit(landscape, [Candidate(records.point_from_row(row, landscape), row) for row in rows])
    points.date_back((ours, row["created_at"], row["first_campaign_id"]) for ours, row in zip(ids, rows, strict=True))
    return {row["minimum_id"]: ours for ours, row in zip(ids, rows, strict=True)}, new


def _pieces(starts: ds.Dataset, campaign_id: str, names: Names) -> Iterator[pa.Table]:
    """Their starts of a campaign with our names of the points, each start once, piece by piece."""
    schema = table_schema("starts").arrow
    scanner = starts.scanner(
        columns=schema.names,
        filter=ds.field("campaign_id") == campaign_id,
        batch_size=ROWS_AT_ONCE,
        batch_readahead=2,
        fragment_readahead=1,
    )
    gathered: list[pa.RecordBatch] = []
    size = 0
    for batch in scanner.to_batches():
        gathered.append(batch)
        size += batch.nbytes
        if size >= PIECE_BYTES:
            yield _renamed(pa.Table.from_batches(gathered), names)
            gathered, size = [], 0
    if gathered:
        yield _renamed(pa.Table.from_batches(gathered), names)


def _renamed(table: pa.Table, names: Names) -> pa.Table:
    table = table.cast(table_schema("starts").arrow)
    for column, ours in names.items():
        encoded = table[column].dictionary_encode().combine_chunks()
        theirs = encoded.dictionary.to_pylist()
        values = pa.array([None if name is None else _ours(name, ours) for name in theirs], pa.string())
        table = table.set_column(
            table.schema.get_field_index(column), table.schema.field(column), values.take(encoded.indices)
        )
    table = table.set_column(
        table.schema.get_field_index("lingered_on"),
        table.schema.field("lingered_on"),
        _renamed_lists(table["lingered_on"].combine_chunks(), names["saddle_id"]),
    )
    _, once = np.unique(table["start_index"].to_numpy(), return_index=True)
    return table.take(pa.array(once))


def _renamed_lists(lists: pa.ListArray, ours: dict[str, str]) -> pa.ListArray:
    """Lists of their names of points as lists of ours."""
    entries = lists.flatten()
    if not len(entries):
        return lists
    renamed = pa.array([_ours(name, ours) for name in entries.to_pylist()], pa.string())
    # Starts of a catalogue that was migrated have no list at all.
    lengths = [0 if one is None else len(one) for one in lists.to_pylist()]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, renamed, type=lists.type, mask=lists.is_null())


def _ours(name: str, ours: dict[str, str]) -> str:
    if name not in ours:
        raise CatalogueError(f"a start to be merged names {name}, which is not there: verify its catalogue.")
    return ours[name]


def _reopen(target: Catalogue, tables: Snapshot, row: dict[str, Any]) -> dict[str, Any]:
    """Set a campaign to running here if starts are to come in: with gaps it is not complete. Its row before."""
    name = row["campaign_id"]
    index = tables.query(f"select start_index from starts where campaign_id = {quoted(name)}")["start_index"].to_numpy()
    if not target.start_table.lacks(name, index):
        return target.campaign_table.existing(name)
    return target.campaign_table.change(name, lambda ours: ours | {"status": "running", "finished_at": None})


def _settle(target: Catalogue, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Complete if it was on either side, unless the starts have gaps now."""
    name = theirs["campaign_id"]
    finished = [row["finished_at"] for row in (theirs, ours) if row["status"] == "complete"]
    ranges = target.done(name)
    complete = bool(finished) and [first for first, _ in ranges] in ([], [0])
    settled = {
        "starts": sum(last - first for first, last in ranges),
        "finished_at": max(finished) if complete else None,
    }

    def settle(row: dict[str, Any]) -> dict[str, Any]:
        is_running = row["status"] == "running"
        return row | settled | {"status": "complete" if complete else "running" if is_running else "stopped"}

    target.campaign_table.change(name, settle)


def _disagreements(target: Catalogue, tables: Snapshot, campaign_id: str, names: Names) -> NDArray[np.int64]:
    """The starts of a campaign that both have, with another outcome or another point."""
    pairs = [pair for ours in names.values() for pair in ours.items()]
    named = pa.table({"theirs": [pair[0] for pair in pairs], "ours": [pair[1] for pair in pairs]}, schema=_NAMED)
    ours = target.snapshot({"starts"})["starts"]
    statement = f"""
        select a.start_index
        from (select * from ours where campaign_id = {quoted(campaign_id)}) as a
        join (select * from theirs where campaign_id = {quoted(campaign_id)}) as b using (start_index)
        left join named on named.theirs = coalesce(b.minimum_id, b.saddle_id)
        where a.outcome != b.outcome or coalesce(a.minimum_id, a.saddle_id) is distinct from named.ours
        order by start_index"""
    found = run(statement, {"ours": ours, "theirs": tables["starts"], "named": ds.dataset(named)})
    return found["start_index"].to_numpy()
