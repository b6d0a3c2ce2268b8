"""The table of campaigns, with the landscapes and the initial overlaps that they need: entered, rebuilt, removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from enumerator.catalogue import records
from enumerator.catalogue.schema import table_schema
from enumerator.catalogue.store import Store
from enumerator.errors import CatalogueError, InputError
from enumerator.parsing import parsing
from enumerator.problem import Campaign, Landscape
from enumerator.storage.sql import quoted

# What a campaign may be set to; DELETING is what deletion sets, and nothing leads out of it but the end.
STATUSES = ("running", "stopped", "complete")
DELETING = "deleting"


class CampaignTable:
    """The campaigns of a catalogue."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # The version of the table at which a campaign was last seen to be there.
        self._seen: dict[str, int] = {}

    def row(self, campaign_id: str, table: DeltaTable | None = None) -> dict[str, Any] | None:
        """The row of a campaign, None if there is none."""
        table = self._store.open("campaigns") if table is None else table
        rows = self._store.rows(table, f"campaign_id = {quoted(campaign_id)}")
        return rows[0] if rows else None

    def existing(self, campaign_id: str, table: DeltaTable | None = None) -> dict[str, Any]:
        """The row of a campaign. Raises InputError if there is none."""
        row = self.row(campaign_id, table)
        if row is None:
            raise InputError(f"no campaign {campaign_id!r} in {self._store.address}: register it first.")
        return row

    def check(self, campaign_id: str) -> None:
        """Raise InputError for a campaign that is not here, or no longer, CatalogueError for one in deletion."""
        table = self._store.open("campaigns")
        if self._seen.get(campaign_id) != table.version():
            self._check_kept(self.existing(campaign_id, table))
            self._seen[campaign_id] = table.version()

    def _check_kept(self, row: dict[str, Any]) -> None:
        if row["status"] == DELETING:
            raise CatalogueError(
                f"campaign {row['campaign_id']} is being deleted from {self._store.address}: "
                "let `enumerator delete` finish, then run it again if you want it."
            )

    def enter_landscape(self, landscape: Landscape, created_at: datetime) -> None:
        """Enter a landscape, or find it there; the earliest time is kept."""

        def attempt(table: DeltaTable) -> None:
            rows = self._store.rows(table, f"landscape_id = {quoted(landscape.id)}")
            if not rows:
                row = records.landscape_row(landscape, created_at)
                self._store.append(table, records.to_table("landscapes", [row]))
            elif created_at < rows[0]["created_at"]:
                changed = rows[0] | {"created_at": created_at}
                self._store.update(table, records.to_table("landscapes", [changed]), "landscape_id")

        self._store.commit("landscapes", attempt)

    def enter(self, row: dict[str, Any], overlaps: pa.Table | None) -> dict[str, Any]:
        """Enter a campaign, its given overlaps before it, or find it there; the row that is stored.

        Raises InputError if the id is taken by other settings, CatalogueError for one in deletion.
        """
        self._enter_overlaps(row["campaign_id"], overlaps)

        def attempt(table: DeltaTable) -> dict[str, Any]:
            stored = self.row(row["campaign_id"], table)
            if stored is not None:
                self._check_kept(stored)
                self._check_settings(stored, row)
                return stored
            # Again: a deletion that has just ended may have removed them after we saw them.
            self._enter_overlaps(row["campaign_id"], overlaps)
            self._store.append(table, records.to_table("campaigns", [row]))
            return row

        return self._store.commit("campaigns", attempt)

    def _check_settings(self, stored: dict[str, Any], row: dict[str, Any]) -> None:
        if records.settings_of(stored["campaign_id"], stored["campaign"]) != json.loads(row["campaign"]):
            raise InputError(
                f"the campaign id {row['campaign_id']} is taken in {self._store.address} by other settings: "
                f"{stored['campaign']}. Change the seed."
            )

    def _enter_overlaps(self, campaign_id: str, overlaps: pa.Table | None) -> None:
        """Keep the given starts of a campaign, all at once, before its row: so no campaign is without."""
        if overlaps is None:
            return

        def attempt(table: DeltaTable) -> None:
            stored = self.row(campaign_id)
            if stored is not None:
                self._check_kept(stored)
            statement = f"select 1 from initial_overlaps where campaign_id = {quoted(campaign_id)} limit 1"
            if not self._store.query(table, statement).num_rows:
                self._store.append(table, overlaps)

        self._store.commit("initial_overlaps", attempt)

    def change(self, campaign_id: str, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Write `changed(row)` over the row of a campaign, if that is another; the row before. Raises as `check`."""

        def attempt(table: DeltaTable) -> dict[str, Any]:
            row = self.existing(campaign_id, table)
            self._check_kept(row)
            new = changed(row)
            if new != row:
                self._store.update(table, records.to_table("campaigns", [new]), "campaign_id")
            return row

        return self._store.commit("campaigns", attempt)

    def begin_deletion(self, campaign_id: str) -> None:
        """Mark a campaign as being deleted: nothing is added from now on. Raises InputError for an unknown one."""

        def attempt(table: DeltaTable) -> None:
            row = self.existing(campaign_id, table)
            if row["status"] != DELETING:
                row |= {"status": DELETING, "finished_at": None}
                self._store.update(table, records.to_table("campaigns", [row]), "campaign_id")

        self._store.commit("campaigns", attempt)

    def remove(self, campaign_id: str) -> None:
        """Remove a campaign whose starts are removed: its given overlaps, then its row."""

        def remove_overlaps(table: DeltaTable) -> None:
            self._store.rewrite(table, _nothing("initial_overlaps"), ("campaign_id", campaign_id))

        def remove_row(table: DeltaTable) -> None:
            rows = self._store.query(table, f"select * from campaigns where campaign_id != {quoted(campaign_id)}")
            self._store.rewrite(table, rows.cast(table_schema("campaigns").arrow), None)

        self._store.commit("initial_overlaps", remove_overlaps)
        self._store.commit("campaigns", remove_row)

    def set_status(self, campaign_id: str, status: str, starts: int) -> None:
        """Set the status, with the number of starts stored. Raises as `check` does."""
        finished_at = datetime.now(UTC) if status == "complete" else None
        self.change(campaign_id, lambda row: row | {"status": status, "starts": starts, "finished_at": finished_at})

    def rebuild(self, campaign_id: str) -> Campaign:
        """A campaign from its stored settings.

        Raises InputError for an unknown one, CatalogueError if the settings do not give its id, or
        need given overlaps that are not there.
        """
        tables = self._store.open_all({"initial_overlaps", "campaigns"})
        row = self.row(campaign_id, tables["campaigns"])
        if row is None:
            raise InputError(f"no campaign {campaign_id!r} in {self._store.address}.")
        settings = records.settings_of(campaign_id, row["campaign"])
        Q = R = None
        if "table" in settings["law"]:
            condition = f"campaign_id = {quoted(campaign_id)} order by start_index"
            statement = f"select * from initial_overlaps where {condition}"
            found = self._store.query(tables["initial_overlaps"], statement)
            if not found.num_rows:
                self._check_kept(row)
                raise CatalogueError(
                    f"the initial overlaps of campaign {campaign_id} are not in {self._store.address}: schema "
                    "version 1 did not keep them; `enumerator run` with their file (--initial) enters them."
                )
            Q, R = overlaps_of(found)
        return campaign_from(campaign_id, settings, Q, R)


def _nothing(name: str) -> pa.Table:
    return table_schema(name).arrow.empty_table()


def campaign_from(campaign_id: str, settings: dict[str, Any], Q: Any = None, R: Any = None) -> Campaign:
    """A campaign from its settings and given overlaps. Raises CatalogueError if they do not give its id."""
    with parsing("the settings of a campaign", f"those of {campaign_id}", kind=CatalogueError):
        campaign = Campaign.from_dict(settings, Q, R)
    if campaign.id != campaign_id:
        what = "its row was" if Q is None else "its row or its initial overlaps were"
        raise CatalogueError(f"campaign {campaign_id} reads back as {campaign.id}: {what} altered.")
    return campaign


def overlaps_of(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Q (n, K, K) and R (n, K, M) from rows of table `initial_overlaps` of one campaign, in order.

    Raises CatalogueError where a row is missing, or does not hold matrices of its sizes.
    """
    K, M = rows["students"][0].as_py(), rows["teachers"][0].as_py()
    n = rows.num_rows
    try:
        if rows["start_index"].to_pylist() != list(range(n)):
            raise ValueError("rows are missing")
        Q, R = (np.concatenate([chunk.flatten().to_numpy() for chunk in rows[name].chunks]) for name in ("Q", "R"))
        return Q.reshape(n, K, K), R.reshape(n, K, M)
    except ValueError as error:
        name = rows["campaign_id"][0].as_py()
        raise CatalogueError(f"the initial overlaps of campaign {name} were altered: {error}.") from error
