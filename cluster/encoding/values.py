"""Values of Arrow columns as JSON and CSV have them, exactly: those too that Python's own types cannot hold."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from enumerator.errors import InputError

# Ticks in a second, and infinite times as DuckDB stores them.
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INFINITE = {64: 2**63 - 1, 32: 2**31 - 1}
_DAY = 86_400
# Days from the first of January of the year 1 to that of 1970, and in 400 years, after which the calendar repeats.
_EPOCH, _CYCLE = 719_162, 146_097
# Days since 1970 of the years that ISO 8601 writes with four digits.
_FIRST, _LAST = -_EPOCH, date.max.toordinal() - 1 - _EPOCH


def rows_as_json(batch: pa.RecordBatch) -> Iterator[str]:
    """Each row as a JSON object. Raises InputError where two columns have one name, of which one would be lost."""
    twice = [name for name, count in Counter(batch.schema.names).items() if count > 1]
    if twice:
        raise InputError(f"two columns have the name {twice[0]!r}, in JSON each needs its own: give one with `as`.")
    for row in zip(*map(values, batch.columns), strict=True):
        yield json.dumps(dict(zip(batch.schema.names, map(plain, row), strict=True)), ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value of Python as JSON has it: times in ISO 8601, bytes in hexadecimal, NaN and infinities as null.

    A decimal number is a number if one holds all of its digits, and else a text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return value if isinstance(value, int | str | None) else str(value)


def _number(value: Decimal) -> int | float | str:
    if value == value.to_integral_value() and abs(value) < 2**63:
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column, as `plain` takes them; times are texts already where it holds any."""
    return [_exact(value) for value in column] if _has_times(column.type) else column.to_pylist()


def as_texts(table: pa.Table) -> pa.Table:
    """A table for CSV, which has no lists and no bytes: they become JSON, and hexadecimal digits, in one field.

    Raises InputError for times that CSV would have otherwise than they are.
    """
    for position, entry in enumerate(table.schema):
        column = table.column(position)
        if types.is_temporal(entry.type) and not types.is_interval(entry.type):
            _check_times(entry.name, column)
        elif not _is_simple(entry.type):
            texts = [None if value is None else _text(plain(value)) for value in values(column)]
            table = table.set_column(position, entry.name, pa.array(texts, pa.string()))
    return table


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_simple(type: pa.DataType) -> bool:
    """Whether CSV has values of this type as they are."""
    is_nested = types.is_nested(type) or isinstance(type, pa.BaseExtensionType)
    is_binary = types.is_binary(type) or types.is_large_binary(type) or types.is_fixed_size_binary(type)
    return not (is_nested or is_binary or types.is_interval(type))


def check_digits(rows: pa.RecordBatch | pa.Table) -> None:
    """Raise InputError for numbers with more digits than their type has: DuckDB hands over large whole ones so."""
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if _holds(field.type, types.is_decimal):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                raise InputError(
                    f"the column {field.name!r} holds a number of more digits than its type {field.type} has: "
                    f"select {field.name}::varchar, or ask for JSON or CSV."
                ) from None


def _has_times(type: pa.DataType) -> bool:
    return _holds(type, lambda leaf: types.is_temporal(leaf) and not types.is_duration(leaf))


def _holds(type: pa.DataType, is_sought: Callable[[pa.DataType], bool]) -> bool:
    """Whether values of a type, or those within them, are of a type that is sought."""
    if types.is_dictionary(type):
        return _holds(type.value_type, is_sought)
    if types.is_nested(type):
        return any(_holds(type.field(k).type, is_sought) for k in range(type.num_fields))
    return is_sought(type)


def _exact(value: pa.Scalar) -> Any:
    """A value of Python for one of Arrow; times are texts."""
    type = value.type
    if not value.is_valid:
        return None
    if types.is_map(type):
        return [[_exact(entry[0]), _exact(entry[1])] for entry in value.values]
    if types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type):
        return [_exact(entry) for entry in value.values]
    if types.is_struct(type):
        return {type.field(k).name: _exact(value[k]) for k in range(type.num_fields)}
    if types.is_union(type) or types.is_dictionary(type):
        return _exact(value.value)
    if types.is_interval(type):
        months, days, nanoseconds = value.as_py()
        return f"P{months}M{days}DT{Decimal(nanoseconds).scaleb(-9).normalize():f}S"
    return _time(type, value.value) if _has_times(type) else value.as_py()


def _time(type: pa.DataType, count: int) -> str:
    """A date, time or moment in ISO 8601, or infinity; `count` as Arrow stores it."""
    if abs(count) == _INFINITE[type.bit_width] and not types.is_time(type):
        return "infinity" if count > 0 else "-infinity"
    if types.is_date32(type):
        return _date(count)
    ticks = _TICKS["ms" if types.is_date64(type) else type.unit]
    if types.is_time(type):
        return _clock(count, ticks)
    days, rest = divmod(count, _DAY * ticks)
    zone = "+00:00" if types.is_timestamp(type) and type.tz else ""
    return _date(days) if types.is_date64(type) else f"{_date(days)}T{_clock(rest, ticks)}{zone}"


def _date(days: int) -> str:
    """A date in ISO 8601 from the days since 1970; years beyond four digits have a sign."""
    cycles, rest = divmod(days + _EPOCH, _CYCLE)
    day = date.fromordinal(rest + 1)
    year = day.year + 400 * cycles
    return f"{year:04d}{day:-%m-%d}" if _FIRST <= days <= _LAST else f"{year:+07d}{day:-%m-%d}"


def _clock(count: int, ticks: int) -> str:
    """A time of the day; a fraction of a second has six digits, or nine."""
    seconds, rest = divmod(count, ticks)
    nanoseconds = rest * (10**9 // ticks)
    digits = f"{nanoseconds:09d}" if nanoseconds % 1000 else f"{nanoseconds // 1000:06d}"
    fraction = f".{digits}" if nanoseconds else ""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def _check_times(name: str, column: pa.ChunkedArray) -> None:
    """Raise InputError for times beyond the years of four digits, or the end of the day."""
    type = column.type
    if types.is_duration(type):
        return
    unit = _DAY * _TICKS["ms" if types.is_date64(type) else type.unit] if not types.is_date32(type) else 1
    first, last = (0, unit - 1) if types.is_time(type) else (_FIRST * unit, (_LAST + 1) * unit - 1)
    range = pc.min_max(column.cast(pa.int64() if type.bit_width == 64 else pa.int32()))  # type: ignore[attr-defined]  # made at run time
    lowest, highest = range["min"].as_py(), range["max"].as_py()
    if lowest is not None and (lowest < first or highest > last):
        raise InputError(f"the column {name!r} holds a time that CSV cannot: select {name}::varchar, or ask for JSON.")
