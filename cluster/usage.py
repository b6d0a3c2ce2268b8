"""How the command is called: its name, its version, and advice to who has called it wrongly."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from shlex import quote

import typer

# The name of the command, and what a shell that wants to complete it sets.
NAME = "enumerator"
COMPLETE = "_ENUMERATOR_COMPLETE"
# Options before a command that write or show what a shell needs to complete it: it knows commands by name, not by path.
_FOR_SHELLS = ("--install-completion", "--show-completion")


def program() -> str:
    """How the user called this command, as a shell takes it: by its name, or by its path or as a module."""
    called = Path(sys.argv[0])
    if set(sys.argv[1:]) & set(_FOR_SHELLS):
        return NAME
    if called.name == "__main__.py":
        return f"{Path(sys.executable).name} -m {NAME}"
    found = shutil.which(NAME)
    return NAME if found and Path(found).resolve() == called.resolve() else quote(str(called))


def print_version(asked: bool) -> None:
    """Print the version of this software, and of JAX, and end."""
    if asked:
        from enumerator.catalogue.records import software_version

        print(software_version())
        raise typer.Exit


def usage_message(error: typer.TyperException) -> str:
    """A usage error, and how to call the command instead."""
    context = getattr(error, "ctx", None)
    if getattr(error, "option_name", None) == "--catalogue" and context is not None:
        command = context.command
        if any(parameter.name == "catalogue" and parameter.opts == ["catalogue"] for parameter in command.params):
            return f"No such option: --catalogue: the catalogue stands without it, {program()} {command.name} CATALOGUE"
    return f"{error.format_message()} (see {program()} --help)"
