"""Files on an object store as Arrow sees them."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from deltalake.fs import DeltaStorageHandler


class ObjectStore(DeltaStorageHandler):
    """Delta Lake's own, but its streams take for writing what Arrow gives them, which is a buffer and not `bytes`."""

    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
        """Open an object for writing; it appears complete, when it is closed."""
        return pa.PythonFile(_Stream(self._handler.open_output_stream(path, metadata)), "w")


class _Stream(io.RawIOBase):
    """A stream that hands on bytes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: Any) -> int:
        """Write all of it."""
        self._stream.write(bytes(content))
        return len(content)

    def close(self) -> None:
        """Make the object appear."""
        if not self.closed:
            super().close()
            self._stream.close()
