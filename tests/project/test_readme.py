"""The commands of the README that count and draw run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from cluster.cli import run_command
from enumerator.problem import Campaign, Dynamics, Landscape
from tests.support.stand_ins import make_point, make_result, new_catalogue

README = (Path(__file__).parents[2] / "README.md").read_text()
# Lines of a block, and commands in a sentence, without the comment behind them.
COMMANDS = [line.strip() for line in re.findall(r"(?:^|`)(enumerator (?:stats|plot) [^`#\n]+)", README, re.MULTILINE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Catalogues with the names of the README: `atlas` with K = M = 9, two dynamics, and 17; `widths` from 6 to 10."""
    folder = tmp_path_factory.mktemp("readme")
    campaigns = {
        "atlas": [Campaign(Landscape(9, 9)), Campaign(Landscape(9, 9), Dynamics("newton")), Campaign(Landscape(17, 17))]
    }
    campaigns["widths"] = [Campaign(Landscape(K, K)) for K in range(6, 11)]
    for name, members in campaigns.items():
        atlas = new_catalogue(folder / name)
        for campaign in members:
            atlas.register(campaign, 40, "cpu")
            points = [make_point(campaign.landscape, 0.1 * k, anti_aligned=k) for k in range(3)]
            ended = [0] * 20 + [1] * 12 + [2] * 5 + [-1] * 3
            atlas.commit_shard(make_result(campaign, 0, 40, points, ended), 0, 40)
    return folder


def test_there_are_such_commands():
    assert len(COMMANDS) >= 7
    assert any("--of comparison" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme(folder, command, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert run_command(shlex.split(command)[1:]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 1
