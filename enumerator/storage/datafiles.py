"""Data files that cannot lie: Parquet files called by the hash of their bytes, checked before they are read.

Parquet's own checksums cover the pages, but neither their headers nor the footer: of all flips of one
bit in the headers of a small file of starts, 3 gave wrong numbers without an error. So a local file is
hashed as a whole before this process reads it for the first time (sha256, 1.7 GB/s; a million starts
take about 50 MB), and its pages are checked whenever they are read after that. On an object store,
which keeps checksums of its own, the hash is left to `problem`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from enumerator.errors import CatalogueError
from enumerator.storage.failures import one_line

# The name of a data file: the sha256 of its bytes, as the command `sha256sum` prints it, and eight digits
# by chance: no name comes twice, so the removal of an old file never meets a new one of the same content.
_NAME = re.compile(r"part-(?P<hash>[0-9a-f]{64})-[0-9a-f]{8}\.parquet")
# What the values of a partition column are made of: ids, which need no escapes in a path.
_PARTITION = re.compile(r"[A-Za-z0-9_.-]+")
# Rows in a group, the unit in which files are read in parallel.
ROW_GROUP = 2**17
# Bytes of rows in memory that become one file, about a third as large.
FILE_BYTES = 256 * 2**20
# Bytes hashed at a time.
_BLOCK = 2**20
# Each thread hashes another file; more of them would wait for the disk.
_THREADS = 4


class DataFile(NamedTuple):
    """A file of a table: its path in there, its bytes and its rows, as the log of the table tells them."""

    path: str
    size: int
    rows: int

    @property
    def partition(self) -> dict[str, str | None]:
        """The values of the partition columns, as its path tells them."""
        return {step.partition("=")[0]: step.partition("=")[2] for step in self.path.split("/")[:-1]}

    @property
    def is_named_by_hash(self) -> bool:
        """Whether its name tells what is in it; those of schema version 1 do not."""
        return _NAME.fullmatch(self.path.rpartition("/")[2]) is not None

    def lies_in(self, partition: tuple[str, str] | None) -> bool:
        """Whether its rows are those of a partition (column, value); None is the whole table."""
        return partition is None or self.partition.get(partition[0]) == partition[1]


def digest(files: Iterable[DataFile]) -> int:
    """One number for a set of files, below 2^63: the sum of theirs, so that it follows each change."""
    total = 0
    for file in files:
        content = hashlib.blake2b(f"{file.path} {file.size} {file.rows}".encode(), digest_size=8).digest()
        total += int.from_bytes(content, "big")
    return total % 2**63


def in_groups(files: Iterable[DataFile], size: int) -> Iterator[list[DataFile]]:
    """Files in a row that make one of `size` bytes together, or what is left; never one alone."""
    group: list[DataFile] = []
    for file in files:
        group.append(file)
        if sum(one.size for one in group) >= size:
            yield group
            group = []
    if len(group) > 1:
        yield group


class Folder:
    """The data files of one table, in a local directory or, with `root` None, on `filesystem`.

    `verified` remembers what was hashed; folders of the same table may share it.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: Path | None, verified: set[tuple[str, int, int]]) -> None:
        self._filesystem = filesystem
        self._root = root
        self._verified = verified

    # Writing

    def write(self, rows: pa.Table, schema: pa.Schema, partition_by: tuple[str, ...]) -> list[DataFile]:
        """Write rows into new files, one or more for each partition; they are on the disk at return.

        Raises CatalogueError for rows that do not fit the schema; OSError where they cannot be written:
        what was written until then is removed, and belongs to nobody in any case.
        """
        rows = _checked(rows, schema)
        written: list[DataFile] = []
        try:
            for place, part in _parts(rows, partition_by):
                for piece in _pieces(part):
                    written.append(self._write(place, piece))
        except OSError:
            self._remove(written)
            raise
        return written

    def _write(self, place: str, rows: pa.Table) -> DataFile:
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, row_group_size=ROW_GROUP, compression="zstd", write_page_checksum=True)
        content = sink.getvalue()
        name = f"part-{hashlib.sha256(content).hexdigest()}-{secrets.token_hex(4)}.parquet"
        file = DataFile(f"{place}{name}", content.size, rows.num_rows)
        try:
            if self._root is None:
                with self._filesystem.open_output_stream(file.path) as stream:
                    stream.write(content)
            else:
                _write_through(self._root / file.path, content)
        except OSError:
            self._remove([file])
            raise
        return file

    def _remove(self, files: list[DataFile]) -> None:
        for file in files:
            try:
                self._filesystem.delete_file(file.path)
            except OSError:
                continue  # No harm but its size: no table names it.

    # Reading

    def problem(self, file: DataFile) -> str | None:
        """What is wrong with a file, in words: None if every byte is the one that was written."""
        name = _NAME.fullmatch(file.path.rpartition("/")[2])
        if name is None:
            return "it was not written by this software"
        hasher, size = hashlib.sha256(), 0
        try:
            with self._filesystem.open_input_stream(file.path) as stream:
                while block := stream.read(_BLOCK):
                    hasher.update(block)
                    size += len(block)
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read ({one_line(error)})"
        if size != file.size:
            return f"it holds {size:,} of {file.size:,} bytes"
        return None if hasher.hexdigest() == name["hash"] else "its content is not what was written"

    def first_problem(self, files: Iterable[DataFile]) -> tuple[DataFile, str] | None:
        """The first of these files that has a problem. Local files that were seen to be sound are passed over."""
        stamps = {file: self._stamp(file) for file in files}
        unseen = [file for file, stamp in stamps.items() if stamp not in self._verified]
        if not unseen:
            return None
        with ThreadPoolExecutor(_THREADS) as pool:
            for file, problem in zip(unseen, pool.map(self.problem, unseen), strict=True):
                if problem is not None:
                    return file, problem
                if (stamp := stamps[file]) is not None:
                    self._verified.add(stamp)
        return None

    def _stamp(self, file: DataFile) -> tuple[str, int, int] | None:
        """What changes when a local file is written to again."""
        if self._root is None:
            return None
        try:
            status = os.stat(self._root / file.path)
        except OSError:
            return None
        return str(self._root / file.path), status.st_size, status.st_mtime_ns

    def dataset(self, files: Iterable[DataFile], schema: pa.Schema, codes: tuple[str, ...] = ()) -> ds.Dataset:
        """The rows of some files, pages checked as they are read; the columns `codes` as dictionaries."""
        form = ds.ParquetFileFormat(
            read_options=ds.ParquetReadOptions(dictionary_columns=codes),
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(
                pre_buffer=True, page_checksum_verification=True
            ),
        )
        for name in codes:
            index = schema.get_field_index(name)
            field = schema.field(index)
            schema = schema.set(index, field.with_type(pa.dictionary(pa.int32(), field.type)))
        fragments = [
            form.make_fragment(file.path, self._filesystem, partition_expression=_where(file.partition))
            for file in files
        ]
        return ds.FileSystemDataset(fragments, schema, form, self._filesystem)


