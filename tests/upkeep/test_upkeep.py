"""Merging, deleting, compacting, exporting and importing catalogues: nothing lost, nothing twice."""

import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.errors import CatalogueError, InputError
from enumerator.follow import follow_shard
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.upkeep import merge as merging
from enumerator.upkeep.bundle import export, import_bundle
from enumerator.upkeep.compaction import compact, delete
from enumerator.upkeep.merge import merge
from enumerator.verification.verify import verify
from tests.support.stand_ins import fill, given, make_campaign, make_point, make_result, new_catalogue, same_loss

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu"}


def content(atlas: Catalogue) -> dict[str, list]:
    """What a catalogue holds, up to names, rounding and what a start took."""
    losses = "select minimum_id, round(loss, 10) as end_loss from (from minima union all from saddles)"
    return {
        "starts": atlas.sql(
            f"select campaign_id, start_index, outcome, end_loss from starts left join ({losses}) as p "
            "on p.minimum_id = coalesce(starts.minimum_id, saddle_id) order by all"
        ).to_pylist(),
        "points": atlas.sql(
            "select landscape_id, round(loss, 10), verdict, first_campaign_id, created_at "
            "from (from minima union all from saddles) order by all"
        ).to_pylist(),
        "campaigns": atlas.campaigns().drop_columns(["shard_size"]).to_pylist(),
        "landscapes": atlas.sql("from landscapes order by landscape_id").to_pylist(),
        "initial_overlaps": atlas.sql("from initial_overlaps order by campaign_id, start_index").to_pylist(),
    }


def versions(atlas: Catalogue) -> list[int]:
    return [atlas.store.open(name).version() for name in TABLE_NAMES]


@pytest.fixture
def two(tmp_path) -> tuple[Catalogue, Catalogue]:
    """Two catalogues with a campaign in common, one each of their own, and one from given overlaps."""
    ours, theirs = new_catalogue(tmp_path / "ours"), new_catalogue(tmp_path / "theirs")
    fill(ours, make_campaign(), (0, 12), (20, 25))
    fill(theirs, make_campaign(), (8, 22), rounding=1e-13)
    fill(ours, make_campaign(seed=1), (0, 3))
    fill(theirs, make_campaign(students=2, seed=2), (0, 9))
    fill(theirs, given(), (0, 4))
    ours.finish(make_campaign().id)
    theirs.finish(given().id)
    return ours, theirs


# Merging


def test_merge_in_either_order_gives_the_same_content(two, tmp_path):
    ours, theirs = two
    for source, name in ((ours, "a"), (theirs, "b")):
        shutil.copytree(source.store.address, tmp_path / name)
    first, second = (Catalogue(tmp_path / name, matcher=same_loss) for name in "ab")
    summary = merge(first, theirs)
    merge(second, ours)
    assert (summary.campaigns, summary.starts, summary.disagreeing) == (2, 8 + 9 + 4, 0)
    assert (summary.minima, summary.saddles) == (3, 1)  # those of K = 2; the others are known
    assert content(first) == content(second)
    assert first.done(make_campaign().id) == [(0, 25)]
    assert first.campaign(given().id).law.Q.shape == (4, 3, 3)


def test_merge_again_changes_nothing(two):
    ours, theirs = two
    merge(ours, theirs)
    before = versions(ours)
    assert merge(ours, theirs) == merging.MergeSummary()
    assert versions(ours) == before


def test_ids_and_labels_of_the_target_stay_and_those_of_the_source_are_kept_if_free(two):
    ours, theirs = two
    before = ours.minima(columns="minimum_id,label,loss").to_pylist()
    fill(theirs, make_campaign(students=2), (0, 3))
    merge(ours, theirs)
    landscape = make_campaign().landscape
    after = ours.minima(landscape=landscape.id, columns="minimum_id,label,loss").to_pylist()
    assert [row for row in after if row in before] == before
    added = theirs.minima(students=2, columns="minimum_id,label").to_pylist()
    assert ours.minima(students=2, columns="minimum_id,label").to_pylist() == added


