"""The commands merge, delete, compact, migrate, export and import, as a user types them."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from cluster.cli import run_command
from tests.support.stand_ins import fill, given, make_campaign, new_catalogue

COMMANDS = ("merge", "delete", "compact", "migrate", "export", "import")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Two catalogues, `ours` and `theirs`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    fill(new_catalogue(tmp_path / "ours"), make_campaign(), (0, 10))
    # No starts in common: made-up points are told apart by the real matcher here.
    fill(new_catalogue(tmp_path / "theirs"), given(), (0, 4))
    return tmp_path


def rows(capsys, *command: str) -> list[dict]:
    capsys.readouterr()
    assert run_command([*command, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(capsys, command):
    assert run_command([command, "--help"]) == 0
    assert f"Example: enumerator {command} atlas" in capsys.readouterr().out


def test_merge_prints_what_was_added(folder, capsys):
    assert rows(capsys, "merge", "ours", "theirs") == [{"campaigns": 1, "minima": 0, "saddles": 0, "starts": 4}]
    assert rows(capsys, "merge", "ours", "theirs") == [{"campaigns": 0, "minima": 0, "saddles": 0, "starts": 0}]
    assert run_command(["merge", "ours", "nothing"]) == 2
    assert "not a catalogue" in capsys.readouterr().err


def test_export_then_import_through_the_real_command(folder):
    command = [str(Path(sys.executable).parent / "enumerator")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}

    def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=120)

    done = typed("export", "theirs", "--campaign", given().id, "-o", "b.tar")
    assert (done.returncode, done.stdout) == (0, "")
    assert "b.tar: 1 landscapes, 4 initial overlaps, 1 campaigns, 3 minima, 1 saddles, 4 starts" in done.stderr
    done = typed("import", "new", "b.tar", "--format", "csv")
    assert done.stdout.splitlines() == ['"campaigns","minima","saddles","starts"', "1,3,1,4"]
    assert typed("export", "new", "-o", "c.tar").returncode == 0
    assert (folder / "b.tar").read_bytes() == (folder / "c.tar").read_bytes()


def test_damaged_bundle_makes_no_catalogue(folder, capsys):
    assert run_command(["export", "ours", "-o", "b.tar"]) == 0
    with tarfile.open(folder / "b.tar") as archive:
        place = archive.getmember("tables/starts.parquet").offset_data + 100
    content = bytearray((folder / "b.tar").read_bytes())
    content[place] ^= 1
    (folder / "b.tar").write_bytes(content)
    assert run_command(["import", "new", "b.tar"]) == 2
    assert "is not what was exported" in capsys.readouterr().err
    assert not (folder / "new").exists()
    assert run_command(["import", "new", "missing.tar"]) == 2


def test_delete_asks_unless_told(folder, capsys):
    name = make_campaign().id
    assert run_command(["delete", "ours", name]) == 2  # the tests have no terminal
    assert "add --yes" in capsys.readouterr().err
    assert run_command(["delete", "ours", name, "--yes"]) == 0
    assert f"Deleted campaign {name} and 10 starts" in capsys.readouterr().err
    assert rows(capsys, "starts", "ours") == rows(capsys, "campaigns", "ours") == []
    assert run_command(["delete", "ours", name, "--yes"]) == 2


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("", 10)])
def test_delete_on_a_terminal_waits_for_yes(folder, capsys, answer, left):
    command = ["delete", "ours", make_campaign().id]
    code = f"import sys; from cluster.cli import run_command; sys.exit(run_command({command}))"
    parent, child = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=child, stderr=subprocess.PIPE, text=True)
    os.write(parent, answer.encode() + b"\n")
    _, messages = process.communicate(timeout=60)
    os.close(child)
    os.close(parent)
    assert "and its 10 starts from ours? [y/N]" in messages
    assert process.returncode == (1 if left else 0)
    assert len(rows(capsys, "starts", "ours")) == left


def test_compact_reports_each_table(folder, capsys):
    report = rows(capsys, "compact", "ours", "--retention", "0")
    assert [row["table"] for row in report][-1] == "starts"
    assert all(row["files_after"] <= row["files_before"] for row in report)
    assert run_command(["compact", "ours", "--retention", "0"]) == 0
    assert "warning: with --retention 0" in capsys.readouterr().err
    assert run_command(["compact", "ours", "--retention", "soon"]) == 2


def test_migrate_says_what_it_did(folder, capsys):
    with zipfile.ZipFile(Path(__file__).parents[1] / "reference" / "catalogue_version_1.zip") as archive:
        archive.extractall(folder)
    assert run_command(["minima", "atlas"]) == 2
    assert "enumerator migrate" in capsys.readouterr().err
    assert run_command(["migrate", "atlas"]) == 0
    assert "atlas has schema version 3 now, it had 1." in capsys.readouterr().err
    assert run_command(["migrate", "atlas"]) == 0
    assert "already: nothing was changed" in capsys.readouterr().err
    assert len(rows(capsys, "minima", "atlas")) == 2
