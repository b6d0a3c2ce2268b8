"""What reaches a terminal is text: characters that it would obey, or that hide others, are spelled out."""

from __future__ import annotations

import codecs
import io
from typing import IO


def printable(text: str, kept: str = "") -> str:
    r"""Text in which every character can be seen, those `kept` apart: others as in JSON, \u001b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else _spelled(c) for c in text)


def _spelled(character: str) -> str:
    code = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{code[place : place + 2].hex()}" for place in range(0, len(code), 2))


class Terminal(io.RawIOBase):
    """A stream of bytes onto a terminal that shows what is written, and obeys nothing but the ends of lines."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        """Write all of it."""
        self._stream.write(printable(self._decode(bytes(content)), "\n").encode())
        return len(content)

    def flush(self) -> None:
        """Hand on what was written."""
        self._stream.flush()
