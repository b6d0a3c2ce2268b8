"""Bundles that somebody else made: any row changed, every checksum right."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def forge(
    source: Path,
    target: Path,
    tables: dict[str, Callable[[pa.Table], pa.Table]] | None = None,
    manifest: Callable[[dict[str, Any]], Any] | None = None,
) -> Path:
    """A bundle with changed tables and their checksums; `manifest` may give bytes, or what is written as JSON."""
    with tarfile.open(source) as archive:
        members = {entry.name: archive.extractfile(entry).read() for entry in archive}
    for name, change in (tables or {}).items():
        buffer = io.BytesIO()
        pq.write_table(change(pq.read_table(io.BytesIO(members[f"tables/{name}.parquet"]))), buffer)
        members[f"tables/{name}.parquet"] = buffer.getvalue()
    content = json.loads(members.pop("manifest.json"))
    content["sha256"] = {name: hashlib.sha256(member).hexdigest() for name, member in members.items()}
    new = content if manifest is None else manifest(content)
    members = {"manifest.json": new if isinstance(new, bytes) else json.dumps(new).encode()} | members
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, member in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(member)
            archive.addfile(entry, io.BytesIO(member))
    return target


def with_value(column: str, value: Any, row: int = 0) -> Callable[[pa.Table], pa.Table]:
    """A change of one value; of the same type, and a column that must not be null stays so."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        field = table.schema.field(column)
        return table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))

    return change
