"""The table of starts: which are stored already, and the rest appended, so that each is there once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from numpy.typing import NDArray

from enumerator.catalogue.schema import table_schema
from enumerator.catalogue.store import Store
from enumerator.storage.sql import quoted


class StartTable:
    """The starts of a catalogue, by campaign."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # What this process has read, by campaign, with the version of the table that it was read from.
        self._done: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def done(self, campaign_id: str) -> list[tuple[int, int]]:
        """The starts stored, as disjoint ascending half-open ranges of their indices."""
        ranges = self._ranges(self._store.open("starts"), campaign_id)
        return [(int(first), int(last)) for first, last in ranges]

    def lacks(self, campaign_id: str, index: NDArray[np.int64]) -> bool:
        """Whether any of these starts is not stored."""
        return bool(self._missing(self._store.open("starts"), campaign_id, index).any())

    def append(self, campaign_id: str, rows: pa.Table, check: Callable[[], None]) -> int:
        """Append those rows of one campaign whose starts are not stored; how many.

        `check` raises where the campaign must not be written to. It is called after the version that the
        commit is conditional on was read: so if it passes, nobody has removed these starts since.
        """
        index = rows["start_index"].to_numpy()

        def attempt(table: DeltaTable) -> int:
            check()
            missing = self._missing(table, campaign_id, index)
            if not missing.any():
                return 0
            before = table.version()
            self._store.append(table, rows if missing.all() else rows.filter(pa.array(missing)))
            stored = merge_ranges(self._done[campaign_id][1], ranges_of(index[missing]))
            self._done[campaign_id] = (before + 1, stored)
            self._store.join_files(table, ("campaign_id", campaign_id))
            return int(missing.sum())

        return self._store.commit("starts", attempt)

    def change(self, campaign_id: str, changed: Callable[[pa.Table], pa.Table]) -> None:
        """Put what `changed` makes of the starts of a campaign in their place."""
        partition = ("campaign_id", campaign_id)

        def attempt(table: DeltaTable) -> None:
            starts = self._store.query(table, "select * from starts", partition).cast(table_schema("starts").arrow)
            self._store.rewrite(table, changed(starts), partition)

        self._store.commit("starts", attempt)

    def remove(self, campaign_id: str) -> None:
        """Remove all starts of a campaign: a commit even where there are none, so that writers at work look again."""
        nothing = table_schema("starts").arrow.empty_table()
        self._store.commit("starts", lambda table: self._store.rewrite(table, nothing, ("campaign_id", campaign_id)))

    def _ranges(self, table: DeltaTable, campaign_id: str) -> NDArray[np.int64]:
        """The starts stored at the version of `table`: (n, 2), disjoint, ascending, half-open."""
        version, ranges = self._done.get(campaign_id, (-1, np.empty((0, 2), np.int64)))
        if version != table.version():
            query = f"select start_index from starts where campaign_id = {quoted(campaign_id)}"
            ranges = ranges_of(self._store.query(table, query)["start_index"].to_numpy())
            self._done[campaign_id] = (table.version(), ranges)
        return ranges

    def _missing(self, table: DeltaTable, campaign_id: str, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these starts are not stored at the version of `table`."""
        ranges = self._ranges(table, campaign_id)
        if not len(ranges):
            return np.ones(len(index), bool)
        position = np.searchsorted(ranges[:, 0], index, side="right") - 1
        return (position < 0) | (index >= ranges[position, 1])


def ranges_of(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Half-open ranges (n, 2) that hold these whole numbers and no others."""
    index = np.sort(index)
    begins = np.append(True, np.diff(index) > 1)[: len(index)]
    ends = np.append(begins[1:], True)[: len(index)]
    return np.stack([index[begins], index[ends] + 1], axis=1)


def merge_ranges(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The union of disjoint ranges, adjacent ones joined."""
    ranges = np.concatenate([a, b])
    ranges = ranges[np.argsort(ranges[:, 0])]
    begins = np.append(True, ranges[1:, 0] != ranges[:-1, 1])[: len(ranges)]
    ends = np.append(begins[1:], True)[: len(ranges)]
    return np.stack([ranges[begins, 0], ranges[ends, 1]], axis=1)
