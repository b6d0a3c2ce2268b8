"""The catalogue as a place: what it is opened on, what it refuses, and the campaigns registered in it."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from enumerator.catalogue import records, store
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import TABLE_NAMES, table_schema
from enumerator.errors import CatalogueError, InputError
from tests.support.stand_ins import commit, contents, make_campaign, make_result, new_catalogue


@pytest.fixture
def atlas(tmp_path) -> Catalogue:
    return new_catalogue(tmp_path / "atlas")


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
    with pytest.raises(InputError, match="`status` must be one of running, stopped, complete"):
        atlas.finish(campaign.id, "done")
    with pytest.raises(InputError, match="`shard_size`"):
        atlas.register(campaign, 0, "cpu")
    assert atlas.starts().num_rows == 0
