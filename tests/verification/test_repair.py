"""Repair: what follows from what is intact is put right, and the rest stays, reported; ids and labels never change."""

import numpy as np
import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.verification.repair import repair
from enumerator.verification.verify import verify
from tests.support.planting import (
    GIVEN,
    NEWTON,
    SIZES,
    catalogue_at,
    change,
    permuted,
    plant_another_end,
    point,
    rows_of,
    solved,
    swap,
)

TABLES = ("landscapes", "campaigns", "minima", "saddles", "starts")


def content(atlas, name):
    """The rows of a table, without times, floats to twelve digits: a repaired number may differ by its rounding."""

    def plain(value):
        if isinstance(value, float | np.ndarray):
            return np.round(value, 12).tolist()
        return value

    keep = [
        {key: plain(value) for key, value in row.items() if not key.endswith("_at")} for row in rows_of(atlas, name)
    ]
    return sorted(keep, key=repr)


def everything(atlas):
    return {name: content(atlas, name) for name in TABLES}


def run_again(atlas: Catalogue):
    """What the next run of every campaign does: solve what is missing."""
    for campaign, size in SIZES.items():
        atlas.register(campaign, size, "cpu")
        atlas.commit_shard(solved(campaign), 0, size)
        atlas.finish(campaign.id)


def planted(atlas, name, condition, values):
    change(atlas, name, lambda rows: [r | (values(r) if condition(r) else {}) for r in rows])


def spurious(row):
    return row["label"] == "relu.7.7.0232027"


DERIVABLE = {
    "the loss": lambda r: {"loss": r["loss"] + 1e-13},
    "the verdict": lambda r: {"verdict": "undecided", "verdict_above": "undecided"},
    "a verdict that moves it": lambda r: {"verdict": "saddle"},
    "the order": lambda r: {"anti_aligned": 5},
    "the orbit size": lambda r: {"orbit_size_log10": None},
    "the isotropy group": lambda r: {"isotropy": "S7"},
    "the spectrum": lambda r: {"hessian_spectrum": r["hessian_spectrum"][:-1], "hessian_min": -1.0},
    "the radius": lambda r: {"radius": 1.0},
    "two students exchanged in Q": lambda r: {"Q": swap(r["Q"], 7)},
    "two students exchanged in R": lambda r: {"R": swap(r["R"], 7)},
    "everything but Q and R": lambda r: {"students": 3, "gradient_norm": 1.0, "flat_dimension": 2, "loss": 0.5},
}


@pytest.mark.parametrize("values", DERIVABLE.values(), ids=DERIVABLE.keys())
def test_what_follows_from_the_overlaps_is_recomputed(atlas, values):
    before = everything(atlas)
    planted(atlas, "minima", spurious, values)
    found = repair(atlas, sample=0)
    assert found.num_rows
    assert all(found["repaired"].to_pylist())
    assert verify(atlas, sample=0).num_rows == 0
    assert everything(atlas) == before


def test_a_point_that_no_longer_is_one_stays_and_is_reported(atlas):
    planted(atlas, "minima", spurious, lambda r: {"R": r["R"] + 1e-3})
    broken = everything(atlas)
    found = repair(atlas, sample=0)
    assert ("gradient_norm", False) in zip(found["column"].to_pylist(), found["repaired"].to_pylist(), strict=True)
    assert not any(found["repaired"].to_pylist())
    # Nor are its starts thrown away: they may be all right.
    assert everything(atlas) == broken


def test_labels_stay_as_they_are(atlas):
    planted(atlas, "minima", spurious, lambda r: {"label": "relu.7.7.0232028"})
    found = repair(atlas, sample=0).to_pylist()
    assert [(row["column"], row["repaired"]) for row in found] == [("label", False)]


def test_a_point_in_the_wrong_table_moves_back(atlas):
    before = everything(atlas)
    row = point(atlas, "saddles")
    change(atlas, "saddles", lambda rows: [r for r in rows if r["minimum_id"] != row["minimum_id"]])
    change(atlas, "minima", lambda rows: [*rows, row])
    assert all(repair(atlas, sample=0)["repaired"].to_pylist())
    assert everything(atlas) == before


