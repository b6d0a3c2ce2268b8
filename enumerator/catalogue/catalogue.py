"""The catalogue: what campaigns found, kept so that every start counts once and every minimum is there once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Unpack

import numpy as np
import pyarrow as pa
from deltalake.exceptions import DeltaError

from enumerator.catalogue import records
from enumerator.catalogue.campaign_table import STATUSES, CampaignTable
from enumerator.catalogue.minimum import Minimum
from enumerator.catalogue.point_table import KnownPoint, Matcher, PointTable, candidate, same_points
from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.catalogue.selection import Selection, campaign_ids, needed
from enumerator.catalogue.snapshot import Snapshot, readable, snapshot
from enumerator.catalogue.start_table import StartTable
from enumerator.catalogue.store import Store
from enumerator.errors import EnumeratorError, InputError, SolverError
from enumerator.notebook import block, facts, note
from enumerator.points import StationaryPoint
from enumerator.problem import Campaign, Landscape
from enumerator.starts import Outcome, ShardResult
from enumerator.storage.sql import Datasets, nearest, quoted, run
from enumerator.validation import check_text

# The tables whose rows a notebook counts.
_COUNTED = ("landscapes", "campaigns", "starts", "minima", "saddles")


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
    same, by default `enumerator.minima.distinct.match_points`. Raises InputError ("not a catalogue") where
    there is none and `create` is false, and for a catalogue of another schema version, which is left
    as it is. Its tables (`store`, `campaign_table`, `start_table`, `point_tables`) are for the other
    modules of this package: what they write goes by no check of its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        storage_options: dict[str, str] | None = None,
        matcher: Matcher = same_points,
    ) -> None:
        self.store = Store(path, create, storage_options)
        self.campaign_table = CampaignTable(self.store)
        self.start_table = StartTable(self.store)
        self.point_tables = {name: PointTable(self.store, name, matcher) for name in ("minima", "saddles")}

    def __repr__(self) -> str:
        return f"Catalogue({self.store.address!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: how many rows each table has, by its log alone; or why that cannot be read."""
        try:
            tables = self.store.open_all()
            rows = {name: sum(file.rows for file in self.store.files(tables[name])) for name in _COUNTED}
        except (EnumeratorError, OSError, ValueError, TypeError, DeltaError) as error:
            return block(repr(self), note(str(error)))
        return block(repr(self), facts(rows))

    # Writing

    def register(self, campaign: Campaign, shard_size: int, device: str) -> CampaignRecord:
        """Enter a campaign with its landscape and given overlaps, or find it there; it is running afterwards.

        It reads as stopped as soon as nobody runs it: `finish` was called, or this object, or its process, is gone. On
        an object store, where that is not known, it is running until `finish`.
        Raises InputError if the campaign's id is taken by other settings, CatalogueError if it is being deleted.
        """
        if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1:
            raise InputError(f"`shard_size` must be a whole number >= 1, got {shard_size!r}.")
        now = datetime.now(UTC)
        self.campaign_table.enter_landscape(campaign.landscape, now)
        overlaps = records.overlaps_table(campaign) if campaign.law.is_table else None
        row = self.campaign_table.enter(records.campaign_row(campaign, shard_size, device, now), overlaps)
        self.store.claims.take(campaign.id)
        starts = self._stored(campaign.id)
        if row["status"] != "running":
            self.campaign_table.set_status(campaign.id, "running", starts)
        return CampaignRecord(campaign.id, campaign.landscape.id, row["shard_size"], starts)

    def done(self, campaign_id: str) -> list[tuple[int, int]]:
        """The starts stored of a campaign, as disjoint ascending half-open ranges of their indices."""
        return self.start_table.done(campaign_id)

    def _stored(self, campaign_id: str) -> int:
        return sum(last - first for first, last in self.done(campaign_id))

    def commit_shard(self, result: ShardResult, first: int, last: int) -> CommitSummary:
        """Store the starts [first, last) of a registered campaign and the points that they ended in.

        Starts that are stored already are passed over, so a shard may be committed again, also by
        two processes at once. The points go in before the starts that name them.
        Raises InputError for a campaign that is not registered, or was deleted since, CatalogueError
        for one that is being deleted, SolverError for starts that are not [first, last), or for a
        point whose verdict contradicts the outcome of a start.
        """
        campaign, starts = result.campaign, result.starts
        self.campaign_table.check(campaign.id)
        if not np.array_equal(np.sort(starts.index), np.arange(first, last)):
            raise SolverError(f"the shard [{first}, {last}) of {campaign.id} must hold each of these starts once.")
        _check_verdicts(result)
        if not self.start_table.lacks(campaign.id, starts.index):
            return CommitSummary(0, 0, 0, ())
        is_saddle = [point.verdict == "saddle" for point in result.points]
        minima, new_minima = self._commit_points("minima", campaign, _where(result.points, is_saddle, False))
        saddles, new_saddles = self._commit_points("saddles", campaign, _where(result.points, is_saddle, True))
        minima_left, saddles_left = iter(minima), iter(saddles)
        point_ids = tuple(next(saddles_left if saddle else minima_left) for saddle in is_saddle)
        rows = records.starts_table(result, point_ids)
        added = self.append_starts(campaign.id, rows)
        return CommitSummary(added, new_minima, new_saddles, point_ids)

    def _commit_points(self, name: str, campaign: Campaign, points: list[StationaryPoint]) -> tuple[list[str], int]:
        now = datetime.now(UTC)
        return self.point_tables[name].commit(campaign.landscape, [candidate(point, campaign, now) for point in points])

    def append_starts(self, campaign_id: str, rows: pa.Table) -> int:
        """Append rows of table `starts` of one campaign, those that are stored left out; how many.

        The points that they name must be there. Raises as `commit_shard` for the campaign.
        """
        return self.start_table.append(campaign_id, rows, lambda: self.campaign_table.check(campaign_id))

    def finish(self, campaign_id: str, status: str = "complete") -> None:
        """Set the status of a campaign, and the number of its starts; stopped only if nobody else runs it.

        Raises InputError for an unknown campaign, CatalogueError for one that is being deleted.
        """
        if status not in STATUSES:
            raise InputError(f"`status` must be one of {', '.join(STATUSES)}, got {status!r}.")
        if status != "running":
            self.store.claims.give_up(campaign_id)
        if status != "stopped" or not self.store.claims.is_claimed(campaign_id):
            self.campaign_table.set_status(campaign_id, status, self._stored(campaign_id))

    # Reading

    def points(self, landscape_id: str, table: str = "minima") -> list[KnownPoint]:
        """The minima (or saddles) of a landscape as stationary points. Raises InputError for an unknown landscape."""
        tables = self.store.open_all({"landscapes", table})
        rows = self.store.rows(tables["landscapes"], f"landscape_id = {quoted(landscape_id)}")
        if not rows:
            raise InputError(f"no landscape {landscape_id!r} in {self.store.address}.")
        return list(self.point_tables[table].known(tables[table], records.landscape_from_row(rows[0])))

    def campaign(self, name: str) -> Campaign:
        """A campaign, by its name or id, rebuilt from its stored settings, and from its given overlaps if it has any.

        Raises InputError for an unknown one, CatalogueError if they do not give its id, or are not there.
        """
        return self.campaign_table.rebuild(self.campaign_id(name))

    def campaign_id(self, name: str) -> str:
        """The id of a campaign by its name, or by that. Raises InputError, with the nearest ones, if there is none."""
        if isinstance(name, str) and self.campaign_table.row(name) is not None:
            return name
        chosen = campaign_ids({"campaign": name}, self.datasets({"campaigns"})) or []
        return chosen[0]

    def minima(self, **selection: Unpack[Selection]) -> pa.Table:
        """The minima selected (see `Selection`), with hits, starts and frequency in the campaigns selected.

        `starts` counts all starts of these campaigns on the landscape, whatever their outcome, and
        frequency is hits/starts.
        """
        return self._select("minima", selection)

    def saddles(self, **selection: Unpack[Selection]) -> pa.Table:
        """The saddles selected, with the same counts as `minima`."""
        return self._select("saddles", selection)

    def starts(self, **selection: Unpack[Selection]) -> pa.Table:
        """The starts selected, one row each, whatever their outcome."""
        return self._select("starts", selection)

    def campaigns(self, **selection: Unpack[Selection]) -> pa.Table:
        """The campaigns selected; `starts` is the number stored now."""
        return self._select("campaigns", selection)

    def landscapes(self, **selection: Unpack[Selection]) -> pa.Table:
        """The landscapes selected."""
        return self._select("landscapes", selection)

    def initial_overlaps(self, **selection: Unpack[Selection]) -> pa.Table:
        """The given starts of the campaigns selected, whether they were run or not."""
        return self._select("initial_overlaps", selection)

    def landscape(self, landscape_id: str) -> Landscape:
        """A landscape by its id. Raises InputError if there is none, CatalogueError if it was altered."""
        return records.landscape_among(self.landscapes(landscape=landscape_id), landscape_id)

    def minimum(self, name: str) -> Minimum:
        """One minimum or saddle by its id or label: its row, with its counts over all campaigns, and its network.

        Its `orbit_size` is exact, in digits. Raises InputError with the nearest labels if there is none.
        """
        (row,) = self.minimum_row(name).to_pylist()
        return Minimum(row, partial(self.landscape, row["landscape_id"]))

    def minimum_row(self, name: str) -> pa.Table:
        """The same as a table of one row. Raises InputError."""
        tables = self.snapshot({"landscapes", "campaigns", "minima", "saddles", "starts"})
        found = tables.minimum_row(check_text("minimum", name))
        if found is None:
            raise InputError(f"no minimum {name!r} in {self.store.address} ({nearest(name, tables.labels())}).")
        return found

    def _select(self, name: str, selection: Selection) -> pa.Table:
        return self.snapshot(needed(name, selection)).select(name, selection)

    def snapshot(self, names: Iterable[str] = TABLE_NAMES) -> Snapshot:
        """Tables as they are now, all at one moment."""
        return snapshot(self.store, names)

    def readable(self) -> Snapshot:
        """All tables at one moment, without the rows of damaged files: every byte of them is read first."""
        return readable(self.store)

    def datasets(self, names: Iterable[str] = TABLE_NAMES) -> Datasets:
        """The rows of several tables as queries see them, such that every row named in one is there in the other."""
        names = tuple(names)
        return self.snapshot(names).datasets(names)

    def sql(self, query: str) -> pa.Table:
        """The result of one SELECT statement (DuckDB) over the tables; nothing else can be read or written.

        Raises InputError for any other statement, and for one with a mistake.
        """
        return run(query, self.datasets(), hint=f"The tables are {', '.join(TABLE_NAMES)}")


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
