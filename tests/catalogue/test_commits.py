"""Committing shards: every start counts once, minima keep their names, and no writer overwrites another."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest
from deltalake.exceptions import CommitFailedError

from enumerator.catalogue import records, store
from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import CatalogueError, InputError, SolverError
from tests.support.stand_ins import (
    assert_identical,
    commit,
    make_campaign,
    make_point,
    make_result,
    new_catalogue,
    same_loss,
)


@pytest.fixture
def atlas(tmp_path) -> Catalogue:
    return new_catalogue(tmp_path / "atlas")


def test_every_start_counts_once(atlas):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    assert commit(atlas, campaign, 0, 10).starts == 10
    assert commit(atlas, campaign, 0, 10).starts == 0
    assert commit(atlas, campaign, 20, 30).starts == 10
    assert atlas.done(campaign.id) == [(0, 10), (20, 30)]
    assert commit(atlas, campaign, 5, 25).starts == 10
    assert commit(atlas, campaign, 29, 31).starts == 1
    assert atlas.done(campaign.id) == [(0, 31)]
    assert atlas.starts(columns="start_index")["start_index"].to_pylist() == list(range(31))
    reopened = Catalogue(atlas.store.address)
    assert reopened.done(campaign.id) == [(0, 31)]
    assert reopened.done("c-0") == []


def test_rows_of_a_shard_may_come_in_any_order(atlas):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 4, index=[2, 0, 3, 1])
    assert atlas.done(campaign.id) == [(0, 4)]


def test_shard_that_is_not_what_it_says_is_refused(atlas):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    for index in ([0, 1, 3], [0, 1, 1], [0, 1], [1, 2, 3]):
        with pytest.raises(SolverError, match="must hold each of these starts once"):
            commit(atlas, campaign, 0, 3, index=index)
    result = make_result(campaign, 0, 2, [make_point(campaign.landscape, 0.5)])
    for change in ({"outcome": np.array([1, 1], np.int8)}, {"point": np.array([0, 1], np.int32)}):
        wrong = dataclasses.replace(result, starts=dataclasses.replace(result.starts, **change))
        with pytest.raises(SolverError, match="wrongly"):
            atlas.commit_shard(wrong, 0, 2)
    with pytest.raises(SolverError, match="has the loss nan"):
        atlas.commit_shard(
            dataclasses.replace(result, points=[dataclasses.replace(result.points[0], loss=np.nan)]), 0, 2
        )
    assert atlas.minima().num_rows == atlas.starts().num_rows == 0


def test_points_come_back_as_they_were(atlas):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    points = [make_point(campaign.landscape, 0.1), make_point(campaign.landscape, 0.3, "saddle")]
    points.append(make_point(campaign.landscape, 0.2, "flat-minimum", orbit_size_log10=None))
    summary = atlas.commit_shard(make_result(campaign, 0, 6, points), 0, 6)
    assert (summary.new_minima, summary.new_saddles) == (2, 1)
    for catalogue in (atlas, Catalogue(atlas.store.address)):
        known = {
            entry.minimum_id: entry
            for table in ("minima", "saddles")
            for entry in catalogue.points(campaign.landscape.id, table)
        }
        for name, point in zip(summary.point_ids, points, strict=True):
            assert_identical(known[name].point, point)
    assert [name[:2] for name in summary.point_ids] == ["m-", "s-", "m-"]
    rows = atlas.starts(columns="minimum_id,saddle_id").to_pylist()
    assert [row["minimum_id"] or row["saddle_id"] for row in rows] == list(summary.point_ids) * 2
    with pytest.raises(InputError, match="no landscape 'ls-0'"):
        atlas.points("ls-0")


def test_known_minima_keep_their_names(atlas):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    first = commit(atlas, campaign, 0, 4, losses=[0.02476642853, 0.7])
    before = {row["minimum_id"]: row["label"] for row in atlas.minima().to_pylist()}
    # The same two, the first off by rounding; one that collides in six digits; in another order.
    second = commit(atlas, campaign, 4, 10, losses=[0.7, 0.02476642999, 0.02476642853 + 3e-13])
    assert (second.new_minima, second.point_ids[0], second.point_ids[2]) == (1, *first.point_ids[::-1])
    after = {row["minimum_id"]: row["label"] for row in atlas.minima().to_pylist()}
    assert after == before | {second.point_ids[1]: "relu.3.2.02476643"}


def test_points_of_one_shard_that_are_the_same_become_one(atlas):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    summary = commit(atlas, campaign, 0, 3, losses=[0.5, 0.5 + 1e-13, 0.6])
    assert summary.new_minima == 2
    assert summary.point_ids[0] == summary.point_ids[1] != summary.point_ids[2]


def test_names_do_not_depend_on_the_order_of_the_points(tmp_path):
    losses = [0.1234561, 0.1234562, 0.1234563, 0.0]
    named = []
    for k, order in enumerate((losses, losses[::-1])):
        campaign, atlas = make_campaign(), new_catalogue(tmp_path / str(k))
        atlas.register(campaign, 10, "cpu")
        commit(atlas, campaign, 0, 4, losses=order)
        named.append(atlas.minima(columns="loss,label,minimum_id").to_pylist())
    assert named[0] == named[1]


def test_different_minima_of_equal_loss_have_different_names(tmp_path):
    campaign = make_campaign()
    atlas = Catalogue(tmp_path / "atlas", create=True, matcher=lambda new, known: [-1] * len(new))
    atlas.register(campaign, 10, "cpu")
    for first in (0, 1):
        commit(atlas, campaign, first, first + 1, losses=[0.5])
    rows = atlas.minima().to_pylist()
    assert sorted(row["label"] for row in rows) == ["relu.3.2.500000", "relu.3.2.5000000"]
    assert len({row["minimum_id"] for row in rows}) == 2


def test_commit_is_conditional_on_the_version_that_was_read(atlas):
    """What the whole protocol stands on, and no documented promise of Delta Lake: stale handles cannot write."""
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    keeper = atlas.store
    row = records.campaign_row(make_campaign(seed=1), 10, "cpu", datetime(2026, 1, 1, tzinfo=UTC))
    for write in (
        lambda table: keeper.append(table, records.to_table("campaigns", [row])),
        lambda table: keeper.update(table, records.to_table("campaigns", [row]), "campaign_id"),
    ):
        first, second = keeper.open("campaigns"), keeper.open("campaigns")
        write(first)
        with pytest.raises(CommitFailedError):
            write(second)
        assert keeper.open("campaigns").version() == first.version() == second.version() + 1


def test_minimum_that_another_writer_stores_in_between_is_found_again(tmp_path):
    """The other writer comes between our reading and our writing, every time that it can."""
    campaign = make_campaign()
    rival = new_catalogue(tmp_path / "atlas")
    rival.register(campaign, 10, "cpu")
    moves = [(10, 0.5 + 1e-13), (20, 0.8), (30, 0.6)]

    def interrupted(new, known):
        if moves:
            first, loss = moves.pop()
            commit(rival, campaign, first, first + 10, losses=[loss])
        return same_loss(new, known)

    commit(rival, campaign, 40, 50, losses=[0.9])
    ours = Catalogue(tmp_path / "atlas", matcher=interrupted)
    summary = commit(ours, campaign, 0, 10, losses=[0.5, 0.7])
    assert not moves
    assert summary.new_minima == 1
    assert ours.minima(columns="hits,starts").to_pylist() == [
        {"hits": hits, "starts": 50} for hits in (15, 10, 5, 10, 10)
    ]


def test_snapshot_has_the_minimum_of_every_start_in_it(tmp_path, monkeypatch):
    """Another writer commits a shard with a new minimum after each table that we open."""
    campaign = make_campaign()
    rival = new_catalogue(tmp_path / "atlas")
    rival.register(campaign, 1, "cpu")
    ours = Catalogue(tmp_path / "atlas")
    ours_open, shards = ours.store.open, iter(range(100))

    def open_slowly(name, **options):
        table, first = ours_open(name, **options), next(shards)
        commit(rival, campaign, first, first + 1, losses=[0.1 + first])
        return table

    monkeypatch.setattr(ours.store, "open", open_slowly)
    orphans = "select count(*) as n from starts anti join minima using (minimum_id)"
    assert [ours.sql(orphans)["n"].to_pylist() for _ in range(2)] == [[0], [0]]
    assert all(row["starts"] >= 10 for row in ours.minima().to_pylist())


def test_joined_files_hold_the_same_rows(atlas, monkeypatch):
    monkeypatch.setattr(store, "FILES_TO_JOIN", 5)
    campaigns = [make_campaign(seed=seed) for seed in (0, 1)]
    for campaign in campaigns:
        atlas.register(campaign, 2, "cpu")
    for first in range(0, 24, 2):
        for campaign in campaigns:
            commit(atlas, campaign, first, first + 2, losses=[0.1 + first])
    assert len(atlas.store.open("starts").file_uris()) < 10
    assert len(atlas.store.open("minima").file_uris()) < 10
    for campaign in campaigns:
        assert atlas.starts(campaign=campaign.id)["start_index"].to_pylist() == list(range(24))
        assert commit(atlas, campaign, 0, 2, losses=[0.1]).starts == 0
    assert atlas.minima()["hits"].to_pylist() == [4] * 12


def test_write_that_fails_for_good_is_reported(atlas, tmp_path):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    # A directory where the next commit must go: no commit can succeed, and no other writer is the reason.
    (tmp_path / "atlas" / "starts" / "_delta_log" / f"{1:020d}.json").mkdir()
    with pytest.raises(CatalogueError, match=r"cannot (write|read) .*/starts"):
        commit(atlas, campaign, 0, 10)
    assert atlas.minima(columns="label")["label"].to_pylist() == ["relu.3.2.500000"]
