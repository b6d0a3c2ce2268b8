"""The command line: what it prints, and that bad input gets one clear line, exit code 2, and leaves nothing behind."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from deltalake import DeltaTable

from cluster.cli import run_command
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.store import VERSION_PROPERTY
from tests.support.stand_ins import make_atlas

COMMANDS = ("run", "minima", "saddles", "starts", "campaigns", "landscapes", "show", "sql")
RUN = ("run", "--students", "3", "--teachers", "3", "--starts", "10", "--catalogue", "new")
LEAKY = ("--activation", "leaky_relu")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("catalogues") / "atlas"
    make_atlas(path)
    return str(path)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder to work in; files of bad input are put there by the tests that need them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def enumerator(workplace, capsys):
    """Runs a command line here: exit code, stdout, stderr."""

    def run(*arguments):
        code = run_command(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(enumerator, workplace):
    """Runs a command line that must be refused, and returns the one line that says why."""

    def run(*arguments):
        before = sorted(workplace.rglob("*"))
        code, out, err = enumerator(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
        assert "Traceback" not in err
        assert sorted(workplace.rglob("*")) == before
        return err

    return run


# Bad input to `run`


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--students", 0), "`students` must be a whole number >= 1, got 0"),
        (("--students", -3), "`students` must be a whole number >= 1, got -3"),
        (("--students", "many"), "--students"),
        (("--starts", 0), "`starts` must be a whole number >= 1, got 0"),
        (("--dimension", 2), "`dimension` must be at least the rank of T, 3, got 2"),
        (("--scale", -1), "`scale` must be a positive finite number, got -1.0"),
        (("--scale", "nan"), "`scale` must be a positive finite number, got nan"),
        (("--scale", "inf"), "`scale` must be a positive finite number, got inf"),
        (("--seed", -1), "`seed` must be a whole number >= 0, got -1"),
        (("--seed", 2**63), "`seed` must be at most 9223372036854775807, got a larger number."),
        (("--starts", 10**30), "`starts` must be at most 1000000000, got a larger number."),
        (("--shard-size", 10**30), "`shard_size` must be at most 1000000000"),
        (("--dimension", 10**400), "`dimension` must be at most 9007199254740991"),
        (("--dynamics", "adam"), "`dynamics` must be one of"),
        (("--dynamics", "one-pass-sgd", "--step", "0.1"), "`dynamics` one-pass-sgd needs `flow_time`, got none"),
        (
            ("--dynamics", "one-pass-sgd", "--step", "0.1", "--flow-time", "1", "--constraint", "orthonormalized"),
            "`constraint` must be none or normalized for one-pass-sgd",
        ),
        (("--dynamics", "gradient-descent"), "`dynamics` gradient-descent needs `step`, got none"),
        (("--dynamics", "newton", "--step", "0.1"), "`dynamics` newton has no `step`, got 0.1"),
        (("--activation", "tanh"), "`activation` must be one of"),
        ((*LEAKY, "--activation-slope", "1"), "`activation_slope` must be at least 0 and below 1"),
        (LEAKY, "`activation_slope` goes with activation leaky_relu"),
        (("--constraint", "normalized", "--dynamics", "newton"), "`dynamics` newton goes with constraint none"),
        (("--constraint", "orthonormalized", "--dimension", "6", "--students", "7"), "`dimension` must be at least 7"),
        (("--second-layer-law", "signs"), "`second_layer_law` goes with second layer trained, and only with it"),
        (
            ("--second-layer", "trained", "--dynamics", "newton"),
            "`dynamics` newton goes with constraint none and second layer fixed: use gradient-flow",
        ),
        (("--workers", 0), "`workers` must be a whole number >= 1, got 0"),
        (("--shard-size", 0), "`shard_size` must be a whole number >= 1, got 0"),
        (("--device", "tpu"), "`device` must be one of auto, cpu, gpu, got 'tpu'"),
        (("--format", "xml"), "`--format` must be one of table, json, csv, arrow, parquet, got 'xml'"),
        (("--colour", "red"), "No such option: --colour"),
        (("--teacher", "nowhere.npy"), "no file nowhere.npy"),
        (("--initial", "nowhere.npz"), "no file nowhere.npz"),
        (("--initial", "starts.txt"), "expected initial overlaps in a .npz, .arrow or .parquet file, got starts.txt"),
        (("nowhere.toml",), "no file nowhere.toml"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_run_refuses_bad_options(refused, options, said):
    assert said in refused(*RUN, *options)


def test_run_refuses_a_gpu_that_is_not_there(refused, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "needs an NVIDIA GPU, found none" in refused(*RUN, "--device", "gpu")


def test_run_asks_for_the_sizes(refused):
    assert "`teachers` is missing: pass --teachers" in refused("run", "--students", 3)


NOT_TEACHERS = {
    "not symmetric": (np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]), "`T` must be symmetric, got T[0,1] = 0.5"),
    "not positive semidefinite": (np.diag([1.0, 1.0, -0.5]), "got the eigenvalue -0.5"),
    "with NaN": (np.diag([1.0, np.nan, 1.0]), "`T` must be finite, got nan at row 1, column 1"),
    "of another size": (np.eye(4), "`T` must have shape (M, M) = (3, 3), got (4, 4)"),
    "a vector": (np.ones(3), "as a matrix, got an array of shape (3,)"),
    "text": (np.array([["a", "b", "c"]] * 3), "T as real numbers, got an array of"),
    "complex": (np.eye(3) * 1j, "T as real numbers, got an array of"),
    "all zeros": (np.zeros((3, 3)), "there is nothing to learn"),
    "pickled": (
        np.array([[1, "a", None]] * 3, dtype=object),
        "got T.npy: it holds pickled objects, or is of another format",
    ),
}


@pytest.mark.parametrize(("matrix", "said"), NOT_TEACHERS.values(), ids=NOT_TEACHERS)
def test_run_refuses_what_is_no_teacher(refused, workplace, matrix, said):
    np.save(workplace / "T.npy", matrix, allow_pickle=True)
    assert said in refused(*RUN, "--teacher", "T.npy")


@pytest.mark.parametrize("content", [b"", b"not a matrix\n", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "cut short"])
def test_run_refuses_a_teacher_file_of_another_kind(refused, workplace, content):
    (workplace / "T.npy").write_bytes(content)
    assert "expected teacher overlaps T as a matrix in a .npy file" in refused(*RUN, "--teacher", "T.npy")


def test_run_refuses_an_archive_as_teacher(refused, workplace):
    np.savez(workplace / "T.npz", T=np.eye(3))
    assert "got an archive of arrays" in refused(*RUN, "--teacher", "T.npz")


NOT_CAMPAIGNS = {
    "no TOML": ("students: 3", "expected a campaign file in TOML"),
    "unknown setting": (
        "students = 3\nteachers = 3\nstudnets = 4",
        "unknown setting `studnets`: did you mean",
    ),
    "unknown tolerance": ("[tolerances]\nstep_err = 1", "unknown setting `tolerances.step_err`: did you mean"),
    "wrong type": ('scale = "large"', "`scale`: 'large' is not of type 'number'"),
    "wrong choice": ('activation = "gelu"', "`activation` must be one of relu, leaky_relu, erf, got 'gelu'"),
    "out of range": ("seed = -1", "`seed`: -1 is less than the minimum of 0"),
    "whole number": ("dimension = 10.5", "`dimension`: 10.5 is not of type 'integer'"),
}


@pytest.mark.parametrize(("text", "said"), NOT_CAMPAIGNS.values(), ids=NOT_CAMPAIGNS)
def test_run_refuses_bad_campaign_files(refused, workplace, text, said):
    (workplace / "campaign.toml").write_text(text)
    line = refused(*RUN, "campaign.toml")
    assert said in line
    assert "campaign.toml" in line


EYE, ZERO = np.eye(3), np.zeros((3, 3))
NOT_OVERLAPS = {
    "infeasible": ({"Q": [EYE, EYE], "R": [ZERO, 2 * EYE]}, "row 1 has the relative eigenvalue -0.333"),
    "not symmetric": ({"Q": [EYE + np.eye(3, k=1)], "R": [ZERO]}, "symmetric Q, row 0 misses by 1"),
    "with NaN": ({"Q": [EYE, EYE * np.nan], "R": [ZERO, ZERO]}, "must be finite, row 1 is not"),
    "Q alone": ({"Q": [EYE]}, "expected arrays Q and R in starts.npz, got Q"),
    "other shape": ({"Q": [np.eye(4)], "R": [ZERO]}, "Q must have shape (n, 3, 3) with n >= 1, got (1, 4, 4)"),
    "other number": ({"Q": [EYE, EYE], "R": [ZERO]}, "one Q and R per start, got 2 and 1"),
    "none": ({"Q": np.zeros((0, 3, 3)), "R": np.zeros((0, 3, 3))}, "with n >= 1"),
    "text": ({"Q": [[["a"] * 3] * 3], "R": [ZERO]}, "Q must be real numbers"),
    "fewer than asked for": ({"Q": [EYE], "R": [ZERO]}, "holds 1 initial overlaps, got --starts 10"),
    "pickled": ({"Q": np.array([[None]]), "R": [ZERO]}, "it holds pickled objects"),
}


@pytest.mark.parametrize(("arrays", "said"), NOT_OVERLAPS.values(), ids=NOT_OVERLAPS)
def test_run_refuses_bad_initial_overlaps(refused, workplace, arrays, said):
    np.savez(workplace / "starts.npz", **{name: np.asarray(array) for name, array in arrays.items()})
    assert said in refused(*RUN, "--initial", "starts.npz")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"Q": [EYE.ravel()]}, "expected columns Q and R"),
        ({"Q": [EYE.ravel(), EYE.ravel()[:8]], "R": [ZERO.ravel()] * 2}, "9 entries in each row, row 1 differs"),
        ({"Q": [EYE.ravel()], "R": [[None] * 9]}, "must have no nulls, row 0 has one"),
        ({"Q": ["a"], "R": ["b"]}, "must hold lists of numbers, got string"),
    ],
)
def test_run_refuses_bad_tables_of_overlaps(refused, workplace, columns, said):
    pa.parquet.write_table(pa.table(columns), workplace / "starts.parquet")
    assert said in refused(*RUN, "--initial", "starts.parquet")


def test_run_refuses_a_file_that_is_no_parquet(refused, workplace):
    (workplace / "starts.parquet").write_bytes(b"Q,R\n1,2\n")
    assert "expected an Arrow or Parquet file" in refused(*RUN, "--initial", "starts.parquet")


def test_run_refuses_a_folder_of_other_things(refused, workplace):
    (workplace / "new").mkdir()
    (workplace / "new" / "thesis.tex").touch()
    assert "not a catalogue, and not empty" in refused(*RUN)


def test_run_refuses_a_file_as_catalogue(refused, workplace):
    (workplace / "new").touch()
    assert "a catalogue is a directory" in refused(*RUN)


@pytest.mark.parametrize("command", [RUN, ("minima", "new"), ("sql", "new", "select 1")], ids=lambda c: c[0])
def test_newer_schema_is_refused(refused, workplace, command):
    make_atlas(workplace / "new")
    newer = {VERSION_PROPERTY: "999"}
    DeltaTable(workplace / "new" / "minima").alter.set_table_properties(newer, raise_if_not_exists=False)
    assert "has schema version 999" in refused(*command)


# Bad input to the commands that read


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "run"])
def test_what_is_no_catalogue_is_refused(refused, workplace, command):
    (workplace / "empty").mkdir()
    further = {"show": ["m-1"], "sql": ["select 1"]}.get(command, [])
    assert "not a catalogue" in refused(command, "nowhere", *further)
    assert "not a catalogue" in refused(command, "empty", *further)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("minima", "ATLAS", "--columns", "label,los"), "`columns` names 'los', which is no column here"),
        (("minima", "ATLAS", "--sort", "los"), "`sort` names 'los'"),
        (("minima", "ATLAS", "--where", "los > 0"), "los"),
        (("minima", "ATLAS", "--where", "loss >"), "syntax error"),
        (("minima", "ATLAS", "--limit", -1), "`limit` must be a whole number >= 0, got -1"),
        (("minima", "ATLAS", "--campaign", "c-0"), "no campaign 'c-0'"),
        (("minima", "ATLAS", "--landscape", "nonsense"), "no landscape 'nonsense' in this catalogue (nearest: ls-"),
        (("minima", "ATLAS", "--students", "x"), "--students"),
        (("minima", "ATLAS", "--format", "xml"), "`--format` must be one of"),
        (("minima", "ATLAS", "-o", "no/such/folder.csv"), "cannot write no/such/folder.csv"),
        (("minima",), "CATALOGUE"),
        (("minima", "ATLAS", "more"), "unexpected extra argument"),
        (("show", "ATLAS", "relu.3.3.01"), "no minimum 'relu.3.3.01'"),
        (("show", "ATLAS"), "MINIMUM"),
        (("sql", "ATLAS", "drop table minima"), "error"),
        (("sql", "ATLAS", "select * from nothing"), "nothing"),
        (("sql", "ATLAS", "select 1; select 2"), "expected one SELECT statement"),
        (("sql", "ATLAS", "copy minima to 'stolen.csv'"), "read-only"),
        (("sql", "ATLAS", "select * from read_csv('/etc/passwd')"), "read_csv"),
        (("plto", "ATLAS"), "No such command 'plto'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_questions_are_refused(refused, atlas, arguments, said):
    assert said in refused(*(atlas if word == "ATLAS" else word for word in arguments))


# What the commands print


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(enumerator, command):
    code, out, err = enumerator(command, "--help")
    assert (code, err) == (0, "")
    assert f"Example: enumerator {command} " in out


def test_minima_are_a_readable_table(enumerator, atlas):
    code, out, err = enumerator("minima", atlas)
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 4)
    assert lines[0].split()[:5] == ["label", "loss", "anti_aligned", "hits", "frequency"]
    assert lines[2].split()[:5] == ["relu.3.3.0123457", "0.012345679", "1", "10", "25.00%"]
    assert "Q" not in lines[0].split()


def test_columns_sort_where_and_limit(enumerator, atlas):
    selection = ("--columns", "hits,label", "--sort", "-loss", "--where", "loss > 0", "--limit", 1)
    code, out, _ = enumerator("minima", atlas, *selection)
    assert (code, out.split()) == (0, ["hits", "label", "4", "relu.3.3.250000"])


@pytest.mark.parametrize("kind", ["minima", "saddles", "starts", "campaigns", "landscapes"])
def test_json_has_every_column_of_the_catalogue(enumerator, atlas, kind):
    code, out, _ = enumerator(kind, atlas, "--format", "json")
    table = getattr(Catalogue(atlas), kind)()
    rows = json.loads(out)
    assert code == 0
    assert [list(row) for row in rows] == [table.column_names] * table.num_rows
    for row, expected in zip(rows, table.to_pylist(), strict=True):
        assert all(row[name] == value for name, value in expected.items() if not name.endswith("_at"))


def test_empty_result_is_an_empty_array(enumerator, atlas):
    assert enumerator("minima", atlas, "--where", "loss > 9", "--format", "json")[:2] == (0, "[]\n")


def test_csv_keeps_matrices_as_json(enumerator, atlas):
    _, out, _ = enumerator("minima", atlas, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [json.loads(row["Q"]) for row in rows] == Catalogue(atlas).minima()["Q"].to_pylist()


def test_arrow_and_parquet_files_are_exact(enumerator, atlas, workplace):
    expected = Catalogue(atlas).starts()
    for name in ("starts.arrow", "starts.parquet"):
        assert enumerator("starts", atlas, "-o", name) == (0, "", "")
    assert pa.ipc.open_file("starts.arrow").read_all().equals(expected)
    assert pa.parquet.read_table("starts.parquet").equals(expected)
    assert sorted(os.listdir(workplace)) == ["starts.arrow", "starts.parquet"]


def test_format_wins_over_the_ending(enumerator, atlas, workplace):
    enumerator("minima", atlas, "--format", "json", "-o", "minima.txt")
    assert len(json.loads((workplace / "minima.txt").read_text())) == 3


def test_show_prints_the_overlaps(enumerator, atlas):
    code, out, _ = enumerator("show", atlas, "relu.3.3.0123457")
    minimum = Catalogue(atlas).minimum("relu.3.3.0123457")
    assert code == 0
    assert minimum["minimum_id"] in out
    assert "25.00% (10 of 40 starts)" in out
    first = out[out.index("R, student with teacher (3 x 3)") :].splitlines()[1]
    assert [float(entry) for entry in first.replace("|", " ").split()] == pytest.approx(minimum["R"][:3], abs=5.1e-5)


def test_sql_answers(enumerator, atlas):
    query = "select outcome, count(*) as n from starts group by outcome order by n"
    _, out, _ = enumerator("sql", atlas, query, "--format", "json")
    assert json.loads(out) == [
        {"outcome": "unfinished", "n": 2},
        {"outcome": "saddle", "n": 4},
        {"outcome": "converged", "n": 34},
    ]


def test_a_reader_that_stops_early_is_no_error(atlas):
    """As in `enumerator sql ... | head -1`: more is printed than a pipe holds, and nobody reads it."""
    query = "select range as number from range(200000)"
    command = [sys.executable, "-m", "cluster.cli", "sql", atlas, query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().strip() == b"number"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_unexpected_errors_take_one_line_and_exit_code_1(enumerator, atlas, monkeypatch):
    def broken(*_):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(Catalogue, "sql", broken)
    code, out, err = enumerator("sql", atlas, "select 1")
    assert (code, out) == (1, "")
    assert err == "error: first second (RuntimeError; ENUMERATOR_DEBUG=1 shows where)\n"
    monkeypatch.setenv("ENUMERATOR_DEBUG", "1")
    with pytest.raises(RuntimeError):
        enumerator("sql", atlas, "select 1")
