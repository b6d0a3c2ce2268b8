"""Every command and every line of Python on the pages runs as it stands there, one page in one folder.

A block marked `sh` is typed into a terminal, one marked `python` goes to one Python for the whole page, one marked
`toml` is saved under the name in its first line. `enumerator serve` and `ray start` stay at work until the end of the
page; an object store answers at port 9000. Ports of 127.0.0.1 are replaced by free ones. `curl` fails where the answer
is an error. Runs get fewer starts here (`tests/support/pages.py`), so that what a page shows as output (`text`) is not
compared. `console` marks what needs another machine.
"""

import os

import matplotlib
import pytest

from tests.support.pages import RUN, SHOWN, Reader, blocks, pages
from tests.support.project import PROJECT

PAGES = {path.relative_to(PROJECT).as_posix(): path for path in pages()}
RUNNING = [name for name, path in PAGES.items() if any(block.language in RUN for block in blocks(path))]
# A cluster with its dashboard and a job of its own takes a minute or more.
SLOW = {"docs/guides/cluster.md"}


@pytest.mark.parametrize("name", PAGES)
def test_every_block_says_what_it_is(name):
    for block in blocks(PAGES[name]):
        assert block.language in RUN | SHOWN, f"line {block.line}: {block.language!r}"


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
