"""The tables of a catalogue and the campaign file, as `schemas/*.json` lay them down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow as pa

from enumerator.errors import InputError

# In the order in which a commit writes them: a row names only rows of the tables before its own.
TABLE_NAMES = ("landscapes", "initial_overlaps", "campaigns", "minima", "saddles", "starts")
# All tables of a catalogue have one schema version; `enumerator.upkeep.migration` leads from each to the next.
SCHEMA_VERSION = 3

# Delta Lake names the entries of a list "element"; the same name here spares a cast at each write.
_TYPES = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "list<double>": pa.list_(pa.field("element", pa.float64())),
    "list<int32>": pa.list_(pa.field("element", pa.int32())),
    "list<string>": pa.list_(pa.field("element", pa.string())),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Column:
    """One column: its name, its type (a key of the type table), whether it may be null, and what it holds.

    The rest is what its values, or the entries of its lists, may be; `row_checks` holds rows against it.
    `minimum` and `maximum`: both included. `values`: there are no others. `pattern`: a regular expression for all of a
    text. `names`: the table whose key it is. `shape`: the columns, of the row or of its landscape, whose product is the
    length of a list. `finite`: no NaN, no infinity. `gaps`: entries of a list may be null.
    """

    name: str
    type: str
    nullable: bool
    description: str
    minimum: float | None = None
    maximum: float | None = None
    values: Sequence[str] | None = None
    pattern: str | None = None
    names: str | None = None
    shape: Sequence[str] | None = None
    finite: bool = True
    gaps: bool = False


@dataclass(frozen=True)
class TableSchema:
    """One table of the catalogue. `version` is the same for all, and rises with every change to any of them."""

    name: str
    version: int
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...] = ()

    @cached_property
    def arrow(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        return pa.schema([pa.field(c.name, _TYPES[c.type], nullable=c.nullable) for c in self.columns])

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]


def resource(name: str) -> Path:
    """A file of the project that is needed at run time: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / name
    return installed if installed.exists() else package.parent / name


def _read(name: str) -> dict[str, Any]:
    return json.loads(resource(f"schemas/{name}.json").read_text(encoding="utf-8"))


@cache
def table_schema(name: str) -> TableSchema:
    """The schema of the table `name`, one of TABLE_NAMES."""
    content = _read(name)
    return TableSchema(
        name=content["name"],
        version=content["version"],
        description=content["description"],
        key=tuple(content["key"]),
        columns=tuple(Column(**column) for column in content["columns"]),
        partition_by=tuple(content.get("partition_by", ())),
    )


def check_version(name: str, found: str | None, oldest: int, address: str) -> None:
    """Raise InputError unless the schema version `found` of a table is one from `oldest` to SCHEMA_VERSION."""
    if found is None:
        raise InputError(f"not a catalogue: the table {address}/{name} was not made by this software.")
    if not found.isdigit() or int(found) > SCHEMA_VERSION:
        raise InputError(
            f"the table {name} of {address} has schema version {found}, this software reads up to {SCHEMA_VERSION}: "
            "update it. In your clone: git pull, then .venv/bin/python -m pip install -c constraints.txt -e ."
        )
    if int(found) < oldest:
        raise InputError(
            f"the table {name} of {address} has schema version {found} (of an older release, or its migration was "
            f"interrupted), this software works on {oldest}: type `enumerator migrate {quote(address)}`, once."
        )


@cache
def campaign_file_schema() -> dict[str, Any]:
    """The JSON Schema of a campaign file."""
    return _read("campaign")
