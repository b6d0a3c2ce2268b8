"""The page of the command line, from the help of every command."""

from __future__ import annotations

from typing import Any

import typer

from cluster.cli import app
from scripts.site.text import cell, code, described, first_sentence, prose, table

_HEAD = """\
# Command line

Every command prints its result on stdout and its messages on stderr. `enumerator COMMAND --help` prints what stands
here. `python -m enumerator` is the same command.

Exit codes: 0 success, 2 wrong usage or input, 130 stopped, 1 anything else.

"""

_CAMPAIGNS = ("Campaigns and grids", "../guides/campaigns.md")
_CLUSTER = ("A Ray cluster", "../guides/cluster.md")
_DOWNSTREAM = ("In pandas, polars, R, Julia, SQL", "../guides/downstream.md")
_IDENTITY = ("When two minima are one", "../concepts/identity.md")
_LINGERING = ("Lingering", "../concepts/lingering.md")
_PAPER = ("The paper's numbers", "../evidence/paper.md")
_SERVICE = ("The service", "../guides/service.md")
_STATISTICS = ("Statistics and figures", "../guides/statistics.md")
_TABLES = ("Tables and the campaign file", "tables.md")
_TUTORIAL = ("Tutorial", "../tutorial.md")
_UPKEEP = ("Upkeep of a catalogue", "../guides/upkeep.md")
# What each command is for, in the order of `enumerator --help`, and the pages that explain it.
GROUPS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "Enumerate": {"run": (_TUTORIAL, _CAMPAIGNS)},
    "Read a catalogue": {
        "minima": (_TUTORIAL, _TABLES),
        "saddles": (_LINGERING, _TABLES),
        "starts": (_TABLES,),
        "campaigns": (_CAMPAIGNS, _TABLES),
        "landscapes": (_TABLES,),
        "early-stops": (_PAPER, _LINGERING),
        "show": (_TUTORIAL, _IDENTITY),
        "sql": (_DOWNSTREAM, _TABLES),
    },
    "Check and look closely": {
        "verify": (_UPKEEP,),
        "replay": (_UPKEEP,),
        "identify": (_UPKEEP, _IDENTITY),
    },
    "Keep a catalogue": dict.fromkeys(("merge", "delete", "compact", "migrate", "export", "import"), (_UPKEEP,)),
    "Serve it": {"serve": (_SERVICE, ("HTTP", "http.md"))},
    "Run on a cluster": dict.fromkeys(("submit", "status", "logs", "cancel"), (_CLUSTER,)),
    "Count and draw": {"stats": (_STATISTICS,), "plot": (_STATISTICS,)},
}
# Options that select landscapes and campaigns, and those that say how the answer is written, stand below the others.
_OUTPUT = {"format", "output"}


def _pages(name: str) -> str:
    found = [group[name] for group in GROUPS.values() if name in group]
    if not found:
        raise ValueError(f"`enumerator {name}` belongs to no group: enter it in GROUPS of scripts/site/commands.py.")
    return ", ".join(f"[{title}]({path})" for title, path in found[0])


def _record(name: str, parameter: Any, context: Any) -> tuple[str, str, str]:
    """How a parameter is called, its default (or that it is required), and what it means."""
    described(f"{parameter.name} of `enumerator {name}`", parameter.help)
    called, text = parameter.get_help_record(context)
    meaning, _, notes = text.strip().removesuffix("]").rpartition("  [") if text.endswith("]") else (text, "", "")
    default, further = "", []
    for note in notes.split("; "):
        if note.startswith("default: "):
            default = code(note.removeprefix("default: "))
        elif note == "required":
            default = "required"
        elif note:
            further.append(note)
    return code(called), default, cell(meaning + "".join(f" ({note})" for note in further))


def _parameters(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"enumerator {name}")
    arguments: list[tuple[str, str, str]] = []
    own: list[tuple[str, str, str]] = []
    selecting: list[tuple[str, str, str]] = []
    output: list[tuple[str, str, str]] = []
    for parameter in command.params:
        row = _record(name, parameter, context)
        if parameter.param_type_name == "argument":
            arguments.append(row)
        elif parameter.name in _OUTPUT:
            output.append(row)
        elif parameter.help.startswith(("Only landscapes", "Only campaigns", "Only this")):
            selecting.append(row)
        else:
            own.append(row)
    text = ""
    for title, rows in (
        ("Arguments", arguments),
        ("Options", own),
        ("Options that select landscapes and campaigns", selecting),
        ("Options for the answer", output),
    ):
        if rows:
            text += f"**{title}**\n\n" + table(("name", "default", "meaning"), rows) + "\n"
    return text


def _section(name: str, command: Any) -> str:
    text = prose(described(f"`enumerator {name}`", command.help))
    example = described(f"the example of `enumerator {name}`", command.epilog).removeprefix("Example: ")
    return (
        f"## {name}\n\n{text}\n\n```text\n{example}\n```\n\n{_parameters(name, command)}Explained in: {_pages(name)}.\n"
    )


def _overview(commands: dict[str, Any]) -> str:
    """All commands with a line each, group by group."""
    rows = []
    for title, group in GROUPS.items():
        rows.append((f"**{title}**", ""))
        for name in group:
            text = described(f"`enumerator {name}`", commands[name].help)
            rows.append((f"[`{name}`](#{name})", cell(first_sentence(text))))
    return table(("command", "what it does"), rows)


def _before(group: Any) -> str:
    """What may stand before a command."""
    context = typer.Context(group, info_name="enumerator")
    rows = []
    for parameter in group.get_params(context):
        called, text = parameter.get_help_record(context)
        rows.append((code(called), cell(described(f"{parameter.name} of `enumerator`", text))))
    return "\n**Without a command**\n\n" + table(("name", "meaning"), rows)


def page() -> str:
    """A table of all commands, then one section for each, in the order of `enumerator --help`."""
    group: Any = typer.main.get_command(app)
    sections = [_section(name, command) for name, command in group.commands.items()]
    gone = {name for names in GROUPS.values() for name in names} - set(group.commands)
    if gone:
        raise ValueError(
            f"no such commands, but named in GROUPS of scripts/site/commands.py: {', '.join(sorted(gone))}"
        )
    return _HEAD + _overview(group.commands) + _before(group) + "\n" + "\n".join(sections)
