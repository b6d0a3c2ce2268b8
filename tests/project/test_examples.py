"""The worked examples of docs/examples give the numbers of the catalogue, and campaign files there are valid."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.campaign_grid import expand
from cluster.cli import run_command
from cluster.inputs import read_campaign_file
from tests.support.stand_ins import make_campaign, make_point, make_result, new_catalogue

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EXPECTED = ["0 0.55", "1 0.33", "none 0.12"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of 100 starts 55 end at order 0, 30 and 3 in two minima of order 1, 12 nowhere; as files in every format."""
    folder = tmp_path_factory.mktemp("examples")
    campaign = make_campaign(3, 3)
    atlas = new_catalogue(folder / "atlas")
    atlas.register(campaign, 100, "cpu")
    points = [make_point(campaign.landscape, loss, anti_aligned=k) for loss, k in ((0.0, 0), (0.1, 1), (0.2, 1))]
    atlas.commit_shard(make_result(campaign, 0, 100, points, [0] * 55 + [1] * 30 + [2] * 3 + [-1] * 12), 0, 100)
    for name in ("starts", "minima"):
        for ending in ("parquet", "csv"):
            assert run_command([name, str(folder / "atlas"), "-o", str(folder / f"{name}.{ending}")]) == 0
    return folder


@pytest.mark.parametrize("name", ["with_pandas.py", "with_polars.py", "with_duckdb.py"])
def test_python_examples(files, name):
    arguments = [sys.executable, EXAMPLES / name, files / "starts.parquet", files / "minima.parquet"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == EXPECTED


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_r_example(files):
    done = subprocess.run(
        ["Rscript", "--vanilla", EXAMPLES / "with_r.R", files / "starts.csv", files / "minima.csv"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()] == EXPECTED


def test_the_grid_of_widths():
    path = EXAMPLES / "widths.toml"
    found = expand(read_campaign_file(path), path.parent, {})
    sizes = [(w.campaign.landscape.students, w.campaign.landscape.teachers, w.campaign.law.dimension) for w in found]
    assert sizes == [(M, M, M) for M in range(6, 17)]
    assert {wanted.starts for wanted in found} == {2000}
