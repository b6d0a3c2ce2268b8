"""Tables on their way out: readable text, JSON, CSV, Arrow or Parquet, on stdout or into a file."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from cluster.encoding.encoders import ENCODERS, ArrowEncoder, Encoder, ParquetEncoder
from cluster.encoding.values import values
from cluster.terminal import Terminal, printable
from enumerator.errors import InputError
from enumerator.storage.destination import destination, open_file

FORMATS = ("table", "json", "csv", "arrow", "parquet")
BINARY = ("arrow", "parquet")
# The endings of files that name a format. Text may have COMPRESSED behind its ending.
ENDINGS = {".txt": "table", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
ENDINGS |= dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow")
COMPRESSED = ".gz"

# What a table on a terminal shows of each kind of row, most telling first: what does not fit is left out from the end.
SHOWN = {
    "minima": (
        "label", "loss", "anti_aligned", "hits", "frequency", "verdict", "verdict_above", "hessian_min",
        "isotropy", "effective_students", "orbit_size_log10", "flat_dimension",
    ),
    "saddles": (
        "label", "loss", "anti_aligned", "hits", "lingered", "lingering_time", "hessian_min", "verdict",
        "isotropy", "effective_students",
    ),
    "starts": (
        "start_index", "outcome", "minimum_id", "end_loss", "loss", "gradient_norm", "anti_aligned", "flow_time",
        "evaluations", "distance", "campaign_name",
    ),
    "campaigns": (
        "campaign_name", "status", "starts", "dynamics", "step", "dimension", "scale", "seed", "settings",
        "campaign_id", "created_at", "finished_at", "landscape_id", "device", "software",
    ),
    "landscapes": (
        "landscape_id", "students", "teachers", "teacher", "activation", "activation_slope", "constraint",
        "second_layer", "teacher_rank", "created_at",
    ),
    "frequencies": (
        "students", "teachers", "outcome", "label", "anti_aligned", "loss", "hits", "starts", "frequency", "exact_low",
        "exact_high", "wilson_low", "wilson_high", "frequency_per_copy_log10", "dynamics", "law", "settings",
    ),
    "unseen": (
        "students", "teachers", "starts", "in_no_minimum", "minima", "hit_once", "missing_mass", "missing_low",
        "missing_high", "missing_bound", "chao1", "chao1_low", "ichao1", "more", "new_minima", "new_low", "new_high",
        "note", "dynamics", "law", "settings",
    ),
    "comparison": (
        "first_name", "second_name", "question", "test", "p_value", "p_corrected", "effect", "first_share",
        "second_share", "difference", "difference_low", "difference_high", "first_starts", "second_starts",
        "statistic", "freedom", "first_dynamics", "second_dynamics", "first_law", "second_law", "first_settings",
        "second_settings",
    ),
    "trend": (
        "students", "teachers", "value", "low", "high", "curve", "curve_low", "curve_high", "dispersion", "starts",
        "dynamics", "law", "settings",
    ),
    "early-stops": (
        "anti_aligned", "zero_loss", "stopped", "stopped_frequency", "stopped_low", "stopped_high", "hits", "frequency",
        "low", "high",
    ),
    "trajectory": ("evaluations", "flow_time", "loss", "gradient_norm"),
}  # fmt: skip

# Columns that a readable table shows in percent.
PERCENT = {"frequency", "exact_low", "exact_high", "wilson_low", "wilson_high", "first_share", "second_share"}
PERCENT |= {"difference", "difference_low", "difference_high"}
# Those that are shares in this kind of rows alone.
PERCENT_IN = {"early-stops": {"stopped_frequency", "stopped_low", "stopped_high", "low", "high"}}

_STDOUT = 1


def choose_format(format: str | None, file: Path | None) -> str:
    """The format asked for, or that of the file's ending, or a table where it has none. Raises InputError."""
    if format is None:
        format = "table" if file is None or not file.suffix else _format_of(file)
    if format not in FORMATS:
        raise InputError(f"`--format` must be one of {', '.join(FORMATS)}, got {format!r}.")
    if format in BINARY and file is None and sys.stdout.isatty():
        raise InputError(f"{format} is no text for a terminal: write it to a file with -o FILE, or pipe it.")
    return format


def _format_of(file: Path) -> str:
    """The format that the ending of a file names. Raises InputError for one that names none."""
    name = file.name.lower()
    format = ENDINGS.get(Path(name.removesuffix(COMPRESSED)).suffix)
    if format is None or (format in BINARY and name.endswith(COMPRESSED)):
        texts = ", ".join(f"{ending}{COMPRESSED}" for ending, named in ENDINGS.items() if named not in BINARY)
        raise InputError(
            f"the ending of `-o` must be one of {', '.join(ENDINGS)}, {texts}, got {file}: "
            "take one of them, or say the format with --format."
        )
    return format


