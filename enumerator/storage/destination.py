"""Where a file that a user names is written: behind links, complete or not at all; straight into what is no file."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from enumerator.errors import InputError

# Folders whose entries are the open files of this process; /dev/stdout is a link to one of them.
_OPEN_FILES = ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")


@contextlib.contextmanager
def destination(file: Path, advice: str = "choose another file with -o") -> Iterator[IO[bytes]]:
    """A byte stream into what `file` names, wherever its links lead.

    A regular file appears complete, on the disk and with the permissions of the one that it replaces, or stays as it
    was. Anything else, such as a pipe or a device, is written to, and so is an open file of this process, from where
    it stands. Raises InputError, which ends in `advice`, where that cannot be.
    """
    try:
        with _opened(file) as stream:
            yield stream
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}: {advice}.") from None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if (number := open_file(file)) is not None:
        # Opened anew it would be cut to nothing, and what others wrote to it before would be lost.
        with os.fdopen(os.dup(number), "wb") as stream:
            yield stream
        return
    if _is_something_else(file):
        # A file that took the place of /dev/null would break the machine.
        with file.open("wb") as stream:
            yield stream
        return
    target = Path(os.path.realpath(file))
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            if target.exists():
                shutil.copymode(target, partial)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def open_file(path: Path) -> int | None:
    """The number of the open file of this process that a path stands for, as /dev/stdout does; None for others."""
    if not path.exists():
        return None
    folder = os.path.realpath(path.parent)
    if path.name.isdecimal() and folder in map(os.path.realpath, _OPEN_FILES):
        return int(path.name)
    return open_file(path.parent / path.readlink()) if path.is_symlink() else None


def folder_of(file: Path) -> Path | None:
    """The folder in which a regular file `file` will lie, behind its links; None for anything else."""
    if open_file(file) is not None or _is_something_else(file):
        return None
    return Path(os.path.realpath(file)).parent


def _is_something_else(file: Path) -> bool:
    """Whether there is something here that is not a regular file. Raises OSError for links in a circle."""
    try:
        file.stat()
    except FileNotFoundError:
        return False
    return not file.is_file()