def test_taken_names_are_given_anew_and_the_starts_follow(tmp_path):
    """Two minima whose losses agree in the digits of their ids, and are not the same."""
    campaign, losses = make_campaign(), (0.5, 0.5 + 4e-11)
    catalogues = [new_catalogue(tmp_path / name) for name in "ab"]
    for first, (atlas, loss) in enumerate(zip(catalogues, losses, strict=True)):
        atlas.register(campaign, 5, "cpu")
        atlas.commit_shard(
            make_result(campaign, first, first + 1, [make_point(campaign.landscape, loss)]), first, first + 1
        )
    one, other = (atlas.minima()["minimum_id"].to_pylist() for atlas in catalogues)
    assert one == other
    merge(*catalogues)
    rows = catalogues[0].minima(columns="minimum_id,label,loss,hits").to_pylist()
    assert [(row["loss"], row["hits"]) for row in rows] == [(losses[0], 1), (losses[1], 1)]
    assert len({row["minimum_id"] for row in rows}) == len({row["label"] for row in rows}) == 2
    assert rows[0]["minimum_id"] == one[0]


def test_starts_that_ended_elsewhere_are_counted_and_ours_stay(two):
    ours, theirs = two
    campaign = make_campaign(seed=1)
    theirs.register(campaign, 5, "cpu")
    theirs.commit_shard(make_result(campaign, 0, 3, [make_point(campaign.landscape, 0.9)]), 0, 3)
    summary = merge(ours, theirs)
    assert summary.disagreeing == 3
    assert summary.text_of_first == f"start 0 of {campaign.id}"
    assert ours.minima(campaign=campaign.id)["loss"].to_pylist() == [0.2, 0.5, 0.7]


def test_catalogue_is_not_merged_into_itself(two, tmp_path):
    (tmp_path / "link").symlink_to(two[0].store.address)
    with pytest.raises(InputError, match="into itself"):
        merge(two[0], Catalogue(tmp_path / "link"))


def test_starts_come_in_pieces_and_each_once(two, monkeypatch):
    monkeypatch.setattr(merging, "PIECE_BYTES", 1)
    monkeypatch.setattr(merging, "ROWS_AT_ONCE", 3)
    ours, theirs = two
    pieces = list(merging._pieces(theirs.store.dataset(theirs.store.open("starts")), given().id, _identity(theirs)))
    assert [len(piece) for piece in pieces] == [3, 1]
    merge(ours, theirs)
    assert ours.done(make_campaign().id) == [(0, 25)]


def _identity(atlas: Catalogue) -> merging.Names:
    named = {"minimum_id": atlas.minima(), "saddle_id": atlas.saddles()}
    return {column: {name: name for name in table["minimum_id"].to_pylist()} for column, table in named.items()}


KILLED = """
import os, sys
from tests.support.stand_ins import same_loss
from enumerator.catalogue.catalogue import Catalogue
from enumerator.upkeep.merge import merge
from enumerator.catalogue.store import Store
left, replace = int(sys.argv[3]), Store._replace
def counted(self, *arguments, **options):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    replace(self, *arguments, **options)
Store._replace = counted
merge(Catalogue(sys.argv[1], matcher=same_loss), Catalogue(sys.argv[2]))
"""


