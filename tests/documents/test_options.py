"""The options in the tables of the guide to campaigns are those of campaigns that can be run."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.commands import run
from tests.support.project import PROJECT

GUIDE = (PROJECT / "docs" / "guides" / "campaigns.md").read_text()
OPTIONS = re.findall(r"^\| [^|]+ \| `(--[^`]+)` \|$", GUIDE, re.MULTILINE)


def asked_of(options: str, monkeypatch) -> list:
    """What `enumerator run` is about to do for K = M = 4 with some options; options given twice hold as the last."""
    asked = []
    monkeypatch.setattr(run, "_run_one", lambda wanted, *_: asked.append(wanted))
    done = CliRunner().invoke(app, ["run", "--students", "4", "--teachers", "4", *shlex.split(options)])
    assert done.exception is None, done.exception
    return asked


def test_the_tables_are_read():
    assert len(OPTIONS) >= 10


@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_the_guide_make_a_campaign(options, monkeypatch):
    assert len(asked_of(options, monkeypatch)) == 1


@pytest.mark.parametrize(
    "options",
    [
        "--second-layer trained --constraint normalized",
        "--second-layer trained --dynamics newton",
        "--second-layer trained --activation erf",
        "--constraint normalized --dynamics newton",
        "--dynamics one-pass-sgd --step 0.1 --flow-time 1 --second-layer trained",
        "--dynamics one-pass-sgd --step 0.1 --flow-time 1 --constraint orthonormalized",
        "--precision mixed --dynamics newton",
    ],
)
def test_combinations_that_the_limits_exclude_are_refused(options, monkeypatch):
    with pytest.raises(AssertionError, match=r"goes with|must be"):
        asked_of(options, monkeypatch)
