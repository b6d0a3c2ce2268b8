"""`--progress json` ends with a line that says where the campaign stands, also where nothing was missing."""

import json

from cluster.cli import run_command
from enumerator.catalogue.campaign_names import name_of
from tests.support.stand_ins import make_atlas, make_campaign

STANDS = {"rate": None, "minima": 3, "unfinished": 2}


def asked(tmp_path, starts):
    """A run whose starts are all there."""
    file = tmp_path / "campaign.toml"
    file.write_text(f"students = 3\nteachers = 3\ndimension = 10\nstarts = {starts}\n")
    return ["run", str(file), "--catalogue", str(tmp_path / "atlas"), "--progress", "json"]


def test_a_run_with_nothing_to_do_prints_one_line(tmp_path, capsys):
    make_atlas(tmp_path / "atlas")
    campaign = make_campaign(3, 3)
    names = {"campaign_id": campaign.id, "campaign_name": name_of(campaign)}
    assert run_command(asked(tmp_path, 40)) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) == names | STANDS | {"done": 40, "asked": 40, "seconds_left": None}
    assert run_command(asked(tmp_path, 10)) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) == names | STANDS | {"done": 10, "asked": 10, "seconds_left": None}


def test_without_json_nothing_is_shown_but_the_closing_words(tmp_path, capsys):
    make_atlas(tmp_path / "atlas")
    assert run_command([*asked(tmp_path, 40)[:-1], "lines"]) == 0
    assert capsys.readouterr().err.startswith("\nNothing was missing: 40 of 40 starts, 3 distinct minima")
