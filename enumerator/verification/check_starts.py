"""Campaigns and their starts: counted and joined in SQL, and a random sample run again from its seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from enumerator.catalogue.campaign_table import DELETING, STATUSES
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.records import OUTCOMES, from_table
from enumerator.catalogue.snapshot import Snapshot
from enumerator.errors import EnumeratorError
from enumerator.follow import follow_starts
from enumerator.minima.collapse import NEAR
from enumerator.minima.distinct import match_points
from enumerator.points import ZERO_LOSS, StationaryPoint
from enumerator.problem import Campaign, Landscape
from enumerator.stop_levels import STOPS
from enumerator.storage.sql import quoted
from enumerator.verification.check_points import Disagreement
from enumerator.verification.recompute import loss_of

# By landscapes that could be read, their points that could be read, by their ids.
Points = dict[str, dict[str, StationaryPoint]]
# Told how many of how many things are checked.
Share = Callable[[int, int], None]

# Loss of a start against that of its minimum, over the largest squared norm of a teacher: two routes
# to the loss agree to 1e-15 K^2.
START_LOSS = 1e-10
# Part of the norm of the teachers below which a ball around zero loss is too narrow to be reached: starts that are at
# zero loss to all digits end there all the same (`ends`).
NARROW = 1e-3
# The gradient of a start is off by its rounding (3e-15) over the norm of the teachers at the most.
START_GRADIENT = 1e-12
# Loss of a start whose overlaps are kept, over the squared sum of all norms: angles by arccos, 1e-15 K^2.
KEPT_LOSS = 1e-12
# Of the starts of one campaign in which the same thing is wrong, so many are listed one by one.
MOST_LISTED = 1000

# What is wrong with a start that no query of the tables tells.
REPLAYED, OVERLAPS = "ends otherwise when it is run again", "is not that of its Q, R and T"

# Each finds the starts for which it is true. `s` is the start, `m` the point that it names, `c` its campaign, `l` its
# landscape. In the certified ball around a minimum the curvature is below twice the largest at its centre, and the
# gradient at least a tenth of the distance times the smallest (`basin_radius`). One-pass SGD fluctuates about its end;
# with a second layer the gradient is that of both layers.
_CHECKS = {
    "campaign_id": ("c.campaign_id is null", "names no campaign"),
    "landscape_id": (
        "s.landscape_id != c.landscape_id or s.landscape_id != m.landscape_id",
        "is not the landscape of its campaign, or not that of its minimum",
    ),
    "minimum_id": (
        """s.outcome not in ('converged', 'saddle', 'unfinished', 'diverged')
            or (s.outcome = 'converged') != (s.minimum_id is not null)
            or (s.outcome = 'saddle') != (s.saddle_id is not null)""",
        "does not fit the outcome",
    ),
    "distance": (
        f"""(coalesce(s.minimum_id, s.saddle_id) is null) != (s.distance is null) or not s.distance >= 0
            or s.outcome = 'converged' and m.is_flat and not c.is_noisy and s.distance > {NEAR} * l.scale
            or s.outcome = 'converged' and not m.is_flat and not c.is_noisy
                and not (m.loss <= {ZERO_LOSS} * l.unit and m.radius < {NARROW} * l.scale
                    and (s.loss <= {ZERO_LOSS} * l.unit or s.distance <= {NEAR} * l.scale)) and (
                s.distance > 1.000001 * m.radius and c.dimension > l.teacher_rank
                or not l.is_trained and s.distance * m.flattest > 10 * s.gradient_norm + {START_GRADIENT} * l.scale)""",
        "is not one within the certified ball (near a flat minimum), or not that of its gradient",
    ),
    "distance_error": (
        "(c.is_noisy and s.outcome = 'converged') != (s.distance_error is not null) or s.distance_error < 0",
        "is given for one-pass SGD that converged, and only for it",
    ),
    "loss": (
        f"""m.minimum_id is not null and (s.loss is null or s.loss < m.loss - {START_LOSS} * l.unit
            or not c.is_noisy and s.loss > m.loss + {START_LOSS} * l.unit + s.distance * s.distance * m.steepest)""",
        "is not within reach of its minimum at that distance",
    ),
    "gradient_norm": (
        f"""m.minimum_id is not null and (s.gradient_norm is null or not s.gradient_norm >= 0
            or not (c.is_noisy or l.is_trained)
                and s.gradient_norm > 2 * s.distance * m.steepest + {START_GRADIENT} * l.scale)""",
        "is not within reach of its minimum at that distance",
    ),
    "stop_loss": (
        f"""len(s.stop_loss) != {STOPS} or len(s.stop_flow_time) != {STOPS} or len(s.stop_anti_aligned) != {STOPS}
            or list_min(s.stop_loss) < m.loss - {START_LOSS} * l.unit""",
        "is not what the start was at its early stops",
    ),
    "lingered_on": (
        """not list_has_all(known.saddles, s.lingered_on) or len(s.lingered_on) != len(s.lingered_for)
            or len(s.lingered_on) != len(s.lingered_norm) or len(s.lingered_on) != len(s.lingered_distance)
            or list_min(s.lingered_for) < 0""",
        "names a saddle that is not there, or lacks its numbers",
    ),
    "Q": (
        """(s.outcome in ('unfinished', 'diverged')) != (s.Q is not null) or (s.Q is null) != (s.R is null)
            or len(s.Q) != l.students * l.students or len(s.R) != l.students * l.teachers""",
        "is kept for unfinished and diverged starts, and only for them",
    ),
    "anti_aligned": ("s.anti_aligned < 0 or s.anti_aligned > l.students", "is no number of students"),
    "start_index": ("s.start_index < 0", "is negative"),
    "evaluations": ("s.evaluations < 1", "is not positive"),
    "flow_time": ("s.flow_time < 0 or (s.flow_time is null) != c.is_timeless", "is no flow time of its dynamics"),
}
# With tables that could not be read in full: what these checks need is not there.
_NEEDS = {"campaign_id": {"campaigns"}, "lingered_on": {"saddles"}}

_JOINED = """
    from starts s
    left join (
        select minimum_id, bool_or(is_minimum) is_minimum, bool_or(not is_minimum) is_saddle,
            any_value(landscape_id) landscape_id, any_value(loss) loss, any_value(radius) radius,
            bool_or(effective_students < students) is_flat,
            -- Of n copies of one neuron the curvature is n times as large.
            any_value((students - effective_students + 1)
                * greatest(coalesce(hessian_max, 0), coalesce(list_max(perpendicular_spectrum), 0))) steepest,
            any_value(case when perpendicular_min > 0 then least(hessian_min, perpendicular_min) else hessian_min end)
                flattest
        from (select *, true is_minimum from minima union all by name select *, false is_minimum from saddles)
        group by minimum_id
    ) m on m.minimum_id = coalesce(s.minimum_id, s.saddle_id)
    cross join (select coalesce(list(minimum_id), []) saddles from saddles) known
    left join (
        select campaign_id, any_value(landscape_id) landscape_id,
            any_value((campaign ->> '$.law.dimension')::bigint) dimension,
            any_value(campaign ->> '$.dynamics.name') = 'newton' is_timeless,
            any_value(campaign ->> '$.dynamics.name') = 'one-pass-sgd' is_noisy
        from campaigns group by campaign_id
    ) c on c.campaign_id = s.campaign_id
    left join (
        select landscape_id, any_value(students) students, any_value(teachers) teachers,
            any_value(teacher_rank) teacher_rank, any_value(list_max(T)) unit,
            any_value(second_layer) = 'trained' is_trained,
            any_value(sqrt(list_max(T) * teachers)) "scale"
        from landscapes group by landscape_id
    ) l on l.landscape_id = s.landscape_id"""


def start_name(campaign_id: str, index: int) -> str:
    """How a disagreement names a start."""
    return f"{campaign_id}/{index}"


def start_of(name: str) -> tuple[str, int]:
    """Inverse of `start_name`."""
    campaign_id, _, index = name.partition("/")
    return campaign_id, int(index)


def check_campaigns(catalogue: Catalogue, snapshot: Snapshot) -> Iterator[Disagreement]:
    """Are the settings those of the id, the status one that there is, and all starts of a complete campaign stored?"""
    seen = set()
    for row in snapshot.rows("select * from campaigns"):
        identity, status = row["campaign_id"], row["status"]
        if identity in seen:
            yield Disagreement("campaigns", identity, "campaign_id", identity, "", "is there twice")
        seen.add(identity)
        try:
            campaign = catalogue.campaign(identity)
        except (EnumeratorError, KeyError, TypeError, ValueError) as error:
            yield Disagreement("campaigns", identity, "campaign", "", "", str(error))
            continue
        if campaign.landscape.id != row["landscape_id"]:
            what = "is not the landscape of its settings"
            yield Disagreement("campaigns", identity, "landscape_id", row["landscape_id"], campaign.landscape.id, what)
        if status not in (*STATUSES, DELETING):
            yield Disagreement("campaigns", identity, "status", status, ", ".join(STATUSES), "is no status")
        if status != "complete" or not snapshot.is_whole("starts"):
            continue
        # Read anew: a run may have gone on since. Then the campaign has another row by now.
        ranges = catalogue.done(identity)
        expected = [(0, row["starts"])] if row["starts"] else []
        if ranges == expected or catalogue.campaign_table.row(identity) != row:
            continue
        listed = ", ".join(f"{first} to {last - 1}" for first, last in ranges[:5]) + (" ..." if len(ranges) > 5 else "")
        what = "are not the starts stored of this complete campaign"
        yield Disagreement("campaigns", identity, "starts", str(row["starts"]), listed, what)


def doubled_starts(snapshot: Snapshot) -> list[tuple[str, int, int]]:
    """Campaign, index and number of copies of each start that is stored more than once."""
    # Counting distinct values campaign by campaign is cheap; only what has copies is grouped in full.
    totals = snapshot.query(
        "select campaign_id, count(*) - count(distinct start_index) surplus from starts group by campaign_id"
    ).to_pylist()
    found = []
    for name in [row["campaign_id"] for row in totals if row["surplus"]]:
        found += snapshot.query(
            f"""select campaign_id, start_index, count(*) n from starts where campaign_id = {quoted(name)}
            group by all having count(*) > 1 order by all"""
        ).to_pylist()
    return [(row["campaign_id"], row["start_index"], row["n"]) for row in found]


def wrong_starts(snapshot: Snapshot) -> pa.Table:
    """The starts that contradict themselves, their point or their campaign.

    campaign_id, start_index, the point named, whether that is `missing`, and the text of each checked
    column where it is wrong, null where it is right.
    """
    wrong = [
        f"case when coalesce({condition}, false) then coalesce(s.{column}::varchar, 'null') end as {column}"
        for column, (condition, _) in _CHECKS.items()
        if snapshot.is_whole(*_NEEDS.get(column, ()))
    ]
    missing = """s.minimum_id is not null and not coalesce(m.is_minimum, false)
        or s.saddle_id is not null and not coalesce(m.is_saddle, false)"""
    if not snapshot.is_whole("minima", "saddles"):
        missing = "false"
    columns = [entry.rpartition(" as ")[2] for entry in wrong]
    return snapshot.query(
        f"""select * from (
            select s.campaign_id as campaign, s.start_index as index, coalesce(s.minimum_id, s.saddle_id) as point,
                {missing} as missing, {", ".join(wrong)} {_JOINED}
        ) where missing or coalesce({", ".join(columns)}) is not null order by campaign, index"""
    )


def check_starts(snapshot: Snapshot) -> Iterator[Disagreement]:
    """Starts stored twice, that name what is not there, or whose numbers contradict their minimum."""
    for name, index, copies in doubled_starts(snapshot):
        what = "is there more than once"
        yield Disagreement("starts", start_name(name, index), "start_index", str(copies), "1", what)
    table = wrong_starts(snapshot)
    listed = Counter[tuple[str, str]]()
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            for column, stored, what in _faults(row):
                listed[row["campaign"], column] += 1
                if listed[row["campaign"], column] <= MOST_LISTED:
                    yield Disagreement("starts", start_name(row["campaign"], row["index"]), column, stored, "", what)
    for (name, column), count in listed.items():
        if count > MOST_LISTED:
            what = f"is wrong in {count - MOST_LISTED:,} more starts of this campaign"
            yield Disagreement("starts", name, column, "", "", what)


def _faults(row: dict) -> Iterator[tuple[str, str, str]]:
    if row["missing"]:
        yield "minimum_id", row["point"], "names a point that is not there"
    for column, (_, what) in _CHECKS.items():
        if row.get(column) is not None:
            yield column, row[column][:60], what


def check_kept(
    snapshot: Snapshot, landscapes: dict[str, Landscape], rng: np.random.Generator
) -> Iterator[Disagreement]:
    """Loss of unfinished starts against their overlaps, for at most a thousand of them drawn at random.

    `landscapes` by their ids.
    """
    seed = int(rng.integers(2**31))
    rows = snapshot.query(
        f"""select campaign_id, start_index, landscape_id, loss, Q, R, second_layer from starts
        where outcome = 'unfinished' and Q is not null and R is not null
        order by hash(start_index + {seed}), campaign_id, start_index limit 1000"""
    )
    for row in from_table(rows):
        landscape = landscapes.get(row["landscape_id"])
        if landscape is None:
            continue
        T = landscape.T
        name, K = start_name(row["campaign_id"], row["start_index"]), round(len(row["Q"]) ** 0.5)
        if (len(row["Q"]), len(row["R"])) != (K * K, K * len(T)):
            continue  # reported with the other columns
        Q, R = row["Q"].reshape(K, K), row["R"].reshape(K, len(T))
        computed = loss_of(Q, R, landscape, row["second_layer"])
        unit = (np.sqrt(np.abs(np.diag(Q))).sum() + np.sqrt(np.diag(T)).sum()) ** 2
        if row["loss"] is None or not abs(row["loss"] - computed) <= KEPT_LOSS * unit:
            yield Disagreement("starts", name, "loss", str(row["loss"]), repr(computed), OVERLAPS)


def check_replays(
    catalogue: Catalogue, snapshot: Snapshot, points: Points, sample: int, rng: np.random.Generator, tell: Share
) -> Iterator[Disagreement]:
    """Run a random sample of the starts again, and compare where they end."""
    if not snapshot.is_whole("minima", "saddles"):
        return
    counts = snapshot.query(
        """select campaign_id, count(*) n, min(start_index) low, max(start_index) high
        from starts group by campaign_id order by campaign_id"""
    ).to_pylist()
    total = sum(row["n"] for row in counts)
    picked = rng.choice(total, min(sample, total), replace=False)
    shares = np.histogram(picked, np.cumsum([0, *(row["n"] for row in counts)]))[0] if counts else np.zeros(0, int)
    for done, (row, share) in enumerate(zip(counts, shares, strict=True)):
        tell(int(shares[:done].sum()), len(picked))
        if share == 0:
            continue
        try:
            campaign = catalogue.campaign(row["campaign_id"])
        except (EnumeratorError, KeyError, TypeError, ValueError):
            continue  # reported with the campaigns
        if campaign.landscape.id not in points:
            continue  # reported with the landscapes
        low, span = max(row["low"], 0), row["high"] - max(row["low"], 0) + 1
        if span > 0:
            drawn = low + rng.choice(span, min(int(share), span), replace=False)
            yield from _replayed(snapshot, campaign, points[campaign.landscape.id], np.sort(drawn))


def _replayed(
    snapshot: Snapshot, campaign: Campaign, known: dict[str, StationaryPoint], indices: np.ndarray
) -> Iterator[Disagreement]:
    rows = snapshot.query(
        f"""select start_index, outcome, coalesce(minimum_id, saddle_id) point from starts
        where campaign_id = {quoted(campaign.id)} and start_index in ({", ".join(map(str, indices))})
        order by start_index"""
    ).to_pylist()
    law = campaign.law
    rows = [row for row in rows if law.Q is None or row["start_index"] < len(law.Q)]
    unique = {row["start_index"]: row for row in rows}
    if not unique:
        return
    again = follow_starts(campaign, np.array(list(unique)))
    names = [*known, ""]
    found = [names[position] for position in match_points(again.points, list(known.values()))]
    for row, outcome, point in zip(unique.values(), again.starts.outcome, again.starts.point, strict=True):
        ended = (OUTCOMES[outcome], found[point] if point >= 0 else None)
        finished_since = row["outcome"] == "unfinished" and ended[0] != "diverged"  # by implicit steps, added since
        if ended != (row["outcome"], row["point"]) and not finished_since:
            name = start_name(campaign.id, row["start_index"])
            stored, computed = f"{row['outcome']} {row['point']}", f"{ended[0]} {ended[1]}"
            yield Disagreement("starts", name, "minimum_id", stored, computed, REPLAYED)
