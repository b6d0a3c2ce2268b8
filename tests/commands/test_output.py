"""Tables and matrices as text: aligned, cut to the width of the terminal, blocks visible; JSON for every reader."""

import io
import json
import math
import os
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from cluster.commands import output
from cluster.commands.describe import describe, matrix_lines
from cluster.commands.output import format_value, write_table
from cluster.encoding import encoders
from cluster.runs.progress import Tally
from enumerator.progress import Pace

TABLE = pa.table({"name": ["a", "long name"], "loss": [0.5, None], "frequency": [0.25, 1.0], "hits": [7, 12]})


def test_columns_are_aligned_numbers_to_the_right(capsys):
    write_table(TABLE)
    assert capsys.readouterr().out.splitlines() == [
        "name              loss  frequency  hits",
        "a          0.500000000     25.00%     7",
        "long name            -    100.00%    12",
    ]


@pytest.mark.parametrize(("width", "shown"), [(39, 4), (38, 3), (33, 3), (32, 2), (5, 1)])
def test_columns_that_do_not_fit_are_left_out_and_named(width, shown, capsys):
    stream = io.BytesIO()
    output._write_text(TABLE, stream, width)
    assert stream.getvalue().decode().splitlines()[0].split() == TABLE.column_names[:shown]
    said = capsys.readouterr().err
    assert all(name in said for name in TABLE.column_names[shown:])
    assert bool(said) == (shown < 4)


def test_json_has_no_nan_and_exact_numbers(capsys):
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    numbers = [0.1 + 0.2, math.nan, math.inf, 5e-324]
    write_table(pa.table({"list": [numbers], "time": pa.array([moment], pa.timestamp("us", "UTC"))}), format="json")
    (row,) = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert row["list"] == [0.1 + 0.2, None, None, 5e-324]
    assert datetime.fromisoformat(row["time"]) == moment


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "minima.json"
    file.write_text("old")

    def half(encoder, rows):
        encoder._sink.write(b"[")
        raise MemoryError

    monkeypatch.setattr(encoders.JsonEncoder, "write", half)
    with pytest.raises(MemoryError):
        write_table(TABLE, format="json", file=file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("loss", 0.0127962451, "0.012796245"),
        ("loss", 1.1e-16, "1.1e-16"),
        ("loss", None, "-"),
        ("hessian_min", 0.0507667123, "0.0507667"),
        ("frequency", 0.1284, "12.84%"),
        ("Q", [1.0, -0.25], "[1, -0.25]"),
        ("hits", 12, "12"),
    ],
)
def test_cells(name, value, text):
    assert format_value(name, value) == text


def block_symmetric_minimum():
    """Two students of one kind, one of another."""
    Q = np.array([[1.0, 0.1, -0.3], [0.1, 1.0, -0.3], [-0.3, -0.3, 0.7]])
    R = np.array([[0.9, 0.02, 0.3], [0.02, 0.9, 0.3], [-0.1, -0.1, -1e-9]])
    row = dict.fromkeys(("gradient_norm", "splitting_min", "created_at", "software", "family", "hits", "frequency"))
    sizes = {"students": 4, "teachers": 3, "effective_students": 3, "anti_aligned": 1, "flat_dimension": 0}
    texts = (
        "minimum_id",
        "label",
        "landscape_id",
        "activation",
        "constraint",
        "second_layer",
        "verdict",
        "verdict_above",
    )
    return {**row, **sizes, **{text: text for text in texts}, "loss": 0.5, "Q": Q.ravel(), "R": R.ravel()}


def test_show_draws_lines_between_blocks():
    lines = describe(block_symmetric_minimum()).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("R, student with teacher"))
    assert lines[start + 1 :] == [
        "  0.9000  0.0200 |  0.3000",
        "  0.0200  0.9000 |  0.3000",
        "-----------------+--------",
        " -0.1000 -0.1000 |  0.0000",
    ]


def test_wide_matrices_go_on_below():
    matrix = np.arange(12.0).reshape(2, 6)
    lines = matrix_lines(matrix, [1], [], width=30)
    assert max(map(len, lines)) <= 30
    assert [line for line in lines if line.startswith("columns")] == ["columns 1 to 3", "columns 4 to 6"]
    entries = [line.split() for line in lines if line[0] not in "c-"]
    assert np.array_equal(np.hstack([np.array(entries[:2], float), np.array(entries[2:], float)]), matrix)


def test_an_empty_effective_network_can_be_shown():
    minimum = {**block_symmetric_minimum(), "effective_students": 0, "Q": [], "R": []}
    assert "loss" in describe(minimum)


def test_rate_and_time_left_leave_out_what_came_after_all_was_started(monkeypatch):
    """A minute of start-up, then 30 starts a second: after the first shard 900 starts are not 9 minutes."""
    clock = iter([0.0, 5.0, 60.0, 61.0, 90.0])
    monkeypatch.setattr("enumerator.progress.time.monotonic", lambda: next(clock))
    pace = Pace()
    assert Tally(2000).text(pace) == "0 of 2,000 starts, 5 s, no results yet, 0 distinct minima"
    for done in (100, 200):  # the second a moment later, by a worker that began with the first
        assert "time left not known yet" in Tally(2000, done=done, fresh=done, minima=1).text(pace)
    assert Tally(2000, 1000, 1000, 2, 3).text(pace) == (
        "1,000 of 2,000 starts, 30/s, 33 s left, 2 distinct minima, 3 unfinished"
    )


def test_an_empty_table_says_so_instead_of_a_heading(capsys, tmp_path):
    for kind, said in (("minima", "No minima found.\n"), (None, "No rows found.\n")):
        write_table(TABLE.slice(0, 0), kind, all_columns=True)
        assert tuple(capsys.readouterr()) == ("", said)
    write_table(TABLE.slice(0, 0), "minima", "csv")
    assert tuple(capsys.readouterr()) == ('"name","loss","frequency","hits"\n', "")


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    """As /dev/null must be: a file put in its place breaks the machine for everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_table(pa.table({"a": [1]}), None, "csv", pipe)
        assert os.read(reader, 100) == b'"a"\n1\n'
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
