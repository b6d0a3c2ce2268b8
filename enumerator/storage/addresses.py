"""Where a catalogue lies: in a directory, or at a place on an object store."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from enumerator.errors import InputError
from enumerator.parsing import parsing, shown

# Characters in the path of a directory that Delta Lake 1.6 takes for parts of a URL, and fails on.
UNUSABLE = frozenset("[]^|\\%")


def address_of(path: str | os.PathLike[str]) -> tuple[str, bool]:
    """The absolute path, or the URL, of a catalogue, and whether it is on an object store. Raises InputError."""
    address = os.fspath(path)
    is_remote = "://" in address and not address.startswith("file://")
    with parsing("the place of a catalogue", shown(address)):
        if not is_remote:
            local = Path(unquote(urlsplit(address).path) if address.startswith("file://") else address)
            address = str(local.expanduser().absolute())
        found = sorted(c for c in set(address) if _is_control(c) or (c in UNUSABLE and not is_remote))
        if found:
            listed = " ".join(shown(c) if _is_control(c) else c for c in found)
            raise InputError(f"the path of a catalogue cannot have {listed} in it, got {shown(address)}: rename it.")
    return address.rstrip("/"), is_remote


def _is_control(character: str) -> bool:
    """Whether no text has this character, but for the ends of its lines: a control character, or a byte of no text."""
    return unicodedata.category(character) in ("Cc", "Cs")
