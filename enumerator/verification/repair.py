"""Repair of what verification found wrong, as far as it follows from what is intact.

A damaged file is dropped with its rows. A landscape is rebuilt from a campaign on it, a point from its
Q, R and T, and accepted only if verification agrees. A start that cannot be right is removed, and its
campaign set to running, so that the next run solves it again. Of two rows for one point the older one
stays. Ids and labels never change; what does not follow from anything stays as it is, and is reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from enumerator.catalogue import records
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.renewal import drop_file, renew
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import EnumeratorError
from enumerator.minima.distinct import canonical
from enumerator.minima.stability import examine
from enumerator.points import SADDLE, Student
from enumerator.problem import Landscape, Tolerances
from enumerator.storage.sql import quoted, run
from enumerator.verification.check_points import Disagreement, check_point
from enumerator.verification.check_starts import OVERLAPS, REPLAYED, doubled_starts, start_of, wrong_starts
from enumerator.verification.verify import (
    SAME_POINT,
    Progress,
    disagreements_table,
    find_disagreements,
    shows_its_loss,
)

# A damaged file hides what needs its rows: it takes a second round to mend that, and a third to see
# that nothing follows from it.
ROUNDS = 4

POINT_TABLES = ("minima", "saddles")
Rows = list[dict[str, Any]]


def repair(catalogue: Catalogue, sample: int = 20, seed: int = 0, progress: Progress | None = None) -> pa.Table:
    """Verify, and repair what can be: every disagreement met, as `verify` has them, and whether it is `repaired`.

    It is if verification, afterwards, no longer finds it. Other processes may write meanwhile.
    """
    left = find_disagreements(catalogue, sample, seed, progress)
    met = dict.fromkeys(left)
    for _ in range(ROUNDS):
        if not left:
            break
        _repair(catalogue, left)
        before, left = left, find_disagreements(catalogue, sample, seed, progress)
        met |= dict.fromkeys(left)
        if left == before:
            break
    places = {entry[:3] for entry in left}
    flags = pa.array([entry[:3] not in places for entry in met], pa.bool_())
    table = disagreements_table(list(met))
    return table.append_column(pa.field("repaired", pa.bool_(), nullable=False), flags)


def _repair(catalogue: Catalogue, found: list[Disagreement]) -> None:
    """One round. Points come before the starts that name them, and starts before they are counted."""
    snapshot = catalogue.readable()
    if snapshot.damaged:
        for name, file, _ in snapshot.damaged:
            drop_file(catalogue.store, name, file)
        return  # what the files held shows in the next round
    _mend_landscapes(catalogue, snapshot)
    _mend_campaigns(catalogue)
    landscapes = _landscapes(catalogue)
    unsound = {
        name for table in POINT_TABLES for name in _mend_points(catalogue, table, landscapes, _ids(found, table))
    }
    for entry in found:
        if entry.what == SAME_POINT:
            _join_points(catalogue, entry.table, entry.id, entry.computed)
    wrong = _wrong_starts(catalogue, found, landscapes, unsound)
    uncounted = {entry.id for entry in found if entry.table == "campaigns" and entry.column in ("starts", "status")}
    for campaign_id in sorted(wrong.keys() | uncounted):
        if campaign_id in wrong:
            _remove_starts(catalogue, campaign_id, wrong[campaign_id])
        catalogue.finish(campaign_id, "running")


def _ids(found: list[Disagreement], table: str) -> set[str]:
    return {entry.id for entry in found if entry.table == table}


def _rows(catalogue: Catalogue, name: str) -> list[dict[str, Any]]:
    return catalogue.snapshot({name}).rows(f"select * from {name}")


# Landscapes, campaigns


def _mend_landscapes(catalogue: Catalogue, snapshot: Snapshot) -> None:
    """Each landscape once, as its id says; one that does not say so, or is missing, from the campaigns on it."""
    settings = snapshot.query(
        "select campaign_id, landscape_id, campaign, created_at from campaigns order by created_at"
    ).to_pylist()
    wanted = {row["landscape_id"]: found for row in settings if (found := _landscape_of(row)) is not None}

    def mended(rows: Rows) -> Rows:
        kept: dict[str, dict[str, Any]] = {}
        for row in rows:
            kept.setdefault(row["landscape_id"], _mended_landscape(row, wanted.get(row["landscape_id"])))
        for row in settings:
            name = row["landscape_id"]
            if name not in kept and name in wanted:
                kept[name] = records.landscape_row(wanted[name], row["created_at"])
        return list(kept.values())

    renew(catalogue.store, "landscapes", mended)


def _landscape_of(row: dict[str, Any]) -> Landscape | None:
    """The landscape that the settings of a campaign give, if it is the one that its row names."""
    try:
        landscape = Landscape.from_dict(records.settings_of(row["campaign_id"], row["campaign"])["landscape"])
    except (EnumeratorError, KeyError, TypeError, ValueError):
        return None
    return landscape if landscape.id == row["landscape_id"] else None


def _mended_landscape(row: dict[str, Any], wanted: Landscape | None) -> dict[str, Any]:
    try:
        wanted = records.landscape_from_row(row)
        if wanted.teacher_rank == row["teacher_rank"]:
            return row
    except (EnumeratorError, ValueError, TypeError):
        if wanted is None:
            return row
    return records.landscape_row(wanted, row["created_at"])


def _mend_campaigns(catalogue: Catalogue) -> None:
    """Each campaign once, on the landscape of its settings."""

    def mended(rows: Rows) -> Rows:
        kept: dict[str, dict[str, Any]] = {}
        for row in rows:
            kept.setdefault(row["campaign_id"], _mended_campaign(catalogue, row))
        return list(kept.values())

    renew(catalogue.store, "campaigns", mended)


def _mended_campaign(catalogue: Catalogue, row: dict[str, Any]) -> dict[str, Any]:
    try:
        landscape_id = catalogue.campaign(row["campaign_id"]).landscape.id
    except (EnumeratorError, KeyError, TypeError, ValueError):
        return row
    return row if landscape_id == row["landscape_id"] else row | {"landscape_id": landscape_id}


def _landscapes(catalogue: Catalogue) -> dict[str, Landscape]:
    """The landscapes whose rows give their ids."""
    found = {}
    for row in _rows(catalogue, "landscapes"):
        try:
            found[row["landscape_id"]] = records.landscape_from_row(row)
        except (EnumeratorError, ValueError, TypeError):
            continue
    return found


# Stationary points


def _mend_points(catalogue: Catalogue, name: str, landscapes: dict[str, Landscape], ids: set[str]) -> set[str]:
    """Recompute the rows of these ids; move them into their table, and leave one of each. Those that stay unsound."""
    other = POINT_TABLES[1 - POINT_TABLES.index(name)]
    tolerances: dict[str, Tolerances] = {}
    unsound: set[str] = set()

    def mended(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["minimum_id"] not in ids:
            return row
        campaign = row["first_campaign_id"]
        if campaign not in tolerances:
            tolerances[campaign] = _tolerances(catalogue, campaign)
        return _mended_point(row, landscapes.get(row["landscape_id"]), tolerances[campaign])

    def all_mended(rows: Rows) -> Rows:
        unsound.clear()
        kept: Rows = []
        moved: Rows = []
        seen: set[str] = set()
        for row in rows:
            new = mended(row)
            if new is None:
                unsound.add(row["minimum_id"])
                kept.append(row)
            elif (new["verdict"] == SADDLE) != (name == "saddles"):
                moved.append(new)
            elif new["minimum_id"] not in seen:
                seen.add(new["minimum_id"])
                kept.append(new)
        if moved:
            catalogue.point_tables[other].add(moved)
        return kept

    if ids:
        renew(catalogue.store, name, all_mended)
    return unsound


def _tolerances(catalogue: Catalogue, campaign_id: str) -> Tolerances:
    try:
        return catalogue.campaign(campaign_id).tolerances
    except (EnumeratorError, KeyError, TypeError, ValueError):
        return Tolerances()


def _mended_point(row: dict[str, Any], landscape: Landscape | None, tolerances: Tolerances) -> dict[str, Any] | None:
    """The row recomputed from the students that its R gives; None unless verification agrees with all of it.

    Id and label are those of the row: they must show the loss, and the kind of point, that come out.
    """
    if landscape is None or not row["R"].size or row["R"].size % landscape.teachers:
        return None
    R, signs = row["R"].reshape(-1, landscape.teachers), row["second_layer_weights"]
    W = R @ np.linalg.pinv(landscape.teacher_factor).T
    try:
        new = row | records.point_columns(canonical(examine(Student(landscape, W, signs), tolerances)))
        name = "saddles" if new["verdict"] == SADDLE else "minima"
        point = records.point_from_row(new, landscape)
        wrong = [*check_point(name, new, point, landscape, tolerances, np.random.default_rng(0), precise=True)]
    except (EnumeratorError, ValueError, TypeError, np.linalg.LinAlgError):
        return None
    sound = not wrong and new["minimum_id"].startswith(name[0] + "-") and shows_its_loss(new, landscape, name)
    return new if sound else None


def _join_points(catalogue: Catalogue, name: str, one: str, other: str) -> None:
    """Let the starts of the younger of two rows for one point name the older one, then remove the younger."""
    rows = {row["minimum_id"]: row for row in _rows(catalogue, name)}
    if one not in rows or other not in rows:
        return  # in two tables: one of them is unsound
    older, younger = sorted((one, other), key=lambda key: (rows[key]["created_at"], rows[key]["label"]))
    column = "saddle_id" if name == "saddles" else "minimum_id"
    condition = f"{column} = {quoted(younger)}"
    renamed = f"select * replace (case when {condition} then {quoted(older)} else {column} end as {column}) from starts"
    found = catalogue.sql(f"select distinct campaign_id from starts where {condition} order by all")
    for campaign_id in found["campaign_id"].to_pylist():
        catalogue.start_table.change(campaign_id, lambda starts: run(renamed, {"starts": starts}).cast(starts.schema))
    renew(catalogue.store, name, lambda rows: [row for row in rows if row["minimum_id"] != younger])


# Starts


def _wrong_starts(
    catalogue: Catalogue, found: list[Disagreement], landscapes: dict[str, Landscape], unsound: set[str]
) -> dict[str, set[int]]:
    """By campaign, the starts to be solved again; none, if some are only stored more than once.

    Only where campaign, landscape and point are sound: a start cannot be judged by what is wrong itself.
    """
    snapshot = catalogue.readable()
    wrong: dict[str, set[int]] = {name: set() for name, _, _ in doubled_starts(snapshot)}
    table = wrong_starts(snapshot)
    named = zip(*(table[column].to_pylist() for column in ("campaign", "index", "point")), strict=True)
    starts = [(name, index) for name, index, point in named if point not in unsound]
    # Replayed, or judged by its overlaps, which no query tells.
    starts += [start_of(entry.id) for entry in found if entry.what in (REPLAYED, OVERLAPS)]
    for name, index in starts:
        wrong.setdefault(name, set()).add(index)
    return {name: indices for name, indices in wrong.items() if _is_sound(catalogue, name, landscapes)}


def _is_sound(catalogue: Catalogue, campaign_id: str, landscapes: dict[str, Landscape]) -> bool:
    try:
        return catalogue.campaign(campaign_id).landscape.id in landscapes
    except (EnumeratorError, KeyError, TypeError, ValueError):
        return False


def _remove_starts(catalogue: Catalogue, campaign_id: str, wrong: set[int]) -> None:
    """Remove these starts, and of those stored more than once all copies but one, or all where they disagree."""

    def remove(starts: pa.Table) -> pa.Table:
        index = starts["start_index"].to_numpy()
        _, first, inverse, copies = np.unique(index, return_index=True, return_inverse=True, return_counts=True)
        ends: dict[int, set[tuple]] = {}
        for row in starts.take(np.flatnonzero(copies[inverse] > 1)).to_pylist():
            ends.setdefault(row["start_index"], set()).add((row["outcome"], row["minimum_id"], row["saddle_id"]))
        disputed = {number for number, found in ends.items() if len(found) > 1}
        keep = np.zeros(len(index), bool)
        keep[first] = True
        return starts.filter(pa.array(keep & ~np.isin(index, list(wrong | disputed))))

    catalogue.start_table.change(campaign_id, remove)
