"""Text of a catalogue on a terminal: shown, never obeyed, in every format and in messages."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.cli import run_command
from cluster.commands.options import say
from cluster.terminal import printable
from tests.support.forging import with_value
from tests.support.stand_ins import fill, make_campaign, new_catalogue

# Sets the title of a terminal, turns text around, hides, ends the line, is an 8-bit control, is no character at all.
HOSTILE = "a\x1b]0;owned\x07\u202eb\u200bc\nd\x9b2J\U000e0041"
SHOWN = r"a\u001b]0;owned\u0007\u202eb\u200bc\u000ad\u009b2J\udb40\udc41"


def test_characters_are_spelled_as_json_has_them():
    assert printable(HOSTILE) == SHOWN
    assert json.loads(f'"{SHOWN}"') == HOSTILE
    assert printable("S_2 x S_1, na\u00efve \u4e2d") == "S_2 x S_1, na\u00efve \u4e2d"
    assert printable("\udc80") == r"\udc80"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A catalogue whose labels and devices were written by somebody else."""
    path = tmp_path_factory.mktemp("hostile") / "atlas"
    atlas = new_catalogue(path)
    fill(atlas, make_campaign(), (0, 7))
    for name, column in (("minima", "label"), ("minima", "isotropy"), ("campaigns", "device")):
        table = atlas.store.open(name)
        rows = with_value(column, HOSTILE)(atlas.store.dataset(table).to_table())
        atlas.store.rewrite(table, rows, None)
    return path


def test_readable_tables_and_messages_show_them_everywhere(hostile, capsys):
    """A pipe may end at a pager, and that on a terminal."""
    for command in (["minima"], ["campaigns"], ["sql"], ["show"]):
        more = {"sql": ['select 1 as "\x1b[31m", chr(27) as b'], "show": [HOSTILE]}.get(command[0], [])
        assert run_command([*command, str(hostile), *more]) == 0
        out = capsys.readouterr().out
        assert r"\u001b" in out and out.replace("\n", "").isprintable()
    assert run_command(["show", str(hostile), "\x1b[2J"]) == 2
    err = capsys.readouterr().err
    assert "nearest: " in err and err.strip().isprintable()
    say(HOSTILE.replace("\n", ""))
    assert capsys.readouterr().err.strip().isprintable()


def test_other_formats_keep_every_character_but_on_a_terminal(hostile, capsys):
    commands = [["minima", str(hostile), "--format", name, "--columns", "label"] for name in ("csv", "json")]
    for command in commands:
        assert run_command(command) == 0
        assert "\u202e" in capsys.readouterr().out
    code = f"from cluster.cli import run_command\nfor command in {commands}: assert run_command(command) == 0"
    parent, child = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=child, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    os.close(child)
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.extend(_until_the_end(parent)))
    reader.start()
    _, err = process.communicate(timeout=120)
    reader.join()
    os.close(parent)
    assert process.returncode == 0, err
    lines = b"".join(shown).decode().replace("\r\n", "\n").split("\n")
    assert all(line.isprintable() for line in lines)
    # A line of its own in CSV, which is text between quotes.
    assert r'"a\u001b]0;owned\u0007\u202eb\u200bc' in lines
    assert {"label": HOSTILE} in json.loads("".join(lines[lines.index("[") :]))


def _until_the_end(descriptor: int):
    try:
        while block := os.read(descriptor, 4096):
            yield block
    except OSError:  # on Linux the end of a terminal
        return
