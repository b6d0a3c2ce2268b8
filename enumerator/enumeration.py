"""Enumeration in one process: no Ray, no disk; the same tables as a catalogue gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from enumerator.catalogue import records
from enumerator.catalogue.campaign_names import name_of
from enumerator.catalogue.labels import point_id, point_label
from enumerator.catalogue.minimum import Minimum
from enumerator.catalogue.selection import END_LOSS, output_schema
from enumerator.errors import InputError
from enumerator.follow import check_solvable, follow_shard
from enumerator.notebook import block, facts, note, table
from enumerator.points import SADDLE
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape
from enumerator.progress import shown
from enumerator.starts import ShardResult
from enumerator.storage.sql import nearest
from enumerator.symmetry.teachers import near_symmetry
from enumerator.validation import check_count, check_text

# The columns of the minima that a notebook shows, with their headings, and the most rows of them.
_SHOWN = {"label": "label", "loss": "loss", "anti_aligned": "order", "hits": "hits", "frequency": "frequency"}
_MOST_SHOWN = 15


@dataclass(frozen=True, repr=False)
class Enumeration:
    """What the starts of a campaign found, in tables with the columns of a catalogue.

    It stands in for a catalogue in `enumerator.statistics` (but for `early_stops`), and in the figures `losses`,
    `orders`, `flow_times` and `accumulation` of `enumerator.plots`.

    Attributes:
        result: The starts and stationary points as arrays, for `Catalogue.commit_shard`.
        minima: One row for each minimum, by loss, with its hits, starts and frequency.
        saddles: One row for each saddle that starts ended or lingered on.
        starts: One row for each start, by index, whatever became of it.

    Examples:
        >>> found = en.enumerate_minima(en.Landscape(students=7, teachers=7), starts=64)
        >>> found
        Enumeration(relu.7.7.flow.d1000.s0, starts=64, minima=2, saddles=0)
        >>> found.starts.select(["start_index", "outcome", "anti_aligned", "end_loss"]).to_pandas().head(3)
           start_index    outcome  anti_aligned  end_loss
        0            0  converged             0       0.0
        1            1  converged             0       0.0
        2            2  converged             0       0.0
        >>> found.minimum("relu.7.7.0232027").R.shape
        (7, 7)
    """

    result: ShardResult
    minima: pa.Table
    saddles: pa.Table
    starts: pa.Table

    def __repr__(self) -> str:
        tables = ("starts", "minima", "saddles")
        counts = ", ".join(f"{name}={getattr(self, name).num_rows}" for name in tables)
        return f"Enumeration({name_of(self.result.campaign)}, {counts})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the counts, and the minima that were hit most often, by loss."""
        outcomes = {entry["values"]: entry["counts"] for entry in self.starts["outcome"].value_counts().to_pylist()}
        counts = {f"starts, {outcome}": outcomes.get(outcome) for outcome in records.OUTCOMES}
        found = {"starts": self.starts.num_rows, **counts, "minima": self.minima.num_rows}
        parts = [facts(found | {"saddles": self.saddles.num_rows})]
        minima = self.minima.select(list(_SHOWN)).to_pylist()
        often = sorted(sorted(minima, key=lambda row: -row["hits"])[:_MOST_SHOWN], key=lambda row: row["loss"])
        rows = [[*(row | {"frequency": f"{row['frequency']:.4g}"}).values()] for row in often]
        parts.append(table(list(_SHOWN.values()), rows) if rows else "")
        if len(minima) > _MOST_SHOWN:
            parts.append(note(f"The {_MOST_SHOWN} of {len(minima):,} minima that were hit most often."))
        return block(f"Enumeration {name_of(self.result.campaign)}", *parts)

    def minimum(self, name: str) -> Minimum:
        """One minimum or saddle: its row and its network.

        Args:
            name: Its label, such as `relu.9.9.0374890`, or its id.

        Raises:
            InputError: If there is none; the message has the nearest labels.
        """
        rows = [*self.minima.to_pylist(), *self.saddles.to_pylist()]
        for row in rows:
            if name in (row["minimum_id"], row["label"]):
                return Minimum(row, self.result.campaign.landscape)
        labels = [row["label"] for row in rows]
        raise InputError(f"no minimum {name!r} in {self!r} ({nearest(check_text('minimum', name), labels)}).")


