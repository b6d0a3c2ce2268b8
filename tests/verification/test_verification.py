"""Verification finds each planted corruption, by table, id and column, and nothing in a clean catalogue."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from enumerator.catalogue.records import to_table
from enumerator.errors import CatalogueError
from enumerator.verification.recompute import group_order
from enumerator.verification.repair import repair
from enumerator.verification.verify import verify
from tests.support.planting import (
    FLOW,
    GIVEN,
    NEWTON,
    catalogue_at,
    change,
    permuted,
    plant_another_end,
    point,
    rows_of,
    swap,
)


def places(found: pa.Table) -> set[tuple[str, str, str]]:
    """Table, id and column of each disagreement."""
    return {(row["table"], row["id"], row["column"]) for row in found.to_pylist()}


def test_nothing_is_found_in_a_clean_catalogue(built):
    atlas = catalogue_at(built)
    outcomes = set(atlas.starts()["outcome"].to_pylist())
    assert outcomes == {"converged", "saddle", "unfinished"}
    assert verify(atlas, sample=10).to_pylist() == []
    assert repair(atlas, sample=2).num_rows == 0


# What is planted into a row of a spurious minimum; then the columns in which it must be found.
POINTS = {
    "the loss, in its 12th digit": (lambda row: {"loss": row["loss"] + 1e-13}, {"loss"}),
    "the verdict": (lambda row: {"verdict": "undecided"}, {"verdict"}),
    "the verdict above": (lambda row: {"verdict_above": "undecided"}, {"verdict_above"}),
    "the order": (lambda row: {"anti_aligned": row["anti_aligned"] + 1}, {"anti_aligned"}),
    "the label": (lambda row: {"label": "relu.7.7.0232028"}, {"label"}),
    "the orbit size": (lambda row: {"orbit_size_log10": row["orbit_size_log10"] + 0.3}, {"orbit_size_log10"}),
    "the isotropy group": (lambda row: {"isotropy": "S7"}, {"isotropy"}),
    "an eigenvalue": (lambda row: {"hessian_spectrum": row["hessian_spectrum"] + np.eye(49)[7] * 1e-10},
                      {"hessian_spectrum"}),
    "an eigenvalue across": (lambda row: {"perpendicular_spectrum": row["perpendicular_spectrum"] * (1 + 1e-9)},
                             {"perpendicular_spectrum"}),
    "the smallest eigenvalue": (lambda row: {"hessian_min": row["hessian_min"] * (1 + 1e-8)}, {"hessian_min"}),
    "the splitting": (lambda row: {"splitting_min": None}, {"splitting_min"}),
    "the flat directions": (lambda row: {"flat_dimension": 1}, {"flat_dimension"}),
    "the radius, too large": (lambda row: {"radius": 2 * row["radius"]}, {"radius"}),
    "the gradient": (lambda row: {"gradient_norm": 1e-8}, {"gradient_norm"}),
    "two students exchanged in Q": (lambda row: {"Q": swap(row["Q"], 7)}, {"Q"}),
    "two students exchanged": (lambda row: {"Q": swap(swap(row["Q"], 7).reshape(7, 7).T, 7), "R": swap(row["R"], 7)},
                               {"R"}),
    "two students exchanged in R": (lambda row: {"R": swap(row["R"], 7)}, {"Q"}),
    "the number of students": (lambda row: {"students": 8}, {"students"}),
    "a loss that is no number": (lambda row: {"loss": np.nan}, {"loss"}),
    "an eigenvalue that is none": (lambda row: {"hessian_spectrum": row["hessian_spectrum"] + np.inf},
                                   {"hessian_spectrum"}),
    "a label that a terminal obeys": (lambda row: {"label": "\x1b[2J"}, {"label"}),
    "an overlap": (lambda row: {"R": row["R"] + np.eye(49)[3] * 1e-7}, {"gradient_norm"}),
}  # fmt: skip


@pytest.mark.parametrize(("planted", "columns"), POINTS.values(), ids=POINTS.keys())
def test_a_wrong_minimum_is_found(atlas, planted, columns):
    row = point(atlas)
    change(atlas, "minima", lambda rows: [r | (planted(r) if r["label"] == row["label"] else {}) for r in rows])
    found = places(verify(atlas, sample=0))
    # An overlap has consequences all over its row; they stay in the row, and in the starts that end there.
    assert {("minima", row["minimum_id"], column) for column in columns} <= found
    assert {(table, name) for table, name, _ in found if table != "starts"} == {("minima", row["minimum_id"])}


def test_a_permuted_copy_of_a_minimum_is_found(atlas):
    row = point(atlas)
    change(atlas, "minima", lambda rows: [*rows, permuted(atlas, row)])
    found = verify(atlas, sample=0).to_pylist()
    twins = [entry for entry in found if entry["what"] == "is the same point as another one"]
    assert [{entry["id"], entry["computed"]} for entry in twins] == [{row["minimum_id"], "m-0123456789abcdef"}]


def test_a_missing_minimum_is_found_in_every_start_that_names_it(atlas):
    row = point(atlas)
    change(atlas, "minima", lambda rows: [r for r in rows if r["minimum_id"] != row["minimum_id"]])
    hits = [r for r in rows_of(atlas, "starts") if r["minimum_id"] == row["minimum_id"]]
    wanted = {("starts", f"{r['campaign_id']}/{r['start_index']}", "minimum_id") for r in hits}
    assert len(wanted) > 1
    assert places(verify(atlas, sample=0)) == wanted


def test_a_saddle_among_the_minima_is_found(atlas):
    row = point(atlas, "saddles")
    change(atlas, "saddles", lambda rows: [r for r in rows if r["minimum_id"] != row["minimum_id"]])
    change(atlas, "minima", lambda rows: [*rows, row])
    found = places(verify(atlas, sample=0))
    assert ("minima", row["minimum_id"], "verdict") in found
    assert {table for table, *_ in found} == {"minima", "starts"}


def test_a_minimum_stored_twice_is_found(atlas):
    row = point(atlas)
    change(atlas, "minima", lambda rows: [*rows, row])
    assert ("minima", row["minimum_id"], "minimum_id") in places(verify(atlas, sample=0))


def start(atlas, index, campaign=NEWTON):
    return next(r for r in rows_of(atlas, "starts", campaign) if r["start_index"] == index)


def spurious_start(atlas):
    name = point(atlas)["minimum_id"]
    return next(r for r in rows_of(atlas, "starts", NEWTON) if r["minimum_id"] == name)


def test_a_doubled_start_is_found(atlas):
    change(atlas, "starts", lambda rows: [*rows, rows[5]], NEWTON)
    index = rows_of(atlas, "starts", NEWTON)[5]["start_index"]
    assert places(verify(atlas, sample=0)) == {("starts", f"{NEWTON.id}/{index}", "start_index")}


@pytest.mark.parametrize("lost", [3, 199], ids=["in between", "the last"])
def test_a_lost_start_of_a_complete_campaign_is_found(atlas, lost):
    change(atlas, "starts", lambda rows: [r for r in rows if r["start_index"] != lost], NEWTON)
    assert places(verify(atlas, sample=0)) == {("campaigns", NEWTON.id, "starts")}


def test_starts_lost_without_a_change_of_their_number_are_found(atlas):
    change(atlas, "starts", lambda rows: [r for r in rows if r["start_index"] != 3], NEWTON)
    change(atlas, "campaigns", lambda rows: [r | ({"starts": 199} if r["starts"] == 200 else {}) for r in rows])
    assert places(verify(atlas, sample=0)) == {("campaigns", NEWTON.id, "starts")}


# What is planted into a start that converged to the spurious minimum; then the columns in which it must be found.
STARTS = {
    "the loss, below that of its minimum": (lambda row: {"loss": row["loss"] - 1e-9}, {"loss"}),
    "the loss, lost": (lambda row: {"loss": None}, {"loss"}),
    "the distance": (lambda row: {"distance": 0.5}, {"distance"}),
    "the gradient": (lambda row: {"gradient_norm": 1.0}, {"gradient_norm"}),
    "the outcome": (lambda row: {"outcome": "unfinished"}, {"minimum_id", "Q"}),
    "the landscape": (lambda row: {"landscape_id": "ls-0123456789abcdef"}, {"landscape_id"}),
    "the number of evaluations": (lambda row: {"evaluations": 0}, {"evaluations"}),
    "a flow time where there is none": (lambda row: {"flow_time": 3.0}, {"flow_time"}),
}  # fmt: skip


@pytest.mark.parametrize(("planted", "columns"), STARTS.values(), ids=STARTS.keys())
def test_a_wrong_start_is_found(atlas, planted, columns):
    index = spurious_start(atlas)["start_index"]
    change(atlas, "starts", lambda rows: [r | (planted(r) if r["start_index"] == index else {}) for r in rows], NEWTON)
    assert places(verify(atlas, sample=0)) == {("starts", f"{NEWTON.id}/{index}", column) for column in columns}


def test_a_start_that_names_another_minimum_is_found_by_its_loss(atlas):
    one, other = (next(r for r in rows_of(atlas, "minima") if (r["loss"] > 1e-3) == w and r["students"] == 7)
                  for w in (True, False))  # fmt: skip
    index = spurious_start(atlas)["start_index"]
    named = {one["minimum_id"]: other["minimum_id"]}
    change(
        atlas,
        "starts",
        lambda rows: [r | ({"minimum_id": named[r["minimum_id"]]} if r["start_index"] == index else {}) for r in rows],
        NEWTON,
    )
    assert ("starts", f"{NEWTON.id}/{index}", "loss") in places(verify(atlas, sample=0))


def test_a_start_moved_to_another_minimum_without_a_trace_is_found_when_replayed(atlas):
    index = plant_another_end(atlas)
    assert verify(atlas, sample=0).to_pylist() == []
    # All are replayed: the sample is larger than the campaign.
    assert places(verify(atlas, sample=1000)) == {("starts", f"{NEWTON.id}/{index}", "minimum_id")}


def test_a_wrong_overlap_of_an_unfinished_start_is_found(atlas):
    rows = rows_of(atlas, "starts", FLOW)
    index = next(row["start_index"] for row in rows if row["outcome"] == "unfinished")
    change(
        atlas,
        "starts",
        lambda rows: [r | ({"Q": r["Q"] * (1 + 1e-6)} if r["start_index"] == index else {}) for r in rows],
        FLOW,
    )
    assert places(verify(atlas, sample=0)) == {("starts", f"{FLOW.id}/{index}", "loss")}


def test_a_changed_landscape_is_found(atlas):
    name = NEWTON.landscape.id
    change(atlas, "landscapes", lambda rows: [r | {"T": r["T"] * (1 + (r["landscape_id"] == name))} for r in rows])
    found = places(verify(atlas, sample=5))
    assert ("landscapes", name, "T") in found
    assert {table for table, *_ in found} == {"landscapes"}


def test_changed_settings_of_a_campaign_are_found(atlas):
    def later_seed(row):
        settings = json.loads(row["campaign"]) | {"seed": 1}
        return {"campaign": json.dumps(settings, sort_keys=True)} if row["campaign_id"] == NEWTON.id else {}

    change(atlas, "campaigns", lambda rows: [r | later_seed(r) for r in rows])
    assert places(verify(atlas, sample=0)) == {("campaigns", NEWTON.id, "campaign")}


def test_a_changed_given_start_is_found(atlas):
    change(atlas, "initial_overlaps", lambda rows: [r | {"Q": 2 * r["Q"]} for r in rows], GIVEN)
    assert places(verify(atlas, sample=0)) == {("campaigns", GIVEN.id, "campaign")}


def test_a_lost_campaign_is_found(atlas):
    change(atlas, "campaigns", lambda rows: [r for r in rows if r["campaign_id"] != GIVEN.id])
    assert places(verify(atlas, sample=0)) == {("starts", f"{GIVEN.id}/{k}", "campaign_id") for k in range(3)}


def test_symmetries_are_counted_by_a_search_of_its_own(atlas):
    """Against the sizes of the groups, known from their names; two equal pairs of teachers leave 2 x 2 of 24."""
    orders = {"S7": 5040, "S6 x S1": 720, "S4": 24}
    rows = [*rows_of(atlas, "minima"), *rows_of(atlas, "saddles")]
    for row in rows:
        K, M = row["effective_students"], row["teachers"]
        group = group_order(row["Q"].reshape(K, K), row["R"].reshape(K, M), np.eye(M), 1e-7)
        # The students of a saddle are equal, and merged: one student has no group of its own.
        assert group == orders[row["isotropy"]]
    assert group_order(np.zeros((0, 0)), np.zeros((0, 4)), np.diag([1.0, 1.0, 2.0, 2.0]), 1e-7) == 4


@pytest.mark.parametrize("table", ["minima", "starts", "landscapes"])
def test_a_flipped_bit_in_a_data_file_is_found_and_the_file_named(atlas, built, table):
    file = max((atlas.folder / table).rglob("*.parquet"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    found = verify(catalogue_at(atlas.folder), sample=3).to_pylist()
    assert [(row["table"], row["id"]) for row in found] == [(table, str(file.relative_to(atlas.folder / table)))]
    assert "not what was written" in found[0]["what"]


def test_a_table_written_by_other_software_is_refused(atlas):
    rows = to_table("minima", rows_of(atlas, "minima"))
    write_deltalake(str(atlas.folder / "minima"), rows, mode="overwrite")
    with pytest.raises(CatalogueError, match=r"minima: its log .* was altered"):
        verify(catalogue_at(atlas.folder))


def test_the_share_done_is_told_and_rises(built):
    told = []
    verify(catalogue_at(built), sample=2, progress=lambda part, done, total: told.append((part, done / total)))
    parts = list(dict.fromkeys(part for part, _ in told))
    assert parts == ["files", "minima", "saddles", "separation", "campaigns", "starts", "replays"]
    for part in parts:
        shares = [share for name, share in told if name == part]
        assert all(0 <= a <= b <= 1 for a, b in pairwise([*shares, 1.0]))
