"""Tables as a reader meets them first: shares look alike, and what surprises is explained."""

import pytest

import enumerator as en
from cluster.cli import run_command
from tests.support.stand_ins import make_campaign, make_point, make_result, new_catalogue


@pytest.fixture
def atlas(tmp_path):
    """48 starts in two shards: 20 end at loss 0.1, 10 at 0.2, 10 on a saddle of loss 0.3, 8 nowhere."""
    campaign = make_campaign()
    atlas = new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 24, "cpu")
    points = [make_point(campaign.landscape, loss) for loss in (0.1, 0.2)]
    points.append(make_point(campaign.landscape, 0.3, verdict="saddle"))
    for first in (0, 24):
        ended = [0] * 10 + [1] * 5 + [2] * 5 + [-1] * 4
        atlas.commit_shard(make_result(campaign, first, first + 24, points, ended), first, first + 24)
    return atlas


def test_shares_of_early_stops_are_all_percentages(atlas, capsys):
    (name,) = atlas.campaigns()["campaign_id"].to_pylist()
    assert run_command(["early-stops", atlas.store.address, name, "--gradient-norm", "1e-4"]) == 0
    heading, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    shares = [heading.index(column) for column in heading if column.endswith(("frequency", "low", "high"))]
    assert len(shares) == 6 and rows
    assert all(row[position].endswith("%") for row in rows for position in shares)


def test_compact_explains_bytes_that_it_adds(atlas, capsys):
    atlas = atlas.store.address
    assert run_command(["compact", atlas]) == 0
    said = capsys.readouterr().err
    assert " bytes more than before, for now: the files that were joined stay for 7d" in said
    assert run_command(["compact", atlas, "--retention", "0"]) == 0
    assert "more than before" not in capsys.readouterr().err


def test_starts_have_the_loss_where_they_end_beside_that_where_they_retired(atlas, capsys):
    rows = atlas.starts(columns="start_index,outcome,end_loss,loss").to_pylist()
    assert [row["end_loss"] for row in rows] == 2 * ([0.1] * 10 + [0.2] * 5 + [0.3] * 5 + [None] * 4)
    assert all(row["loss"] not in (0.1, 0.2, 0.3) for row in rows)
    assert atlas.starts(where="end_loss < 0.15").num_rows == 20
    assert run_command(["starts", atlas.store.address, "--limit", "1"]) == 0
    assert capsys.readouterr().out.split()[:5] == ["start_index", "outcome", "minimum_id", "end_loss", "loss"]


def test_so_do_those_of_python():
    found = en.enumerate_minima(en.Landscape(2, 2), starts=8, seed=0)
    losses = dict(zip(found.minima["minimum_id"].to_pylist(), found.minima["loss"].to_pylist(), strict=True))
    for row in found.starts.to_pylist():
        assert row["end_loss"] == losses.get(row["minimum_id"])
    assert set(found.starts["outcome"].to_pylist()) == {"converged"}
