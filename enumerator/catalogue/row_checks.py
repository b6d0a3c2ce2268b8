"""Whether rows from elsewhere are what the schemas allow: each value by itself, and the rows that it names.

One pass, before anything of them is written. Whether the numbers are right is left to verification.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset as ds
from numpy.typing import NDArray

from enumerator.catalogue import records
from enumerator.catalogue.campaign_table import campaign_from, overlaps_of
from enumerator.catalogue.schema import TABLE_NAMES, Column, table_schema
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import EnumeratorError
from enumerator.problem import Landscape
from enumerator.storage.sql import quoted

# Rows looked at together; unfinished starts of K = M = 100 take 160 kB each.
ROWS_AT_ONCE = 4096
# Runs of starts that are met before they are joined to those before.
RUNS_AT_ONCE = 2**16
# Bytes of a text, and of the settings of a campaign: 1,024 teachers have a million overlaps of 25 digits in there.
MOST_BYTES, MOST_SETTINGS = 2**16, 2**25
# Characters that a terminal may obey, or that hide others: controls, formats, ends of lines.
_HIDDEN = r"[\p{C}\p{Zl}\p{Zp}]"
# Microseconds since 1970 of the years 1 to 9999: other times cannot be held by every reader.
_TIMES = (-62_135_596_800_000_000, 253_402_300_799_999_999)
# What a point repeats of its landscape.
_OF_LANDSCAPE = ("students", "teachers", "activation", "constraint", "second_layer")
# What settings raise that this software did not write.
_UNREADABLE = (EnumeratorError, ValueError, TypeError, KeyError, AttributeError, RecursionError, ArithmeticError)

# Its functions are made at run time: no type checker knows them.
pc: Any = pyarrow.compute

Flags = NDArray[np.bool_]
Runs = NDArray[np.int64]


class RowProblem(NamedTuple):
    """A row that its table must not hold: a column, the value there in short, and what was expected of it.

    `position` is that of the row among those that were looked at together.
    """

    table: str
    key: str
    column: str
    value: str
    expected: str
    position: int

    def __str__(self) -> str:
        return f"{self.table}, {self.key}: {self.column} must be {self.expected}, got {self.value}"


def check_rows(tables: Snapshot) -> Iterator[RowProblem]:
    """The rows that are not what the schemas allow, as they are met.

    What comes after a problem may rest on what was refused.
    """
    known: dict[str, pa.Table] = {}
    met = MetStarts()
    for name in TABLE_NAMES:
        kept = [table_schema(name).arrow.empty_table().select(_kept(name))]
        try:
            for rows in _batches(name, tables[name]):
                yield from check_values(name, rows)
                yield from _check_named(name, rows, known)
                kept.append(rows.select(_kept(name)))
                if name == "starts":
                    met.add(pc.index_in(rows["campaign_id"], known["campaigns"]["campaign_id"]), rows["start_index"])
        except (pa.ArrowException, OSError) as error:
            yield RowProblem(name, "some row", "everything", " ".join(str(error).split()), "readable", 0)
            return
        known[name] = pa.concat_tables(kept).combine_chunks()
        yield from _check_unique(name, known[name])
        if name == "starts" and (twice := met.twice()) is not None:
            campaign, index = _short(known["campaigns"]["campaign_id"][twice[0]]), str(twice[1])
            yield RowProblem(name, f"campaign_id {campaign} start_index {index}", "start_index", index, "there once", 0)
        if name == "landscapes":
            yield from _check_landscapes(known[name])
        if name == "campaigns":
            yield from _check_campaigns(tables, known["landscapes"])


def _kept(name: str) -> list[str]:
    """The columns that later checks need; none of the tables whose rows are starts, which are many."""
    if name == "landscapes":
        return table_schema(name).column_names
    return [*table_schema(name).key, "landscape_id"] if name in ("campaigns", "minima", "saddles") else []


def _batches(name: str, dataset: ds.Dataset) -> Iterator[pa.Table]:
    scanner = dataset.scanner(batch_size=ROWS_AT_ONCE, batch_readahead=2, fragment_readahead=1)
    for batch in scanner.to_batches():
        if batch.num_rows:
            batch.validate(full=True)  # text in UTF-8, lists within their entries
            yield pa.Table.from_batches([batch]).cast(table_schema(name).arrow).combine_chunks()


def _problems(name: str, rows: pa.Table, bad: Flags, column: str, expected: str) -> Iterator[RowProblem]:
    """A problem for each row that is `bad` (n,)."""
    for position in np.flatnonzero(bad):
        key = " ".join(f"{part} {_short(rows[part][position])}" for part in table_schema(name).key)
        yield RowProblem(name, key, column, _short(rows[column][position]), expected, int(position))


def _short(value: pa.Scalar) -> str:
    """A value in a message: nothing that a terminal obeys, and not too long."""
    if pa.types.is_timestamp(value.type):
        value = value.cast(pa.int64())
    found = (pc.utf8_slice_codeunits(value, 0, 80) if pa.types.is_string(value.type) else value).as_py()
    text = "null" if found is None else ascii(found)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Each value by itself


def check_values(name: str, rows: pa.Table) -> Iterator[RowProblem]:
    """The rows of table `name` with a value that its column does not allow."""
    for rule in table_schema(name).columns:
        column = rows[rule.name].combine_chunks()
        is_list = pa.types.is_list(column.type)
        if not rule.nullable:
            yield from _problems(name, rows, _flags(column.is_null()), rule.name, "given")
        entries = column.flatten() if is_list else column
        if pa.types.is_string(entries.type):
            # First of all: nothing else is to look at a text without end.
            most = MOST_SETTINGS if rule.name == "campaign" else MOST_BYTES
            long = pc.greater(pc.binary_length(entries), most)
            yield from _problems(
                name, rows, _rows_of(column, long) if is_list else _flags(long), rule.name, f"at most {most:,} bytes"
            )
            if pc.any(long).as_py():
                continue
        if is_list and not rule.gaps:
            yield from _problems(name, rows, _rows_of(column, entries.is_null()), rule.name, "without gaps")
        for bad, expected in _outside(rule, entries):
            yield from _problems(name, rows, _rows_of(column, bad) if is_list else _flags(bad), rule.name, expected)


def _flags(found: pa.Array) -> Flags:
    return found.fill_null(False).to_numpy(zero_copy_only=False)


def _rows_of(lists: pa.ListArray, bad: pa.Array) -> Flags:
    """The rows that hold a bad entry; `bad` has one for each entry of all lists."""
    rows = np.zeros(len(lists), bool)
    rows[pc.list_parent_indices(lists).to_numpy()[_flags(bad)]] = True
    return rows


def _outside(rule: Column, values: pa.Array) -> Iterator[tuple[pa.Array, str]]:
    """For each thing that a column asks of its values: which are otherwise, and what was asked, in words."""
    if pa.types.is_floating(values.type) and rule.finite:
        yield pc.invert(pc.is_finite(values)), "finite"
    if pa.types.is_timestamp(values.type):
        since = values.cast(pa.int64())
        yield pc.or_(pc.less(since, _TIMES[0]), pc.greater(since, _TIMES[1])), "a time in the years 1 to 9999"
    if rule.minimum is not None:
        yield pc.less(values, rule.minimum), f"at least {rule.minimum}"
    if rule.maximum is not None:
        yield pc.greater(values, rule.maximum), f"at most {rule.maximum}"
    if rule.values is not None:
        wanted = pc.is_in(values, pa.array(rule.values))
        yield pc.and_(values.is_valid(), pc.invert(wanted)), f"one of {', '.join(rule.values)}"
    if rule.pattern is not None:
        yield pc.invert(pc.match_substring_regex(values, rf"\A(?:{rule.pattern})\z")), f"of the form {rule.pattern}"
    if pa.types.is_string(values.type):
        yield pc.match_substring_regex(values, _HIDDEN), "plain text"


# The rows that a row names


def _check_named(name: str, rows: pa.Table, known: Mapping[str, pa.Table]) -> Iterator[RowProblem]:
    """Rows that name one that is not there, that fit another landscape, or whose lists have another length."""
    for rule in table_schema(name).columns:
        if rule.names is not None:
            yield from _check_name(name, rows, rule, known[rule.names])
    home = None
    if name != "landscapes" and "landscape_id" in rows.column_names:
        landscapes = known["landscapes"]
        home = landscapes.take(pc.index_in(rows["landscape_id"], landscapes["landscape_id"].combine_chunks()))
    for rule in table_schema(name).columns:
        if rule.shape is not None:
            sizes = [rows[part] if part in rows.column_names else home[part] for part in rule.shape]  # type: ignore[index]
            length = np.prod([pc.fill_null(size, -1).to_numpy().astype(np.int64) for size in sizes], axis=0)
            found = pc.list_value_length(rows[rule.name])
            differs = pc.not_equal(found, pa.array(length))
            wanted = f"a list of {' x '.join(rule.shape)} numbers"
            yield from _problems(name, rows, _flags(differs.combine_chunks()), rule.name, wanted)
    if name in ("minima", "saddles") and home is not None:
        for column in _OF_LANDSCAPE:
            differs = pc.not_equal(rows[column], home[column]).combine_chunks()
            yield from _problems(name, rows, _flags(differs), column, "that of the landscape")
    if name == "starts":
        for column, outcome in (("minimum_id", "converged"), ("saddle_id", "saddle")):
            differs = pc.not_equal(rows[column].is_valid(), pc.equal(rows["outcome"], outcome)).combine_chunks()
            yield from _problems(name, rows, _flags(differs), column, f"given where the outcome is {outcome} alone")
        for column in ("lingered_for", "lingered_norm", "lingered_distance"):
            lengths = (pc.list_value_length(rows[part]) for part in ("lingered_on", column))
            differs = pc.not_equal(*lengths).combine_chunks()
            yield from _problems(name, rows, _flags(differs), column, "a list as long as lingered_on")


def _check_name(name: str, rows: pa.Table, rule: Column, named: pa.Table) -> Iterator[RowProblem]:
    """Rows whose column names no row of the table `rule.names`, or one on another landscape."""
    column = rows[rule.name].combine_chunks()
    is_list = pa.types.is_list(column.type)
    entries = column.flatten() if is_list else column
    key = table_schema(str(rule.names)).key[0]
    found = pc.index_in(entries, named[key].combine_chunks())
    missing = pc.and_(entries.is_valid(), found.is_null())
    place = f"the {key} of a row of {rule.names}"
    yield from _problems(name, rows, _rows_of(column, missing) if is_list else _flags(missing), rule.name, place)
    if rule.names != "landscapes" and "landscape_id" in rows.column_names:
        own = rows["landscape_id"].combine_chunks()
        own = own.take(pc.list_parent_indices(column)) if is_list else own
        elsewhere = pc.not_equal(named["landscape_id"].combine_chunks().take(found), own)
        bad = _rows_of(column, elsewhere) if is_list else _flags(elsewhere)
        yield from _problems(name, rows, bad, rule.name, f"{place} on the same landscape")


def _check_unique(name: str, rows: pa.Table) -> Iterator[RowProblem]:
    """Rows whose key another row before has."""
    if not _kept(name):
        return  # rebuilding the campaign tells for `initial_overlaps`, MetStarts for `starts`
    key = list(table_schema(name).key)
    numbered = rows.select(key).append_column("position", pa.array(np.arange(rows.num_rows)))
    groups = numbered.group_by(key).aggregate([("position", "min")])
    if groups.num_rows < rows.num_rows:
        again = np.ones(rows.num_rows, bool)
        again[groups["position_min"].to_numpy()] = False
        yield from _problems(name, rows, again, key[-1], "there once")


class MetStarts:
    """Which starts were met, as runs of indices: few, since starts are stored in shards, however many there are."""

    def __init__(self) -> None:
        self._runs = np.empty((0, 3), np.int64)  # campaign, first index, last index
        self._new: list[Runs] = []
        self._count = 0
        self._twice: tuple[int, int] | None = None

    def add(self, campaigns: pa.ChunkedArray, index: pa.ChunkedArray) -> None:
        """Starts by the position of their campaign and their index; nulls are reported elsewhere."""
        starts = np.stack([pc.fill_null(column, 0).to_numpy() for column in (campaigns, index)], axis=1)
        starts = starts.astype(np.int64)
        runs = self._joined(np.column_stack([starts, starts[:, 1]]))
        self._new.append(runs)
        self._count += len(runs)
        if self._count > max(RUNS_AT_ONCE, len(self._runs)):
            self._join()

    def twice(self) -> tuple[int, int] | None:
        """The position of the campaign, and the index, of a start that was met again; None if there is none."""
        self._join()
        return self._twice

    def _join(self) -> None:
        self._runs = self._joined(np.concatenate([self._runs, *self._new]))
        self._new, self._count = [], 0

    def _joined(self, runs: Runs) -> Runs:
        """Runs in order, those joined that follow upon each other."""
        runs = runs[np.lexsort((runs[:, 1], runs[:, 0]))]
        follows = runs[1:, 0] == runs[:-1, 0]
        if self._twice is None and (again := follows & (runs[1:, 1] <= runs[:-1, 2])).any():
            campaign, index, _ = runs[1:][again][0].tolist()
            self._twice = campaign, index
        begins = np.flatnonzero(np.concatenate([[True], ~(follows & (runs[1:, 1] == runs[:-1, 2] + 1))])[: len(runs)])
        joined = runs[begins]
        joined[:, 2] = np.maximum.reduceat(runs[:, 2], begins) if len(runs) else joined[:, 2]
        return joined


# What is rebuilt from a row


def _check_landscapes(rows: pa.Table) -> Iterator[RowProblem]:
    """Landscapes that cannot be rebuilt, or have another id, or another rank."""
    for position, row in enumerate(records.from_table(rows)):
        try:
            landscape = records.landscape_from_row(row)
            problem = None if landscape.teacher_rank == row["teacher_rank"] else "its teacher_rank is not that of T"
        except _UNREADABLE as error:
            problem = _reason(error)
        if problem is not None:
            here = np.arange(rows.num_rows) == position
            yield from _problems("landscapes", rows, here, "landscape_id", f"what the row describes ({problem})")


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, EnumeratorError) else type(error).__name__
    return ascii(text if len(text) <= 200 else f"{text[:197]}...")[1:-1]


def _check_campaigns(tables: Snapshot, landscapes: pa.Table) -> Iterator[RowProblem]:
    """Campaigns whose settings cannot be read, are not as this software writes them, or belong to another id."""
    sizes = {
        row["landscape_id"]: row for row in landscapes.select(["landscape_id", "students", "teachers"]).to_pylist()
    }
    rows = tables.query("select * from campaigns order by campaign_id").cast(table_schema("campaigns").arrow)
    for position, row in enumerate(records.from_table(rows)):
        try:
            problem = _wrong_settings(tables, row, sizes[row["landscape_id"]])
        except _UNREADABLE as error:
            problem = _reason(error)
        if problem is not None:
            here = np.arange(rows.num_rows) == position
            yield from _problems("campaigns", rows, here, "campaign", f"the settings of its id ({problem})")


def _wrong_settings(tables: Snapshot, row: Mapping[str, Any], sizes: Mapping[str, Any]) -> str | None:
    name, settings = row["campaign_id"], json.loads(row["campaign"])
    # First of all: orthonormal teachers are a number in there, and a matrix in memory.
    if any(settings["landscape"][part] != sizes[part] for part in ("students", "teachers")):
        return "they are on another landscape"
    if Landscape.from_dict(settings["landscape"]).id != row["landscape_id"]:
        return "they are on another landscape"
    Q = R = None
    if "table" in settings["law"]:
        condition = f"campaign_id = {quoted(name)} order by start_index"
        overlaps = tables.query(f"select * from initial_overlaps where {condition}")
        if not overlaps.num_rows:
            return None  # schema version 1 did not keep them: the settings cannot be rebuilt
        Q, R = overlaps_of(overlaps.cast(table_schema("initial_overlaps").arrow))
    written = campaign_from(name, settings, Q, R).to_dict()
    # A tolerance that is younger than the campaign is not in its settings.
    written["tolerances"] = {entry: written["tolerances"][entry] for entry in settings["tolerances"]}
    return None if written == settings else "something else is in them"
