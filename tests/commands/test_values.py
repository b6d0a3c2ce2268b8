"""Values on their way into JSON and CSV: exact, whatever Python's own types can hold."""

import io
import json

import duckdb
import pyarrow as pa
import pytest
from pyarrow import csv

from cluster.cli import run_command
from cluster.encoding.encoders import ENCODERS
from cluster.encoding.values import as_texts, rows_as_json
from enumerator.errors import InputError

# An expression of SQL, and its value in JSON and CSV; None where CSV refuses it.
EXPRESSIONS = [
    ("timestamptz 'infinity'", "infinity", None),
    ("timestamptz '-infinity'", "-infinity", None),
    ("timestamp '290000-01-01'", "+290000-01-01T00:00:00", None),
    ("timestamp '290000-02-29 12:34:56.5'", "+290000-02-29T12:34:56.500000", None),
    ("'290000-01-01'::timestamp_s", "+290000-01-01T00:00:00", None),
    ("date '-290000-01-01'", "-290000-01-01", None),
    ("date '-0044-03-15'", "-000044-03-15", None),
    ("date 'infinity'", "infinity", None),
    ("date '9999-12-31'", "9999-12-31", "9999-12-31"),
    ("date '0001-01-01'", "0001-01-01", "0001-01-01"),
    ("date '2000-02-29'", "2000-02-29", "2000-02-29"),
    ("timestamp '1969-12-31 23:59:59'", "1969-12-31T23:59:59", "1969-12-31 23:59:59.000000"),
    ("timestamptz '2020-01-02 03:04:05.6+00'", "2020-01-02T03:04:05.600000+00:00", "2020-01-02 03:04:05.600000Z"),
    ("'12:34:56.123456789'::time_ns", "12:34:56.123456789", "12:34:56.123456789"),
    ("timestamp_ns '2020-01-01 00:00:00.123456789'", "2020-01-01T00:00:00.123456789", "2020-01-01 00:00:00.123456789"),
    ("time '24:00:00'", "24:00:00", None),
    ("interval '3 months 2 days 1500 milliseconds'", "P3M2DT1.5S", '"P3M2DT1.5S"'),
    ("sum(7)", 7, "7"),
    ("(2::hugeint ** 62)::hugeint", 2**62, str(2**62)),
    ("(-(2::hugeint ** 100))::hugeint", str(-(2**100)), str(-(2**100))),
    ("0.1", 0.1, "0.1"),
    ("0.10000000000000000000000001", "0.10000000000000000000000001", "0.10000000000000000000000001"),
    ("3.00::decimal(9, 2)", 3, "3.00"),
    ("'nan'::double", None, "nan"),
    ("'\\xAA'::blob", "aa", '"aa"'),
    ("map {'a': date '290000-01-01'}", [["a", "+290000-01-01"]], '"[[""a"", ""+290000-01-01""]]"'),
    ("map {1: 2}", [[1, 2]], '"[[1, 2]]"'),
    ("{'a': 1.5, 'b': [date 'infinity', null]}", {"a": 1.5, "b": ["infinity", None]}, None),
    ("union_value(k := 1)", 1, '"1"'),
    ("'a'::enum('a', 'b')", "a", '"a"'),
    ("null", None, ""),
]  # fmt: skip


DATABASE = duckdb.connect()
DATABASE.execute("set TimeZone = 'UTC'")


def selected(expression: str) -> pa.Table:
    return DATABASE.sql(f"select {expression} as x").to_arrow_table()


@pytest.mark.parametrize(("expression", "expected", "_"), EXPRESSIONS)
def test_json_has_every_value(expression, expected, _):
    (batch,) = selected(expression).to_batches()
    (row,) = rows_as_json(batch)
    assert json.loads(row) == {"x": expected}
    assert type(json.loads(row)["x"]) is type(expected)


@pytest.mark.parametrize(("expression", "in_json", "expected"), EXPRESSIONS)
def test_csv_has_every_value_or_refuses_it(expression, in_json, expected):
    table = selected(expression)
    if expected is None and not pa.types.is_struct(table.schema.field(0).type):
        with pytest.raises(InputError, match="select x::varchar"):
            as_texts(table)
        return
    stream = io.BytesIO()
    csv.write_csv(as_texts(table), stream, csv.WriteOptions(include_header=False))
    text = stream.getvalue().decode().removesuffix("\n")
    if expected is None:
        (row,) = csv.read_csv(io.BytesIO(b"x\n" + stream.getvalue())).to_pylist()
        assert json.loads(row["x"]) == in_json
    else:
        assert text == expected


@pytest.mark.parametrize("expression", ["2::hugeint ** 126", "[{'a': 2::hugeint ** 126}]"])
@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_a_number_of_more_digits_than_its_type_is_in_no_file(format, expression):
    """2^126 has 38 digits, and 2^127 - 1 one more."""
    beyond = expression.replace("2::hugeint ** 126", "170141183460469231731687303715884105727::hugeint")
    fits = selected(expression.replace("2::hugeint ** 126", f"{2**126}::hugeint"))
    ENCODERS[format](io.BytesIO(), fits.schema).write(fits)
    rows = selected(beyond)
    with pytest.raises(InputError, match=r"the column 'x' holds a number of more digits .*select x::varchar"):
        ENCODERS[format](io.BytesIO(), rows.schema).write(rows)


def test_no_column_is_lost_where_two_have_one_name(capsys, tmp_path):
    (batch,) = pa.table([[1], [2]], ["a", "a"]).to_batches()
    with pytest.raises(InputError, match="two columns have the name 'a', in JSON each needs its own"):
        list(rows_as_json(batch))
    from tests.support.stand_ins import new_catalogue

    new_catalogue(tmp_path / "atlas")
    assert run_command(["sql", str(tmp_path / "atlas"), "select 1 as a, 2 as a", "--format", "json"]) == 2
    assert "two columns have the name 'a'" in capsys.readouterr().err
    assert run_command(["sql", str(tmp_path / "atlas"), "select timestamp '290000-01-01' as t"]) == 0
    assert "+290000-01-01T00:00:00" in capsys.readouterr().out
