"""Tables written anew from what they hold, each as one commit: what repair does to a catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deltalake import DeltaTable

from enumerator.catalogue import records
from enumerator.catalogue.schema import table_schema
from enumerator.catalogue.store import Store


def renew(store: Store, name: str, renewed: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Put what `renewed` gives for all rows of a table in their place, unless it gives the same objects.

    `renewed` is called again where another writer comes first. Raises CatalogueError.
    """

    def attempt(table: DeltaTable) -> None:
        before = store.rows(table, "true")
        after = renewed(before)
        if len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True)):
            store.rewrite(table, records.to_table(name, after), None)

    store.commit(name, attempt)


def drop_file(store: Store, name: str, file: str) -> None:
    """Write a table, or the partition that the file (its path in there) lies in, anew without its damaged files."""
    steps = [step.partition("=") for step in file.split("/")[:-1]]
    partition = (steps[0][0], steps[0][2]) if steps else None

    def attempt(table: DeltaTable) -> None:
        if file in {entry.path for entry in store.files(table)}:
            damaged = [path for _, path, _ in store.check_files({name: table})]
            rows = store.dataset(table, partition, without=[file, *damaged]).to_table()
            store.rewrite(table, rows.cast(table_schema(name).arrow), partition)

    store.commit(name, attempt)
