"""A selection of a catalogue as one file that explains itself: tables, schemas, checksums, citation.

A tar archive of Parquet files. The same content gives the same bytes: rows in the order of their keys,
cut into groups by their content, no times, no names of users or machines.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from enumerator.catalogue.campaign_names import campaign_id_of
from enumerator.catalogue.campaign_table import DELETING
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.records import software_version
from enumerator.catalogue.row_checks import check_rows
from enumerator.catalogue.schema import SCHEMA_VERSION, TABLE_NAMES, resource, table_schema
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import InputError
from enumerator.storage.archive import Archive, Member
from enumerator.storage.destination import destination, folder_of
from enumerator.storage.sql import one_of, quoted, run
from enumerator.upkeep.compaction import Progress
from enumerator.upkeep.merge import MergeSummary, merge_tables

# Rises with every change of the archive itself; what is in the tables has the schema version.
FORMAT_VERSION = 1
# Starts are sorted, and written, so many indices at a time, whatever else is selected.
STARTS_AT_ONCE = 2**17
# Bytes hashed at a time.
_BLOCK = 2**20
_MANIFEST = "manifest.json"
# Bytes; it takes two thousand.
_LARGEST_MANIFEST = 2**16
# The members that it names.
_MEMBERS = {"README.txt", "CITATION.cff"}
_MEMBERS |= {place.format(name) for name in TABLE_NAMES for place in ("schemas/{}.json", "tables/{}.parquet")}
_README = """\
A part of an atlas of local minima of two-layer networks, made by `enumerator export`.

