"""Starts counted by where they ended: the small table from which every statistic follows.

The starts themselves are only ever touched by grouping queries, so ten million of them are no burden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from enumerator.catalogue.campaign_names import PLAIN, dynamics_text, law_text, settings_text
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.records import campaign_row, landscape_row, settings_of, to_table
from enumerator.catalogue.selection import Selection, needed
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import InputError
from enumerator.storage.sql import one_of, run
from enumerator.validation import check_text

if TYPE_CHECKING:
    from enumerator.enumeration import Enumeration

    # Whose starts can be counted.
    Countable = Catalogue | Snapshot | Enumeration

# The ends of starts that are minima; all other starts stay in the denominator.
ENDED = "converged"
OUTCOMES = (ENDED, "saddle", "unfinished", "diverged")


class StartSelection(TypedDict, total=False):
    """Which starts. What is not given, or None, leaves the choice open.

    Attributes:
        students: Only landscapes with so many students.
        teachers: Only landscapes with so many teachers.
        activation: Only landscapes with this activation.
        landscape: Only this landscape, by its id.
        campaign: Only this campaign, by its name or id, or these, in a list.
        dynamics: Only campaigns with this dynamics, by its name.
        dimension: Only campaigns with this input dimension d.
        scale: Only campaigns with this scale of the initial weights.
        seed: Only campaigns with this seed.
        where: Only starts for which this SQL condition on the columns of table `starts` holds. It conditions every
            share: one on the outcome, or on the flow time, gives shares that belong to no initial law.
    """

    students: int | None
    teachers: int | None
    activation: str | None
    landscape: str | None
    campaign: str | Sequence[str] | None
    dynamics: str | None
    dimension: int | None
    scale: float | None
    seed: int | None
    where: str | None


@dataclass(frozen=True)
class Sample:
    """Starts that may be counted together: of campaigns that differ in the seed alone.

    Attributes:
        landscape_id: The landscape.
        students: K, the number of students.
        teachers: M, the number of teachers.
        activation: The activation function.
        dynamics: Name and settings of the dynamics.
        law: The initial law in words.
        settings: What of the landscape and the tolerances differs from the defaults, sizes and activation left out, as
            in `constraint=normalized precision=mixed`; PLAIN where nothing does.
        campaign_ids: The campaigns that are counted together.
        names: Their names.
        classes: A row for each end: outcome, minimum_id, label, loss, anti_aligned, orbit_size_log10, hits; `first`,
            the number of starts before the first that ended there, in the order of campaigns and indices; `even`, how
            many of the hits have an even index. Minima that no start reached have hits 0 and no `first`.
    """

    landscape_id: str
    students: int
    teachers: int
    activation: str
    dynamics: str
    law: str
    settings: str
    campaign_ids: tuple[str, ...]
    names: tuple[str, ...]
    classes: pa.Table

    @property
    def starts(self) -> int:
        """All starts, whatever became of them."""
        return int(np.sum(self.column("hits")))

    @property
    def campaigns(self) -> str:
        """The ids of the campaigns, with commas between."""
        return ",".join(self.campaign_ids)

    @property
    def campaign_names(self) -> str:
        """The names of the campaigns, with commas between."""
        return ",".join(self.names)

    @property
    def unusual(self) -> list[str]:
        """The entries of `settings`, none where all are the defaults."""
        return [] if self.settings == PLAIN else self.settings.split(" ")

    def row(self) -> dict[str, Any]:
        """The columns that name a sample in every table."""
        return {name: getattr(self, name) for name, _ in SAMPLE_FIELDS}

    def column(self, name: str) -> np.ndarray:
        """The column `name` of `classes`; nulls of numbers are NaN."""
        return self.classes[name].to_numpy()

    def ends(self, outcome: str = ENDED) -> list[dict[str, Any]]:
        """The rows of `classes` with this `outcome`."""
        return [row for row in self.classes.to_pylist() if row["outcome"] == outcome]

    def hits(self) -> np.ndarray:
        """Hits of the minima that were hit."""
        return np.array([row["hits"] for row in self.ends() if row["hits"]], np.int64)

    def held_out(self) -> tuple[int, int]:
        """Of the starts with an odd index: how many, and how many ended in a minimum that no even one found."""
        even = int(np.sum(self.column("even")))
        new = sum(row["hits"] for row in self.ends() if row["even"] == 0)
        return self.starts - even, int(new)

    def global_minimum(self) -> dict[str, Any] | None:
        """The minimum of lowest loss that is known of the landscape; None if none is."""
        return min(self.ends(), key=lambda row: row["loss"], default=None)


SAMPLE_FIELDS = (
    ("students", pa.int32()),
    ("teachers", pa.int32()),
    ("activation", pa.string()),
    ("dynamics", pa.string()),
    ("law", pa.string()),
    ("settings", pa.string()),
    ("campaigns", pa.string()),
    ("campaign_names", pa.string()),
    ("landscape_id", pa.string()),
)
_CLASS_FIELDS = pa.schema(
    [
        ("outcome", pa.string()),
        ("minimum_id", pa.string()),
        ("label", pa.string()),
        ("loss", pa.float64()),
        ("anti_aligned", pa.int32()),
        ("orbit_size_log10", pa.float64()),
        ("hits", pa.int64()),
        ("first", pa.int64()),
        ("even", pa.int64()),
    ]
)


class Selected(NamedTuple):
    """A campaign: its id and name, the sample that its starts may be counted in, its landscape's id, its settings."""

    id: str
    name: str
    sample: str
    landscape_id: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Tables to query by name, and the campaigns selected."""

    tables: Mapping[str, Any]
    campaigns: tuple[Selected, ...]
    condition: str

    def query(self, statement: str) -> pa.Table:
        """The result of a SELECT statement."""
        return run(statement, self.tables, hint="`where` is a condition on the columns of table starts")


def opened(source: Countable, selection: StartSelection, names: Iterable[str] = ()) -> Source:
    """The tables starts, minima and saddles, and others by name, of a catalogue, or what `enumerate_minima` found.

    Raises InputError for names that do not exist, and for a catalogue behind a service, which counts by itself.
    """
    if unknown := set(selection) - set(StartSelection.__annotations__):
        raise TypeError(
            f"no such selection: {', '.join(sorted(unknown))}. There are {', '.join(StartSelection.__annotations__)}."
        )
    where, campaign = selection.get("where"), selection.get("campaign")
    # The line break ends a comment with which `where` may end.
    condition = "true" if where is None else f"({check_text('where', where)}\n)"
    if not isinstance(source, Catalogue | Snapshot):
        if not hasattr(source, "result"):
            raise InputError(
                f"expected a catalogue, or what `enumerate_minima` found, got {source!r}: the statistics of a service "
                'are its own, as in `connect(url).statistics("frequencies", by="order")`.'
            )
        source = _found(source)
    names = {"starts", "minima", "saddles", *names}
    kept: Any = {name: value for name, value in selection.items() if name not in ("campaign", "where")}
    chosen: Selection = kept | {"columns": _SELECTED}
    tables = source.snapshot(names | needed("campaigns", chosen)) if isinstance(source, Catalogue) else source
    several = not isinstance(campaign, str) and isinstance(campaign, Sequence)
    wanted: Any = campaign if several else [campaign]
    rows = [
        row
        for name in dict.fromkeys(wanted)
        for row in tables.select("campaigns", chosen | {"campaign": name}).to_pylist()
    ]
    # By their ids, as one may be named twice, by its name and by its id.
    campaigns = tuple({row["campaign_id"]: _selected(row) for row in rows}.values())
    return Source(tables.datasets(names), campaigns, condition)


_SELECTED = ("campaign_id", "campaign_name", "sample", "landscape_id", "campaign")


def _selected(row: Mapping[str, Any]) -> Selected:
    campaign_id, name, sample, landscape_id, settings = (row[column] for column in _SELECTED)
    return Selected(campaign_id, name, sample, landscape_id, settings_of(campaign_id, settings))


def _found(found: Enumeration) -> Snapshot:
    """Its tables, as those of a catalogue."""
    campaign, now = found.result.campaign, datetime.now(UTC)
    campaigns = to_table("campaigns", [campaign_row(campaign, max(1, found.starts.num_rows), "cpu", now)])
    tables = {"starts": found.starts, "minima": found.minima, "saddles": found.saddles}
    tables["landscapes"] = to_table("landscapes", [landscape_row(campaign.landscape, now)])
    tables["campaigns"] = campaigns
    return Snapshot(tables, lambda name: ds.dataset(tables[name]))


def samples(source: Countable, pool_seeds: bool = True, **selection: Any) -> list[Sample]:
    """The starts selected, counted by where they ended, in samples that may be counted together.

    Campaigns that differ in more than the seed are never counted together: a frequency belongs to one dynamics and one
    initial law.

    Args:
        source: A catalogue, or what `enumerate_minima` found.
        pool_seeds: Count campaigns that differ in the seed alone together.
        **selection: Which starts, by the keywords of `StartSelection`.

    Returns:
        The samples, by landscape, dynamics, law and settings.

    Raises:
        InputError: For names that do not exist.
    """
    selected = opened(source, StartSelection(**selection))
    groups: dict[str, list[Selected]] = {}
    for entry in selected.campaigns:
        groups.setdefault(entry.sample if pool_seeds else entry.id, []).append(entry)
    if not selected.campaigns:
        return []
    counted = _counted(selected)
    points = _points(selected)
    made = [_sample(selected, group, counted, points) for group in groups.values()]
    return sorted(
        (sample for sample in made if sample.starts),
        key=lambda s: (
            s.students,
            s.teachers,
            s.activation,
            s.landscape_id,
            s.dynamics,
            s.law,
            s.settings,
            s.campaigns,
        ),
    )


def one_sample(source: Countable, **selection: Any) -> Sample:
    """The starts selected, which must be one sample. Raises InputError where there are none or several."""
    found = samples(source, **selection)
    if len(found) != 1:
        listed = "; ".join(
            ", ".join([f"K = {s.students}, M = {s.teachers}", s.dynamics, s.law, *s.unusual]) for s in found[:3]
        )
        what = f"{len(found)} kinds ({listed}{', ...' if len(found) > 3 else ''})" if found else "none"
        raise InputError(f"expected starts of one landscape, dynamics and initial law, got {what}: select a campaign.")
    return found[0]


def _counted(source: Source) -> dict[str, list[dict[str, Any]]]:
    """By campaign: outcome, point, hits, first (lowest index), even."""
    campaigns = one_of("campaign_id", [entry.id for entry in source.campaigns])
    rows = source.query(f"""
        select campaign_id, outcome, coalesce(minimum_id, saddle_id) as point, count(*) as hits,
            min(start_index) as first, max(start_index) as last, count(*) filter (start_index % 2 = 0) as even
        from starts where {campaigns} and {source.condition} group by all order by campaign_id, first""")
    counted: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        counted.setdefault(row["campaign_id"], []).append(row)
    for campaign, rows_of in counted.items():
        if max(row["last"] for row in rows_of) + 1 != sum(row["hits"] for row in rows_of):
            # Some starts are left out, or not there yet: the place of a start is not its index.
            index = source.query(
                f"select start_index from starts where {one_of('campaign_id', [campaign])} and {source.condition}"
            )["start_index"].to_numpy()
            places = np.searchsorted(np.sort(index), [row["first"] for row in rows_of])
            for row, place in zip(rows_of, places, strict=True):
                row["first"] = int(place)
    return counted


def _points(source: Source) -> dict[str, list[dict[str, Any]]]:
    """The minima and saddles by landscape."""
    landscapes = one_of("landscape_id", sorted({entry.landscape_id for entry in source.campaigns}))
    columns = "landscape_id, minimum_id, label, loss, anti_aligned, orbit_size_log10"
    rows = source.query(f"""
        select 'converged' as outcome, {columns} from minima where {landscapes}
        union all select 'saddle', {columns} from saddles where {landscapes}
        order by landscape_id, outcome, loss, minimum_id""")
    points: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        points.setdefault(row["landscape_id"], []).append(row)
    return points


def _sample(source: Source, group: list[Selected], counted: Any, points: Any) -> Sample:
    """The counts of some campaigns added up."""
    hits: dict[tuple[str, str | None], dict[str, Any]] = {}
    before = 0
    for entry in group:
        rows = counted.get(entry.id, [])
        for row in rows:
            end = hits.setdefault(
                (row["outcome"], row["point"]), {"hits": 0, "first": before + row["first"], "even": 0}
            )
            end["hits"] += row["hits"]
            end["even"] += row["even"]
        before += sum(row["hits"] for row in rows)
    landscape_id, settings = group[0].landscape_id, group[0].settings
    none = {"hits": 0, "first": None, "even": 0}
    classes = []
    for point in points.get(landscape_id, []):
        found = hits.pop((point["outcome"], point["minimum_id"]), None)
        if found or point["outcome"] == ENDED:
            classes.append(point | (found or none))
    for (outcome, point), end in sorted(hits.items(), key=lambda item: OUTCOMES.index(item[0][0])):
        classes.append({"outcome": outcome, "minimum_id": point} | end)
    landscape = settings["landscape"]
    return Sample(
        landscape_id=landscape_id,
        students=landscape["students"],
        teachers=landscape["teachers"],
        activation=landscape.get("activation", "relu"),
        dynamics=dynamics_text(settings["dynamics"]),
        law=law_text(settings["law"]),
        settings=settings_text(landscape, settings["tolerances"]),
        campaign_ids=tuple(entry.id for entry in group),
        names=tuple(entry.name for entry in group),
        classes=pa.Table.from_pylist(classes, schema=_CLASS_FIELDS),
    )
