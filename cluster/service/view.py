"""All tables of a catalogue at one moment, named by a token, read once and kept: what answers are made from."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.catalogue.selection import TALLY, Selection, Statement, as_sql, campaign_ids, needed
from enumerator.catalogue.snapshot import Snapshot
from enumerator.catalogue.store import Store
from enumerator.errors import CatalogueError, InputError
from enumerator.storage.datafiles import read
from enumerator.storage.sql import Datasets, reading, run

# The versions of the tables, in the order of TABLE_NAMES, with dots between, as a regular expression.
TOKEN = rf"[0-9]{{1,15}}(\.[0-9]{{1,15}}){{{len(TABLE_NAMES) - 1}}}"
# Tables kept in memory: those of which a row is no start, as long as they are of this size at most.
_KEPT = ("landscapes", "minima", "saddles")
KEPT_BYTES = 2**28
# Two results of TALLY, one behind the other, as one.
_ADDED = (
    "select campaign_id, landscape_id, minimum_id, saddle_id, sum(n)::bigint as n from parts "
    "group by campaign_id, landscape_id, minimum_id, saddle_id"
)
# Starts read at once: the memory that a stream of any length needs.
WINDOW = 50_000
# Moments kept, each of which shares with the one before what has not changed.
MOMENTS = 4


class GoneError(InputError):
    """A moment that can no longer be read."""


class Moments:
    """The views of a catalogue by token; the latest few are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._views: OrderedDict[str, View] = OrderedDict()

    def view(self, token: str) -> View:
        """The tables at the moment `token`. Raises InputError for what is no token, GoneError for one too old."""
        if token in self._views:
            self._views.move_to_end(token)
            return self._views[token]
        if not re.fullmatch(TOKEN, token):
            raise InputError(f"`snapshot` must be what an earlier answer gave as its snapshot, got {token[:40]!r}.")
        versions: dict[str, int] = dict(zip(TABLE_NAMES, map(int, token.split(".")), strict=True))
        latest = next(reversed(self._views.values()), None)
        view = View(self._store, versions, latest)
        self._views[token] = view
        if len(self._views) > MOMENTS:
            self._views.popitem(last=False)
        return view


