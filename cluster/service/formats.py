"""Answers in parts: JSON, CSV, Arrow or Parquet from record batches as they come, and which of them was asked for."""

from __future__ import annotations

import io
from typing import Protocol

import pyarrow as pa
from pyarrow import csv, parquet

from cluster.values import as_texts, rows_as_json

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
# The first is what a client gets that takes anything.
MEDIA_TYPES = {"json": "application/json", "arrow": ARROW, "parquet": PARQUET, "csv": "text/csv"}
# Other names that clients use.
_ALIASES = {"application/parquet": PARQUET, "application/x-parquet": PARQUET, "application/arrow": ARROW}


def choose_media_type(accept: str | None) -> str | None:
    """The format, a key of MEDIA_TYPES, that an Accept header prefers (RFC 9110); None if it takes none of them."""
    best: tuple[float, int, str] | None = None
    ranges = [_weighed(entry) for entry in (accept or "*/*").split(",") if entry.strip()]
    for order, (name, media_type) in enumerate(MEDIA_TYPES.items()):
        family = media_type.partition("/")[0] + "/*"
        # The most specific range that fits counts, whatever its weight.
        fitting = [weight for pattern in (media_type, family, "*/*") for kind, weight in ranges if kind == pattern]
        if fitting and fitting[0] > 0 and (best is None or fitting[0] > best[0]):
            best = (fitting[0], order, name)
    return None if best is None else best[2]


def _weighed(entry: str) -> tuple[str, float]:
    """The media type of one entry of an Accept header, and its weight."""
    kind, *parameters = (part.strip().lower() for part in entry.split(";"))
    weight = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                weight = 0.0
    return _ALIASES.get(kind, kind), weight


class Encoder(Protocol):
    """Writes record batches of one schema into a stream of bytes, part by part."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        ...

    def close(self) -> None:
        """No more rows come."""
        ...


class JsonEncoder:
    """An array of objects, one on a line."""

    def __init__(self, sink: io.RawIOBase, schema: pa.Schema) -> None:
        self._sink, self._separator = sink, b"["

    def write(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        for row in rows_as_json(batch):
            self._sink.write(self._separator + b"\n" + row.encode())
            self._separator = b","

    def close(self) -> None:
        """Close the array."""
        self._sink.write(b"\n]\n" if self._separator == b"," else b"[]\n")


class CsvEncoder:
    """A line with the names, then one for each row; lists are JSON in one field."""

    def __init__(self, sink: io.RawIOBase, schema: pa.Schema) -> None:
        self._writer = csv.CSVWriter(sink, as_texts(schema.empty_table()).schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        self._writer.write_table(as_texts(pa.Table.from_batches([batch])))

    def close(self) -> None:
        """Flush what is left."""
        self._writer.close()


class ArrowEncoder:
    """The Arrow IPC streaming format."""

    def __init__(self, sink: io.RawIOBase, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_stream(sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the mark at the end."""
        self._writer.close()


class ParquetEncoder:
    """A Parquet file, a row group for each batch."""

    def __init__(self, sink: io.RawIOBase, schema: pa.Schema) -> None:
        self._writer = parquet.ParquetWriter(sink, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


ENCODERS = {"json": JsonEncoder, "csv": CsvEncoder, "arrow": ArrowEncoder, "parquet": ParquetEncoder}
