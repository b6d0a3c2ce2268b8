"""All tables of a catalogue at one moment: what queries, statistics, verification, exports and merges look at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from enumerator.catalogue.campaign_names import with_names
from enumerator.catalogue.orbit_sizes import with_orbit_size
from enumerator.catalogue.records import from_table
from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.catalogue.selection import Selection, as_sql, needed
from enumerator.catalogue.store import Store
from enumerator.storage.datafiles import read
from enumerator.storage.sql import Datasets, quoted, run


class DamagedFile(NamedTuple):
    """A data file that is not what was written, by its table and its path in there; `problem` in words."""

    table: str
    file: str
    problem: str


class Snapshot(Mapping[str, ds.Dataset]):
    """Tables at one moment, by name, with their rows as they are stored: every row named in one is there in the other.

    They may be some of those of a catalogue, all of a bundle, or what could be read of a catalogue: then without the
    rows of the `damaged` files. `stored` gives the rows of a table, when they are first asked for. Queries see a few
    columns more: that is what `dataset`, `select` and `minimum_row` give.
    """

    def __init__(
        self, names: Collection[str], stored: Callable[[str], ds.Dataset], damaged: Sequence[DamagedFile] = ()
    ) -> None:
        self._names, self._stored, self.damaged = names, stored, tuple(damaged)
        # What was asked for: as it is stored, and as queries see it.
        self._tables: dict[str, ds.Dataset] = {}
        self._queried: dict[str, ds.Dataset | pa.Table] = {}

    def __getitem__(self, name: str) -> ds.Dataset:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._tables:
            self._tables[name] = self._stored(name)
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def is_whole(self, *tables: str) -> bool:
        """Whether all files of these tables can be read."""
        return not any(entry.table in tables for entry in self.damaged)

    def query(self, statement: str) -> pa.Table:
        """The result of a SELECT statement over the rows as they are stored."""
        return run(statement, self)

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """The same, row by row, with an array for each list of numbers (`from_table`)."""
        return list(from_table(self.query(statement)))

    # As queries see them

    def dataset(self, name: str) -> ds.Dataset | pa.Table:
        """The rows of a table as queries see them: campaigns have names."""
        if name not in self._queried:
            self._queried[name] = self._as_queried(name)
        return self._queried[name]

    def _as_queried(self, name: str) -> ds.Dataset | pa.Table:
        return with_names(read(self[name])) if name == "campaigns" else self[name]

    def datasets(self, names: Iterable[str]) -> Datasets:
        """Several tables as queries see them, by name."""
        return {name: self.dataset(name) for name in names}

    def select(self, name: str, selection: Selection) -> pa.Table:
        """The rows of table `name` that `selection` asks for, from the tables that `needed` names.

        Raises InputError for names that do not exist.
        """
        datasets = self.datasets(needed(name, selection))
        statement = as_sql(name, selection, datasets)
        return run(statement.query, datasets, hint=statement.hint).cast(statement.schema)

    def minimum_row(self, name: str) -> pa.Table | None:
        """One minimum or saddle by its id or label, with its counts over all campaigns and its exact `orbit_size`.

        A table of one row; None if there is none.
        """
        condition = f"{quoted(name)} in (minimum_id, label)"
        for table in ("minima", "saddles"):
            home = run(f"select landscape_id from {table} where {condition}", self.datasets({table}))
            if home.num_rows:
                landscape: Selection = {"landscape": home["landscape_id"][0].as_py()}
                rows = self.select(table, landscape | {"where": condition})
                return with_orbit_size(rows, self.select("landscapes", landscape))
        return None

    def labels(self) -> list[str]:
        """The labels of all minima, then those of all saddles."""
        found = [run(f"select label from {name}", self.datasets({name})) for name in ("minima", "saddles")]
        return pa.concat_tables(found)["label"].to_pylist()


def snapshot(store: Store, names: Iterable[str] = TABLE_NAMES) -> Snapshot:
    """Tables of a catalogue as they are now. Raises CatalogueError, also later on, for what cannot be read."""
    tables = store.open_all(names)
    return Snapshot(tables, lambda name: store.dataset(tables[name]))


def readable(store: Store) -> Snapshot:
    """All tables of a catalogue as they are now, as far as their files can be read: every byte of them is, first.

    Raises CatalogueError where not even the list of the files of a table can be read.
    """
    tables = store.open_all()
    damaged = [DamagedFile(*entry) for entry in store.check_files(tables)]

    def stored(name: str) -> ds.Dataset:
        return store.dataset(tables[name], without=[entry.file for entry in damaged if entry.table == name])

    return Snapshot(tables, stored, damaged)
