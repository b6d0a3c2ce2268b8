"""Recompute and check everything that a catalogue holds; report every disagreement as a row of a table.

Stationary points are recomputed from Q, R and T (`point_checks`), told apart from one another, and
the starts are counted, joined and run again (`start_checks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from enumerator.catalogue import records
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.labels import possible_labels
from enumerator.catalogue.row_checks import check_values
from enumerator.catalogue.schema import table_schema
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import EnumeratorError
from enumerator.minima.distinct import DIFFERENT, is_same, loss_gap
from enumerator.points import StationaryPoint
from enumerator.problem import Landscape, Tolerances
from enumerator.process_checks import check_jax
from enumerator.verification.check_points import LOSS, Disagreement, check_point, wrong
from enumerator.verification.check_starts import Points, check_campaigns, check_kept, check_replays, check_starts

SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in Disagreement._fields])
# What is wrong with the younger, or the other, of two rows for one point.
SAME_POINT = "is the same point as another one"
# Told the part that is being checked, and how many of how many things in it are.
Progress = Callable[[str, int, int], None]


def verify(catalogue: Catalogue, sample: int = 20, seed: int = 0, progress: Progress | None = None) -> pa.Table:
    """Every disagreement in the catalogue, a table of `SCHEMA`: empty if all is well.

    `sample` points of each table are checked in 50 digits besides, and as many starts are run again.
    What a damaged file held, and what needs it, is not checked; the file is reported.
    """
    return disagreements_table(find_disagreements(catalogue, sample, seed, progress))


def disagreements_table(found: list[Disagreement]) -> pa.Table:
    """As a table of `SCHEMA`."""
    columns = [[entry[k] for entry in found] for k in range(len(SCHEMA))]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)


def find_disagreements(
    catalogue: Catalogue, sample: int = 20, seed: int = 0, progress: Progress | None = None
) -> list[Disagreement]:
    """`verify`, before its result is made a table."""
    check_jax()
    tell = progress or (lambda part, done, total: None)
    rng = np.random.default_rng(seed)
    tell("files", 0, 1)
    snapshot = catalogue.readable()
    found = [Disagreement(table, file, "", "", "", problem) for table, file, problem in snapshot.damaged]
    landscapes = dict(_landscapes(snapshot, found))
    tolerances = dict(_tolerances(catalogue, snapshot))
    points: Points = {name: {} for name, landscape in landscapes.items() if landscape is not None}
    tables = {}
    for name in ("minima", "saddles"):
        tables[name] = rows = list(_readable(name, snapshot, found))
        precise = set(rng.choice(len(rows), min(sample, len(rows)), replace=False).tolist())
        for position, row in enumerate(rows):
            tell(name, position, len(rows))
            landscape = landscapes.get(row["landscape_id"])
            if landscape is None:
                if snapshot.is_whole("landscapes") and row["landscape_id"] not in landscapes:
                    found.append(wrong(name, row, "landscape_id", row["landscape_id"], "", "names no landscape"))
                continue
            limits = tolerances.get(row["first_campaign_id"], Tolerances())
            point = _checked(name, row, landscape, limits, rng, position in precise, found)
            if point is not None:
                points[landscape.id][row["minimum_id"]] = point
    found += _check_names(tables, landscapes)
    for done, entries in enumerate(points.values()):
        tell("separation", done, len(points))
        found += [
            Disagreement(_table_of(name), name, "minimum_id", name, twin, SAME_POINT)
            for name, twin in same_points(entries)
        ]
    tell("campaigns", 0, 1)
    found += check_campaigns(catalogue, snapshot)
    tell("starts", 0, 1)
    found += check_starts(snapshot)
    read = {name: landscape for name, landscape in landscapes.items() if landscape is not None}
    found += check_kept(snapshot, read, rng)
    found += check_replays(catalogue, snapshot, points, sample, rng, lambda *done: tell("replays", *done))
    return found


def _checked(
    name: str,
    row: dict[str, Any],
    landscape: Landscape,
    tolerances: Tolerances,
    rng: np.random.Generator,
    precise: bool,
    found: list[Disagreement],
) -> StationaryPoint | None:
    """The point of a row, with its disagreements added to `found`; None if it cannot be read."""
    try:
        point = records.point_from_row(row, landscape)
        found += check_point(name, row, point, landscape, tolerances, rng, precise)
    except (ValueError, TypeError, np.linalg.LinAlgError) as error:
        found.append(wrong(name, row, "Q", "", "", f"cannot be read: {error}"))
        return None
    return point


def _landscapes(snapshot: Snapshot, found: list[Disagreement]) -> Iterator[tuple[str, Landscape | None]]:
    """Each landscape by its id; None, and a disagreement, for one that cannot be rebuilt."""
    seen = set()
    for row in snapshot.rows("select * from landscapes"):
        identity = row["landscape_id"]
        if identity in seen:
            found.append(Disagreement("landscapes", identity, "landscape_id", identity, "", "is there twice"))
        seen.add(identity)
        try:
            landscape = records.landscape_from_row(row)
        except (EnumeratorError, ValueError, TypeError) as error:
            found.append(Disagreement("landscapes", identity, "T", "", "", str(error)))
            yield identity, None
            continue
        values = np.linalg.eigvalsh(landscape.T / landscape.overlap_scale)
        # The rank counts pivots above 1e-10, which eigenvalues near that may lie on either side of.
        least, most = int((values > 1e-8).sum()), int((values > 1e-13).sum())
        rank = landscape.teacher_rank
        if row["teacher_rank"] != rank or not least <= rank <= most:
            stored, computed = str(row["teacher_rank"]), f"{rank}, by eigenvalues {least} to {most}"
            found.append(Disagreement("landscapes", identity, "teacher_rank", stored, computed, "the rank of T"))
        yield identity, landscape


def _readable(name: str, snapshot: Snapshot, found: list[Disagreement]) -> Iterator[dict[str, Any]]:
    """The points of a table; those with a value that its column does not allow are disagreements, and nothing else."""
    table = snapshot.query(f"select * from {name}").cast(table_schema(name).arrow)
    problems = list(check_values(name, table))
    for problem in problems:
        identity = table["minimum_id"][problem.position].as_py()
        found.append(Disagreement(name, identity, problem.column, problem.value, "", f"is not {problem.expected}"))
    refused = {problem.position for problem in problems}
    yield from (row for position, row in enumerate(records.from_table(table)) if position not in refused)


def _tolerances(catalogue: Catalogue, snapshot: Snapshot) -> Iterator[tuple[str, Tolerances]]:
    """The tolerances of each campaign whose settings can be read: the others are reported with the campaigns."""
    for name in snapshot.query("select campaign_id from campaigns")["campaign_id"].to_pylist():
        try:
            yield name, catalogue.campaign(name).tolerances
        except (EnumeratorError, KeyError, TypeError, ValueError):
            continue


def _table_of(minimum_id: str) -> str:
    return "saddles" if minimum_id.startswith("s-") else "minima"


def _check_names(
    tables: dict[str, list[dict[str, Any]]], landscapes: dict[str, Landscape | None]
) -> Iterator[Disagreement]:
    """Ids and labels are unique, and a label shows its landscape and loss."""
    for column in ("minimum_id", "label"):
        seen: set[str] = set()
        for name, rows in tables.items():
            for row in rows:
                if row[column] in seen:
                    yield wrong(name, row, column, row[column], "", "is there twice")
                seen.add(row[column])
    for name, rows in tables.items():
        prefix = "s-" if name == "saddles" else "m-"
        for row in rows:
            if not row["minimum_id"].startswith(prefix):
                yield wrong(name, row, "minimum_id", row["minimum_id"], prefix, "is the name of another kind of point")
            landscape = landscapes.get(row["landscape_id"])
            if landscape is not None and not shows_its_loss(row, landscape, name):
                (shown, *_) = possible_labels(landscape, row["loss"], name == "saddles")
                yield wrong(name, row, "label", row["label"], shown, "does not show its landscape and loss")


def shows_its_loss(row: dict[str, Any], landscape: Landscape, name: str) -> bool:
    """Whether the label of a row of table `name` is one that its loss, up to rounding, may have."""
    rounding = LOSS * landscape.overlap_scale
    losses = (row["loss"], row["loss"] - rounding, row["loss"] + rounding)
    shown = row["label"].partition("-")[0]
    return any(shown in possible_labels(landscape, loss, name == "saddles") for loss in losses)


def same_points(points: dict[str, StationaryPoint]) -> Iterator[tuple[str, str]]:
    """Pairs (id, id of another) of points of one landscape, given by id, that are the same up to symmetry.

    All pairs are compared whose losses agree within what two copies may differ by: by their sorted
    entries first, which no permutation changes, and in full where these agree too.
    """
    names = sorted(points, key=lambda name: points[name].loss)
    losses = np.array([points[name].loss for name in names])
    profiles = [_profile(points[name]) for name in names]
    for position, name in enumerate(names):
        point = points[name]
        first = np.searchsorted(losses, point.loss - loss_gap(point))
        for other in range(first, position):
            if len(profiles[position]) != len(profiles[other]):
                continue
            apart = np.abs(profiles[position] - profiles[other]).max(initial=0.0)
            if apart <= DIFFERENT * point.landscape.overlap_scale and is_same(point, points[names[other]]):
                yield name, names[other]
                break


def _profile(point: StationaryPoint) -> np.ndarray:
    """Sorted norms, overlaps with teachers, and overlaps among students: the same for all permuted copies."""
    upper = point.Q[np.triu_indices(len(point.Q), 1)]
    return np.concatenate([np.sort(np.diag(point.Q)), np.sort(point.R, axis=None), np.sort(upper)])
