"""Delta tables under one address: created once, opened with their version checked, changed only if nobody else did.

Every commit here is conditional: it succeeds if its table is still at the version that was read, and
fails otherwise. Delta Lake by itself lets two appends from one version both succeed, and two MERGEs
too when their keys differ; but two rows for one minimum may well differ in their keys, by the last
digit of the loss. Without retries inside Delta Lake (`max_commit_retries=0`) a commit is a
compare-and-swap of the version, and whoever loses reads again what the winner wrote.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from enumerator.errors import CatalogueError, InputError
from enumerator.query import quoted, run
from enumerator.records import from_table
from enumerator.tables import TABLE_NAMES, table_schema

# The property of each Delta table that marks it as ours and says which schema it was written to.
VERSION_PROPERTY = "enumerator.schema_version"
# Characters in the path of a directory that Delta Lake 1.6 takes for parts of a URL, and fails on.
UNUSABLE = frozenset("[]^|\\%")
# Text columns with few distinct values in many rows: read as codes, they are counted twice as fast.
_REPEATING = {"starts": ["landscape_id", "minimum_id", "outcome", "saddle_id"]}
# Files of a table (of a campaign, for starts) are joined when this many small ones have gathered:
# opening a file costs a query about 0.5 ms, so that it never spends more than 50 ms on opening.
FILES_TO_JOIN = 64
# A file of this size is left alone: a million starts take about two of them.
JOINED_BYTES = 32 * 2**20
# Each conflict means that another writer got a commit through, in about 20 ms: with this many in a
# row something is wrong.
MOST_CONFLICTS = 500
# A commit that failed although no other writer was there is tried this often: it may have been a
# writer that failed half way, or a short failure of an object store.
MOST_FAILURES = 3

Result = TypeVar("Result")


class Store:
    """The tables of one catalogue, by name, under a directory or an object-store URL.

    Raises InputError where there is no catalogue, or one of another schema version (`migrating`: of a
    newer one, tables may be missing); CatalogueError where a table cannot be read or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        create: bool,
        storage_options: dict[str, str] | None,
        migrating: bool = False,
    ) -> None:
        self._migrating = migrating
        self._options = storage_options
        address = os.fspath(path)
        self._is_remote = "://" in address and not address.startswith("file://")
        if not self._is_remote:
            local = Path(unquote(urlsplit(address).path) if address.startswith("file://") else address)
            address = str(local.expanduser().absolute())
            if found := sorted(UNUSABLE & set(address)):
                raise InputError(
                    f"the path of a catalogue cannot have {' '.join(found)} in it, got {address}: rename it."
                )
        self.address = address.rstrip("/")
        missing = [name for name in TABLE_NAMES if not self._exists(name)]
        # Before anything else: the tables that are there may be of another version.
        for name in TABLE_NAMES:
            if name not in missing:
                self.open(name)
        if missing and not create and not (migrating and len(missing) < len(TABLE_NAMES)):
            lacks = "" if len(missing) == len(TABLE_NAMES) else f" (it lacks the table {missing[0]})"
            raise InputError(f"not a catalogue: {self.address}{lacks}. `enumerator run --catalogue` makes one.")
        if missing and create:
            self._check_place(missing)
            for name in missing:
                self.create(name)

    def _uri(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _exists(self, name: str) -> bool:
        try:
            return DeltaTable.is_deltatable(self._uri(name), self._options)
        except (DeltaError, OSError) as error:
            raise CatalogueError(f"cannot read {self._uri(name)}: {_one_line(error)}") from error

    def _check_place(self, missing: list[str]) -> None:
        """A local directory with other things in it is not filled with tables."""
        folder = Path(self.address)
        if self._is_remote or not folder.exists():
            return
        if not folder.is_dir():
            raise InputError(f"a catalogue is a directory, {folder} is a file: choose another place.")
        entries = {entry.name for entry in folder.iterdir()}
        if entries and not entries & set(TABLE_NAMES):
            raise InputError(
                f"not a catalogue, and not empty: {folder}. Choose a new or an empty directory for the catalogue."
            )

    def create(self, name: str) -> None:
        """Make the table `name`, empty, unless it is there."""
        schema = table_schema(name)
        try:
            DeltaTable.create(
                self._uri(name),
                schema.arrow,
                mode="ignore",
                partition_by=list(schema.partition_by),
                name=name,
                description=schema.description,
                # Statistics by column would cost a query 2 ms a file; the Parquet files have their own.
                configuration={VERSION_PROPERTY: str(schema.version), "delta.dataSkippingNumIndexedCols": "0"},
                raise_if_key_not_exists=False,
                storage_options=self._options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except (DeltaError, OSError) as error:
            if not self._exists(name):
                raise CatalogueError(f"cannot create {self._uri(name)}: {_one_line(error)}") from error
            self.open(name)  # another process has just created it

    def open(self, name: str) -> DeltaTable:
        """The table `name` at its latest version."""
        try:
            table = DeltaTable(self._uri(name), storage_options=self._options)
            configuration = table.metadata().configuration
        except TableNotFoundError as error:
            raise InputError(f"not a catalogue: {self.address} (it lacks the table {name}).") from error
        except (DeltaError, OSError) as error:
            raise CatalogueError(f"cannot read {self._uri(name)}: {_one_line(error)}") from error
        found, known = configuration.get(VERSION_PROPERTY), table_schema(name).version
        if found is None:
            raise InputError(f"not a catalogue: the table {self._uri(name)} was not made by this software.")
        if not found.isdigit() or int(found) > known:
            raise InputError(
                f"the table {name} of {self.address} has schema version {found}, this software reads up to {known}: "
                "update it (pip install --upgrade enumerator)."
            )
        if int(found) < known and not self._migrating:
            raise InputError(
                f"the table {name} of {self.address} has schema version {found}, this software works on {known}: "
                f"type `enumerator migrate {self.address}`, once."
            )
        return table

    def snapshot(self, names: Iterable[str] = TABLE_NAMES) -> dict[str, DeltaTable]:
        """Tables such that every row named in one is there in the other.

        A commit writes a row before the rows that name it; so the tables are opened in the opposite order.
        """
        return {name: self.open(name) for name in sorted(names, key=TABLE_NAMES.index, reverse=True)}

    def dataset(self, table: DeltaTable) -> ds.Dataset:
        """The rows of an open table, for DuckDB to scan.

        Local files are read by Arrow itself: reading them through Delta Lake can abort the interpreter at exit.
        """
        filesystem = None
        if not self._is_remote:
            root = unquote(urlsplit(table.table_uri).path)
            filesystem = pafs.SubTreeFileSystem(root, pafs.LocalFileSystem())
        options = ds.ParquetReadOptions(dictionary_columns=_REPEATING.get(table.metadata().name))
        try:
            return table.to_pyarrow_dataset(filesystem=filesystem, parquet_read_options=options)
        except (DeltaError, OSError) as error:
            raise CatalogueError(f"cannot read {table.table_uri}: {_one_line(error)}") from error

    def query(self, table: DeltaTable, statement: str) -> pa.Table:
        """The result of a SELECT statement over an open table, under its name."""
        return run(statement, {table.metadata().name: self.dataset(table)})

    def rows(self, table: DeltaTable, condition: str) -> list[dict[str, Any]]:
        """The rows of an open table for which an SQL condition holds."""
        return list(from_table(self.query(table, f"select * from {table.metadata().name} where {condition}")))

    def append(self, table: DeltaTable, rows: pa.Table) -> None:
        """Append `rows` if `table` is still at its latest version; CommitFailedError otherwise."""
        write_deltalake(table, rows, mode="append", commit_properties=CommitProperties(max_commit_retries=0))

    def update(self, table: DeltaTable, rows: pa.Table, key: str) -> None:
        """MERGE `rows` over those of the same `key` if `table` is at its latest version, as `append`."""
        properties = CommitProperties(max_commit_retries=0)
        merge = table.merge(rows, f"t.{key} = s.{key}", "s", "t", commit_properties=properties)
        merge.when_matched_update_all().execute()

    def rewrite(self, table: DeltaTable, rows: pa.Table, partition: tuple[str, str] | None) -> None:
        """Put `rows` in the place of all rows of `table`, or of one partition (column, value), as `append`.

        A commit even if nothing changes: whoever read the version before it has to read again.
        """
        predicate = None if partition is None else f"{partition[0]} = {quoted(partition[1])}"
        properties = CommitProperties(max_commit_retries=0)
        write_deltalake(table, rows, mode="overwrite", predicate=predicate, commit_properties=properties)

    def commit(self, name: str, attempt: Callable[[DeltaTable], Result]) -> Result:
        """Run `attempt` on the table `name`, on fresh versions until no other writer comes in between.

        `attempt` reads, decides and writes once, through `append` or `update`; it must find its own
        work done if it is run again after all.
        """
        last_version, failures = -1, 0
        for _ in range(MOST_CONFLICTS):
            table = self.open(name)
            before = table.version()
            failures = failures + 1 if before == last_version else 0
            try:
                return attempt(table)
            except (DeltaError, OSError) as error:
                if failures >= MOST_FAILURES:
                    raise CatalogueError(f"cannot write {self._uri(name)}: {_one_line(error)}") from error
            last_version = before
            time.sleep(random.uniform(0.002, 0.03))
        raise CatalogueError(
            f"cannot write {self._uri(name)}: other writers came first {MOST_CONFLICTS} times in a row."
        )

    def join_files(self, table: DeltaTable, partition: tuple[str, str] | None = None) -> None:
        """Join the small files of a table, or of one partition (column, value), once many have gathered.

        Only housekeeping: given up when another writer comes first, and tried again after a later commit.
        """
        files = pa.table(table.get_add_actions(flatten=True))
        sizes = files["size_bytes"].to_pylist()
        if partition is not None:
            values = files[f"partition.{partition[0]}"].to_pylist()
            sizes = [size for size, value in zip(sizes, values, strict=True) if value == partition[1]]
        if sum(size < JOINED_BYTES for size in sizes) < FILES_TO_JOIN:
            return
        filters = None if partition is None else [(partition[0], "=", partition[1])]
        try:
            table.optimize.compact(
                partition_filters=filters,
                target_size=JOINED_BYTES,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except (DeltaError, OSError):
            return


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