tables/*.parquet   the rows, readable by anything that reads Parquet (pandas, polars, R, Julia, DuckDB)
schemas/*.json     what each table and each of its columns means, with units
manifest.json      versions, number of rows of each table, SHA-256 of every other file in here
CITATION.cff       how to cite it

Matrices are flat lists, row by row, beside their sizes. starts.minimum_id names a row of minima, starts.saddle_id one
of saddles; starts.campaign_id one of campaigns; landscape_id, everywhere, one of landscapes. A frequency is the number
of starts that name a minimum over all starts of the same campaigns. For example, in DuckDB:

    select label, loss, count(*) as hits
    from 'tables/starts.parquet' join 'tables/minima.parquet' using (minimum_id) group by all order by loss;

`enumerator import CATALOGUE FILE` adds it to a catalogue, after checking every file against manifest.json.
"""


def export(
    catalogue: Catalogue,
    file: Path,
    campaigns: tuple[str, ...] = (),
    landscape: str | None = None,
    students: int | None = None,
    teachers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the landscapes selected, or all, with everything on them into `file`; the rows of each table.

    With `campaigns`, names or ids, only these, and of the minima and saddles those that their starts ended in. `file`
    appears complete or not at all, unless it is a pipe or a device. Raises InputError for what is not there,
    CatalogueError for what cannot be read.
    """
    tables = catalogue.snapshot()
    conditions = _conditions(tables, campaigns, landscape, students, teachers)
    advice = "choose another place with -o"
    try:
        with tempfile.TemporaryDirectory(dir=folder_of(file), prefix=".enumerator-") as folder:
            rows = {}
            members: dict[str, Path | bytes] = {"README.txt": _README.encode(), "CITATION.cff": _read("CITATION.cff")}
            members |= {f"schemas/{name}.json": _read(f"schemas/{name}.json") for name in TABLE_NAMES}
            for name in TABLE_NAMES:
                path = Path(folder, f"{name}.parquet")
                rows[name] = _write(path, name, _groups(tables, name, conditions, progress or _silent))
                members[f"tables/{name}.parquet"] = path
            manifest = {
                "format_version": FORMAT_VERSION,
                "schema_version": SCHEMA_VERSION,
                "software": f"{software_version()}, pyarrow {pa.__version__}",
                "rows": rows,
                "sha256": {name: _checksum(content) for name, content in sorted(members.items())},
            }
            members = {_MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode()} | dict(sorted(members.items()))
            with destination(file, advice) as stream:
                _pack(stream, members)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}: {advice}.") from error
    return rows


def _silent(part: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _conditions(
    tables: Snapshot, campaigns: tuple[str, ...], landscape: str | None, students: int | None, teachers: int | None
) -> dict[str, str]:
    """By table, an SQL condition for the rows to take. Raises InputError where nothing is selected."""
    where = [
        f"{name} = {size:d}" for name, size in (("students", students), ("teachers", teachers)) if size is not None
    ]
    where += [f"landscape_id = {quoted(landscape)}"] if landscape is not None else []
    found = tables.query(f"select landscape_id from landscapes where {' and '.join(where) or 'true'}")
    landscapes = found["landscape_id"].to_pylist()
    kept = f"status != {quoted(DELETING)} and {one_of('landscape_id', landscapes)}"
    columns = "campaign_id, campaign_name, landscape_id"
    known = run(f"select {columns} from campaigns where {kept}", tables.datasets({"campaigns"}))
    ids = known["campaign_id"].to_pylist()
    names = dict(zip(ids, known["campaign_name"].to_pylist(), strict=True))
    campaigns = tuple(campaign_id_of(campaign, names) for campaign in campaigns)
    if where and not landscapes:
        raise InputError(
            f"no landscape with {' and '.join(where)} in this catalogue: `enumerator landscapes` lists them."
        )
    if not campaigns:
        of_landscape = one_of("landscape_id", landscapes)
        of_campaign = one_of("campaign_id", ids)
        points = {"minima": of_landscape, "saddles": of_landscape}
    else:
        pairs = zip(ids, known["landscape_id"].to_pylist(), strict=True)
        of_landscape = one_of("landscape_id", {home for name, home in pairs if name in campaigns})
        of_campaign = one_of("campaign_id", campaigns)
        named = "minimum_id in (select {} from starts where " + of_campaign + ")"
        met = f"{named.format('saddle_id')} or {named.format('unnest(lingered_on)')}"
        points = {"minima": named.format("minimum_id"), "saddles": f"({met})"}
    return (
        points | {"landscapes": of_landscape} | dict.fromkeys(("initial_overlaps", "campaigns", "starts"), of_campaign)
    )


def _groups(tables: Snapshot, name: str, conditions: Mapping[str, str], tell: Progress) -> Iterator[pa.Table]:
    """The rows of a table in the order of their keys, in groups that depend on the rows alone."""
    where = conditions[name]
    if name in ("landscapes", "campaigns"):
        yield _rows(tables, name, f"{where} order by {name[:-1]}_id")
    elif name in ("minima", "saddles"):
        homes = tables.query(f"select distinct landscape_id from {name} where {where} order by 1")["landscape_id"]
        for done, home in enumerate(homes.to_pylist()):
            tell(name, done, len(homes))
            yield _rows(tables, name, f"{where} and landscape_id = {quoted(home)} order by loss, minimum_id")
    else:
        pieces = tables.query(
            f"select campaign_id, start_index // {STARTS_AT_ONCE} as piece, count(*) as n from {name} where {where} "
            "group by all order by all"
        ).to_pylist()
        total = sum(row["n"] for row in pieces)
        seen = 0
        for row in pieces:
            tell(name, seen, total)
            first = row["piece"] * STARTS_AT_ONCE
            here = f"start_index >= {first} and start_index < {first + STARTS_AT_ONCE}"
            yield _rows(tables, name, f"campaign_id = {quoted(row['campaign_id'])} and {here} order by start_index")
            seen += row["n"]


def _rows(tables: Snapshot, name: str, condition: str) -> pa.Table:
    columns = "*"
    if name == "campaigns":  # what they hold now, not at the last change of status; in a file nothing runs
        stored = "select count(*) from starts where starts.campaign_id = campaigns.campaign_id"
        still = "case status when 'running' then 'stopped' else status end"
        columns = f"* replace (({stored}) as starts, {still} as status)"
    return tables.query(f"select {columns} from {name} where {condition}").cast(table_schema(name).arrow)


def _write(path: Path, name: str, groups: Iterator[pa.Table]) -> int:
    """Write one table, a row group for each group that has rows; the number of rows."""
    rows = 0
    with pq.ParquetWriter(path, table_schema(name).arrow, compression="zstd", write_page_checksum=True) as writer:
        for group in groups:
            if group.num_rows:
                writer.write_table(group.combine_chunks(), row_group_size=group.num_rows)
                rows += group.num_rows
    return rows


def _read(name: str) -> bytes:
    return resource(name).read_bytes()


def _checksum(content: Path | bytes) -> str:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
        return _hashed(stream)


def _hashed(stream: IO[bytes] | Member) -> str:
    hasher = hashlib.sha256()
    while block := stream.read(_BLOCK):
        hasher.update(block)
    return hasher.hexdigest()


def _pack(file: IO[bytes], members: Mapping[str, Path | bytes]) -> None:
    """A tar archive of these members in this order; all their times are 0."""
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.size = content.stat().st_size
                with content.open("rb") as stream:
                    archive.addfile(entry, stream)


def import_bundle(catalogue: Catalogue, file: Path, progress: Progress | None = None) -> MergeSummary:
    """Check a bundle, each member and then each row, and merge it into `catalogue` (see `merge`).

    Raises InputError for what is not a bundle, has another version, was altered, naming the member, or holds
    what the schemas do not allow: nothing is written then.
    """
    with opened(file, progress) as tables:
        return merge_tables(catalogue, tables, progress)


@contextmanager
def opened(file: Path, progress: Progress | None = None) -> Iterator[Snapshot]:
    """The tables of a bundle, read where they lie, as long as the block lasts; checked, and raises, as above."""
    with Archive(file) as archive:
        _check_members(file, archive, progress or _silent)
        found = {name: _dataset(file, archive, name) for name in TABLE_NAMES}
        tables = Snapshot(found, found.__getitem__)
        if (problem := next(check_rows(tables), None)) is not None:
            raise InputError(f"{file} was not made by `enumerator export`: {problem}.")
        yield tables


def _check_members(file: Path, archive: Archive, tell: Progress) -> None:
    """Raise InputError unless each member is what the manifest says."""
    checksums = _checksums(file, archive)
    for done, (name, checksum) in enumerate(checksums.items()):
        tell("members checked", done, len(checksums))
        if _hashed(archive.open(name)) != checksum:
            raise InputError(f"{file} is damaged: {name} is not what was exported. Get a new copy.")


def _checksums(file: Path, archive: Archive) -> dict[str, str]:
    """By member, what a bundle says that its SHA-256 is. Raises InputError unless it holds all, in our version."""
    if _MANIFEST not in archive.members:
        raise InputError(f"expected a bundle made by `enumerator export`, got {file}: it has no {_MANIFEST}.")
    unreadable = InputError(f"{file} is damaged: {_MANIFEST} cannot be read. Get a new copy.")
    if archive.size(_MANIFEST) > _LARGEST_MANIFEST:
        raise unreadable
    try:
        manifest = json.loads(archive.open(_MANIFEST).readall())
        versions, checksums = (manifest["format_version"], manifest["schema_version"]), manifest["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise unreadable from error
    if not all(isinstance(version, int) for version in versions) or not isinstance(checksums, dict):
        raise unreadable
    if versions != (FORMAT_VERSION, SCHEMA_VERSION):
        raise InputError(
            f"{file} has format version {versions[0]} and schema version {versions[1]}, this software reads "
            f"{FORMAT_VERSION} and {SCHEMA_VERSION}: export it again with the same version of the software."
        )
    for name in sorted(_MEMBERS - archive.members) + sorted(_MEMBERS - set(checksums)):
        raise InputError(f"{file} is damaged: {name} is missing. Get a new copy.")
    if set(checksums) != _MEMBERS:
        raise InputError(f"{file} is damaged: {_MANIFEST} names other members than a bundle has. Get a new copy.")
    return checksums


def _dataset(file: Path, archive: Archive, name: str) -> ds.Dataset:
    """The table `name` of a bundle. Raises InputError unless its columns are those of the schema."""
    schema = table_schema(name).arrow
    # Without the buffer, which would hold a file as a whole.
    form = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False, page_checksum_verification=True)
    )
    try:
        fragment = form.make_fragment(pa.PythonFile(archive.open(f"tables/{name}.parquet"), "r"))
        columns = fragment.physical_schema
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} was not made by `enumerator export`: tables/{name}.parquet is no Parquet.") from error
    if not columns.equals(schema):
        other = sorted(set(schema).symmetric_difference(columns), key=lambda field: field.name)
        place = f"column {other[0].name!a} " if other else "order of columns "
        raise InputError(
            f"{file} was not made by `enumerator export`: the {place}of tables/{name}.parquet is not "
            "that of its schema."
        )
    return ds.FileSystemDataset([fragment], schema, form)