class Clock:
    """Tells the token of the present moment, from tables that are opened once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables: dict[str, DeltaTable] = {}

    def now(self) -> str:
        """The token of what is stored now.

        As for `Store.open_all`, the tables are looked at in the opposite order of writing.
        """
        for name in reversed(TABLE_NAMES):
            if name not in self._tables:
                self._tables[name] = self._store.open(name)
            else:
                self._tables[name].update_incremental()
        return ".".join(str(self._tables[name].version()) for name in TABLE_NAMES)


class View(Snapshot):
    """All tables at the versions of one moment; `before` is an earlier view, from which it takes what is the same."""

    def __init__(self, store: Store, versions: dict[str, int], before: View | None) -> None:
        super().__init__(TABLE_NAMES, self._at_its_version)
        self._store, self.versions = store, versions
        same = {} if before is None else {name for name in TABLE_NAMES if before.versions[name] == versions[name]}
        self._queried = {} if before is None else {k: v for k, v in before._queried.items() if k in same}
        # What was counted last, with the files that it was counted from: files never change.
        self._counted: tuple[frozenset[str], pa.Table] | None = None if before is None else before._counted
        self._is_counted = "starts" in same and before is not None and before._is_counted

    def _at_its_version(self, name: str) -> ds.Dataset:
        with _or_gone():
            return self._store.dataset(self._store.open(name, self.versions[name]))

    def _as_queried(self, name: str) -> ds.Dataset | pa.Table:
        """In memory if they are few."""
        kept = name in _KEPT and _size(self[name]) <= KEPT_BYTES
        return read(self[name]) if kept else super()._as_queried(name)

    def tally(self) -> pa.Table:
        """The starts counted by campaign and by where they ended: those of files that were not counted before."""
        if not self._is_counted or self._counted is None:
            with _or_gone():
                self._counted, self._is_counted = self._count(*(self._counted or (frozenset(), None))), True
        return self._counted[1]

    def _count(self, known: frozenset[str], tally: pa.Table | None) -> tuple[frozenset[str], pa.Table]:
        """The files of the starts and their tally, from that of the files that are known."""
        table = self._store.open("starts", self.versions["starts"])
        files = frozenset(file.path for file in self._store.files(table))
        if tally is None or not known <= files:  # nothing was counted, or files were joined since
            return files, run(TALLY, {"starts": self._store.dataset(table)})
        fresh = run(TALLY, {"starts": self._store.dataset(table, without=known)})
        return files, run(_ADDED, {"parts": pa.concat_tables([tally, fresh])})

    def select(self, name: str, selection: Selection) -> pa.Table:
        """As of any snapshot, with the starts counted once for all that is asked of it."""
        schema, batches = self.stream(name, selection)
        return pa.Table.from_batches(batches, schema)

    def stream(
        self, name: str, selection: Selection, goes_on: Callable[[], None] = lambda: None
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of `select`, in their order, in batches: any number of starts in the memory of WINDOW of them.

        `goes_on` is called after each WINDOW, which is a query of its own.
        """
        datasets: Datasets = {**self.datasets(needed(name, selection)), "tally": self.tally()}
        statement = as_sql(name, selection, datasets, "tally")
        limit = selection.get("limit")
        in_windows = (
            name in ("starts", "initial_overlaps") and not selection.get("sort") and not selection.get("offset")
        )
        if not in_windows or (limit is not None and limit <= WINDOW):
            return statement.schema, _batches(statement, datasets)
        return statement.schema, _first(limit, self._windows(name, selection, datasets, goes_on))

    def _windows(
        self, name: str, selection: Selection, datasets: Datasets, goes_on: Callable[[], None]
    ) -> Iterator[pa.RecordBatch]:
        chosen = campaign_ids(selection, datasets)
        statement = f"select campaign_id, min(start_index), max(start_index) from {name} group by all order by all"
        for row in run(statement, {name: datasets[name]}).to_pylist():
            campaign, lowest, highest = row.values()
            for first in range(lowest, highest + 1, WINDOW) if chosen is None or campaign in chosen else ():
                window = (campaign, first, first + WINDOW)
                yield from _batches(as_sql(name, selection, datasets, "tally", window), datasets)
                goes_on()

    def sql(self, query: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The result of one SELECT statement over the tables, in batches. Raises InputError as `sql.run`."""
        batches = _stream(query, self.datasets(TABLE_NAMES), f"The tables are {', '.join(TABLE_NAMES)}")
        schema = next(batches)
        assert isinstance(schema, pa.Schema)
        return schema, batches  # type: ignore[return-value]  # only the first is the schema


@contextmanager
def _or_gone() -> Iterator[None]:
    """What cannot be read is said to be gone, as the files of a moment are when the catalogue was compacted since."""
    try:
        yield
    except CatalogueError as error:
        raise GoneError(f"the snapshot cannot be read, or no longer: {error} Ask without `snapshot`.") from error


def _size(dataset: ds.Dataset) -> int:
    if not isinstance(dataset, ds.FileSystemDataset):
        return 0  # in memory already
    sizes = (dataset.filesystem.get_file_info(path).size or 0 for path in dataset.files)
    return 4 * sum(sizes)  # compressed about so well


def _stream(query: str, datasets: Datasets, hint: str) -> Iterator[pa.Schema | pa.RecordBatch]:
    """The schema, then the batches."""
    with reading(query, datasets, hint) as reader:
        yield reader.schema
        yield from reader


def _batches(statement: Statement, datasets: Datasets) -> Iterator[pa.RecordBatch]:
    with reading(statement.query, datasets, statement.hint) as reader:
        for batch in reader:
            yield from pa.Table.from_batches([batch]).cast(statement.schema).to_batches()


def _first(limit: int | None, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """At most so many rows."""
    left = limit
    for batch in batches:
        yield batch if left is None else batch.slice(0, left)
        left = None if left is None else left - batch.num_rows
        if left is not None and left <= 0:
            return
