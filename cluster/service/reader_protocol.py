"""What the service and its readers say to each other: frames, each of which carries the number of its request."""

from __future__ import annotations

import struct
from typing import NamedTuple

# A letter, the number of the request, the bytes of the content, which follows.
_HEAD = struct.Struct(">cQI")
HEAD_BYTES = _HEAD.size


class Head(NamedTuple):
    """What stands before the content of a frame."""

    kind: bytes
    number: int
    size: int


def packed(kind: bytes, number: int, content: bytes = b"") -> bytes:
    """A frame as it is sent."""
    return _HEAD.pack(kind, number, len(content)) + content


def head(content: bytes) -> Head:
    """The head of a frame, HEAD_BYTES long, taken apart."""
    return Head(*_HEAD.unpack(content))
