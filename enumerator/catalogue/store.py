"""Delta tables under one address: created once, opened with their version checked, changed only if nobody else did.

Every commit here is conditional: it succeeds if its table is still at the version that was read, and
fails otherwise. Delta Lake by itself lets two appends from one version both succeed, and two MERGEs
too when their keys differ; but two rows for one minimum may well differ in their keys, by the last
digit of the loss. Without retries inside Delta Lake (`max_commit_retries=0`) a commit is a
compare-and-swap of the version, and whoever loses reads again what the winner wrote.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from enumerator.catalogue.records import from_table
from enumerator.catalogue.schema import SCHEMA_VERSION, TABLE_NAMES, check_version, table_schema
from enumerator.errors import CatalogueError, InputError
from enumerator.parsing import parsing
from enumerator.process_checks import check_not_forked
from enumerator.storage.addresses import address_of
from enumerator.storage.datafiles import DataFile, Folder, digest, in_groups, read, sync
from enumerator.storage.failures import lasting, one_line, to_begin, to_go_on, to_restore
from enumerator.storage.objects import ObjectStore
from enumerator.storage.run_locks import Claims
from enumerator.storage.sql import run
from enumerator.storage.versions import Versions, check_end

# The property of each Delta table that marks it as ours and says which schema it was written to.
VERSION_PROPERTY = "enumerator.schema_version"
# The Delta transaction whose version is the digest of all data files of a table: each commit sets it anew. A
# log that has lost an entry, or gained one, or names another file, no longer adds up to it.
FILES_TRANSACTION = "enumerator.files"
# As a message names it.
_DELTA = "a catalogue"
# Text columns with few distinct values in many rows: read as codes, they are counted twice as fast.
_REPEATING = {"starts": ("landscape_id", "minimum_id", "outcome", "saddle_id")}
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
        self._verified: set[tuple[str, int, int]] = set()
        self._options = storage_options
        self.address, self._is_remote = address_of(path)
        self.claims = Claims(None if self._is_remote else Path(self.address))
        with parsing("the place of a catalogue", self.address):
            root = self.address if self._is_remote else Path(self.address).as_uri()
            self._versions = Versions(self._filesystem(root))
        missing = [name for name in TABLE_NAMES if not self.exists(name)]
        # Before anything else: the tables that are there may be of another version.
        for name in TABLE_NAMES:
            if name not in missing:
                self.open(name)
        if missing and not create and not (migrating and len(missing) < len(TABLE_NAMES)):
            lacks = "" if len(missing) == len(TABLE_NAMES) else f" (it lacks the table {missing[0]})"
            raise InputError(f"not a catalogue: {self.address}{lacks}. `enumerator run --catalogue` makes one.")
        if missing and create:
            self._check_place(missing)
            if lost := sorted(self._reached().keys() & set(missing)):
                raise CatalogueError(f"cannot read {self._uri(lost[0])}: it is gone. Put the catalogue back.")
            for name in missing:
                self.create(name)

    def _uri(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _filesystem(self, address: str) -> pafs.FileSystem:
        """The folder at an address. A local one is read by Arrow: Delta Lake can abort the interpreter at exit."""
        if self._is_remote:
            return pafs.PyFileSystem(ObjectStore(address, self._options))
        return pafs.SubTreeFileSystem(unquote(urlsplit(address).path), pafs.LocalFileSystem())

    def _reached(self) -> dict[str, int]:
        """The versions that the tables have reached, as far as it is known. To be asked before they are opened."""
        try:
            return self._versions.reached()
        except (OSError, UnicodeDecodeError) as error:  # the second for a name that is no text
            raise CatalogueError(f"cannot read {self.address}: {one_line(error)}") from error

    def exists(self, name: str) -> bool:
        """Whether there is a table `name`."""
        check_not_forked(_DELTA)
        try:
            return DeltaTable.is_deltatable(self._uri(name), self._options)
        except (DeltaError, OSError) as error:
            raise CatalogueError(f"cannot read {self._uri(name)}: {one_line(error)}") from error

    def _check_place(self, missing: list[str]) -> None:
        """A local directory with other things in it is not filled with tables."""
        folder = Path(self.address)
        try:
            if self._is_remote or not folder.exists():
                return
            if not folder.is_dir():
                raise InputError(f"a catalogue is a directory, {folder} is a file: choose another place.")
            entries = {entry.name for entry in folder.iterdir()}
        except PermissionError as error:  # the folder above may not be entered
            raise CatalogueError(f"cannot create {folder}: {to_begin(error)}") from error
        if entries and not entries & set(TABLE_NAMES):
            raise InputError(
                f"not a catalogue, and not empty: {folder}. Choose a new or an empty directory for the catalogue."
            )

    def create(self, name: str) -> None:
        """Make the table `name`, empty, unless it is there."""
        check_not_forked(_DELTA)
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
                commit_properties=CommitProperties(
                    max_commit_retries=0, app_transactions=[Transaction(FILES_TRANSACTION, digest([]))]
                ),
            )
        except (DeltaError, OSError) as error:
            if not self.exists(name):
                raise CatalogueError(f"cannot create {self._uri(name)}: {to_begin(error)}") from error
            self.open(name)  # another process has just created it

    def open(self, name: str, version: int | None = None, reached: Mapping[str, int] | None = None) -> DeltaTable:
        """The table `name` at its latest version, or at an earlier one; `reached` is what `_reached` gave before."""
        check_not_forked(_DELTA)
        reached = self._reached() if reached is None else reached
        try:
            table = DeltaTable(self._uri(name), version=version, storage_options=self._options)
            metadata = table.metadata()
        except TableNotFoundError as error:
            raise CatalogueError(f"cannot read {self._uri(name)}: it is gone. Put the catalogue back.") from error
        except (DeltaError, OSError) as error:
            raise CatalogueError(f"cannot read the log of {self._uri(name)}: {to_restore(error)}") from error
        found = metadata.configuration.get(VERSION_PROPERTY) if metadata.name == name else None
        check_version(name, found, 1 if self._migrating else SCHEMA_VERSION, self.address)
        if version is None:
            check_end(name, table.version(), reached, self.address)
        return table

    def open_all(self, names: Iterable[str] = TABLE_NAMES) -> dict[str, DeltaTable]:
        """Tables such that every row named in one is there in the other.

        A commit writes a row before the rows that name it; so the tables are opened in the opposite order.
        """
        reached = self._reached()
        return {name: self.open(name, reached=reached) for name in sorted(names, key=TABLE_NAMES.index, reverse=True)}

    def filesystem(self, table: DeltaTable) -> pafs.FileSystem:
        """The folder of an open table."""
        return self._filesystem(table.table_uri)

    def _folder(self, table: DeltaTable) -> Folder:
        root = None if self._is_remote else Path(unquote(urlsplit(table.table_uri).path))
        return Folder(self.filesystem(table), root, set() if self._is_remote else self._verified)

    def files(self, table: DeltaTable) -> list[DataFile]:
        """The data files of an open table, the oldest first.

        Raises CatalogueError where the log of the table does not add up to what was committed.
        """
        check_not_forked(_DELTA)
        try:  # a checkpoint is read as far as it is asked for: here for the first time as a whole
            entries = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"])
            files = [DataFile(*row.values()) for row in reversed(entries.to_pylist())]
            self._check_log(table, files)
        except (DeltaError, OSError) as error:
            name = table.metadata().name
            raise CatalogueError(f"cannot read the log of {self._uri(name)}: {to_restore(error)}") from error
        return files

    def _check_log(self, table: DeltaTable, files: list[DataFile]) -> None:
        name, version = table.metadata().name, table.version()
        problem = None
        if not self._migrating and _schema(table) != table_schema(name).arrow:
            problem = "its columns are not those of its schema version"
        stored = table.transaction_version(FILES_TRANSACTION)
        if stored != digest(files) and not self._migrating:
            problem = "its list of files is not the one that was committed"
        if not self._is_remote:
            last = Path(self._uri(name), "_delta_log", f"{version:020}.json")
            # It may have been cleaned up after a checkpoint; cut down to nothing it would go unnoticed.
            if last.exists() and not last.stat().st_size:
                problem = f"its last entry, {last.name}, is empty"
        if problem:
            raise CatalogueError(
                f"cannot read {self._uri(name)}: its log (_delta_log) was altered: {problem}. Restore it from a copy."
            )

    def check_files(self, tables: Mapping[str, DeltaTable] | None = None) -> Iterator[tuple[str, str, str]]:
        """Read every byte of every data file: (table, file, problem) of those that are not what was written.

        Those of open `tables`, by default of all as they are now. `file` is a path in the table, `problem` is in words.
        Raises CatalogueError where a log is damaged.
        """
        for name, table in (self.open_all() if tables is None else tables).items():
            folder = self._folder(table)
            for file in self.files(table):
                if problem := folder.problem(file):
                    yield name, file.path, problem

    def dataset(
        self, table: DeltaTable, partition: tuple[str, str] | None = None, without: Collection[str] = ()
    ) -> ds.Dataset:
        """The rows of an open table, or of one partition (column, value), for DuckDB to scan.

        The files `without`, paths in the table, are left out. Raises CatalogueError, naming it, for a
        file that is not what was written.
        """
        try:
            files = [file for file in self.files(table) if file.lies_in(partition) and file.path not in without]
            rows = self._dataset(table, files)
            return self.claims.corrected(rows) if table.metadata().name == "campaigns" else rows
        except (DeltaError, OSError) as error:
            raise CatalogueError(f"cannot read {self._uri(table.metadata().name)}: {one_line(error)}") from error

    def _dataset(self, table: DeltaTable, files: list[DataFile]) -> ds.Dataset:
        folder, name = self._folder(table), table.metadata().name
        if not self._is_remote and (found := folder.first_problem(files)):
            file, problem = found
            raise CatalogueError(
                f"cannot read {self._uri(name)}/{file.path}: {problem}. "
                f"`enumerator verify {quote(self.address)}` says more."
            )
        return folder.dataset(files, _schema(table), _REPEATING.get(name, ()))

    def query(self, table: DeltaTable, statement: str, partition: tuple[str, str] | None = None) -> pa.Table:
        """The result of a SELECT statement over an open table, under its name, or over one partition of it."""
        return run(statement, {table.metadata().name: self.dataset(table, partition)})

    def rows(self, table: DeltaTable, condition: str) -> list[dict[str, Any]]:
        """The rows of an open table for which an SQL condition holds."""
        return list(from_table(self.query(table, f"select * from {table.metadata().name} where {condition}")))

    def append(self, table: DeltaTable, rows: pa.Table) -> None:
        """Append `rows` if `table` is still at its latest version; CommitFailedError otherwise."""
        self._replace(table, [], rows)

    def update(self, table: DeltaTable, rows: pa.Table, key: str) -> None:
        """Put `rows` over those of the same `key`, if `table` is at its latest version, as `append`.

        Rows whose key is not there are left out.
        """
        renewed = pc.field(key).isin(rows[key].to_pylist())
        touched: list[DataFile] = []
        kept: list[pa.Table] = []
        found: set[str] = set()
        for file in self.files(table):
            dataset = self._dataset(table, [file])
            if names := set(read(dataset, [key]).filter(renewed)[key].to_pylist()):
                touched.append(file)
                found |= names
                kept.append(read(dataset).filter(~renewed))
        if touched:
            new = rows.filter(pc.field(key).isin(list(found)))
            self._replace(table, touched, pa.concat_tables([*kept, new.cast(_schema(table))]))

    def rewrite(self, table: DeltaTable, rows: pa.Table, partition: tuple[str, str] | None) -> None:
        """Put `rows` in the place of all rows of `table`, or of one partition (column, value), as `append`.

        A commit even if nothing changes: whoever read the version before it has to read again.
        """
        self._replace(table, [file for file in self.files(table) if file.lies_in(partition)], rows)

    def adopt(self, table: DeltaTable) -> None:
        """Write anew, one by one, the files of schema version 1, which cannot be checked; from then on they count."""
        folder, schema = self._folder(table), _schema(table)
        for file in self.files(table):
            if not file.is_named_by_hash:
                self._replace(table, [file], read(folder.dataset([file], schema)), same_rows=True)
        self._replace(table, [], schema.empty_table())

    def _replace(self, table: DeltaTable, old: list[DataFile], rows: pa.Table, *, same_rows: bool = False) -> None:
        """Put `rows`, in new files, in the place of the files `old`; `same_rows` tells readers that nothing changed."""
        by = tuple(table.metadata().partition_columns)
        new = self._folder(table).write(rows, _schema(table), by)
        now = int(time.time() * 1000)
        added = [
            AddAction(file.path, file.size, file.partition, now, not same_rows, json.dumps({"numRecords": file.rows}))
            for file in new
        ]
        removed = [RemoveAction(file.path, not same_rows, now, file.size, file.partition) for file in old]
        # Schema version 1 did not count its files.
        before = digest(self.files(table)) if self._migrating else table.transaction_version(FILES_TRANSACTION) or 0
        after = (before + digest(new) - digest(old)) % 2**63
        table.create_write_transaction(
            [*added, *removed],
            "append",
            table.schema(),
            partition_by=list(by),
            commit_properties=CommitProperties(
                max_commit_retries=0, app_transactions=[Transaction(FILES_TRANSACTION, after)]
            ),
        )
        self.keep(table.metadata().name, table.version() + 1)
        table.update_incremental()

    def keep(self, name: str, version: int) -> None:
        """Make a version that a table has reached last: on the disk, then known beside the table. Raises OSError."""
        if not self._is_remote:
            log = Path(self._uri(name), "_delta_log")
            sync(log / f"{version:020}.json")
            sync(log)
        reached = self._versions.reached()
        self._versions.enter(name, version)
        for other in TABLE_NAMES:  # of an older release nothing is known yet
            if other not in reached and other != name and not self._migrating:
                self._versions.enter(other, self.open(other, reached={}).version())

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
                if lasting(error) or failures >= MOST_FAILURES:
                    raise CatalogueError(f"cannot write {self._uri(name)}: {to_go_on(error)}") from error
            last_version = before
            time.sleep(random.uniform(0.002, 0.03))
        raise CatalogueError(
            f"cannot write {self._uri(name)}: other writers came first {MOST_CONFLICTS} times in a row."
        )

    def join_files(
        self, table: DeltaTable, partition: tuple[str, str] | None = None, at_least: int | None = None
    ) -> bool:
        """Join the small files of a table, or of one partition (column, value), where `at_least` (many) have gathered.

        Only housekeeping: given up, which is False, when another writer comes first, and tried again after a later
        commit.
        """
        small: dict[str, list[DataFile]] = {}
        for file in self.files(table):
            if file.size < JOINED_BYTES and file.lies_in(partition):
                small.setdefault(file.path.rpartition("/")[0], []).append(file)
        try:
            for files in small.values():
                for group in in_groups(files, JOINED_BYTES) if len(files) >= (at_least or FILES_TO_JOIN) else ():
                    self._replace(table, group, read(self._dataset(table, group)), same_rows=True)
        except (DeltaError, OSError):
            return False
        return True


def _schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())
