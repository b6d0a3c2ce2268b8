"""The catalogue: what campaigns found, kept so that every start counts once and every minimum is there once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Unpack

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from numpy.typing import NDArray

from enumerator import records
from enumerator.distinct import match_points
from enumerator.errors import CatalogueError, InputError, SolverError
from enumerator.labels import point_id, point_label
from enumerator.problem import Campaign, Landscape
from enumerator.query import nearest, quoted, run
from enumerator.selection import Selection, select
from enumerator.stability import StationaryPoint
from enumerator.starts import Outcome, ShardResult
from enumerator.store import Store
from enumerator.tables import TABLE_NAMES

# (new, known) -> for each new point the position of the same point in `known`, or -1.
Matcher = Callable[[list[StationaryPoint], list[StationaryPoint]], list[int]]

STATUSES = ("running", "complete")


class KnownPoint(NamedTuple):
    """A stationary point with the names that it has in the catalogue."""

    minimum_id: str
    label: str
    point: StationaryPoint


@dataclass(frozen=True)
class CampaignRecord:
    """What the catalogue holds of a campaign: its shard size, fixed at creation, and the number of starts stored."""

    campaign_id: str
    landscape_id: str
    shard_size: int
    starts: int


@dataclass(frozen=True)
class CommitSummary:
    """What a commit added; all zero if the shard was there. `point_ids` names the points of the result, in order."""

    starts: int
    new_minima: int
    new_saddles: int
    point_ids: tuple[str, ...]


class Catalogue:
    """A catalogue of minima, in a local directory or under an object-store URL.

    Any number of processes may write to one catalogue at once. `matcher` tells which points are the
    same, by default `enumerator.distinct.match_points`. Raises InputError ("not a catalogue") where
    there is none and `create` is false, and for a catalogue of a newer schema version, which is left
    as it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        storage_options: dict[str, str] | None = None,
        matcher: Matcher = match_points,
    ) -> None:
        self._store = Store(path, create, storage_options)
        self._matcher = matcher
        # What this process has read, by the version of the table that it was read from.
        self._known: dict[tuple[str, str], tuple[int, list[KnownPoint]]] = {}
        self._done: dict[str, tuple[int, NDArray[np.int64]]] = {}
        self._registered: set[str] = set()

    def __repr__(self) -> str:
        return f"Catalogue({self._store.address!r})"

    # Writing

    def register(self, campaign: Campaign, shard_size: int, device: str) -> CampaignRecord:
        """Enter a campaign and its landscape, or find them there; the campaign is running afterwards.

        Raises InputError if the campaign's id is taken by other settings.
        """
        if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1:
            raise InputError(f"`shard_size` must be a whole number >= 1, got {shard_size!r}.")
        landscape = campaign.landscape

        def enter_landscape(table: DeltaTable) -> None:
            if not self._rows("landscapes", table, f"landscape_id = {quoted(landscape.id)}"):
                row = records.landscape_row(landscape, datetime.now(UTC))
                self._store.append(table, records.to_table("landscapes", [row]))

        def enter_campaign(table: DeltaTable) -> dict[str, Any]:
            rows = self._rows("campaigns", table, f"campaign_id = {quoted(campaign.id)}")
            if not rows:
                row = records.campaign_row(campaign, shard_size, device, datetime.now(UTC))
                self._store.append(table, records.to_table("campaigns", [row]))
                return row
            if json.loads(rows[0]["campaign"]) != json.loads(records.campaign_json(campaign)):
                raise InputError(
                    f"the campaign id {campaign.id} is taken in {self._store.address} by other settings: "
                    f"{rows[0]['campaign']}. Change the seed."
                )
            if rows[0]["status"] != "running":
                self._store_status(table, rows[0], "running")
            return rows[0]

        self._store.commit("landscapes", enter_landscape)
        row = self._store.commit("campaigns", enter_campaign)
        self._registered.add(campaign.id)
        starts = sum(last - first for first, last in self.done(campaign.id))
        return CampaignRecord(campaign.id, landscape.id, row["shard_size"], starts)

    def done(self, campaign_id: str) -> list[tuple[int, int]]:
        """The starts stored of a campaign, as disjoint ascending half-open ranges of their indices."""
        ranges = self._done_ranges(self._store.open("starts"), campaign_id)
        return [(int(first), int(last)) for first, last in ranges]

    def commit_shard(self, result: ShardResult, first: int, last: int) -> CommitSummary:
        """Store the starts [first, last) of a registered campaign and the points that they ended in.

        Starts that are stored already are passed over, so a shard may be committed again, also by
        two processes at once. The points go in before the starts that name them.
        Raises InputError for a campaign that is not registered, SolverError for starts that are not
        [first, last), or for a point whose verdict contradicts the outcome of a start.
        """
        campaign, starts = result.campaign, result.starts
        self._check_registered(campaign)
        if not np.array_equal(np.sort(starts.index), np.arange(first, last)):
            raise SolverError(f"the shard [{first}, {last}) of {campaign.id} must hold each of these starts once.")
        _check_verdicts(result)
        if not self._missing(self._store.open("starts"), campaign.id, starts.index).any():
            return CommitSummary(0, 0, 0, ())
        is_saddle = [point.verdict == "saddle" for point in result.points]
        minima, new_minima = self._commit_points("minima", campaign, _where(result.points, is_saddle, False))
        saddles, new_saddles = self._commit_points("saddles", campaign, _where(result.points, is_saddle, True))
        minima_left, saddles_left = iter(minima), iter(saddles)
        point_ids = tuple(next(saddles_left if saddle else minima_left) for saddle in is_saddle)
        rows = records.starts_table(starts, campaign, point_ids)
        transaction = f"{campaign.id}/{first}-{last}"

        def append(table: DeltaTable) -> int:
            missing = self._missing(table, campaign.id, starts.index)
            if table.transaction_version(transaction) is not None or not missing.any():
                return 0
            before = table.version()
            self._store.append(table, rows.filter(pa.array(missing)), transaction)
            stored = _merge_ranges(self._done[campaign.id][1], _ranges(starts.index[missing]))
            self._done[campaign.id] = (before + 1, stored)
            self._store.join_files(table, ("campaign_id", campaign.id))
            return int(missing.sum())

        added = self._store.commit("starts", append)
        return CommitSummary(added, new_minima, new_saddles, point_ids)

    def finish(self, campaign_id: str, status: str = "complete") -> None:
        """Set the status of a campaign, and the number of its starts. Raises InputError for an unknown campaign."""
        if status not in STATUSES:
            raise InputError(f"`status` must be one of {', '.join(STATUSES)}, got {status!r}.")

        def update(table: DeltaTable) -> None:
            rows = self._rows("campaigns", table, f"campaign_id = {quoted(campaign_id)}")
            if not rows:
                raise InputError(f"no campaign {campaign_id!r} in {self._store.address}: register it first.")
            self._store_status(table, rows[0], status)

        self._store.commit("campaigns", update)

    def _store_status(self, table: DeltaTable, row: dict[str, Any], status: str) -> None:
        finished_at = datetime.now(UTC) if status == "complete" else None
        starts = sum(last - first for first, last in self.done(row["campaign_id"]))
        row = {**row, "status": status, "starts": starts, "finished_at": finished_at}
        self._store.update(table, records.to_table("campaigns", [row]), "campaign_id")

    def _rows(self, name: str, table: DeltaTable, condition: str) -> list[dict[str, Any]]:
        found = run(f"select * from {name} where {condition}", {name: self._store.dataset(table)})
        return list(records.from_table(found))

    def _check_registered(self, campaign: Campaign) -> None:
        if campaign.id not in self._registered:
            if not self._rows("campaigns", self._store.open("campaigns"), f"campaign_id = {quoted(campaign.id)}"):
                raise InputError(f"the campaign {campaign.id} is not in {self._store.address}: register it first.")
            self._registered.add(campaign.id)

    def _done_ranges(self, table: DeltaTable, campaign_id: str) -> NDArray[np.int64]:
        """The starts stored at the version of `table`: (n, 2), disjoint, ascending, half-open."""
        version, ranges = self._done.get(campaign_id, (-1, np.empty((0, 2), np.int64)))
        if version != table.version():
            query = f"select start_index from starts where campaign_id = {quoted(campaign_id)}"
            found = run(query, {"starts": self._store.dataset(table)})
            ranges = _ranges(found["start_index"].to_numpy())
            self._done[campaign_id] = (table.version(), ranges)
        return ranges

    def _missing(self, table: DeltaTable, campaign_id: str, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these starts are not stored at the version of `table`."""
        ranges = self._done_ranges(table, campaign_id)
        if not len(ranges):
            return np.ones(len(index), bool)
        position = np.searchsorted(ranges[:, 0], index, side="right") - 1
        return (position < 0) | (index >= ranges[position, 1])

    def _commit_points(self, name: str, campaign: Campaign, points: list[StationaryPoint]) -> tuple[list[str], int]:
        """The ids of these points in table `name`, and how many were new.

        What is new is decided from the version that the commit is conditional on; so two processes
        that find one minimum at once store it once.
        """
        landscape = campaign.landscape

        def store(table: DeltaTable) -> tuple[list[str], int]:
            known = self._known_points(name, table, landscape)
            found = self._match(points, [entry.point for entry in known])
            ids = [known[position].minimum_id if position >= 0 else "" for position in found]
            # By loss, so that names do not depend on the order of the points.
            unknown = sorted((k for k, position in enumerate(found) if position < 0), key=lambda k: points[k].loss)
            entries: list[KnownPoint] = []
            taken = self._taken(name, table, landscape) if unknown else set()
            for k in unknown:
                (position,) = self._match([points[k]], [entry.point for entry in entries])
                if position < 0:
                    entries.append(_named(points[k], name == "saddles", taken))
                ids[k] = entries[position].minimum_id  # at -1 stands the entry just added
            if entries:
                now = datetime.now(UTC)
                rows = [
                    records.point_row(entry.point, entry.minimum_id, entry.label, campaign, now) for entry in entries
                ]
                before = table.version()
                self._store.append(table, records.to_table(name, rows))
                self._known[name, landscape.id] = (before + 1, known + entries)
                self._store.join_files(table)
            return ids, len(entries)

        return self._store.commit(name, store) if points else ([], 0)

    def _match(self, new: list[StationaryPoint], known: list[StationaryPoint]) -> list[int]:
        return self._matcher(new, known) if new and known else [-1] * len(new)

    def _known_points(self, name: str, table: DeltaTable, landscape: Landscape) -> list[KnownPoint]:
        """The points of a landscape that are stored at the version of `table`."""
        version, known = self._known.get((name, landscape.id), (-1, []))
        if version != table.version():
            rows = self._rows(name, table, f"landscape_id = {quoted(landscape.id)}")
            known = [
                KnownPoint(row["minimum_id"], row["label"], records.point_from_row(row, landscape)) for row in rows
            ]
            self._known[name, landscape.id] = (table.version(), known)
        return known

    def _taken(self, name: str, table: DeltaTable, landscape: Landscape) -> set[str]:
        """The ids and labels that points of this size have, whatever their landscape."""
        query = f"""
            select minimum_id, label from {name}
            where students = {landscape.students} and teachers = {landscape.teachers}"""
        found = run(query, {name: self._store.dataset(table)})
        return {*found["minimum_id"].to_pylist(), *found["label"].to_pylist()}

    # Reading

    def points(self, landscape_id: str, table: str = "minima") -> list[KnownPoint]:
        """The minima (or saddles) of a landscape as stationary points. Raises InputError for an unknown landscape."""
        tables = self._store.snapshot({"landscapes", table})
        rows = self._rows("landscapes", tables["landscapes"], f"landscape_id = {quoted(landscape_id)}")
        if not rows:
            raise InputError(f"no landscape {landscape_id!r} in {self._store.address}.")
        return list(self._known_points(table, tables[table], records.landscape_from_row(rows[0])))

    def campaign(self, campaign_id: str) -> Campaign:
        """A campaign rebuilt from its stored settings.

        Raises InputError for an unknown one, CatalogueError if the settings do not give its id.
        """
        rows = self._rows("campaigns", self._store.open("campaigns"), f"campaign_id = {quoted(campaign_id)}")
        if not rows:
            raise InputError(f"no campaign {campaign_id!r} in {self._store.address}.")
        settings = json.loads(rows[0]["campaign"])
        if "table" in settings["law"]:
            raise CatalogueError(
                f"campaign {campaign_id} starts from given overlaps, which this catalogue does not keep."
            )
        campaign = Campaign.from_dict(settings)
        if campaign.id != campaign_id:
            raise CatalogueError(f"campaign {campaign_id} reads back as {campaign.id}: its row was altered.")
        return campaign

    def minima(self, **selection: Unpack[Selection]) -> pa.Table:
        """The minima selected (see `Selection`), with hits, starts and frequency in the campaigns selected.

        `starts` counts all starts of these campaigns on the landscape, whatever their outcome, and
        frequency is hits/starts.
        """
        return select(self._store, "minima", selection)

    def saddles(self, **selection: Unpack[Selection]) -> pa.Table:
        """The saddles selected, with the same counts as `minima`."""
        return select(self._store, "saddles", selection)

    def starts(self, **selection: Unpack[Selection]) -> pa.Table:
        """The starts selected, one row each, whatever their outcome."""
        return select(self._store, "starts", selection)

    def campaigns(self, **selection: Unpack[Selection]) -> pa.Table:
        """The campaigns selected; `starts` is the number stored now."""
        return select(self._store, "campaigns", selection)

    def landscapes(self, **selection: Unpack[Selection]) -> pa.Table:
        """The landscapes selected."""
        return select(self._store, "landscapes", selection)

    def minimum(self, name: str) -> dict[str, Any]:
        """The row of one minimum or saddle by its id or label, with its counts over all campaigns.

        Raises InputError with the nearest labels if there is none.
        """
        condition = f"{quoted(name)} in (minimum_id, label)"
        labels: list[str] = []
        for table in ("minima", "saddles"):
            data = {table: self._store.dataset(self._store.open(table))}
            found = run(f"select landscape_id from {table} where {condition}", data).to_pylist()
            if found:
                chosen: Selection = {"landscape": found[0]["landscape_id"], "where": condition}
                return select(self._store, table, chosen).to_pylist()[0]
            labels += run(f"select label from {table}", data)["label"].to_pylist()
        raise InputError(f"no minimum {name!r} in {self._store.address} ({nearest(name, labels)}).")

    def sql(self, query: str) -> pa.Table:
        """The result of one SELECT statement (DuckDB) over the five tables; nothing else can be read or written.

        Raises InputError for any other statement, and for one with a mistake.
        """
        datasets = {name: self._store.dataset(table) for name, table in self._store.snapshot().items()}
        return run(query, datasets, hint=f"The tables are {', '.join(TABLE_NAMES)}")


def _check_verdicts(result: ShardResult) -> None:
    """Raise SolverError unless every loss is finite, and starts name a point that fits their outcome."""
    for point in result.points:
        if not np.isfinite(point.loss):
            raise SolverError(f"a point of {result.campaign.id} has the loss {point.loss}.")
    starts, points = result.starts, result.points
    for outcome, point in set(zip(starts.outcome.tolist(), starts.point.tolist(), strict=True)):
        if outcome in (Outcome.CONVERGED, Outcome.SADDLE):
            is_there = 0 <= point < len(points)
            if not is_there or (points[point].verdict == "saddle") != (outcome == Outcome.SADDLE):
                raise SolverError(f"starts of {result.campaign.id} with outcome {outcome} name point {point} wrongly.")


def _where(points: list[StationaryPoint], flags: list[bool], wanted: bool) -> list[StationaryPoint]:
    return [point for point, flag in zip(points, flags, strict=True) if flag == wanted]


def _named(point: StationaryPoint, is_saddle: bool, taken: set[str]) -> KnownPoint:
    """The point with an id and a label that are not taken yet, and are from now on."""
    minimum_id = point_id(point.landscape, point.loss, is_saddle, taken)
    label = point_label(point.landscape, point.loss, is_saddle, taken)
    taken |= {minimum_id, label}
    return KnownPoint(minimum_id, label, point)


def _ranges(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Half-open ranges (n, 2) that hold these whole numbers and no others."""
    index = np.sort(index)
    begins = np.append(True, np.diff(index) > 1)[: len(index)]
    ends = np.append(begins[1:], True)[: len(index)]
    return np.stack([index[begins], index[ends] + 1], axis=1)


def _merge_ranges(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The union of disjoint ranges, adjacent ones joined."""
    ranges = np.concatenate([a, b])
    ranges = ranges[np.argsort(ranges[:, 0])]
    begins = np.append(True, ranges[1:, 0] != ranges[:-1, 1])[: len(ranges)]
    ends = np.append(begins[1:], True)[: len(ranges)]
    return np.stack([ranges[begins, 0], ranges[ends, 1]], axis=1)
