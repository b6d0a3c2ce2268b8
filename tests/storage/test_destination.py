"""Where `-o` writes: behind links, whole or not at all; straight into pipes, devices and open files; by its ending."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cluster.cli import run_command
from cluster.commands.output import ENDINGS, write_table
from cluster.inputs import read_overlaps
from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import InputError
from enumerator.problem import Landscape
from enumerator.upkeep.bundle import export

TABLE = pa.table({"name": ["a", "b"], "loss": [0.5, 0.25]})
CSV = b'"name","loss"\n"a",0.5\n"b",0.25\n'


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Catalogue:
    return Catalogue(tmp_path_factory.mktemp("catalogues") / "atlas", create=True)


def export_into(atlas, file):
    export(atlas, file)


def write_csv(atlas, file):
    write_table(TABLE, format="csv", file=file)


WRITERS = [write_csv, export_into]


# Links


@pytest.mark.parametrize("write", WRITERS)
def test_what_a_link_leads_to_is_written_and_the_link_stays(write, atlas, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(folder / "target")
    for _ in range(2):  # the target is made, then replaced
        write(atlas, tmp_path / "first")
        assert (tmp_path / "first").readlink() == Path("second")
        assert (tmp_path / "second").readlink() == folder / "target"
        assert [entry.name for entry in folder.iterdir()] == ["target"]
        assert not (folder / "target").is_symlink() and (folder / "target").stat().st_size
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["elsewhere", "first", "second"]


def test_a_failure_behind_a_link_leaves_the_old_file(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    beyond_json = pa.table({"text": ["\ud800".encode("utf-8", "surrogatepass")]}, pa.schema([("text", pa.binary())]))
    with pytest.raises(pa.ArrowException):
        write_table(beyond_json.cast(pa.schema([("text", pa.string())])), format="json", file=tmp_path / "link")
    assert (tmp_path / "old").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["link", "old"]


@pytest.mark.parametrize("write", WRITERS)
def test_links_in_a_circle_are_refused(write, atlas, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match=r"cannot write .*: Too many levels of symbolic links"):
        write(atlas, tmp_path / "a")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    file = tmp_path / "x.csv"
    file.touch()
    file.chmod(0o600)
    write_table(TABLE, file=file)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (CSV, 0o600)


# What is not a regular file


@pytest.mark.parametrize("write", WRITERS)
def test_a_pipe_behind_a_link_is_written_to(write, atlas, tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    with subprocess.Popen(["timeout", "60", "cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write(atlas, link)
        assert reader.stdout is not None
        content = reader.stdout.read()
    assert pipe.is_fifo() and link.is_symlink()
    assert content == CSV if write is write_csv else content.startswith(b"manifest.json")
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.parametrize("folder", ["/proc/self/fd", "/dev/fd", "/proc/thread-self/fd"])
@pytest.mark.parametrize("write", WRITERS)
def test_an_open_file_is_written_to_from_where_it_stands(write, folder, atlas, tmp_path):
    """As with `(echo begin; enumerator ... -o /dev/stdout; echo end) > log`."""
    log = tmp_path / "log"
    with log.open("wb", buffering=0) as file:
        (tmp_path / "link").symlink_to(f"{folder}/{file.fileno()}")
        file.write(b"begin\n")
        write(atlas, tmp_path / "link")
        file.write(b"end\n")
        assert os.fstat(file.fileno()).st_ino == log.stat().st_ino
    content = log.read_bytes()
    assert content.startswith(b"begin\n") and content.endswith(b"end\n")
    assert len(content) > 10_000 if write is export_into else content == b"begin\n" + CSV + b"end\n"
    assert (tmp_path / "link").is_symlink()


def test_stdout_by_its_name_is_stdout(atlas, tmp_path):
    """Appended to what is there, and no error where the reader has seen enough."""
    command = [sys.executable, "-m", "cluster.cli", "sql", atlas.store.address]
    query = "select range as number from range({})"
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    with log.open("ab") as file:
        link = tmp_path / "link"
        link.symlink_to("/proc/self/fd/1")
        done = subprocess.run(
            [*command, query.format(2), "--format", "csv", "-o", str(link)], stdout=file, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert log.read_bytes() == b'before\n"number"\n0\n1\n'
    endless = [*command, query.format(200_000), "-o", str(link)]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().strip() == b"number"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


# Endings


@pytest.mark.parametrize("name", ["x.xlsx", "x.csv.bz2", "x.arrow.gz", "x.parquet.gz", "x.gz", "x.tsv", "x.CVS"])
def test_an_unknown_ending_is_refused_with_the_known_ones(name, atlas, tmp_path, capsys):
    assert run_command(["minima", atlas.store.address, "-o", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and name in said and "--format" in said
    assert all(ending in said for ending in (*ENDINGS, ".csv.gz"))
    assert not list(tmp_path.iterdir())


def test_the_format_may_be_said_whatever_the_ending(tmp_path):
    write_table(TABLE, format="csv", file=tmp_path / "x.dat")
    assert (tmp_path / "x.dat").read_bytes() == CSV


def test_compressed_text(tmp_path):
    for name in ("x.csv.gz", "y.CSV.GZ"):
        write_table(TABLE, file=tmp_path / name)
        assert gzip.decompress((tmp_path / name).read_bytes()) == CSV
    assert (tmp_path / "x.csv.gz").read_bytes() == (tmp_path / "y.CSV.GZ").read_bytes()
    write_table(TABLE, file=tmp_path / "x.json.gz")
    assert json.loads(gzip.decompress((tmp_path / "x.json.gz").read_bytes())) == TABLE.to_pylist()
    assert pl.read_csv(tmp_path / "x.csv.gz").to_dicts() == TABLE.to_pylist()
    assert pd.read_csv(tmp_path / "x.csv.gz").to_dict("records") == TABLE.to_pylist()


@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "x.ipc", "X.ARROW"])
def test_readers_of_files_read_arrow_files(name, tmp_path):
    write_table(TABLE, file=tmp_path / name)
    assert pa.ipc.open_file(tmp_path / name).read_all().equals(TABLE)
    assert pl.read_ipc(tmp_path / name).to_dicts() == TABLE.to_pylist()
    assert pd.read_feather(tmp_path / name).to_dict("records") == TABLE.to_pylist()


def test_arrow_into_a_pipe_is_a_stream_and_into_a_file_a_file(atlas, tmp_path):
    command = [sys.executable, "-m", "cluster.cli", "sql", atlas.store.address, "select 7 as n", "--format", "arrow"]
    streamed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert pa.ipc.open_stream(streamed).read_all().to_pylist() == [{"n": 7}]
    with (tmp_path / "x.arrow").open("wb") as file:
        subprocess.run(command, stdout=file, check=True)
    assert pl.read_ipc(tmp_path / "x.arrow").to_dicts() == [{"n": 7}]


@pytest.mark.parametrize("ending", [".arrow", ".feather", ".ipc"])
@pytest.mark.parametrize("writer", [pa.ipc.new_file, pa.ipc.new_stream])
def test_given_overlaps_may_be_a_file_or_a_stream(writer, ending, tmp_path):
    Q, R = np.eye(2)[None].repeat(3, axis=0), np.full((3, 2, 3), 0.25)
    table = pa.table({"Q": list(Q.reshape(3, 4)), "R": list(R.reshape(3, 6))})
    path = tmp_path / f"starts{ending}"
    with writer(str(path), table.schema) as stream:
        stream.write_table(table)
    found = read_overlaps(path, Landscape(2, 3))
    assert np.array_equal(found[0], Q) and np.array_equal(found[1], R)
