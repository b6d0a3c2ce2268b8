"""What `campaigns` says of a run: running as long as it lives, stopped when it has ended, also if it was killed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import CatalogueError
from enumerator.storage.run_locks import FOLDER
from tests.support.stand_ins import commit, make_campaign, new_catalogue

PROJECT = Path(__file__).parents[2]
# A process that registers a campaign, commits, and waits to be killed.
RUN = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.support.stand_ins import commit, make_campaign, new_catalogue
atlas = new_catalogue(sys.argv[1])
atlas.register(make_campaign(), 10, "cpu")
commit(atlas, make_campaign(), 0, 10)
print("runs", flush=True)
sys.stdin.read()
"""


def statuses(path) -> list[str]:
    return Catalogue(path).campaigns()["status"].to_pylist()


@pytest.fixture
def killed(tmp_path):
    """A catalogue whose only run was killed."""
    command = [sys.executable, "-c", RUN, str(tmp_path / "atlas"), str(PROJECT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "runs\n"
        assert statuses(tmp_path / "atlas") == ["running"]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return tmp_path / "atlas"


def test_a_run_that_was_killed_is_found_out_wherever_campaigns_are_read(killed):
    assert statuses(killed) == ["stopped"]
    atlas = Catalogue(killed)
    assert atlas.sql("select status, starts from campaigns").to_pylist()[0]["status"] == "stopped"
    # Who goes on with it clears up.
    atlas.register(make_campaign(), 10, "cpu")
    assert statuses(killed) == ["running"]
    assert len(list((killed / FOLDER).iterdir())) == 1
    atlas.finish(make_campaign().id)
    assert statuses(killed) == ["complete"]
    assert list((killed / FOLDER).iterdir()) == []


def test_a_campaign_is_stopped_only_when_nobody_runs_it(tmp_path):
    campaign, first = make_campaign(), new_catalogue(tmp_path)
    second = new_catalogue(tmp_path)
    for atlas in (first, second):
        atlas.register(campaign, 10, "cpu")
    commit(first, campaign, 0, 10)
    first.finish(campaign.id, "stopped")
    assert statuses(tmp_path) == ["running"]
    second.finish(campaign.id, "stopped")
    assert statuses(tmp_path) == ["stopped"]
    assert first.campaigns()["finished_at"].to_pylist() == [None]


def test_a_catalogue_that_is_let_go_runs_nothing(tmp_path):
    atlas = new_catalogue(tmp_path)
    atlas.register(make_campaign(), 10, "cpu")
    assert statuses(tmp_path) == ["running"]
    del atlas
    assert statuses(tmp_path) == ["stopped"]


def as_file(folder: Path) -> None:
    folder.write_text("")


def as_link_to_nowhere(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere" / "at" / "all")


@pytest.mark.parametrize("make", [as_file, as_link_to_nowhere])
def test_where_nothing_can_be_claimed_a_run_says_so_and_reading_goes_on(killed, make):
    shutil.rmtree(killed / FOLDER)
    make(killed / FOLDER)
    with pytest.raises(CatalogueError, match=rf"cannot claim a campaign in {killed / FOLDER}: .* may write"):
        Catalogue(killed).register(make_campaign(), 10, "cpu")
    assert statuses(killed) == ["stopped"]


def test_what_is_no_claim_neither_stops_a_run_nor_holds_it_up(killed):
    (killed / FOLDER / f"{make_campaign().id}.folder").mkdir()
    os.mkfifo(killed / FOLDER / f"{make_campaign().id}.pipe")
    # In a process of its own: a pipe that nobody writes to would be waited for without an end.
    program = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
from tests.support.stand_ins import make_campaign
from enumerator.catalogue.catalogue import Catalogue
atlas = Catalogue({str(killed)!r})
atlas.register(make_campaign(), 10, "cpu")
print(atlas.campaigns()["status"].to_pylist())
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (told.stdout, told.stderr) == ("['running']\n", "")
