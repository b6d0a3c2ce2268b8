"""Members of a tar archive, read where they lie: nothing is unpacked, so nothing can be left behind."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from enumerator.errors import InputError

# Entries of an archive, at most: a bundle has fifteen.
MOST_MEMBERS = 100
# What the headers of an archive that nobody wrote with care may raise.
_DAMAGED = (tarfile.TarError, EOFError, ValueError, ArithmeticError, MemoryError, RecursionError)


class _Place(NamedTuple):
    """Where the bytes of a member lie in the archive."""

    first: int
    size: int


class Archive:
    """A tar archive that was not compressed, open as long as the block lasts.

    `members` are the names of its plain files. Raises InputError for what is no such archive, has more than
    MOST_MEMBERS entries, or one whose bytes are not all there, as in a sparse file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
        try:
            self._places = self._find()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @property
    def members(self) -> set[str]:
        """The names of the members that are files."""
        return set(self._places)

    def _find(self) -> dict[str, _Place]:
        places: dict[str, _Place] = {}
        end = os.fstat(self._file.fileno()).st_size
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                for count, entry in enumerate(archive):
                    if count == MOST_MEMBERS:
                        raise tarfile.TarError(f"it has more than {MOST_MEMBERS} entries")
                    if entry.issparse() or not 0 <= entry.size <= end - entry.offset_data:
                        raise tarfile.TarError("an entry declares more bytes than it has")
                    if entry.isreg():
                        places[entry.name] = _Place(entry.offset_data, entry.size)
        except _DAMAGED as error:
            raise InputError(f"expected a bundle made by `enumerator export`, got {self._path}: {error}.") from error
        except OSError as error:
            raise InputError(f"cannot read {self._path}: {error.strerror or error}.") from error
        return places

    def size(self, name: str) -> int:
        """Bytes of a member."""
        return self._places[name].size

    def open(self, name: str) -> Member:
        """A member, to be read from its beginning; several can be read at once."""
        return Member(self._file, *self._places[name])


class Member(io.RawIOBase):
    """The bytes of one member as a file of its own: it has a position of its own, whoever else reads the archive."""

    def __init__(self, archive: io.BufferedReader, first: int, size: int) -> None:
        self._archive, self._first, self._size, self._position = archive, first, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, counted from the beginning, from here or from the end."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into a buffer; how many bytes."""
        length = max(min(len(buffer), self._size - self._position), 0)
        block = os.pread(self._archive.fileno(), length, self._first + self._position)
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)
