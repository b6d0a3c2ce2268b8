"""The versions that the tables of a catalogue have reached, kept beside them: a log that lost its end is noticed.

By itself a Delta table that lost its last entries is a sound one of an earlier moment. So whoever commits enters the
version afterwards: as an empty file in the folder `_versions`, `starts.00000000000000000057`, before the lower ones
are removed. Each makes names of its own, and removes lower ones alone: the highest stays, in whatever order they
come. Versions only rise, so a table opened after a look in here has reached what stands here, or lost it. A writer
that dies in between leaves the version before; a catalogue of an older release has no folder until it is written to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from shlex import quote

import pyarrow.fs as pafs

from enumerator.errors import CatalogueError

# Sorts before the names of the tables: what copies a catalogue in this order, while others write, copies it first.
FOLDER = "_versions"
_NAME = re.compile(r"(?P<table>[a-z_]+)\.(?P<version>[0-9]{20})")


class Versions:
    """What is entered under the root of a catalogue, a directory or a place on an object store."""

    def __init__(self, root: pafs.FileSystem) -> None:
        self._root = root

    def reached(self) -> dict[str, int]:
        """By table, the highest version entered. Raises OSError."""
        highest: dict[str, int] = {}
        for table, version in self._entered():
            highest[table] = max(version, highest.get(table, version))
        return highest

    def _entered(self) -> list[tuple[str, int]]:
        found = self._root.get_file_info(pafs.FileSelector(FOLDER, allow_not_found=True))
        names = (_NAME.fullmatch(entry.base_name) for entry in found)
        return [(name["table"], int(name["version"])) for name in names if name]

    def enter(self, table: str, version: int) -> None:
        """Enter that a table has reached a version, which lasts. Raises OSError."""
        entered = [before for name, before in self._entered() if name == table]
        if max(entered, default=-1) < version:
            self._root.create_dir(FOLDER, recursive=False)
            with self._root.open_output_stream(place(table, version)):
                pass
        for before in entered:
            if before < version:
                self._remove(place(table, before))

    def _remove(self, path: str) -> None:
        try:
            self._root.delete_file(path)
        except FileNotFoundError:
            return  # another writer came first


def check_end(table: str, version: int, reached: Mapping[str, int], address: str) -> None:
    """Raise CatalogueError where a table of the catalogue at `address` ends before the version that it had reached."""
    known = reached.get(table, 0)
    if version < known:
        raise CatalogueError(
            f"cannot read {address}/{table}: its log (_delta_log) has lost its end: it had reached version {known}, "
            f"and ends at {version}. Restore it from a copy; to go on without what is lost, remove "
            f"{address}/{place(table, known)}, then type "
            f"`enumerator verify {quote(address)} --repair`."
        )


def place(table: str, version: int) -> str:
    """Where a version of a table is entered, below the root."""
    return f"{FOLDER}/{table}.{version:020}"