def test_the_older_of_two_rows_for_a_point_stays_and_takes_the_starts(atlas):
    before = everything(atlas)
    row = point(atlas)
    twin = permuted(atlas, row) | {"created_at": row["created_at"].replace(year=2100), "loss": row["loss"]}
    change(atlas, "minima", lambda rows: [*rows, twin])
    hits = [r["start_index"] for r in rows_of(atlas, "starts", NEWTON) if r["minimum_id"] == row["minimum_id"]]
    named = {"minimum_id": twin["minimum_id"]}
    change(atlas, "starts", lambda rows: [r | (named if r["start_index"] in hits[:4] else {}) for r in rows], NEWTON)
    found = repair(atlas, sample=0)
    assert "is the same point as another one" in found["what"].to_pylist()
    assert all(found["repaired"].to_pylist())
    assert everything(atlas) == before


def lost_starts(atlas):
    change(atlas, "starts", lambda rows: [r for r in rows if r["start_index"] not in (3, 199)], NEWTON)


def doubled_start(atlas):
    change(atlas, "starts", lambda rows: [*rows, rows[5]], NEWTON)


def disputed_start(atlas):
    planted = {"outcome": "unfinished", "minimum_id": None, "distance": None}
    change(atlas, "starts", lambda rows: [*rows, rows[5] | planted], NEWTON)


def missing_minimum(atlas):
    change(atlas, "minima", lambda rows: [r for r in rows if not spurious(r)])


def start_elsewhere(atlas):
    plant_another_end(atlas)


def wrong_start(atlas):
    change(atlas, "starts", lambda rows: [r | {"loss": -1.0} for r in rows[:2]] + rows[2:], NEWTON)


def wrong_count(atlas):
    planted(atlas, "campaigns", lambda r: r["starts"] == 200, lambda r: {"starts": 7})


def wrong_status(atlas):
    planted(atlas, "campaigns", lambda r: r["starts"] == 200, lambda r: {"status": "done"})


def changed_landscape(atlas):
    planted(atlas, "landscapes", lambda r: r["students"] == 7, lambda r: {"T": 2 * r["T"]})


def lost_landscape(atlas):
    change(atlas, "landscapes", lambda rows: [r for r in rows if r["students"] != 7])


def other_landscape_of_a_campaign(atlas):
    name = GIVEN.landscape.id
    planted(atlas, "campaigns", lambda r: r["starts"] == 200, lambda r: {"landscape_id": name})


def damaged(table):
    def damage(atlas):
        file = max((atlas.folder / table).rglob("*.parquet"), key=lambda path: path.stat().st_size)
        file.write_bytes(file.read_bytes()[:-100])

    damage.__name__ = f"damaged_file_of_{table}"
    return damage


def deleted_file_of_starts(atlas):
    max((atlas.folder / "starts").rglob("*.parquet"), key=lambda path: path.stat().st_size).unlink()


RUN_AGAIN = [
    lost_starts, doubled_start, disputed_start, missing_minimum, start_elsewhere, wrong_start, wrong_count,
    wrong_status, changed_landscape, lost_landscape, other_landscape_of_a_campaign, deleted_file_of_starts,
    damaged("minima"), damaged("saddles"), damaged("starts"), damaged("landscapes"),
]  # fmt: skip


@pytest.mark.parametrize("harm", RUN_AGAIN, ids=lambda harm: harm.__name__)
def test_after_repair_nothing_is_found_and_the_next_run_restores_everything(atlas, harm):
    before = everything(atlas)
    harm(atlas)
    # All starts are replayed only where nothing else can show what was planted.
    sample = 1000 if harm is start_elsewhere else 0
    atlas = catalogue_at(atlas.folder)
    found = repair(atlas, sample=sample)
    assert found.num_rows
    assert all(found["repaired"].to_pylist())
    assert verify(atlas, sample=sample).to_pylist() == []
    run_again(atlas)
    assert verify(atlas, sample=sample).to_pylist() == []
    assert everything(atlas) == before


def test_what_only_a_lost_campaign_could_tell_is_kept(atlas):
    change(atlas, "campaigns", lambda rows: [r for r in rows if r["campaign_id"] != GIVEN.id])
    broken = everything(atlas)
    found = repair(atlas, sample=0).to_pylist()
    assert {(row["column"], row["repaired"]) for row in found} == {("campaign_id", False)}
    assert everything(atlas) == broken