def read(dataset: ds.Dataset, columns: list[str] | None = None) -> pa.Table:
    """The rows of a dataset, text as text where it has codes. Raises CatalogueError, naming the file."""
    try:
        table = dataset.to_table(columns=columns)
    except (pa.ArrowException, OSError) as error:
        problem = damaged_file(dataset) or one_line(error)
        raise CatalogueError(f"cannot read the catalogue: {problem}") from error
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(plain))


def damaged_file(dataset: ds.Dataset) -> str | None:
    """The first of our files in a dataset that is not what was written, with what is wrong; None if all are sound."""
    if isinstance(dataset, ds.FileSystemDataset):
        folder = Folder(dataset.filesystem, None, set())
        for path in dataset.files:
            if not _NAME.fullmatch(path.rpartition("/")[2]):
                continue
            try:
                size = dataset.filesystem.get_file_info(path).size
            except OSError:
                size = None
            if problem := folder.problem(DataFile(path, size or 0, 0)):
                return f"{path}: {problem}"
    return None


def _where(partition: Mapping[str, str | None]) -> pc.Expression:
    expression = pc.scalar(True)
    for column, value in partition.items():
        expression = expression & (ds.field(column) == value)
    return expression


def _checked(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if not field.nullable and rows[field.name].null_count:
            raise CatalogueError(f"the column {field.name} needs a value in every row: nothing was written.")
    return rows.select(schema.names).cast(schema)


def _parts(rows: pa.Table, partition_by: tuple[str, ...]) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each partition, without its column, with the path that tells its value."""
    if not partition_by:
        yield "", rows
        return
    (column,) = partition_by
    for value in rows[column].unique().to_pylist():
        if not _PARTITION.fullmatch(value):
            raise CatalogueError(f"{column} must be made of letters, digits and _ . -, got {value!r}.")
        yield f"{column}={value}/", rows.filter(pc.field(column) == value).drop_columns([column])


def _pieces(rows: pa.Table) -> Iterator[pa.Table]:
    count = max(1, -(-rows.nbytes // FILE_BYTES))
    length = -(-rows.num_rows // count)
    for first in range(0, rows.num_rows, max(length, 1)):
        yield rows.slice(first, length)


def _write_through(path: Path, content: pa.Buffer) -> None:
    """Write a local file so that it and its name survive a loss of power."""
    new_folder = not path.parent.exists()
    path.parent.mkdir(exist_ok=True)  # not its parents: a catalogue that is gone must not come back in parts
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)
    if new_folder:
        sync(path.parent.parent)


def sync(path: Path) -> None:
    """Put a file, or the names in a directory, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
