"""JSON, CSV, Arrow and Parquet, written part by part from rows as they come."""

from __future__ import annotations

from typing import IO, Any, Protocol

import pyarrow as pa
from pyarrow import csv, parquet

from cluster.encoding.values import as_texts, check_digits, rows_as_json

# Rows turned into JSON at a time, so that a million starts need no memory to speak of.
ROWS_AT_ONCE = 10_000


class Encoder(Protocol):
    """Writes rows of one schema into a stream of bytes, part by part. One that is not closed was given up."""

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in some rows. Raises InputError for values that the format cannot have."""
        ...

    def close(self) -> None:
        """No more rows come; the stream stays open."""
        ...


class JsonEncoder:
    """An array of objects, one on a line."""

    def __init__(self, sink: IO[bytes], schema: pa.Schema) -> None:
        self._sink, self._separator = sink, b"["

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in some rows."""
        for batch in _as_table(rows).to_batches(max_chunksize=ROWS_AT_ONCE):
            for row in rows_as_json(batch):
                self._sink.write(self._separator + b"\n" + row.encode())
                self._separator = b","

    def close(self) -> None:
        """Close the array."""
        self._sink.write(b"\n]\n" if self._separator == b"," else b"[]\n")


class CsvEncoder:
    """A line with the names, then one for each row; lists are JSON in one field."""

    def __init__(self, sink: IO[bytes], schema: pa.Schema) -> None:
        self._writer = csv.CSVWriter(sink, as_texts(schema.empty_table()).schema)

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in some rows."""
        self._writer.write_table(as_texts(_as_table(rows)))

    def close(self) -> None:
        """Flush what is left."""
        self._writer.close()


class ArrowEncoder:
    """The Arrow IPC stream format; or the file format, which readers of files expect."""

    def __init__(self, sink: IO[bytes], schema: pa.Schema, is_file: bool = False) -> None:
        self._writer = (pa.ipc.new_file if is_file else pa.ipc.new_stream)(sink, schema)

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in some rows. Raises InputError for numbers that their type has no room for."""
        check_digits(rows)
        self._writer.write(rows)

    def close(self) -> None:
        """Write the mark at the end."""
        self._writer.close()


class ParquetEncoder:
    """A Parquet file, a row group for each batch. One that was given up writes its end when it is forgotten."""

    def __init__(self, sink: IO[bytes], schema: pa.Schema, compression: str = "zstd") -> None:
        self._writer = parquet.ParquetWriter(sink, schema, compression=compression)

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take in some rows. Raises InputError for numbers that their type has no room for."""
        check_digits(rows)
        self._writer.write(rows)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


ENCODERS: dict[str, Any] = {"json": JsonEncoder, "csv": CsvEncoder, "arrow": ArrowEncoder, "parquet": ParquetEncoder}


def _as_table(rows: pa.RecordBatch | pa.Table) -> pa.Table:
    return rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
