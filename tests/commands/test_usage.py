"""How the command is called: by name or as a module, completed by a shell, and what is said to who calls it wrongly."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster.cli import run_command
from enumerator.catalogue.catalogue import Catalogue

COMMANDS = ("run", "minima", "saddles", "starts", "campaigns", "landscapes", "show", "sql")


def called(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "enumerator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_the_package_runs_as_a_module_and_tells_its_version():
    done = called("--version")
    told = f"enumerator {version('enumerator')}, jax {version('jax')}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


def test_errors_name_the_command_as_it_was_called():
    done = called("minima")
    name = Path(sys.executable).name
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"(see {name} -m enumerator --help)" in done.stderr


def test_shells_can_complete_what_is_typed():
    typed = {"COMP_WORDS": "enumerator mi", "COMP_CWORD": "1"}
    assert called(_ENUMERATOR_COMPLETE="complete_bash", **typed).stdout.split() == ["minima", "migrate"]


def test_the_script_for_a_shell_calls_the_command_by_its_name():
    done = called("--show-completion", "bash")
    assert done.returncode == 0
    assert "_ENUMERATOR_COMPLETE=complete_bash" in done.stdout and "enumerator\n" in done.stdout


@pytest.mark.parametrize("command", ["minima", "stats", "show", "verify", "compact"])
def test_a_catalogue_given_as_an_option_is_answered_with_where_it_stands(capsys, command):
    assert run_command([command, "--catalogue", "atlas"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: No such option: --catalogue: the catalogue stands without it, ")
    assert line.endswith(f" {command} CATALOGUE\n")


def test_a_catalogue_given_to_run_without_its_option_is_answered_with_the_option(capsys, tmp_path):
    Catalogue(tmp_path / "atlas", create=True)
    assert run_command(["run", str(tmp_path / "atlas"), "--students", "3", "--teachers", "3"]) == 2
    assert f"a catalogue is named by an option, --catalogue {tmp_path / 'atlas'}.\n" in capsys.readouterr().err


def test_no_arguments_print_the_help():
    done = called()
    assert (done.returncode, done.stderr) == (0, "")
    assert all(command in done.stdout for command in COMMANDS)