def enumerate_minima(
    landscape: Landscape,
    starts: int = 1000,
    seed: int = 0,
    dynamics: str | Dynamics = "gradient-flow",
    law: InitialLaw | None = None,
    progress: bool | Callable[[int], None] | None = None,
) -> Enumeration:
    """Follow random starts to their ends and tell the distinct minima apart, in this process.

    It needs neither Ray nor a disk. Start i depends on the law, the seed and i alone, so a longer run has all starts of
    a shorter one.

    Args:
        landscape: What is enumerated.
        starts: Number of starts.
        seed: Number from 0 to 2^63 - 1 that fixes the starts.
        dynamics: A name, such as `newton`, or a `Dynamics` with its settings.
        law: Where the starts begin, by default w ~ N(0, I_d) with d = 1000.
        progress: Whether a line on stderr tells how far it is, with rate and time left. By default it does if stderr is
            a terminal, or a cell of a notebook. Or a function, called with the number of starts that retired since the
            last call.

    Returns:
        The minima, the saddles and the starts as tables.

    Raises:
        InputError: For settings that cannot be, or do not fit together.

    Warns:
        UserWarning: If T is symmetric only nearly.

    Examples:
        >>> found = en.enumerate_minima(en.Landscape(students=7, teachers=7), starts=64, seed=0)
        >>> found.minima.select(["label", "loss", "anti_aligned", "hits", "frequency"]).to_pandas()
                      label      loss  anti_aligned  hits  frequency
        0        relu.7.7.0  0.000000             0    60     0.9375
        1  relu.7.7.0232027  0.023203             1     4     0.0625
    """
    check_count("starts", starts)
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise InputError(f"`progress` must be a function of a number of starts, True or False, got {progress!r}.")
    dynamics = dynamics if isinstance(dynamics, Dynamics) else Dynamics(dynamics)
    campaign = Campaign(landscape, dynamics, InitialLaw() if law is None else law, seed)
    check_solvable(campaign)
    near = near_symmetry(landscape.T)
    if near is not None:
        warnings.warn(near.text("snap_teachers=True"), stacklevel=2)
    with shown(progress, starts) as told:
        result = follow_shard(campaign, 0, starts, progress=told)
    return tabulate(result)


def tabulate(result: ShardResult) -> Enumeration:
    """The tables of a result, with the ids and labels that an empty catalogue would give."""
    now, taken, called = datetime.now(UTC), set[str](), name_of(result.campaign)
    rows: dict[str, list[dict]] = {"minima": [], "saddles": []}
    names = [""] * len(result.points)
    hits = np.bincount(result.starts.point[result.starts.point >= 0], minlength=len(result.points))
    for position in sorted(range(len(result.points)), key=lambda k: result.points[k].loss):
        point = result.points[position]
        is_saddle = point.verdict == SADDLE
        names[position] = point_id(point.landscape, point.loss, is_saddle, taken)
        label = point_label(point.landscape, point.loss, is_saddle, taken)
        taken |= {names[position], label}
        count, total = int(hits[position]), len(result.starts)
        row = records.point_row(point, names[position], label, result.campaign, now)
        row |= {"hits": count, "starts": total, "frequency": count / total, "campaign_names": called}
        row["first_campaign_name"] = called
        if is_saddle:
            passed = [entry for entry in result.lingerings if entry.point == position]
            row["lingered"] = len({entry.start for entry in passed})
            times = [entry.left - entry.entered for entry in passed]
            row["lingering_time"] = float(np.median(times)) if times else None
        rows["saddles" if is_saddle else "minima"].append(row)
    tables = {name: pa.Table.from_pylist(found, schema=output_schema(name)) for name, found in rows.items()}
    starts = records.starts_table(result, names)
    starts = starts.append_column("campaign_name", pa.repeat(called, starts.num_rows))
    ends = [result.points[point].loss if point >= 0 else None for point in result.starts.point.tolist()]
    starts = starts.append_column(END_LOSS, pa.array(ends, END_LOSS.type))
    return Enumeration(result, tables["minima"], tables["saddles"], starts)
