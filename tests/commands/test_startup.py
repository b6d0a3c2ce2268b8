"""What a command loads before it answers, and that 64-bit numbers are on whatever was loaded first."""

import os
import subprocess
import sys

import pytest

from enumerator.problem import Campaign, Dynamics
from enumerator.statistics.by_name import TABLES
from tests.support.stand_ins import commit, make_campaign, new_catalogue

# Packages that take longer to load than a catalogue of some minima takes to be read.
HEAVY = ("jax", "flax", "scipy", "ray", "matplotlib", "fastapi", "jsonschema", "mpmath")


def python(code: str, *arguments: str) -> str:
    """What the code prints in a process of its own, to which the tests pass no setting of JAX for 64-bit numbers."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize("command", ["minima", "starts", "campaigns", "landscapes", "saddles"])
def test_a_table_is_printed_without_what_only_solvers_need(tmp_path, command):
    campaign = make_campaign()
    atlas = new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 10, [0.1, 0.2])
    code = f"""
import sys
from cluster.cli import run_command
assert run_command(sys.argv[1:]) == 0
print("loaded:", *sorted(set({HEAVY!r}) & sys.modules.keys()))
"""
    lines = python(code, command, str(tmp_path / "atlas"), "--format", "csv").splitlines()
    assert len(lines) == {"minima": 3, "starts": 11, "campaigns": 2, "landscapes": 2, "saddles": 1}[command] + 1
    assert lines[-1] == "loaded:"


def test_what_is_counted_and_shown_is_computed_without_them_too(tmp_path):
    """All tables of `stats`, and `show`, one after the other: what one of them loads, it loads for itself."""
    atlas = new_catalogue(tmp_path / "atlas")
    for campaign in (make_campaign(), Campaign(make_campaign().landscape, Dynamics("newton"), make_campaign().law)):
        atlas.register(campaign, 50, "cpu")
        commit(atlas, campaign, 0, 50, [0.1, 0.2])
    heavy = {*HEAVY, "scipy.stats"} - {"scipy"}
    code = f"""
import sys
from cluster.cli import run_command
from cluster.commands.statistics import TABLES
atlas, label = sys.argv[1:]
for words in [["stats", atlas, "--of", name] for name in TABLES] + [["show", atlas, label]]:
    assert run_command([*words, "--format", "json"]) == 0
    print("loaded by", *words[:1], *words[3:], *sorted({heavy} & sys.modules.keys()))
"""
    label = atlas.minima()["label"][0].as_py()
    told = [line for line in python(code, str(tmp_path / "atlas"), label).splitlines() if line.startswith("loaded")]
    assert told == [*(f"loaded by stats {name}" for name in TABLES), "loaded by show"]


@pytest.mark.parametrize(
    "imports",
    ["import enumerator, jax", "import jax, enumerator", "import jax, enumerator.problem", "from enumerator import *"],
)
def test_numbers_have_64_bits_whatever_was_loaded_first(imports):
    code = f"{imports}\nimport jax.numpy as jnp\nprint(jnp.asarray(1.5).dtype, jnp.arange(2).dtype)"
    assert python(code) == "float64 int64\n"
