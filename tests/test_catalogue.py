"""The catalogue, one process at a time: what it refuses, what it counts, how it names, what its SQL lets through."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from stand_ins import make_campaign, make_point, make_result, same_loss
from test_records import assert_identical

from enumerator import records, store
from enumerator.catalogue import Catalogue
from enumerator.errors import CatalogueError, InputError, SolverError
from enumerator.problem import Campaign, Dynamics
from enumerator.tables import TABLE_NAMES, table_schema


def new_catalogue(path: Path, **options) -> Catalogue:
    return Catalogue(path, create=True, matcher=same_loss, **options)


@pytest.fixture
def atlas(tmp_path) -> Catalogue:
    return new_catalogue(tmp_path / "atlas")


def commit(atlas: Catalogue, campaign: Campaign, first: int, last: int, losses=(0.5,), **options):
    """Commit starts that end in made-up minima of these losses, in turn."""
    points = [make_point(campaign.landscape, loss) for loss in losses]
    return atlas.commit_shard(make_result(campaign, first, last, points, **options), first, last)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Opening


def test_missing_catalogue_is_refused_and_not_made(tmp_path):
    with pytest.raises(InputError, match=r"not a catalogue: .*/atlas"):
        Catalogue(tmp_path / "atlas")
    assert list(tmp_path.iterdir()) == []


def test_new_catalogue_has_all_tables_empty(atlas):
    for query in (atlas.landscapes, atlas.campaigns, atlas.minima, atlas.saddles, atlas.starts):
        assert query().num_rows == 0
    assert atlas.sql("show tables")["name"].to_pylist() == sorted(TABLE_NAMES)


@pytest.mark.parametrize("name", ["with space", "ünï", "a#b", "q?x=1"])
def test_catalogue_lies_in_any_ordinary_directory(tmp_path, name):
    campaign = make_campaign()
    atlas = new_catalogue(tmp_path / name)
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 3)
    assert Catalogue((tmp_path / name).as_uri()).minima(columns="hits").to_pylist() == [{"hits": 3}]


def test_path_that_the_store_cannot_handle_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot have \[ \] in it"):
        new_catalogue(tmp_path / "atlas[1]")


def test_foreign_directory_is_not_filled_with_tables(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match="not a catalogue, and not empty"):
        new_catalogue(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        new_catalogue(tmp_path / "thesis.tex")
    assert contents(tmp_path) == {"thesis.tex": b"..."}


def test_foreign_delta_table_is_not_taken_for_a_catalogue(tmp_path):
    write_deltalake(tmp_path / "starts", pa.table({"a": [1]}))
    before = contents(tmp_path)
    with pytest.raises(InputError, match="was not made by this software"):
        new_catalogue(tmp_path)
    assert contents(tmp_path) == before


def test_interrupted_creation_is_completed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "TABLE_NAMES", TABLE_NAMES[:2])
        new_catalogue(tmp_path / "atlas")
    with pytest.raises(InputError, match="it lacks the table campaigns"):
        Catalogue(tmp_path / "atlas")
    assert new_catalogue(tmp_path / "atlas").minima().num_rows == 0


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("name", ["landscapes", "starts"])
def test_newer_schema_is_refused_and_nothing_written(tmp_path, name, create):
    campaign = make_campaign()
    old = new_catalogue(tmp_path / "atlas")
    old.register(campaign, 10, "cpu")
    newer = table_schema(name).version + 1
    table = DeltaTable(tmp_path / "atlas" / name)
    table.alter.set_table_properties({store.VERSION_PROPERTY: str(newer)}, raise_if_not_exists=False)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"schema version {newer}, this software reads up to {newer - 1}: update"):
        Catalogue(tmp_path / "atlas", create=create)
    with pytest.raises(InputError, match=f"schema version {newer}"):  # opened before the table was changed
        old.commit_shard(make_result(campaign, 0, 0), 0, 0) if name == "starts" else old.landscapes()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut short", "missing", "overwritten"])
def test_damaged_table_is_reported_as_such(tmp_path, damage):
    atlas = new_catalogue(tmp_path / "atlas")
    atlas.register(make_campaign(), 10, "cpu")
    (data,) = (tmp_path / "atlas" / "campaigns").glob("*.parquet")
    if damage == "missing":
        data.unlink()
    else:
        kept = data.read_bytes()
        data.write_bytes(kept[:100] if damage == "cut short" else kept[:4] + b"\xff" * 500 + kept[504:])
    with pytest.raises(CatalogueError, match="cannot read"):
        atlas.campaigns()


# Campaigns


def test_registering_again_changes_nothing(atlas):
    campaign = make_campaign()
    record = atlas.register(campaign, 100, "cpu")
    assert (record.shard_size, record.starts) == (100, 0)
    commit(atlas, campaign, 0, 7)
    record = atlas.register(campaign, 5, "gpu")
    assert (record.shard_size, record.starts) == (100, 7)
    assert atlas.landscapes().num_rows == 1
    (row,) = atlas.campaigns().to_pylist()
    assert (row["device"], row["shard_size"], row["starts"], row["status"]) == ("cpu", 100, 7, "running")
    assert json.loads(row["campaign"]) == campaign.to_dict()


def test_campaign_id_taken_by_other_settings_is_refused(atlas):
    campaign = make_campaign()
    row = records.campaign_row(campaign, 10, "cpu", datetime(2026, 1, 1, tzinfo=UTC))
    row["campaign"] = row["campaign"].replace('"seed": 0', '"seed": 1')
    atlas.store.append(atlas.store.open("campaigns"), records.to_table("campaigns", [row]))
    with pytest.raises(InputError, match=f"the campaign id {campaign.id} is taken .* by other settings"):
        atlas.register(campaign, 10, "cpu")


def test_finished_campaign_runs_again_when_extended(atlas):
    campaign = make_campaign()
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 10)
    atlas.finish(campaign.id)
    (row,) = atlas.campaigns().to_pylist()
    assert (row["status"], row["starts"], row["shard_size"]) == ("complete", 10, 10)
    assert row["finished_at"] >= row["created_at"]
    atlas.register(campaign, 10, "cpu")
    (row,) = atlas.campaigns().to_pylist()
    assert (row["status"], row["finished_at"]) == ("running", None)


def test_unknown_campaigns_and_statuses_are_refused(atlas):
    campaign = make_campaign()
    with pytest.raises(InputError, match="register it first"):
        atlas.finish(campaign.id)
    with pytest.raises(InputError, match="register it first"):
        commit(atlas, campaign, 0, 1)
    with pytest.raises(InputError, match="`status` must be one of running, complete"):
        atlas.finish(campaign.id, "done")
    with pytest.raises(InputError, match="`shard_size`"):
        atlas.register(campaign, 0, "cpu")
    assert atlas.starts().num_rows == 0


# Committing


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

    def open_slowly(name):
        table, first = ours_open(name), next(shards)
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


# Queries


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Catalogue:
    """Three campaigns on two landscapes: (3, 2) by two dynamics, and (4, 2)."""
    atlas = new_catalogue(tmp_path_factory.mktemp("filled") / "atlas")
    for campaign in CAMPAIGNS:
        atlas.register(campaign, 10, "cpu")
    saddle = make_point(CAMPAIGNS[0].landscape, 0.4, "saddle")
    points = [make_point(CAMPAIGNS[0].landscape, 0.1), make_point(CAMPAIGNS[0].landscape, 0.2), saddle]
    atlas.commit_shard(make_result(CAMPAIGNS[0], 0, 8, points, ended=[0, 0, 0, 1, 2, -1, -2, 0]), 0, 8)
    commit(atlas, CAMPAIGNS[1], 0, 2, losses=[0.2])
    commit(atlas, CAMPAIGNS[2], 0, 5, losses=[0.1, 0.3])
    return atlas


CAMPAIGNS = [make_campaign(), make_campaign(), make_campaign(4)]
CAMPAIGNS[1] = dataclasses.replace(CAMPAIGNS[1], dynamics=Dynamics("newton"))


def counts(table: pa.Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.select(["label", "hits", "starts", "frequency"]).to_pylist()]


def test_frequency_is_hits_over_all_starts_on_the_landscape(filled):
    assert counts(filled.minima()) == [
        ("relu.3.2.100000", 4, 10, 0.4),
        ("relu.3.2.200000", 3, 10, 0.3),
        ("relu.4.2.100000", 3, 5, 0.6),
        ("relu.4.2.300000", 2, 5, 0.4),
    ]
    assert counts(filled.saddles()) == [("relu.3.2.400000s", 1, 10, 0.1)]


def test_counts_are_of_the_campaigns_selected(filled):
    gradient, newton, wide = CAMPAIGNS
    assert counts(filled.minima(campaign=newton.id)) == [("relu.3.2.200000", 2, 2, 1.0)]
    assert counts(filled.minima(dynamics="newton")) == counts(filled.minima(campaign=newton.id))
    assert counts(filled.minima(campaign=gradient.id)) == [
        ("relu.3.2.100000", 4, 8, 0.5),
        ("relu.3.2.200000", 1, 8, 0.125),
    ]
    assert counts(filled.minima(students=4)) == counts(filled.minima(campaign=wide.id))
    assert counts(filled.minima(students=4, campaign=newton.id)) == []
    assert counts(filled.saddles(campaign=newton.id)) == []


def test_landscape_filters(filled):
    assert filled.minima(students=4).num_rows == filled.minima(landscape=CAMPAIGNS[2].landscape.id).num_rows == 2
    assert filled.minima(teachers=2).num_rows == filled.minima(activation="relu").num_rows == 4
    assert filled.minima(activation="erf").num_rows == filled.minima(students=7).num_rows == 0
    assert filled.starts(students=4).num_rows == 5
    assert filled.starts(campaign=CAMPAIGNS[0].id).num_rows == 8
    assert filled.campaigns(students=3)["starts"].to_pylist() in ([8, 2], [2, 8])
    assert filled.landscapes(campaign=CAMPAIGNS[2].id)["students"].to_pylist() == [4]


@pytest.mark.parametrize("name", [name for name in TABLE_NAMES if name != "initial_overlaps"])
def test_result_has_the_types_of_the_schema(filled, name):
    table = getattr(filled, name)()
    schema = table_schema(name).arrow
    assert table.schema.names[: len(schema)] == schema.names
    assert [field.type for field in table.schema][: len(schema)] == [field.type for field in schema]
    assert table.num_rows > 0


def test_where_columns_sort_and_limit(filled):
    table = filled.minima(where="hits > 2 and loss < 0.25 -- comment", columns="label, hits", sort="-hits")
    assert table.to_pylist() == [
        {"label": "relu.3.2.100000", "hits": 4},
        {"label": "relu.3.2.200000", "hits": 3},
        {"label": "relu.4.2.100000", "hits": 3},
    ]
    assert filled.minima(sort=["students desc", "loss"], columns=["loss"], limit=3)["loss"].to_pylist() == [
        0.1,
        0.3,
        0.1,
    ]
    assert filled.starts(where="outcome <> 'converged'", columns="start_index")["start_index"].to_pylist() == [4, 5, 6]
    assert filled.starts(where="Q is not null", columns="outcome")["outcome"].to_pylist() == ["unfinished", "diverged"]
    assert filled.minima(where="list_max(hessian_spectrum) < 1 and len(Q) = 9").num_rows == 2


@pytest.mark.parametrize(
    "selection",
    [
        {"where": "los < 1"},
        {"where": "loss <"},
        {"where": "loss < 'low'"},
        {"columns": "label,los"},
        {"sort": "los"},
    ],
    ids=str,
)
def test_wrong_selection_is_one_line_that_names_the_columns(filled, selection):
    with pytest.raises(InputError) as caught:
        filled.minima(**selection)
    assert "\n" not in str(caught.value)
    assert "The columns are minimum_id, label, " in str(caught.value)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"sort": "loss up"}, "`sort` takes names"),
        ({"limit": -1}, "`limit` must be a whole number"),
        ({"students": "3"}, "`students` must be a whole number"),
        ({"campaign": CAMPAIGNS[0].id[:-1]}, f"no campaign .*nearest: .*{CAMPAIGNS[0].id}"),
        ({"where": "1=1) union (select * from read_text('/etc/hostname')"}, "not available"),
        ({"where": "1=1); drop table minima; select (1"}, "got SELECT and DROP and SELECT"),
    ],
    ids=str,
)
def test_selection_that_cannot_be_meant_is_refused(filled, selection, message):
    with pytest.raises(InputError, match=message):
        filled.minima(**selection)


def test_misspelt_selection_is_a_type_error(filled):
    with pytest.raises(TypeError, match="no such selection: student"):
        filled.minima(student=3)


def test_minimum_by_id_or_label(filled):
    row = filled.minimum("relu.3.2.100000")
    assert (row["hits"], row["starts"], row["loss"]) == (4, 10, 0.1)
    assert filled.minimum(row["minimum_id"]) == row
    assert filled.minimum("relu.3.2.400000s")["verdict"] == "saddle"
    with pytest.raises(InputError, match=r"no minimum 'relu.3.2.10000' .*nearest: relu.3.2.100000"):
        filled.minimum("relu.3.2.10000")
    with pytest.raises(InputError, match="no minimum"):
        filled.minimum("' or true --")


def test_sql_reads_all_tables_under_their_names(filled):
    query = """
        with shares as (select campaign_id, outcome, count(*) as n from starts group by all)
        select outcome, sum(n)::bigint as n from shares join campaigns using (campaign_id) group by 1 order by 1"""
    assert filled.sql(query).to_pylist() == [
        {"outcome": "converged", "n": 12},
        {"outcome": "diverged", "n": 1},
        {"outcome": "saddle", "n": 1},
        {"outcome": "unfinished", "n": 1},
    ]
    assert filled.sql("select max(value) as m from minima, unnest(Q) as t(value)").num_rows == 1
    assert filled.sql("select count(*) as n from range(5)")["n"].to_pylist() == [5]
    assert (
        filled.sql("select campaign ->> '$.dynamics.name' as d from campaigns order by 1")["d"].to_pylist()[-1]
        == "newton"
    )
    assert "loss" in filled.sql("describe minima")["column_name"].to_pylist()
    assert filled.sql("select created_at from minima").schema.field(0).type == pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    "query",
    [
        "copy minima to '{}/out.csv'",
        "copy (select 1) to '{}/out.parquet'",
        "attach '{}/other.db'",
        "export database '{}/out'",
        "install httpfs",
        "load httpfs",
        "insert into minima select * from minima",
        "update minima set loss = 0",
        "delete from starts",
        "drop view starts",
        "create table mine as select 1",
        "create macro f(x) as x",
        "set threads = 1",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma database_list",
        "call duckdb_settings()",
        "checkpoint",
        "begin transaction",
        "select 1; select 2",
        "",
        "select * from read_csv('{}/secret.csv')",
        "select * from read_text('{}/secret.csv')",
        "select * from read_blob('{}/*')",
        "select * from glob('{}/*')",
        "select * from '{}/secret.csv'",
        'select * from "{}/secret.csv"',
        "select * from parquet_scan('{}/secret.csv')",
        "select * from sniff_csv('{}/secret.csv')",
        "select * from arrow_scan(1, 2, 3)",
        "select (select count(*) from system.main.ARROW_SCAN(1, 2, 3))",
        "with t as (from seq_scan()) select 1",
        "select * from query('select 1')",
        "select * from query_table('starts')",
        "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
        "select * from which_secret('a', 's3')",
        "from duckdb_secrets()",
        "selec 1",
        "select los from minima",
        "select * from minimum",
    ],
)
def test_sql_reads_nothing_else_and_writes_nothing(filled, tmp_path, query):
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    before = contents(tmp_path), contents(Path(filled.store.address))
    with pytest.raises(InputError) as caught:
        filled.sql(query.format(tmp_path))
    assert "\n" not in str(caught.value)
    assert (contents(tmp_path), contents(Path(filled.store.address))) == before
