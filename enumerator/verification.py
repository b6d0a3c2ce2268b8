"""Recompute and check everything that a catalogue holds; report every disagreement as a row of a table.

Stationary points are recomputed from Q, R and T (`recomputation`), symmetry from a randomly permuted
copy, starts are counted and joined in SQL, and a random sample is run again from its seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from enumerator import records
from enumerator.catalogue import Catalogue
from enumerator.distinct import match_points
from enumerator.errors import EnumeratorError
from enumerator.labels import possible_labels
from enumerator.point_checks import Disagreement, check_point, wrong
from enumerator.problem import Landscape
from enumerator.solve import solve_starts
from enumerator.stability import StationaryPoint

# A loss recomputed along two routes bounds that of a start by this much.
START_LOSS = 1e-10


SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in Disagreement._fields])
# Told the part that is being checked, and how far it is, from 0 to 1.
Progress = Callable[[str, float], None]


def verify(catalogue: Catalogue, sample: int = 20, seed: int = 0, progress: Progress | None = None) -> pa.Table:
    """Every disagreement in the catalogue, a table of `SCHEMA`: empty if all is well.

    `sample` points are checked in 50 digits besides, and as many starts are run again.
    """
    tell = progress or (lambda part, share: None)
    rng = np.random.default_rng(seed)
    found: list[Disagreement] = []
    landscapes = dict(_landscapes(catalogue, found))
    points = {
        name: _check_points(catalogue, name, landscapes, sample, rng, found, tell) for name in ("minima", "saddles")
    }
    found += _check_names(catalogue)
    found += _check_separation(points, tell)
    found += _check_campaigns(catalogue)
    found += _check_starts(catalogue)
    found += _check_replays(catalogue, landscapes, sample, rng, tell)
    columns = [[entry[k] for entry in found] for k in range(len(SCHEMA))]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)


def _landscapes(catalogue: Catalogue, found: list[Disagreement]) -> Iterator[tuple[str, Landscape]]:
    for row in records.from_table(catalogue.landscapes()):
        try:
            yield row["landscape_id"], records.landscape_from_row(row)
        except (EnumeratorError, ValueError) as error:
            found.append(Disagreement("landscapes", row["landscape_id"], "T", "", "", str(error)))


# Stationary points


def _check_points(
    catalogue: Catalogue,
    name: str,
    landscapes: dict[str, Landscape],
    sample: int,
    rng: np.random.Generator,
    found: list[Disagreement],
    tell: Progress,
) -> list[tuple[str, StationaryPoint]]:
    """Check every row of a table of points; the points that could be read, with their ids."""
    table = getattr(catalogue, name)()
    chosen = set(rng.choice(table.num_rows, min(sample, table.num_rows), replace=False).tolist())
    points = []
    for position, row in enumerate(records.from_table(table)):
        tell(name, position / table.num_rows)
        landscape = landscapes.get(row["landscape_id"])
        if landscape is None:
            found.append(wrong(name, row, "landscape_id", row["landscape_id"], "", "names no landscape"))
            continue
        try:
            point = records.point_from_row(row, landscape)
            found += check_point(name, row, point, landscape, rng, position in chosen)
        except (ValueError, TypeError, np.linalg.LinAlgError) as error:
            found.append(wrong(name, row, "Q", "", "", f"cannot be read: {error}"))
            continue
        points.append((row["minimum_id"], point))
    return points


def _check_names(catalogue: Catalogue) -> Iterator[Disagreement]:
    """Ids and labels are unique, and a label shows its loss."""
    rows = []
    for name in ("minima", "saddles"):
        columns = ["minimum_id", "label", "landscape_id", "loss", "first_campaign_id"]
        rows += [(name, row) for row in getattr(catalogue, name)(columns=columns).to_pylist()]
    for column in ("minimum_id", "label"):
        seen: set[str] = set()
        for name, row in rows:
            if row[column] in seen:
                yield wrong(name, row, column, row[column], "", "is there twice")
            seen.add(row[column])
    landscapes = {row["landscape_id"]: row for row in records.from_table(catalogue.landscapes())}
    campaigns = set(catalogue.campaigns(columns="campaign_id")["campaign_id"].to_pylist())
    for name, row in rows:
        if row["landscape_id"] in landscapes:
            landscape = records.landscape_from_row(landscapes[row["landscape_id"]])
            possible = possible_labels(landscape, row["loss"], name == "saddles")
            if row["label"].partition("-")[0] not in possible:
                yield wrong(name, row, "label", row["label"], possible[0], "does not show its landscape and loss")
        if row["first_campaign_id"] not in campaigns:
            yield wrong(name, row, "first_campaign_id", row["first_campaign_id"], "", "names no campaign")


def _check_separation(points: dict[str, list[tuple[str, StationaryPoint]]], tell: Progress) -> Iterator[Disagreement]:
    """No two points of a landscape are one: each is matched against those of nearby loss before it."""
    everything = [(name, *entry) for name, entries in points.items() for entry in entries]
    by_landscape: dict[str, list[tuple[str, str, StationaryPoint]]] = {}
    for entry in everything:
        by_landscape.setdefault(entry[2].landscape.id, []).append(entry)
    for done, entries in enumerate(by_landscape.values()):
        tell("separation", done / len(by_landscape))
        entries.sort(key=lambda entry: entry[2].loss)
        for position, (name, identity, point) in enumerate(entries):
            before = [earlier for _, _, earlier in entries[max(0, position - 50) : position]]
            (same,) = match_points([point], before)
            if same >= 0:
                twin = entries[max(0, position - 50) + same][1]
                yield Disagreement(name, identity, "minimum_id", identity, twin, "is the same point as another one")


# Campaigns and starts


def _check_campaigns(catalogue: Catalogue) -> Iterator[Disagreement]:
    counts = {
        row["campaign_id"]: row["n"]
        for row in catalogue.sql("select campaign_id, count(*) n from starts group by campaign_id").to_pylist()
    }
    for row in catalogue.sql("select campaign_id, campaign, status, starts, landscape_id from campaigns").to_pylist():
        identity = row["campaign_id"]
        try:
            campaign = catalogue.campaign(identity)
        except (EnumeratorError, KeyError, TypeError, json.JSONDecodeError) as error:
            yield Disagreement("campaigns", identity, "campaign", "", "", str(error))
            continue
        if campaign.landscape.id != row["landscape_id"]:
            what = "is not the landscape of its settings"
            yield Disagreement("campaigns", identity, "landscape_id", row["landscape_id"], campaign.landscape.id, what)
        stored = counts.get(identity, 0)
        if row["status"] == "complete" and row["starts"] != stored:
            yield Disagreement("campaigns", identity, "starts", str(row["starts"]), str(stored), "counted")


# Each finds the starts for which it is true. `m` is the point that a start names, `c` its campaign.
_START_CHECKS = {
    "campaign_id": ("c.campaign_id is null", "names no campaign"),
    "landscape_id": ("s.landscape_id != c.landscape_id", "is not the landscape of its campaign"),
    "minimum_id": (
        """(s.outcome = 'converged') != (s.minimum_id is not null)
            or (s.outcome = 'saddle') != (s.saddle_id is not null)""",
        "does not fit the outcome",
    ),
    "outcome": ("s.outcome not in ('converged', 'saddle', 'unfinished', 'diverged')", "is no outcome"),
    "distance": (
        "(m.minimum_id is not null) and (s.distance is null or not s.distance >= 0)",
        "is missing, or no distance",
    ),
    "loss": (
        f"""m.minimum_id is not null and (s.loss < m.loss - {START_LOSS} or
            s.loss > m.loss + {START_LOSS} + s.distance * s.distance
            * greatest(coalesce(m.hessian_max, 0), coalesce(list_max(m.perpendicular_spectrum), 0)))""",
        "is not within reach of its minimum at that distance",
    ),
    "Q": (
        "(s.Q is not null) != (s.outcome in ('unfinished', 'diverged')) or (s.R is not null) != (s.Q is not null)",
        "is kept for unfinished and diverged starts, and only for them",
    ),
    "start_index": ("s.start_index < 0", "is negative"),
    "evaluations": ("s.evaluations < 1", "is not positive"),
}


def _check_starts(catalogue: Catalogue) -> Iterator[Disagreement]:
    twice = """select campaign_id, start_index, count(*) n from starts
        group by campaign_id, start_index having count(*) > 1"""
    for row in catalogue.sql(twice).to_pylist():
        identity = f"{row['campaign_id']}/{row['start_index']}"
        yield Disagreement("starts", identity, "start_index", str(row["n"]), "1", "is there more than once")
    missing = """select s.campaign_id, s.start_index, coalesce(s.minimum_id, s.saddle_id) name from starts s
        where s.minimum_id is not null and s.minimum_id not in (select minimum_id from minima)
        or s.saddle_id is not null and s.saddle_id not in (select minimum_id from saddles)"""
    for row in catalogue.sql(missing).to_pylist():
        identity = f"{row['campaign_id']}/{row['start_index']}"
        yield Disagreement("starts", identity, "minimum_id", row["name"], "", "names a point that is not there")
    for column, (condition, what) in _START_CHECKS.items():
        query = f"""
            with points as (select minimum_id, landscape_id, loss, hessian_max, perpendicular_spectrum from minima
                union all select minimum_id, landscape_id, loss, hessian_max, perpendicular_spectrum from saddles)
            select s.campaign_id, s.start_index, s.{column}::varchar stored from starts s
            left join points m on m.minimum_id = coalesce(s.minimum_id, s.saddle_id)
            left join campaigns c on c.campaign_id = s.campaign_id
            where {condition} order by all"""
        for row in catalogue.sql(query).to_pylist():
            identity = f"{row['campaign_id']}/{row['start_index']}"
            yield Disagreement("starts", identity, column, str(row["stored"])[:60], "", what)


def _check_replays(
    catalogue: Catalogue, landscapes: dict[str, Landscape], sample: int, rng: np.random.Generator, tell: Progress
) -> Iterator[Disagreement]:
    """Run a random sample of the starts again, and compare where they end."""
    total = catalogue.sql("select count(*) n from starts")["n"][0].as_py()
    if not total or not sample:
        return
    chosen = np.sort(rng.choice(total, min(sample, total), replace=False))
    picked = ", ".join(map(str, chosen.tolist()))
    rows = catalogue.sql(
        f"""select campaign_id, start_index, outcome, coalesce(minimum_id, saddle_id) point from
        (select *, row_number() over (order by campaign_id, start_index) - 1 position from starts)
        where position in ({picked}) order by campaign_id, start_index"""
    ).to_pylist()
    for campaign_id in dict.fromkeys(row["campaign_id"] for row in rows):
        mine = [row for row in rows if row["campaign_id"] == campaign_id]
        tell("replays", rows.index(mine[0]) / len(rows))
        try:
            campaign = catalogue.campaign(campaign_id)
        except EnumeratorError:
            continue  # reported with the campaigns
        again = solve_starts(campaign, np.array([row["start_index"] for row in mine]))
        known = [entry for table in ("minima", "saddles") for entry in catalogue.points(campaign.landscape.id, table)]
        names = [known[k].minimum_id if k >= 0 else "" for k in match_points(again.points, [e.point for e in known])]
        for row, outcome, point in zip(mine, again.starts.outcome, again.starts.point, strict=True):
            ended = (records.OUTCOMES[outcome], names[point] if point >= 0 else None)
            if ended != (row["outcome"], row["point"]):
                identity = f"{campaign_id}/{row['start_index']}"
                stored, computed = f"{row['outcome']} {row['point']}", f"{ended[0]} {ended[1]}"
                yield Disagreement("starts", identity, "minimum_id", stored, computed, "replayed")
