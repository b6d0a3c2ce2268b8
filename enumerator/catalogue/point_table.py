"""The tables of stationary points: what is known of a landscape, what is new, and how it is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from deltalake import DeltaTable

from enumerator.catalogue import records
from enumerator.catalogue.labels import point_id, point_label
from enumerator.catalogue.store import Store
from enumerator.points import StationaryPoint
from enumerator.problem import Campaign, Landscape
from enumerator.storage.sql import one_of, quoted

# (new, known) -> for each new point the position of the same point in `known`, or -1.
Matcher = Callable[[list[StationaryPoint], list[StationaryPoint]], list[int]]


def same_points(new: list[StationaryPoint], known: list[StationaryPoint]) -> list[int]:
    """The matcher of every real catalogue, `match_points` of `minima.distinct`; loaded when there is what to match."""
    from enumerator.minima.distinct import match_points

    return match_points(new, known)


class KnownPoint(NamedTuple):
    """A stationary point with the names that it has in the catalogue."""

    minimum_id: str
    label: str
    point: StationaryPoint


class Candidate(NamedTuple):
    """A point that may be new to a catalogue, with its row; the names in there are taken over if they are free."""

    point: StationaryPoint
    row: dict[str, Any]


def candidate(point: StationaryPoint, campaign: Campaign, found_at: datetime) -> Candidate:
    """A point without a name yet that `campaign` has found."""
    return Candidate(point, records.point_row(point, "", "", campaign, found_at))


class PointTable:
    """The minima, or the saddles, of a catalogue. `matcher` tells which points are the same."""

    def __init__(self, store: Store, name: str, matcher: Matcher) -> None:
        self._store = store
        self.name = name
        self._matcher = matcher
        # What this process has read, by landscape, with the version of the table that it was read from.
        self._known: dict[str, tuple[int, list[KnownPoint]]] = {}

    def known(self, table: DeltaTable, landscape: Landscape) -> list[KnownPoint]:
        """The points of a landscape that are stored at the version of `table`."""
        version, known = self._known.get(landscape.id, (-1, []))
        if version != table.version():
            rows = self._store.rows(table, f"landscape_id = {quoted(landscape.id)}")
            known = [
                KnownPoint(row["minimum_id"], row["label"], records.point_from_row(row, landscape)) for row in rows
            ]
            self._known[landscape.id] = (table.version(), known)
        return known

    def commit(self, landscape: Landscape, candidates: list[Candidate]) -> tuple[list[str], int]:
        """Store the candidates that are new; the ids of all of them, in order, and how many were new.

        What is new is decided from the version that the commit is conditional on; so two processes
        that find one minimum at once store it once.
        """
        points = [candidate.point for candidate in candidates]

        def attempt(table: DeltaTable) -> tuple[list[str], int]:
            known = self.known(table, landscape)
            found = self._match(points, [entry.point for entry in known])
            ids = [known[position].minimum_id if position >= 0 else "" for position in found]
            # By loss, so that names do not depend on the order of the points.
            unknown = sorted((k for k, position in enumerate(found) if position < 0), key=lambda k: points[k].loss)
            entries: list[KnownPoint] = []
            rows: list[dict[str, Any]] = []
            taken = self._taken(table, landscape) if unknown else set()
            for k in unknown:
                (position,) = self._match([points[k]], [entry.point for entry in entries])
                if position >= 0:
                    ids[k] = entries[position].minimum_id
                    continue
                new = self._named(candidates[k], taken)
                entries.append(new)
                rows.append(candidates[k].row | {"minimum_id": new.minimum_id, "label": new.label})
                ids[k] = new.minimum_id
            if entries:
                before = table.version()
                self._store.append(table, records.to_table(self.name, rows))
                self._known[landscape.id] = (before + 1, known + entries)
                self._store.join_files(table)
            return ids, len(entries)

        return self._store.commit(self.name, attempt) if points else ([], 0)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows, with the names that they have, where no row of that id is there yet."""

        def attempt(table: DeltaTable) -> None:
            present = {row["minimum_id"] for row in self._store.rows(table, "true")}
            new = {row["minimum_id"]: row for row in rows if row["minimum_id"] not in present}
            if new:
                self._store.append(table, records.to_table(self.name, list(new.values())))

        self._store.commit(self.name, attempt)

    def date_back(self, finds: Iterable[tuple[str, datetime, str]]) -> None:
        """Enter who found points first: (minimum_id, time, campaign id), where that was before what is stored."""
        earliest: dict[str, tuple[datetime, str]] = {}
        for name, found_at, campaign_id in finds:
            earliest[name] = min(earliest.get(name, (found_at, campaign_id)), (found_at, campaign_id))

        def attempt(table: DeltaTable) -> None:
            rows = []
            for row in self._store.rows(table, one_of("minimum_id", earliest)):
                found_at, campaign_id = earliest[row["minimum_id"]]
                if (found_at, campaign_id) < (row["created_at"], row["first_campaign_id"]):
                    rows.append(row | {"created_at": found_at, "first_campaign_id": campaign_id})
            if rows:
                self._store.update(table, records.to_table(self.name, rows), "minimum_id")

        if earliest:
            self._store.commit(self.name, attempt)

    def _match(self, new: list[StationaryPoint], known: list[StationaryPoint]) -> list[int]:
        return self._matcher(new, known) if new and known else [-1] * len(new)

    def _taken(self, table: DeltaTable, landscape: Landscape) -> set[str]:
        """The ids and labels that points of this size have, whatever their landscape."""
        condition = f"students = {landscape.students} and teachers = {landscape.teachers}"
        found = self._store.query(table, f"select minimum_id, label from {self.name} where {condition}")
        return {*found["minimum_id"].to_pylist(), *found["label"].to_pylist()}

    def _named(self, candidate: Candidate, taken: set[str]) -> KnownPoint:
        """The point with an id and a label that are not taken yet, and are from now on."""
        point, row = candidate
        minimum_id, label = row["minimum_id"], row["label"]
        if not minimum_id or minimum_id in taken:
            minimum_id = point_id(point.landscape, point.loss, self.name == "saddles", taken)
        if not label or label in taken:
            label = point_label(point.landscape, point.loss, self.name == "saddles", taken)
        taken |= {minimum_id, label}
        return KnownPoint(minimum_id, label, point)
