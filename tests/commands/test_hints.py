"""Hints can be pasted into a shell, whatever the path; choices are checked before anything is done."""

import re
import shlex
from pathlib import Path

import pytest
from deltalake import DeltaTable

from cluster.cli import run_command
from cluster.commands import run
from cluster.inputs import Request
from cluster.runs import grid, jobs
from cluster.runs.driver import RunSummary, run_campaign
from cluster.runs.progress import Tally
from cluster.service.limits import read_token
from cluster.usage import program
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.store import VERSION_PROPERTY
from enumerator.errors import CatalogueError, InputError
from tests.support.project import modules, named
from tests.support.stand_ins import make_atlas, make_campaign

# A folder as a hostile user may call it.
NAME = "my $(touch pwned) 'atlas' & more"


@pytest.fixture
def atlas(tmp_path, monkeypatch) -> Catalogue:
    monkeypatch.chdir(tmp_path)
    return make_atlas(NAME)


def pasted(text: str, command: str) -> list[str]:
    """The words that a shell makes of the one hint in `text` that begins with this command."""
    (hint,) = re.findall(rf"{command} [^`\n]*", text)
    return shlex.split(hint)


def test_what_to_type_after_a_run(atlas):
    summary = RunSummary("c-1", Tally(10, 10, 10, 1), 1.0)
    text = run._closing(summary, "relu.3.3", NAME, "enumerator", atlas.minima(limit=1))
    label = atlas.minima(limit=1)["label"][0].as_py()
    assert pasted(text, "minima") == ["minima", NAME, "--format", "csv", "-o", "minima.csv"]
    assert pasted(text, "starts") == ["starts", NAME, "--campaign", "relu.3.3", "--limit", "10"]
    assert pasted(text, "show") == ["show", NAME, label]


def test_a_run_of_fewer_starts_than_are_stored_says_both(atlas):
    summary = run_campaign(Request(make_campaign(3, 3), 10), atlas)
    text = run._closing(summary, "relu.3.3", NAME, "enumerator", atlas.minima(limit=1))
    assert "Nothing was missing: 10 of 10 starts (40 are stored), 3 distinct minima, 2 unfinished." in text
    summary = run_campaign(Request(make_campaign(3, 3), 40), atlas)
    assert summary.tally.text() == "40 of 40 starts, 3 distinct minima, 2 unfinished"


def test_what_to_type_after_a_grid(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text("starts = 1\n[grid]\nstudents = [2]\nteachers = [2]\n")
    monkeypatch.setattr(grid, "run_grid", lambda requests, *_: grid.GridSummary(tuple(requests), (), 0.0))
    monkeypatch.setattr(grid.GridSummary, "timed_out", False)
    assert run_command(["run", "grid.toml", "--catalogue", NAME]) == 0
    said = capsys.readouterr().err
    assert pasted(said, "stats") == ["stats", NAME]
    assert pasted(said, "plot") == ["plot", NAME, "-o", "figures"]


def test_how_to_migrate_and_to_verify(atlas):
    address = atlas.store.address
    damaged = next(Path(address, "minima").glob("*.parquet"))
    damaged.write_bytes(b"nothing")
    with pytest.raises(CatalogueError) as error:
        Catalogue(NAME).minima()
    assert pasted(str(error.value), "enumerator verify") == ["enumerator", "verify", address]
    old = {VERSION_PROPERTY: "1"}
    DeltaTable(f"{address}/minima").alter.set_table_properties(old, raise_if_not_exists=False)
    with pytest.raises(InputError) as refused:
        Catalogue(NAME)
    assert pasted(str(refused.value), "enumerator migrate") == ["enumerator", "migrate", address]


def test_how_to_repair(atlas, monkeypatch, capsys):
    monkeypatch.setattr("enumerator.verification.verify.verify", lambda atlas, *_: atlas.minima(limit=1))
    assert run_command(["verify", NAME]) == 1
    said = capsys.readouterr().err
    assert pasted(said, r"\S+ verify")[1:] == ["verify", NAME, "--repair"]


def test_how_to_follow_a_job(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "submit", lambda *_: jobs.Submission("enumerator-1", existed=True))
    address = "http://head:8265/?a=1&b=$(touch pwned)"
    assert run_command(["submit", "x.toml", "--address", address, "--catalogue", "/atlas"]) == 0
    assert pasted(capsys.readouterr().err, "status") == ["status", "enumerator-1", "--address", address]


def test_how_to_hide_a_token(tmp_path):
    file = tmp_path / NAME
    file.write_text("0123456789abcdef")
    file.chmod(0o644)
    with pytest.raises(InputError) as error:
        read_token(file)
    assert pasted(str(error.value).removesuffix("."), "chmod") == ["chmod", "600", str(file)]


def test_the_command_by_its_path(monkeypatch):
    monkeypatch.setattr("sys.argv", [f"/opt/{NAME}/enumerator"])
    assert shlex.split(program()) == [f"/opt/{NAME}/enumerator"]


@pytest.mark.parametrize("path", [*modules("enumerator"), *modules("cluster")], ids=named)
def test_whatever_is_put_behind_a_command_is_quoted(path):
    source = path.read_text(encoding="utf-8")
    assert re.findall(r"(?:enumerator|program\(\)\}|\{command\}) [a-z-]+ \{(?!quote\()[^}]*\}", source) == []


# Choices

RUN = "run --students 2 --teachers 2 --catalogue new --address auto"


@pytest.mark.parametrize(
    "command",
    [
        f"{RUN} --device tpu",
        f"{RUN} --device tpu --dry-run",
        "run grid.toml --catalogue new --device tpu",
        "run grid.toml --catalogue new --device tpu --address auto",
        "submit grid.toml --catalogue /atlas --device tpu",
        "submit grid.toml --catalogue /atlas --device auto",
    ],
)
def test_a_device_that_is_none_is_refused_before_anything_is_done(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text("starts = 1\n[grid]\nstudents = [2]\nteachers = [2]\n")
    assert run_command(command.split()) == 2
    assert "error: `device` must be one of" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.toml"]


@pytest.mark.parametrize(
    "command", ["submit grid.toml --catalogue /atlas", "serve atlas", "run grid.toml --address auto"]
)
def test_workers_are_counted_before_anything_is_done(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text("starts = 1\n[grid]\nstudents = [2]\nteachers = [2]\n")
    assert run_command([*command.split(), "--workers", "0"]) == 2
    assert "error: `workers` must be a whole number >= 1, got 0" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.toml"]
