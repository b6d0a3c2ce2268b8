"""All tables of a catalogue at one moment, as far as their files can be read: what verification looks at."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from enumerator.catalogue.store import Store
from enumerator.storage.sql import run


class DamagedFile(NamedTuple):
    """A data file that is not what was written, by its table and its path in there; `problem` in words."""

    table: str
    file: str
    problem: str


class Snapshot:
    """The rows of all tables, without those of `damaged` files.

    Tables are read at versions such that no row names one that came later. Raises CatalogueError
    where not even the list of the files of a table can be read.
    """

    def __init__(self, store: Store) -> None:
        self.tables = store.snapshot()
        self.damaged = [DamagedFile(*entry) for entry in store.check_files()]
        self._datasets = {
            name: store.dataset(table, without=[entry.file for entry in self.damaged if entry.table == name])
            for name, table in self.tables.items()
        }

    def query(self, statement: str) -> pa.Table:
        """The result of a SELECT statement over the tables."""
        return run(statement, self._datasets)

    def is_whole(self, *tables: str) -> bool:
        """Whether all files of these tables can be read."""
        return not any(entry.table in tables for entry in self.damaged)
