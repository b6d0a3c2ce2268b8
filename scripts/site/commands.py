"""The page of the command line, from the help of every command."""

from __future__ import annotations

from typing import Any

import typer

from cluster.cli import app
from scripts.site.text import cell, code, described, table

_HEAD = """\
# Command line

Every command prints its result on stdout and its messages on stderr. `enumerator COMMAND --help` prints what stands
here. Exit codes: 0 success, 2 wrong usage or input, 130 stopped, 1 anything else.

"""


def _options(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"enumerator {name}")
    rows = []
    for parameter in command.params:
        described(f"{parameter.name} of `enumerator {name}`", parameter.help)
        called, text = parameter.get_help_record(context)
        rows.append((code(called), cell(text)))
    return table(("argument or option", "meaning"), rows)


def _section(name: str, command: Any) -> str:
    text = described(f"`enumerator {name}`", command.help)
    example = described(f"the example of `enumerator {name}`", command.epilog).removeprefix("Example: ")
    # A line of its own for the first sentence; backslash-b marks of the help keep nothing here.
    return f"## {name}\n\n{text}\n\n```text\n{example}\n```\n\n{_options(name, command)}\n"


def page() -> str:
    """One section for each command, in the order of `enumerator --help`."""
    group: Any = typer.main.get_command(app)
    return _HEAD + "\n".join(_section(name, command) for name, command in group.commands.items())