def write_table(
    table: pa.Table,
    kind: str | None = None,
    format: str | None = None,
    file: Path | None = None,
    all_columns: bool = False,
) -> None:
    """Write a table to `file`, which appears complete or not at all, or to stdout.

    As a readable table, `kind` (a key of SHOWN) selects the columns unless `all_columns`; every
    other format has them all.
    """
    format = choose_format(format, file)
    if format == "table" and kind in SHOWN and not all_columns:
        table = table.select([name for name in SHOWN[kind] if name in table.column_names])
    if format == "table" and file is None and not table.num_rows:
        # A heading without a row below it looks like a table that was cut off.
        print(f"No {kind if kind in SHOWN else 'rows'} found.", file=sys.stderr, flush=True)
        return
    with _destination(file) as stream:
        if format == "table":
            fit = file is None and sys.stdout.isatty()
            _write_text(table, stream, shutil.get_terminal_size().columns if fit else None, kind)
        else:
            _write_rows(table, format, stream)


def write_text(text: str, file: Path | None = None) -> None:
    """Write lines to `file`, as `write_table` does, or to stdout."""
    with _destination(file) as stream:
        stream.write(text.encode() + b"\n")


@contextlib.contextmanager
def _destination(file: Path | None) -> Iterator[IO[bytes]]:
    """A byte stream into the file, compressed if its name says so, or to stdout."""
    if file is None or open_file(file) == _STDOUT:
        try:
            yield Terminal(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer  # type: ignore[misc]
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough; the flush at exit must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    with destination(file) as stream:
        if file.name.lower().endswith(COMPRESSED):
            # Without a name and a time: the same table gives the same bytes.
            with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as compressed:
                yield cast(IO[bytes], compressed)
        else:
            yield stream


def _write_rows(table: pa.Table, format: str, stream: IO[bytes]) -> None:
    if format == "parquet":
        # By way of memory: a writer that was given up writes its end nevertheless, to a stream that is closed by then.
        buffer = io.BytesIO()
        _encode(ParquetEncoder(buffer, table.schema, "snappy"), table)
        stream.write(buffer.getvalue())
    elif format == "arrow":
        _encode(ArrowEncoder(stream, table.schema, _is_file(stream)), table)
    else:
        _encode(ENCODERS[format](stream, table.schema), table)


def _encode(encoder: Encoder, table: pa.Table) -> None:
    encoder.write(table)
    encoder.close()


def _is_file(stream: IO[bytes]) -> bool:
    """Whether a stream leads into a regular file, not into a pipe."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except io.UnsupportedOperation:  # a stream of Python's own
        return False


def format_value(name: str, value: Any, kind: str | None = None) -> str:
    """A cell of a readable table, whose rows are of this kind."""
    if value is None:
        return "-"
    if name in PERCENT or name in PERCENT_IN.get(kind or "", ()):
        return f"{100 * value:.2f}%"
    if isinstance(value, float):
        return (
            f"{value:.9f}"
            if name in ("loss", "end_loss") and (value == 0 or 1e-4 <= abs(value) < 1e4)
            else f"{value:.6g}"
        )
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list):
        return "[" + ", ".join(format_value("", entry) for entry in value) + "]"
    return printable(str(value))


def _cells(column: pa.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):  # times that Python cannot hold
        return values(column)


def _write_text(table: pa.Table, stream: IO[bytes], width: int | None, kind: str | None = None) -> None:
    """Aligned columns, two blanks apart, numbers to the right; as many columns as fit into `width`."""
    columns = [
        [
            printable(entry.name),
            *(format_value(entry.name, value, kind) for value in _cells(table.column(position))),
        ]
        for position, entry in enumerate(table.schema)
    ]
    to_the_right = [
        pa.types.is_integer(entry.type) or pa.types.is_floating(entry.type) or pa.types.is_decimal(entry.type)
        for entry in table.schema
    ]
    widths = [max(map(len, column)) for column in columns]
    shown = len(columns)
    while width is not None and shown > 1 and sum(widths[:shown]) + 2 * (shown - 1) > width:
        shown -= 1
    for cells in zip(*columns[:shown], strict=True):
        padded = (
            cell.rjust(size) if right else cell.ljust(size)
            for cell, size, right in zip(cells, widths, to_the_right, strict=False)
        )
        stream.write(("  ".join(padded).rstrip() + "\n").encode())
    if shown < len(columns):
        stream.flush()
        left_out = ", ".join(column[0] for column in columns[shown:])
        print(f"(not shown, too wide: {left_out}; choose with --columns, or use --format json)", file=sys.stderr)