@pytest.mark.parametrize("commits", [1, 4, 7, 9])
def test_merge_that_was_killed_is_finished_by_the_next(two, tmp_path, commits):
    ours, theirs = two
    shutil.copytree(ours.store.address, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, ours.store.address, theirs.store.address, str(commits)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    orphans = "select * from starts where coalesce(minimum_id, saddle_id) not in "
    assert ours.sql(f"{orphans} (select minimum_id from (from minima union all from saddles))").num_rows == 0
    merge(ours, theirs)
    whole = Catalogue(tmp_path / "whole", matcher=same_loss)
    merge(whole, theirs)
    kept = content(ours)
    # A campaign that a merge had reopened when it was killed stays running until its next run.
    for found in (kept, expected := content(whole)):
        for row in found["campaigns"]:
            row.update(status=None, finished_at=None)
    assert kept == expected


def test_real_catalogues_that_overlap_merge_into_one_that_verifies(tmp_path):
    landscape = Landscape(6, 6)
    campaigns = [Campaign(landscape, law=InitialLaw(dimension=8), seed=seed) for seed in (0, 1)]
    one, other, whole = (Catalogue(tmp_path / name, create=True) for name in ("one", "other", "whole"))
    for atlas, campaign, first, last in (
        (one, campaigns[0], 0, 120), (other, campaigns[0], 80, 200), (other, campaigns[1], 0, 64),
        (whole, campaigns[0], 0, 200), (whole, campaigns[1], 0, 64),
    ):  # fmt: skip
        atlas.register(campaign, 64, "cpu")
        atlas.commit_shard(follow_shard(campaign, first, last), first, last)
    summary = merge(one, other)
    assert summary.disagreeing == 0
    for campaign in campaigns:
        one.finish(campaign.id)
        columns = "anti_aligned,hits,starts,label"
        assert one.minima(campaign=campaign.id, columns=columns) == whole.minima(campaign=campaign.id, columns=columns)
    assert verify(one, sample=3).num_rows == 0


# Deletion


def test_deleted_campaign_is_gone_and_the_rest_untouched(two):
    ours, theirs = two
    merge(ours, theirs)
    points = ours.minima(columns="minimum_id,label")
    others = [row for row in content(ours)["starts"] if row["campaign_id"] != given().id]
    assert delete(ours, given().id) == 4
    assert content(ours)["starts"] == others
    assert ours.sql("from initial_overlaps").num_rows == 0
    assert ours.minima(columns="minimum_id,label") == points
    with pytest.raises(InputError, match="no campaign"):
        delete(ours, given().id)
    assert ours.register(given(), 5, "cpu").starts == 0
    fill(ours, given(), (0, 4))
    assert ours.done(given().id) == [(0, 4)]
    assert ours.campaign(given().id).id == given().id


def test_run_of_a_deleted_campaign_cannot_bring_it_back(tmp_path):
    """A stale handle that wrote to it before, while the deletion is under way, and after."""
    campaign = make_campaign()
    atlas, runner = new_catalogue(tmp_path / "atlas"), new_catalogue(tmp_path / "atlas")
    fill(runner, campaign, (0, 5))
    atlas.campaign_table.begin_deletion(campaign.id)
    for write in (lambda: fill(runner, campaign, (5, 10)), lambda: runner.finish(campaign.id)):
        with pytest.raises(CatalogueError, match="is being deleted"):
            write()
    delete(atlas, campaign.id)
    with pytest.raises(InputError, match=r"no campaign .* register it first"):
        runner.commit_shard(make_result(campaign, 5, 10), 5, 10)
    assert runner.starts().num_rows == 0


def test_deletion_in_the_midst_of_a_commit_wins(tmp_path):
    """It comes after the writer has seen the campaign, and before it writes: at every turn."""
    campaign = make_campaign()
    atlas, runner = new_catalogue(tmp_path / "atlas"), new_catalogue(tmp_path / "atlas")
    runner.register(campaign, 5, "cpu")
    write = runner.store.append

    def interrupted(table, rows):
        if table.metadata().name == "starts":
            runner.store.append = write
            delete(atlas, campaign.id)
        write(table, rows)

    runner.store.append = interrupted
    with pytest.raises(InputError, match="register it first"):
        runner.commit_shard(make_result(campaign, 0, 5), 0, 5)
    assert atlas.sql("from starts").num_rows == 0


# Compaction


def test_compaction_joins_files_and_removes_old_ones_while_others_write(tmp_path):
    campaign = make_campaign()
    atlas, writer = new_catalogue(tmp_path / "atlas"), new_catalogue(tmp_path / "atlas")
    fill(writer, campaign, *((5 * k, 5 * k + 5) for k in range(12)))
    first = {file.path for file in atlas.store.files(atlas.store.open("starts"))}
    leftover = next((tmp_path / "atlas" / "starts").glob("campaign_id=*")) / "part-left.parquet"
    leftover.write_bytes(b"a writer died here")
    stop = threading.Event()

    def write():
        for k in range(12, 200):
            if stop.is_set():
                break
            fill(writer, campaign, (5 * k, 5 * k + 5))

    thread = threading.Thread(target=write)
    thread.start()
    reports = [compact(atlas) for _ in range(3)]
    stop.set()
    thread.join()
    ((_, stored),) = atlas.done(campaign.id)
    assert stored > 60
    assert atlas.starts(columns="start_index")["start_index"].to_pylist() == list(range(stored))
    # Files of the last week stay on the disk: nothing was deleted so far.
    assert all(row["files_after"] >= row["files_before"] for report in reports for row in report.to_pylist())
    # However many the writer has added since: those that were there are joined.
    assert len(first) == 12 and not first & {file.path for file in atlas.store.files(atlas.store.open("starts"))}
    starts = compact(atlas, timedelta(0)).to_pylist()[-1]
    assert starts["table"] == "starts"
    assert len(atlas.store.files(atlas.store.open("starts"))) == 1
    assert starts["bytes_after"] < starts["bytes_before"] / 2
    assert leftover.exists()  # a writer might be about to commit it
    long_ago = time.time() - 2 * 86400
    os.utime(leftover, (long_ago, long_ago))
    compact(atlas, timedelta(0))
    assert not leftover.exists()
    assert list(atlas.store.check_files()) == []
    assert Catalogue(tmp_path / "atlas").starts().num_rows == stored


# Bundles


def test_export_import_export_gives_the_same_bytes(two, tmp_path):
    ours, theirs = two
    merge(ours, theirs)
    rows = export(ours, tmp_path / "a.tar")
    assert rows == {name: ours.sql(f"from {name}").num_rows for name in TABLE_NAMES}
    empty = new_catalogue(tmp_path / "empty")
    import_bundle(empty, tmp_path / "a.tar")
    export(empty, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_bundle_of_a_campaign_has_what_it_needs_and_no_more(two, tmp_path):
    ours, theirs = two
    merge(ours, theirs)
    campaign = make_campaign(students=2, seed=2)
    rows = export(ours, tmp_path / "one.tar", campaigns=(campaign.id,))
    assert rows == {"landscapes": 1, "initial_overlaps": 0, "campaigns": 1, "minima": 3, "saddles": 1, "starts": 9}
    rows = export(ours, tmp_path / "two.tar", students=3)
    assert rows == {"landscapes": 1, "initial_overlaps": 4, "campaigns": 3, "minima": 3, "saddles": 1, "starts": 32}
    with pytest.raises(InputError, match="no campaign 'c-0' in this catalogue"):
        export(ours, tmp_path / "no.tar", campaigns=("c-0",))
    with pytest.raises(InputError, match="no landscape with students = 9"):
        export(ours, tmp_path / "no.tar", students=9)
    assert not (tmp_path / "no.tar").exists()


def test_bundle_is_read_without_this_software(two, tmp_path):
    export(two[0], tmp_path / "a.tar")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", out], check=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "CITATION.cff",
        "README.txt",
        "manifest.json",
        "schemas",
        "tables",
    ]
    assert pq.read_table(out / "tables" / "starts.parquet").num_rows == 20
    sums = subprocess.run(["sha256sum", out / "tables" / "starts.parquet"], capture_output=True, text=True).stdout
    assert sums.split()[0] in (out / "manifest.json").read_text()


def test_altered_bundle_is_refused_naming_the_member_and_nothing_written(two, tmp_path):
    export(two[0], tmp_path / "a.tar")
    whole = (tmp_path / "a.tar").read_bytes()
    empty = new_catalogue(tmp_path / "empty")
    with tarfile.open(tmp_path / "a.tar") as archive:
        entries = archive.getmembers()
    broken = tmp_path / "broken.tar"
    for entry in entries:
        if entry.name == "manifest.json":
            continue
        place = entry.offset_data + entry.size // 2
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=f"{entry.name} is not what was exported"):
            import_bundle(empty, broken)
    for length in (0, 100, 5000, len(whole) // 2):
        broken.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"broken\.tar"):
            import_bundle(empty, broken)
    assert versions(empty) == [0] * len(TABLE_NAMES)
