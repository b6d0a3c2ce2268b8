"""`enumerator stats`: what is printed where, in every format, and one clear line for bad input."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from cluster.cli import run_command
from enumerator import statistics
from enumerator.statistics.by_name import TABLES
from tests.support.stand_ins import make_campaign, make_point, make_result, new_catalogue


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    atlas = new_catalogue(tmp_path_factory.mktemp("stats") / "atlas")
    for seed in (0, 1):
        campaign = make_campaign(3, 3, seed=seed)
        atlas.register(campaign, 100, "cpu")
        points = [make_point(campaign.landscape, 0.0, anti_aligned=0), make_point(campaign.landscape, 0.2)]
        atlas.commit_shard(make_result(campaign, 0, 100, points, [0] * 60 + [1] * 38 + [-1] * 2), 0, 100)
    return atlas


@pytest.fixture
def stats(atlas, capsys):
    def run(*arguments):
        code = run_command(["stats", atlas.store.address, *arguments])
        return code, *capsys.readouterr()

    return run


def test_table_on_stdout_and_words_on_stderr(stats):
    code, out, err = stats("--by", "order")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:5] == ["students", "teachers", "outcome", "anti_aligned", "hits"]
    assert lines[1][:7] == ["3", "3", "converged", "0", "120", "200", "60.00%"]
    assert len(lines) == 4
    assert "of 200 starts 4 ended in no minimum" in err and "at most" in err


def test_one_minimum_is_said_in_the_singular_and_of_this_law(stats):
    assert "; 2 minima seen from this initial law, Chao1 " in stats()[2]
    assert "; 1 minimum seen from this initial law, Chao1 " in stats("--where", "start_index < 60")[2]


@pytest.mark.parametrize("of", ["frequencies", "distributions"])
def test_minima_without_orders_are_said_to_have_none(stats, tmp_path, capsys, of):
    assert "have no orders" not in stats("--of", of, "--by", "order")[2]
    atlas = new_catalogue(tmp_path / "atlas")
    campaign = make_campaign(3, 3, T=0.7 * np.eye(3) + 0.3)
    atlas.register(campaign, 10, "cpu")
    atlas.commit_shard(make_result(campaign, 0, 10, [make_point(campaign.landscape, 0.2, anti_aligned=None)]), 0, 10)
    assert run_command(["stats", atlas.store.address, "--of", of, "--by", "order", "--columns", "outcome"]) == 0
    note = "note: minima have no orders where T is not diagonal, or the second layer is trained: use --by minimum.\n"
    assert note in capsys.readouterr().err
    assert run_command(["stats", atlas.store.address, "--of", of, "--by", "minimum"]) == 0
    assert "have no orders" not in capsys.readouterr().err


@pytest.mark.parametrize("of", TABLES)
def test_every_table_in_every_format(stats, atlas, of, tmp_path):
    code, out, _ = stats("--of", of, "--format", "json")
    rows = json.loads(out)
    assert code == 0 and rows
    assert len(list(csv.DictReader(io.StringIO(stats("--of", of, "--format", "csv")[1])))) == len(rows)
    for ending in ("arrow", "parquet"):
        file = tmp_path / f"x.{ending}"
        assert stats("--of", of, "-o", str(file))[0] == 0
        table = pa.ipc.open_file(file).read_all() if ending == "arrow" else pa.parquet.read_table(file)
        assert table.num_rows == len(rows) and set(table.column_names) == set(rows[0])


def test_the_numbers_are_those_of_python(stats, atlas):
    (row,) = json.loads(stats("--of", "unseen", "--more", "50", "--confidence", "0.9", "--format", "json")[1])
    (expected,) = statistics.unseen(atlas, more=50, confidence=0.9).to_pylist()
    assert row == expected


@pytest.mark.parametrize("format", ["table", "csv"])
def test_columns_are_those_asked_for_in_their_order(stats, format):
    asked = ("--by", "order", "--columns", "hits, anti_aligned,dynamics,hits", "--format", format)
    code, out, err = stats(*asked)
    rows = [line.replace(",", " ").replace('"', "").split() for line in out.splitlines()]
    assert code == 0 and rows[:2] == [["hits", "anti_aligned", "dynamics"], ["120", "0", "gradient-flow"]]
    assert "of 200 starts 4 ended in no minimum" in err


def test_a_column_that_a_readable_table_leaves_out_can_be_asked_for(stats):
    assert "hit_twice" not in stats("--of", "unseen")[1]
    assert stats("--of", "unseen", "--columns", "hit_twice")[1].split() == ["hit_twice", "0"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--columns", "hits,colour"), "`columns` names 'colour', which is no column here. The columns are students, "),
        (("--of", "colours"), "`--of` must be one of frequencies, unseen"),
        (("--by", "colour"), "`by` must be one of minimum, order, outcome, got 'colour'"),
        (("--of", "unseen", "--by", "order"), "`--by` goes with --of frequencies or distributions, got --of unseen"),
        (("--of", "trend", "--quantity", "loss"), "`of` must be one of global, order"),
        (("--of", "unseen", "--more", "-1"), "`more` must be a whole number >= 0"),
        (("--confidence", "95"), "`confidence` must lie between 0 and 1"),
        (("--campaign", "c-1"), "no campaign 'c-1'"),
        (("--where", "colour = 1"), "condition on the columns of table starts"),
        (("--of", "comparison", "--students", "9"), "at least two campaigns with starts, got 0"),
    ],
)
def test_bad_input(stats, arguments, said):
    code, out, err = stats(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err


@pytest.mark.parametrize("command", ["stats", "plot"])
def test_help_has_an_example_and_loads_neither_matplotlib_nor_distributions(command):
    code = f"""
import sys
from cluster.cli import run_command
code = run_command(["{command}", "--help"])
print(code, [name for name in ("matplotlib", "scipy.stats") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"Example: enumerator {command} atlas" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"
