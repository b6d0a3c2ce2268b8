"""From each schema version of a catalogue to the next. An older catalogue is migrated on request, never on its own.

A step may be stopped at any moment, done again, and done by two processes at once: it adds what is not
there yet, and only then gives the tables its version, one by one. As long as one of them lacks it the
catalogue is refused, with the command that goes on.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

from deltalake import CommitProperties, DeltaTable, Field

from enumerator.catalogue import records
from enumerator.catalogue.schema import SCHEMA_VERSION, TABLE_NAMES, table_schema
from enumerator.catalogue.store import VERSION_PROPERTY, Store
from enumerator.problem import Tolerances

Step = Callable[[Store], None]


def _to_2(store: Store) -> None:
    """Given initial overlaps are kept, and what starts pass; data files are named by their hash, and counted."""
    store.create("initial_overlaps")
    add_columns(store, "starts", *(f"stop_{name}" for name in ("flow_time", "loss", "anti_aligned")))
    add_columns(store, "starts", *(f"lingered_{name}" for name in ("on", "for", "norm", "distance")))
    for name in TABLE_NAMES:
        store.commit(name, store.adopt)
    store.commit("campaigns", lambda table: _change_settings(store, table, _settings_of_2))


def _settings_of_2(settings: dict[str, Any]) -> dict[str, Any]:
    """What was `polish_below` is `collapse_below`: lanes are compared with zero loss there, and polished further on."""
    tolerances = dict(settings["tolerances"])
    if "collapse_below" not in tolerances:
        tolerances["collapse_below"] = tolerances.pop("polish_below")
    return settings | {"tolerances": dataclasses.asdict(Tolerances()) | tolerances}


def _change_settings(store: Store, table: DeltaTable, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write the settings of campaigns as a later version does; their ids stay."""
    changed = []
    for row in store.rows(table, "true"):
        found = records.settings_of(row["campaign_id"], row["campaign"])
        settings = json.dumps(change(found), sort_keys=True, allow_nan=False)
        if settings != row["campaign"]:
            changed.append(row | {"campaign": settings})
    if changed:
        store.update(table, records.to_table("campaigns", changed), "campaign_id")


# By the version that it leads to.
STEPS: dict[int, Step] = {2: _to_2, 3: lambda store: add_columns(store, "starts", "distance_error", "second_layer")}


def add_columns(store: Store, name: str, *columns: str) -> None:
    """Give a table columns of its schema of today, null in the rows that are there."""
    schema = table_schema(name).arrow

    def attempt(table: DeltaTable) -> None:
        present = {field.name for field in table.schema().fields}
        fields = [Field.from_arrow(schema.field(column)) for column in columns if column not in present]
        if fields:
            table.alter.add_columns(fields, commit_properties=CommitProperties(max_commit_retries=0))

    store.commit(name, attempt)


def migrate(path: str | os.PathLike[str], storage_options: dict[str, str] | None = None) -> int:
    """Bring a catalogue to the schema version of this software; the version that it had.

    Raises InputError where there is no catalogue, or one of a newer version, CatalogueError where it
    cannot be read or written.
    """
    store = Store(path, False, storage_options, migrating=True)
    # A table that is not there came with a later version than any that is.
    had = min(_version(store.open(name)) for name in TABLE_NAMES if store.exists(name))
    for version in range(had + 1, SCHEMA_VERSION + 1):
        STEPS[version](store)
        # The starts first: a run of the older software looks there before it writes anything.
        for name in reversed(TABLE_NAMES):
            store.commit(name, lambda table, version=version: _stamp(table, version))
    return had


def _version(table: DeltaTable) -> int:
    return int(table.metadata().configuration[VERSION_PROPERTY] or 0)


def _stamp(table: DeltaTable, version: int) -> None:
    if _version(table) < version:
        table.alter.set_table_properties(
            {VERSION_PROPERTY: str(version)},
            raise_if_not_exists=False,  # Delta Lake knows only properties of its own
            commit_properties=CommitProperties(max_commit_retries=0),
        )
