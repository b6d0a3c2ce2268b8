"""Every command and every line of Python on the pages runs as it stands there, one page in one folder.

A block marked `sh` is typed into a terminal, one marked `python` goes to one Python for the whole page, one marked
`toml` is saved under the name in its first line. `enumerator serve` and `ray start` stay at work until the end of the
page; an object store answers at port 9000. Ports of 127.0.0.1 are replaced by free ones. `curl` fails where the answer
is an error. Runs get fewer starts here (`tests/support/pages.py`), so that what a page shows as output (`text`) is not
compared. `console` marks what needs another machine.
"""

import codeop
import os

import matplotlib
import pytest

from tests.support.pages import RUN, SHOWN, Reader, blocks, pages
from tests.support.project import PROJECT

PAGES = {path.relative_to(PROJECT).as_posix(): path for path in pages()}
RUNNING = [name for name, path in PAGES.items() if any(block.language in RUN for block in blocks(path))]
# Pages that take a minute of processor time or more: a cluster with a job of its own, many runs, grids.
SLOW = {f"docs/guides/{name}.md" for name in ("cluster", "campaigns", "statistics", "upkeep")}
SLOW |= {"docs/tutorial.md", "docs/concepts/lingering.md"}


@pytest.mark.parametrize("name", PAGES)
def test_every_block_says_what_it_is(name):
    for block in blocks(PAGES[name]):
        assert block.language in RUN | SHOWN, f"line {block.line}: {block.language!r}"


def _paste(text: str) -> None:
    """Compile lines one by one, as the interactive prompt does, with one Enter at the end. Raises SyntaxError."""
    waiting: list[str] = []
    for line in [*text.splitlines(), ""]:
        waiting.append(line)
        if codeop.compile_command("\n".join(waiting), symbol="single") is not None:
            waiting = []
    assert not waiting, "an open bracket or string at the end"


def test_a_prompt_needs_a_blank_line_after_an_indented_part():
    _paste("for a in range(3):\n    print(a)\n\nprint(a)\n")
    with pytest.raises(SyntaxError):
        _paste("for a in range(3):\n    print(a)\nprint(a)\n")


@pytest.mark.parametrize("name", PAGES)
def test_blocks_of_python_can_be_pasted_into_the_prompt(name):
    for block in blocks(PAGES[name]):
        if block.language == "python":
            try:
                _paste(block.text)
            except SyntaxError as error:
                pytest.fail(f"line {block.line}: put a blank line after each indented part, and none within: {error}")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in RUNNING])
def test_a_page_does_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    reader = Reader(tmp_path, dict(os.environ, PYTHONPATH=str(PROJECT), MPLBACKEND="Agg", COLUMNS="120"))
    try:
        for block in blocks(PAGES[name]):
            if block.language in RUN:
                reader.follow(block, PAGES[name])
    finally:
        reader.close()
