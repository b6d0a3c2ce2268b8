"""What is read from outside may be anything: each command that reads a file says so in one line, exit 2, at once."""

import io
import struct
import time
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from cluster import campaign_grid, inputs
from cluster.cli import run_command
from cluster.inputs import read_campaign_file
from enumerator import validation
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.records import to_table
from enumerator.catalogue.schema import campaign_file_schema
from enumerator.errors import CatalogueError, InputError
from enumerator.problem import InitialLaw, Landscape, Tolerances
from tests.support.stand_ins import make_atlas, make_campaign

# Seconds that a refusal may take on a busy machine: what is refused for its size would take hours.
AT_ONCE = 30.0
SMALL = ["run", "--students", "3", "--teachers", "3", "--dry-run"]


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory):
    """What commands import on demand is there before they are timed."""
    place = tmp_path_factory.mktemp("loaded") / "no.npy"
    for command in ([*SMALL, "--teacher", str(place)], ["minima", str(place)], ["identify", str(place), str(place)]):
        assert run_command(command) == 2


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs a command line here that must be refused; the line that says why."""
    monkeypatch.chdir(tmp_path)

    def run(*command):
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        began = time.monotonic()
        code = run_command(list(command))
        took = time.monotonic() - began
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1000
        assert took < AT_ONCE
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy file with this header."""
    text = header.encode("latin1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def described(shape: str, descr: str = "'<f8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


ARRAYS = {
    "of petabytes": npy(described("(1000000000000, 1000)")),
    "of more than it has": npy(described("(100000, 100000)"), b"\0" * 8),
    "of a shape past all numbers": npy(described("(99999999999999999999999, 3)")),
    "of a negative shape": npy(described("(-3, -3)"), b"\0" * 72),
    "of nested brackets": npy("(" * 5000 + "\n"),
    "of a nested type": npy("{'descr': " + "[" * 3000 + "]" * 3000 + "}\n"),
    "of a type past all sizes": npy(described("(3, 3)", "[('a', '<f8', (1000000000, 1000000000))]")),
    "of a number as type": npy(described("(3, 3)", "5")),
    "of a number as shape": npy(described("3")),
    "of other keys": npy("{'a': 1}\n"),
    "of a long header": npy(described("(3, 3)") + " " * 200_000 + "\n", b"\0" * 72, (2, 0)),
    "of another version": b"\x93NUMPY\x09\x00" + b"\0" * 100,
    "of a broken archive": b"PK\x03\x04" + b"\0" * 50,
    "of objects": npy(described("(3, 3)", "'|O'"), b"\0" * 72),
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS)
def test_an_array_file(content, refused, tmp_path):
    make_atlas(tmp_path / "atlas")
    (tmp_path / "x.npy").write_bytes(content)
    assert "teacher overlaps T as a matrix in a .npy file, got x.npy: " in refused(*SMALL, "--teacher", "x.npy")
    assert "expected weights (K, d) in a .npy file" in refused("identify", "atlas", "x.npy", "--teachers", "3")


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def marked(content: bytes, flag: int, at: dict[bytes, int]) -> bytes:
    """An archive with a field of all its headers set, at an offset for each kind of header."""
    changed = bytearray(content)
    for signature, offset in at.items():
        place = -1
        while (place := changed.find(signature, place + 1)) >= 0:
            changed[place + offset] = flag
    return bytes(changed)


GOOD = archive({"Q.npy": saved(np.eye(3)[None]), "R.npy": saved(np.zeros((1, 3, 3)))})
ARCHIVES = {name: archive({"Q.npy": content, "R.npy": content}) for name, content in ARRAYS.items()}
ARCHIVES |= {
    "no arrays": archive({"Q": b"text", "R": b"text"}),
    "a wrong checksum": marked(GOOD, 7, {b"NUMPY": 60}),
    "an unknown compression": marked(GOOD, 99, {b"PK\x03\x04": 8, b"PK\x01\x02": 10}),
    "a password": marked(GOOD, 1, {b"PK\x03\x04": 6, b"PK\x01\x02": 8}),
    "cut short": GOOD[:-30],
    "a terminal's orders": archive({"\x1b[31m": b""}),
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_of_arrays(content, refused, tmp_path):
    make_atlas(tmp_path / "atlas")
    (tmp_path / "x.npz").write_bytes(content)
    assert "x.npz" in refused(*SMALL, "--initial", "x.npz")
    assert "x.npz" in refused("identify", "atlas", "x.npz", "--teachers", "3")


def in_parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


ONE = [[0.0] * 9]
LATE = pa.array([[2**62] * 9], pa.list_(pa.timestamp("us")))
TABLES = {
    "cut short": in_parquet(pa.table({"Q": ONE, "R": ONE}))[:-20],
    "a wrong footer": in_parquet(pa.table({"Q": ONE, "R": ONE}))[:-8] + b"\xff\xff\xff\x7fPAR1",
    "of records": in_parquet(pa.table({"Q": [{"a": 1}], "R": [{"a": 1}]})),
    "of nothing": in_parquet(pa.table({"Q": pa.nulls(1), "R": pa.nulls(1)})),
    "of times past all dates": in_parquet(pa.table({"Q": LATE, "R": ONE})),
}


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_table_of_overlaps(content, ending, refused, tmp_path):
    (tmp_path / f"x{ending}").write_bytes(content)
    assert f"x{ending}" in refused(*SMALL, "--initial", f"x{ending}")


SIZES = "students = 3\nteachers = 3\n"
LONG = ",".join(map(str, range(1, 1001)))
FILES = {
    "nested lists": ("students = " + "[" * 100_000, "it is nested too deeply"),
    "nested tables": ("a = " + "{a=" * 5000 + "1" + "}" * 5000, "it is nested too deeply"),
    "a long chain of names": ("[" + ".".join(["a"] * 100_000) + "]", "it is nested too deeply"),
    "a number of thousands of digits": ("students = " + "9" * 5000, "expected a campaign file in TOML"),
    "more bytes than a grid needs": ("#" * 2**20 + "\n", "a campaign file may have 1,048,576 bytes at most"),
    "another encoding": (SIZES.encode("utf-16"), "expected a campaign file in TOML"),
    "a long list": (f"students = [{LONG}]", "`students`: [1, 2, 3,"),
    "a null in a path": (SIZES + 'teacher = "a\\u0000b"', "found no file"),
    "a newline in a path": (SIZES + 'teacher = "a\\nb"', "found no file"),
    "a long path": (SIZES + f'teacher = "{"a" * 300}"', "file name too long"),
    "billions of students": ("students = 10000000000\nteachers = 3", "10000000000 is greater than the maximum of 1024"),
    "billions of teachers": ("students = 3\nteachers = 10000000000", "10000000000 is greater than the maximum of 1024"),
    "starts past all counting": (SIZES + f"starts = {10**30}", "greater than the maximum of 1000000000"),
    "shards past all counting": (SIZES + f"shard_size = {10**30}", "greater than the maximum of 1000000000"),
    "dimensions past all counting": (SIZES + f"dimension = {10**400}", "greater than the maximum"),
    "evaluations past all counting": (SIZES + f"[tolerances]\nmax_evaluations = {10**30}", "greater than the maximum"),
    "10^12 campaigns": (
        "[grid]\n" + "".join(f"{name} = [{LONG}]\n" for name in ("students", "teachers", "dimension", "seed")),
        "a grid has 10,000 campaigns at most, got 1,000,000,000,000",
    ),
    "grids of many campaigns together": (
        "teachers = 1\nstudents = 1\n" + f"[[grid]]\nseed = [{LONG}]\n" * 11,
        "a grid has 10,000 campaigns at most, got 11,000",
    ),
    "a list in a grid": ("[grid]\nstudents = [[1]]\nteachers = [3]", "grid: `students`: [1] is not of type 'integer'"),
    "a table in a grid": ("[grid]\nactivation = [{a = 1}]", "grid: `activation`: {'a': 1} is not of type 'string'"),
    "a number as a file in a grid": ("[grid]\nteacher = [5]", "grid: `teacher`: 5 is not of type 'string'"),
    "billions in a grid": ("[grid]\nteachers = [10000000000]", "grid: `teachers`: 10000000000 is greater than"),
    "billions that follow": ('[grid]\nstudents = "teachers + 99999999999999"\nteachers = [3]', "must hold numbers"),
}


@pytest.mark.parametrize(("text", "said"), FILES.values(), ids=FILES)
def test_a_campaign_file(text, said, refused, tmp_path):
    (tmp_path / "x.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert said in refused("run", "x.toml", "--catalogue", "new")
    assert said in refused("submit", "x.toml", "--catalogue", "/atlas")


HUGE = str(10**10)


def test_numbers_without_a_file(refused):
    assert "`students` must be at most 1024, got a larger" in refused("run", "--students", HUGE, "--teachers", "3")
    assert "`teachers` must be at most 1024" in refused("run", "--students", "3", "--teachers", HUGE)
    assert "`starts` must be at most 1000000000" in refused(*SMALL, "--starts", str(10**30))
    assert "`dimension` must be at most" in refused(*SMALL, "--dimension", str(10**30))
    for make in (
        lambda: Landscape(10**5000, 3),
        lambda: InitialLaw(scale=10**5000),  # type: ignore[arg-type]
        lambda: Tolerances(max_evaluations=10**30),
        lambda: Landscape(3, 3, activation=["relu"]),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError) as error:
            make()
        assert len(str(error.value)) < 400


def test_the_schema_has_the_bounds_of_the_library():
    properties = campaign_file_schema()["properties"]
    assert properties["students"]["maximum"] == properties["teachers"]["maximum"] == validation.MOST_NEURONS
    assert properties["dimension"]["maximum"] == validation.MOST_COUNT
    assert properties["starts"]["maximum"] == properties["shard_size"]["maximum"] == validation.MOST_STARTS
    assert properties["tolerances"]["properties"]["max_evaluations"]["maximum"] == validation.MOST_COUNT
    assert campaign_grid.MOST_CAMPAIGNS == 10_000


def test_a_file_as_large_as_is_allowed_is_read(tmp_path):
    text = SIZES + "#" * (inputs.LARGEST_CAMPAIGN_FILE - len(SIZES))
    (tmp_path / "x.toml").write_text(text)
    assert read_campaign_file(tmp_path / "x.toml") == {"students": 3, "teachers": 3}


# Paths


PLACES = {
    "a newline": "a\nb",
    "an escape": "a\x1b[31mb",
    "a byte that is no text": "a\udcffb",
    "a delete": "a\x7fb",
    "somebody who is nobody": "~nobody-of-this-name/x",
    "no bucket": "s3://",
    "another protocol": "foo://bar",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_place_that_no_catalogue_can_have(place, refused):
    refused("minima", place)
    refused("run", "--students", "2", "--teachers", "2", "--starts", "1", "--device", "cpu", "--catalogue", place)
    with pytest.raises(InputError):
        Catalogue(place, create=True)


def test_a_null_in_the_place_of_a_catalogue():
    with pytest.raises(InputError, match=r"cannot have '\\x00' in it"):
        Catalogue("a\0b")


def test_names_that_are_too_long(refused, tmp_path):
    make_atlas(tmp_path / "atlas")
    long = "a" * 300
    for command in (
        ("run", long),
        (*SMALL, "--teacher", f"{long}.npy"),
        (*SMALL, "--initial", f"{long}.npz"),
        (*SMALL[:-1], "--catalogue", long),
        ("identify", "atlas", f"{long}.npy"),
        ("import", "new", f"{long}.tar"),
        ("minima", "atlas", "-o", f"{long}.csv"),
        ("export", "atlas", "-o", f"{long}.tar"),
        ("serve", "atlas", "--token-file", long),
    ):
        assert "ile name too long" in refused(*command)


def test_signs_that_mean_something_in_a_url(tmp_path):
    """The versions that tables have reached are entered beside them, wherever they lie."""
    plain, odd = make_atlas(tmp_path / "plain"), make_atlas(tmp_path / "odd#1?")
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("plain", "odd#1?")]
    assert names[0] == names[1]
    assert odd.minima().num_rows == plain.minima().num_rows


# The settings of a campaign in a catalogue


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "7"], ids=["nested", "empty", "a number"])
def test_settings_that_somebody_has_changed(text, tmp_path, monkeypatch, capsys):
    """Every command that reads them goes on without them, or says in one line whose they are."""
    monkeypatch.chdir(tmp_path)
    atlas = make_atlas(tmp_path / "atlas")
    (row,) = atlas.store.rows(atlas.store.open("campaigns"), "true")
    changed = to_table("campaigns", [row | {"campaign": text}])
    atlas.store.commit("campaigns", lambda table: atlas.store.update(table, changed, "campaign_id"))
    for command, codes in {
        "minima atlas": (0,),
        "campaigns atlas": (0,),
        "starts atlas --dynamics gradient-flow": (0,),
        "stats atlas": (1,),
        f"replay atlas {row['campaign_id']} 0": (1,),
        f"early-stops atlas {row['campaign_id']}": (0, 1, 2),
        "verify atlas --sample 0": (1, 2),
        "merge new-atlas atlas": (1, 2),
        "export atlas -o atlas.tar": (0, 1),
    }.items():
        if command.startswith("merge"):
            Catalogue(tmp_path / "new-atlas", create=True)
        assert run_command(command.split()) in codes, command
        said = capsys.readouterr().err
        assert "shows where" not in said, said
    with pytest.raises((CatalogueError, InputError)):
        atlas.register(make_campaign(3, 3), 64, "cpu")
