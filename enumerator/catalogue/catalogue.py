"""The catalogue: what campaigns found, kept so that every start counts once and every minimum is there once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Unpack

import numpy as np
import pyarrow as pa
from deltalake.exceptions import DeltaError

from enumerator.catalogue import records
from enumerator.catalogue.campaign_table import STATUSES, CampaignTable
from enumerator.catalogue.commits import CampaignRecord, CommitSummary, check_verdicts
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
from enumerator.starts import ShardResult
from enumerator.storage.sql import Datasets, nearest, quoted, run
from enumerator.validation import check_text

# The tables whose rows a notebook counts.
_COUNTED = ("landscapes", "campaigns", "starts", "minima", "saddles")


class Catalogue:
    """A catalogue of minima, in a local directory or under an object-store URL.

    Every method that reads gives a pyarrow.Table, from one moment of the catalogue. Any number of processes may write
    to one catalogue at once. The attributes `store`, `campaign_table`, `start_table` and `point_tables` are for the
    other modules of this package: they write without a check.

    Args:
        path: A directory, or a URL such as s3://bucket/atlas.
        create: Make an empty catalogue if there is none.
        storage_options: Settings of an object store, as deltalake takes them; by default those of the environment.
        matcher: What tells which points are the same, by default `enumerator.minima.distinct.match_points`.

    Raises:
        InputError: If there is no catalogue and `create` is false, or for one of another schema version.
        CatalogueError: If its tables cannot be read.

    Examples:
        >>> atlas = en.Catalogue("atlas")
        >>> atlas.campaigns()["campaign_name"].to_pylist()
        ['relu.7.7.flow.d1000.s0']
        >>> atlas.minima(students=7).select(["label", "anti_aligned", "hits", "starts"]).to_pandas()
                      label  anti_aligned  hits  starts
        0        relu.7.7.0             0    60      64
        1  relu.7.7.0232027             1     4      64
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

    # Reading

    def minima(self, **selection: Unpack[Selection]) -> pa.Table:
        """The minima selected, one row each, with their hits, starts and frequency in the campaigns selected.

        `hits` counts the starts that ended in the minimum. `starts` counts all starts of these campaigns on the
        landscape, whatever their outcome, and `frequency` is hits/starts. It is null where the campaigns differ in
        more than the seed: a frequency belongs to one dynamics and one initial law. Without a keyword you get all
        minima with all columns, by K, M, activation and loss.

        Keyword Args:
            students (int): Only landscapes with so many students.
            teachers (int): Only landscapes with so many teachers.
            activation (str): Only landscapes with this activation. It is `relu`, `leaky_relu` or `erf`.
            landscape (str): Only this landscape. Give its id, as in `landscapes`.
            campaign (str): Only this campaign; hits count in it. Give its name or id, as in `campaigns`. With this
                keyword or one of the next four, minima that these campaigns have not met are left out.
            dynamics (str): Only campaigns with this dynamics. It is a name such as `gradient-flow`, without settings.
            dimension (int): Only campaigns with this input dimension d.
            scale (float): Only campaigns with this scale of the initial weights.
            seed (int): Only campaigns with this seed.
            where (str): Only rows for which this SQL condition on the columns holds. It may name the counts too:
                `"loss > 0.01 and hits >= 3"`, `"anti_aligned in (1, 2)"`, `"isotropy = 'S6 x S1'"`,
                `"verdict <> 'minimum'"`, `"flat_dimension = 0"`.
            columns (str or list): Only these columns, in this order: `"label,loss"` or `["label", "loss"]`.
            sort (str or list): Columns to sort by: `"loss"` from the lowest, `"-loss"` or `"loss desc"` from the
                highest. Rows that agree in the first column are sorted by the second: `"students,-hits"`. Nulls come
                last.
            limit (int): At most so many rows.
            offset (int): Leave out so many rows first: `limit=100, offset=200` is the third hundred.

        Returns:
            The rows. The reference of the tables explains the columns; `campaign_names` and `first_campaign_name` come
                with the counts.

        Raises:
            InputError: For a column, landscape, campaign or choice that does not exist, or a condition with a mistake.
            TypeError: For another keyword.
            CatalogueError: If the catalogue cannot be read.

        Examples:
            >>> atlas = en.Catalogue("atlas")
            >>> atlas.minima(where="loss > 0 and hits >= 3", columns="label,hits,frequency").to_pylist()
            [{'label': 'relu.7.7.0232027', 'hits': 4, 'frequency': 0.0625}]
            >>> atlas.minima(students=7, sort="-frequency", limit=1)["label"].to_pylist()
            ['relu.7.7.0']
            >>> atlas.minima(campaign="relu.7.7.flow.d1000.s0", sort=["anti_aligned", "-hits"]).num_rows
            2
        """
        return self._select("minima", selection)

    def saddles(self, **selection: Unpack[Selection]) -> pa.Table:
        """The saddles that starts ended or lingered on, one row each, with the same counts as `minima`.

        `lingered` counts the starts that lingered there before they left; `lingering_time` is their median flow time.

        Args:
            **selection: As in `minima`.
        """
        return self._select("saddles", selection)

    def starts(self, **selection: Unpack[Selection]) -> pa.Table:
        """The starts selected, one row each, whatever their outcome.

        `loss`, `gradient_norm` and `flow_time` are those at which the start retired; `end_loss` is the loss of the
        minimum or saddle in which it ends.

        Args:
            **selection: As in `minima`, with the columns of `starts`: `where="outcome = 'unfinished'"`.
        """
        return self._select("starts", selection)

    def campaigns(self, **selection: Unpack[Selection]) -> pa.Table:
        """The campaigns selected, one row each, with their names; `starts` is the number stored now.

        Args:
            **selection: As in `minima`, with the columns of `campaigns`: `where="status = 'running'"`.
        """
        return self._select("campaigns", selection)

    def landscapes(self, **selection: Unpack[Selection]) -> pa.Table:
        """The landscapes selected, one row each; `teacher` says in words what T is.

        Args:
            **selection: As in `minima`, with the columns of `landscapes`. Those that the campaigns selected do not
                have are left out.
        """
        return self._select("landscapes", selection)

    def initial_overlaps(self, **selection: Unpack[Selection]) -> pa.Table:
        """The given starts of campaigns that begin from a table, one row each, whether they were run or not.

        Args:
            **selection: As in `minima`, with the columns of `initial_overlaps`.
        """
        return self._select("initial_overlaps", selection)

    def minimum(self, name: str) -> Minimum:
        """One minimum or saddle: its row, with its counts over all campaigns, and its network.

        It has a column more than `minima`: `orbit_size`, the exact number of its copies, in digits.

        Args:
            name: Its label, such as `relu.9.9.0374890`, or its id.

        Raises:
            InputError: If there is none; the message has the nearest labels.
        """
        (row,) = self.minimum_row(name).to_pylist()
        return Minimum(row, partial(self.landscape, row["landscape_id"]))

    def landscape(self, landscape_id: str) -> Landscape:
        """The landscape with the id `landscape_id`. Raises InputError if there is none, CatalogueError if altered."""
        return records.landscape_among(self.landscapes(landscape=landscape_id), landscape_id)

    def campaign(self, name: str) -> Campaign:
        """A campaign, rebuilt from its stored settings, and from its given overlaps if it has any.

        Args:
            name: Its name, as in `campaigns`, or its id.

        Raises:
            InputError: For an unknown campaign.
            CatalogueError: If what is stored does not give its id, or is not there.
        """
        return self.campaign_table.rebuild(self.campaign_id(name))

    def sql(self, query: str) -> pa.Table:
        """The result of one SELECT statement over the tables, in the SQL of DuckDB.

        The tables are landscapes, initial_overlaps, campaigns, minima, saddles and starts. Nothing else can be read,
        and nothing can be written. Counts such as `hits` are no columns here: count the rows of `starts`.

        Args:
            query: The statement.

        Returns:
            Its rows.

        Raises:
            InputError: For any other statement, and for one with a mistake.

        Examples:
            >>> atlas = en.Catalogue("atlas")
            >>> atlas.sql(
            ...     "select label, outcome, count(*) as n from starts join minima using (minimum_id) "
            ...     "group by label, outcome order by n desc"
            ... ).to_pandas()
                          label    outcome   n
            0        relu.7.7.0  converged  60
            1  relu.7.7.0232027  converged   4
        """
        return run(query, self.datasets(), hint=f"The tables are {', '.join(TABLE_NAMES)}")

    def _select(self, name: str, selection: Selection) -> pa.Table:
        return self.snapshot(needed(name, selection)).select(name, selection)

    def campaign_id(self, name: str) -> str:
        """The id of the campaign called `name`, which may be an id. Raises InputError, with the nearest ones."""
        if isinstance(name, str) and self.campaign_table.row(name) is not None:
            return name
        chosen = campaign_ids({"campaign": name}, self.datasets({"campaigns"})) or []
        return chosen[0]

    def minimum_row(self, name: str, tables: Snapshot | None = None) -> pa.Table:
        """The row that `minimum` gives of `name`, a label or id, now or in `tables`. Raises InputError."""
        tables = tables or self.snapshot({"landscapes", "campaigns", "minima", "saddles", "starts"})
        found = tables.minimum_row(check_text("minimum", name))
        if found is None:
            raise InputError(f"no minimum {name!r} in {self.store.address} ({nearest(name, tables.labels())}).")
        return found

    def points(self, landscape_id: str, table: str = "minima") -> list[KnownPoint]:
        """The minima or saddles of a landscape as stationary points.

        Args:
            landscape_id: The landscape.
            table: `minima` or `saddles`.

        Raises:
            InputError: For an unknown landscape.
        """
        tables = self.store.open_all({"landscapes", table})
        rows = self.store.rows(tables["landscapes"], f"landscape_id = {quoted(landscape_id)}")
        if not rows:
            raise InputError(f"no landscape {landscape_id!r} in {self.store.address}.")
        return list(self.point_tables[table].known(tables[table], records.landscape_from_row(rows[0])))

    def snapshot(self, names: Iterable[str] = TABLE_NAMES) -> Snapshot:
        """The tables `names` as they are now, all at one moment."""
        return snapshot(self.store, names)

    def readable(self) -> Snapshot:
        """All tables at one moment, without the rows of damaged files: every byte of them is read first."""
        return readable(self.store)

    def datasets(self, names: Iterable[str] = TABLE_NAMES) -> Datasets:
        """The rows of the tables `names` as queries see them: every row that one of them names is in the other."""
        names = tuple(names)
        return self.snapshot(names).datasets(names)

    # Writing

    def register(self, campaign: Campaign, shard_size: int, device: str) -> CampaignRecord:
        """Enter a campaign with its landscape and given overlaps, or find it there; it is running afterwards.

        It reads as stopped as soon as nobody runs it: `finish` was called, or this object, or its process, is gone. On
        an object store, where that is not known, it is running until `finish`.

        Args:
            campaign: The campaign.
            shard_size: Number of consecutive starts in a shard; that of a campaign that is there stays as it is.
            device: Name of the device that it runs on, such as `cpu`.

        Raises:
            InputError: If the campaign's id is taken by other settings.
            CatalogueError: If the campaign is being deleted.
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
        """The starts stored of the campaign `campaign_id`, as disjoint ascending half-open ranges of their indices."""
        return self.start_table.done(campaign_id)

    def _stored(self, campaign_id: str) -> int:
        return sum(last - first for first, last in self.done(campaign_id))

    def commit_shard(self, result: ShardResult, first: int, last: int) -> CommitSummary:
        """Store the starts [first, last) of a registered campaign and the points that they ended in.

        Starts that are stored already are passed over, so a shard may be committed again, also by
        two processes at once. The points go in before the starts that name them.

        Args:
            result: The starts and their points.
            first: Index of the first start.
            last: Index behind that of the last one.

        Raises:
            InputError: For a campaign that is not registered, or was deleted since.
            CatalogueError: For a campaign that is being deleted.
            SolverError: For starts that are not [first, last), or a point whose verdict contradicts an outcome.
        """
        campaign, starts = result.campaign, result.starts
        self.campaign_table.check(campaign.id)
        if not np.array_equal(np.sort(starts.index), np.arange(first, last)):
            raise SolverError(f"the shard [{first}, {last}) of {campaign.id} must hold each of these starts once.")
        check_verdicts(result)
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
        """Append rows of table `starts` of one campaign, those that are stored left out.

        Args:
            campaign_id: The campaign, which must be registered.
            rows: The rows. The points that they name must be there.

        Returns:
            How many rows were added.

        Raises:
            InputError: For a campaign that is not registered.
            CatalogueError: For a campaign that is being deleted.
        """
        return self.start_table.append(campaign_id, rows, lambda: self.campaign_table.check(campaign_id))

    def finish(self, campaign_id: str, status: str = "complete") -> None:
        """Set the status of a campaign, and the number of its starts; stopped only if nobody else runs it.

        Args:
            campaign_id: The campaign.
            status: `complete`, `stopped` or `running`.

        Raises:
            InputError: For an unknown campaign, or another status.
            CatalogueError: For a campaign that is being deleted.
        """
        if status not in STATUSES:
            raise InputError(f"`status` must be one of {', '.join(STATUSES)}, got {status!r}.")
        if status != "running":
            self.store.claims.give_up(campaign_id)
        if status != "stopped" or not self.store.claims.is_claimed(campaign_id):
            self.campaign_table.set_status(campaign_id, status, self._stored(campaign_id))


def _where(points: list[StationaryPoint], flags: list[bool], wanted: bool) -> list[StationaryPoint]:
    return [point for point, flag in zip(points, flags, strict=True) if flag == wanted]
