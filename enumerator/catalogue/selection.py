"""What users ask of a table: the rows of some landscapes and campaigns, with counts from the starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import pyarrow as pa

from enumerator.activations import ACTIVATIONS
from enumerator.catalogue.campaign_names import FACTS, campaign_id_of
from enumerator.catalogue.schema import table_schema
from enumerator.errors import InputError
from enumerator.problem import DYNAMICS
from enumerator.storage.sql import Datasets, nearest, one_of, quoted, run
from enumerator.validation import check_choice, check_positive, check_text

# Columns that a query appends to minima and saddles, counted in the starts of the campaigns selected, with the names of
# those that have starts, and of the one that found the point first. A share belongs to one dynamics and one initial
# law: frequency is null where the campaigns differ in more than the seed.
COUNTS = (
    ("hits", pa.int64()),
    ("starts", pa.int64()),
    ("frequency", pa.float64()),
    ("campaign_names", pa.string()),
    ("first_campaign_name", pa.string()),
)
# Saddles count besides the starts that lingered on them before they left, and the median time for which they did, null
# where frequency is.
LINGERING = (("lingered", pa.int64()), ("lingering_time", pa.float64()))
# The loss of the minimum or saddle in which a start ends; `loss` is that at which it retired, on its way there.
END_LOSS = pa.field("end_loss", pa.float64())
# What a query of `landscapes` tells of T: the numbers of a regular one, digits of the landscape's id for another.
TEACHER = pa.field("teacher", pa.string())
_TEACHER = """
    case when own = [1] and (mutual = [] or mutual = [0]) then 'orthonormal'
        when len(own) = 1 and len(mutual) = 1 then
            if(mutual = [0], 'orthogonal', 'equicorrelated ' || mutual[1]) || if(own = [1], '', ', squares ' || own[1])
        else 'given ' || landscape_id[4:11] end"""
# The column of `starts` that names the row.
_NAMED_BY = {"minima": "minimum_id", "saddles": "saddle_id"}
# Tables whose rows are of one campaign each, and have its name.
_OF_CAMPAIGNS = ("starts", "initial_overlaps")
# Order of the rows where the user asks for none, and of ties.
_ORDER = {
    "landscapes": ("students", "teachers", "activation", "landscape_id"),
    "campaigns": ("landscape_id", "campaign_id"),
    "minima": ("students", "teachers", "activation", "landscape_id", "loss", "minimum_id"),
    "saddles": ("students", "teachers", "activation", "landscape_id", "loss", "minimum_id"),
    "starts": ("campaign_id", "start_index"),
    "initial_overlaps": ("campaign_id", "start_index"),
}


# Which landscapes and campaigns: the words of the command line, and of `help(enumerator.Catalogue.minima)`.
MEANINGS = {
    "students": "Only landscapes with so many students.",
    "teachers": "Only landscapes with so many teachers.",
    "activation": "Only landscapes with this activation.",
    "landscape": "Only this landscape.",
    "campaign": "Only this campaign; hits count in it.",
    "dynamics": "Only campaigns with this dynamics.",
    "dimension": "Only campaigns with this input dimension d.",
    "scale": "Only campaigns with this scale of the initial weights.",
    "seed": "Only campaigns with this seed.",
}


class Selection(TypedDict, total=False):
    """Which rows and columns of a table, in which order: `Catalogue.minima` explains every keyword, with examples.

    What is not given, or None, leaves the choice open.
    """

    students: int | None
    teachers: int | None
    activation: str | None
    landscape: str | None
    campaign: str | None
    dynamics: str | None
    dimension: int | None
    scale: float | None
    seed: int | None
    where: str | None
    columns: str | Sequence[str] | None
    sort: str | Sequence[str] | None
    limit: int | None
    offset: int | None


# Which campaigns: the selections that are told by their columns.
BY_CAMPAIGN = ("campaign", "dynamics", "dimension", "scale", "seed")


class Statement(NamedTuple):
    """A selection as SQL over the tables that it needs, with the columns of its result."""

    query: str
    schema: pa.Schema
    hint: str


# The starts of each campaign counted by where they ended: what stands for the starts where nothing else is asked.
TALLY = (
    "select campaign_id, landscape_id, minimum_id, saddle_id, count(*)::bigint as n from starts "
    "group by campaign_id, landscape_id, minimum_id, saddle_id"
)


def check_selection(selection: Selection) -> None:
    """Raise TypeError for a selection by what no table has."""
    if unknown := set(selection) - set(Selection.__annotations__):
        raise TypeError(
            f"no such selection: {', '.join(sorted(unknown))}. There are {', '.join(Selection.__annotations__)}."
        )


def as_sql(
    name: str,
    selection: Selection,
    datasets: Datasets,
    tally: str = f"({TALLY})",
    window: tuple[str, int, int] | None = None,
) -> Statement:
    """The statement that gives the rows of table `name` that `selection` asks for.

    `datasets` hold the tables that `needed` names. `tally` is the result of TALLY, or the name of a table
    that is. A `window` (campaign, first, last) leaves only the starts [first, last) of a campaign, for
    tables whose rows are starts. Raises InputError for names that do not exist.
    """
    valid = output_schema(name)
    columns = named_columns(selection.get("columns"), valid)
    keys = [_sort_key(entry, valid) for entry in _entries(selection.get("sort"), "sort")]
    keys += [f'"{column}"' for column in _ORDER[name]]
    relation = _relation(name, _landscapes(selection, datasets), campaign_ids(selection, datasets), tally)
    if window is not None:
        campaign, first, last = window
        inside = f"campaign_id = {quoted(campaign)} and start_index >= {first} and start_index < {last}"
        relation = f"select * from ({relation}) where {inside}"
    where, limit, offset = selection.get("where"), selection.get("limit"), selection.get("offset")
    # The line break ends a comment with which `where` may end.
    condition = "" if where is None else f"\nwhere ({check_text('where', where)}\n)"
    shown = ", ".join(f'"{column}"' for column in columns)
    query = f"select {shown} from ({relation}) {condition}\norder by {', '.join(keys)}"
    query += "" if limit is None else f"\nlimit {_whole('limit', limit)}"
    query += "" if offset is None else f"\noffset {_whole('offset', offset)}"
    schema = pa.schema([valid.field(column) for column in columns])
    return Statement(query, schema, f"The columns are {', '.join(valid.names)}")


def output_schema(name: str) -> pa.Schema:
    """The columns that a query of the table `name` can give, counts included."""
    fields = list(table_schema(name).arrow)
    if name == "landscapes":
        fields.append(TEACHER)
    if name == "campaigns":
        fields += list(FACTS)
    if name in _OF_CAMPAIGNS:
        fields.append(FACTS.field("campaign_name"))
    if name == "starts":
        fields.append(END_LOSS)
    if name in _NAMED_BY:
        fields += [pa.field(column, kind) for column, kind in COUNTS]
    if name == "saddles":
        fields += [pa.field(column, kind) for column, kind in LINGERING]
    return pa.schema(fields)


def needed(name: str, selection: Selection) -> set[str]:
    """The tables that a selection from the table `name` reads. Raises TypeError for one by what no table has."""
    check_selection(selection)
    tables = {name}
    if name in ("minima", "saddles", "campaigns"):
        tables.add("starts")
    if name == "starts":
        tables |= {"minima", "saddles"}
    if name != "landscapes":
        tables.add("campaigns")
    if _landscape_condition(selection):
        tables.add("landscapes")
    if any(selection.get(key) is not None for key in BY_CAMPAIGN):
        tables.add("campaigns")
    return tables


def _landscape_condition(selection: Selection) -> str:
    """An SQL condition on table `landscapes`, empty for all."""
    conditions = []
    for name in ("students", "teachers"):
        if (size := selection.get(name)) is not None:
            conditions.append(f"{name} = {_whole(name, size)}")
    if (activation := selection.get("activation")) is not None:
        conditions.append(f"activation = {quoted(check_choice('activation', activation, ACTIVATIONS))}")
    if (landscape := selection.get("landscape")) is not None:
        conditions.append(f"landscape_id = {quoted(check_text('landscape', landscape))}")
    return " and ".join(conditions)


def _landscapes(selection: Selection, datasets: Datasets) -> list[str] | None:
    """Ids of the landscapes selected, None for all. Raises InputError for an unknown landscape."""
    condition = _landscape_condition(selection)
    if not condition:
        return None

    def ids(where: str) -> list[str]:
        query = f"select landscape_id from landscapes where {where} order by landscape_id"
        return run(query, {"landscapes": datasets["landscapes"]})["landscape_id"].to_pylist()

    found, wanted = ids(condition), selection.get("landscape")
    if wanted is not None and not found and wanted not in (known := ids("true")):
        raise InputError(f"no landscape {wanted!r} in this catalogue ({nearest(wanted, known)}).")
    return found


def _campaign_condition(selection: Selection) -> str:
    """An SQL condition on table `campaigns`, `campaign` left out; true for all."""
    conditions = ["true"]
    for name in ("dimension", "seed"):
        if (number := selection.get(name)) is not None:
            conditions.append(f"{name} = {_whole(name, number)}")
    if (scale := selection.get("scale")) is not None:
        conditions.append(f"scale = '{check_positive('scale', scale)!r}'::double")
    if (dynamics := selection.get("dynamics")) is not None:
        conditions.append(f"dynamics = {quoted(check_choice('dynamics', dynamics, DYNAMICS))}")
    return " and ".join(conditions)


# What `counted_together` looks at.
COUNTED = ("starts", "frequency", "campaign_names")


def counted_together(points: pa.Table) -> list[str]:
    """The campaigns that rows of minima or saddles (with the columns COUNTED) count though they are not alike."""
    unlike = {
        row["campaign_names"]
        for row in points.select(COUNTED).to_pylist()
        if row["frequency"] is None and row["starts"] > 0
    }
    return sorted({name for names in unlike for name in names.split(",")})


def campaign_ids(selection: Selection, datasets: Datasets) -> list[str] | None:
    """Ids of the campaigns selected, None for all. Raises InputError for an unknown campaign."""
    if all(selection.get(key) is None for key in BY_CAMPAIGN):
        return None
    chosen = f"coalesce({_campaign_condition(selection)}, false) as chosen"
    query = f"select campaign_id, campaign_name, {chosen} from campaigns"
    rows = run(query, {"campaigns": datasets["campaigns"]}).to_pylist()
    campaign = selection.get("campaign")
    if campaign is not None:
        campaign = campaign_id_of(campaign, {row["campaign_id"]: row["campaign_name"] for row in rows})
    return [row["campaign_id"] for row in rows if row["chosen"] and campaign in (None, row["campaign_id"])]


def _relation(name: str, landscapes: list[str] | None, campaigns: list[str] | None, tally: str) -> str:
    """The table with its counts, cut to these landscapes and campaigns, as SQL."""
    in_landscapes = "true" if landscapes is None else one_of("landscape_id", landscapes)
    in_campaigns = "true" if campaigns is None else one_of("campaign_id", campaigns)
    both = f"{in_landscapes} and {in_campaigns}"
    if name in _OF_CAMPAIGNS:
        return _rows_of_campaigns(name, both)
    if name == "landscapes":
        found = "true" if campaigns is None else f"landscape_id in (select landscape_id from campaigns where {both})"
        entry = "list_distinct([T[k + 1] for k in range(len(T)) if k % (teachers + 1) {} 0])"
        told = f"select *, {entry.format('=')} as own, {entry.format('!=')} as mutual from landscapes"
        return f"select *, {_TEACHER} as teacher from ({told}) where {in_landscapes} and {found}"
    if name == "campaigns":
        return f"""
            with counts as (select campaign_id, sum(n)::bigint as n from {tally} where {both} group by all)
            select campaigns.* replace (coalesce(n, 0) as starts)
            from campaigns left join counts using (campaign_id) where {both}"""
    return _points(name, in_landscapes, both, tally, only_met=campaigns is not None)


def _rows_of_campaigns(name: str, condition: str) -> str:
    """The rows of `starts` or `initial_overlaps` with the name of their campaign, and the loss of a start's end."""
    if name == "initial_overlaps":
        condition = f"campaign_id in (select campaign_id from campaigns where {condition})"
    end_loss, ends = "", ""
    if name == "starts":
        end_loss = ", ends.loss as end_loss"
        ends = """
            left join (
                select minimum_id as point_id, loss from minima union all select minimum_id, loss from saddles
            ) as ends on coalesce(rows.minimum_id, rows.saddle_id) = ends.point_id"""
    return f"""
            select rows.*, campaign_name{end_loss} from (select * from {name} where {condition}) as rows
            left join campaigns on rows.campaign_id = campaigns.campaign_id{ends}"""


def _points(name: str, in_landscapes: str, both: str, tally: str, only_met: bool) -> str:
    """The minima or saddles with their counts; `only_met`: those that the starts counted have met."""
    lingering, met = "", "counts.n is not null"
    if name == "saddles":
        lingering = ", coalesce(passed.n, 0) as lingered, case when totals.samples = 1 then passed.time end"
        lingering += " as lingering_time"
        met = f"({met} or passed.n > 0)"
    return f"""
        with tallied as materialized (select * from {tally} where {both}),
        counts as (
            select landscape_id, {_NAMED_BY[name]} as named, sum(n)::bigint as n from tallied group by all
        ),
        counted as (select landscape_id, campaign_id, sum(n)::bigint as n from tallied group by all),
        totals as (
            select counted.landscape_id, sum(n)::bigint as n, count(distinct coalesce(sample, campaign_id)) as samples,
                string_agg(coalesce(campaign_name, campaign_id), ',' order by campaign_name) as names
            from counted left join campaigns using (campaign_id) group by all
        ),
        passings as (
            select campaign_id, start_index, unnest(lingered_on) as named, unnest(lingered_for) as time
            from starts where {both} and {"true" if name == "saddles" else "false"}
        ),
        passed as (
            select named, count(distinct (campaign_id, start_index)) as n, median(time) as time
            from passings group by named
        )
        select points.*, coalesce(counts.n, 0) as hits, coalesce(totals.n, 0) as starts,
            case when totals.samples = 1 then coalesce(counts.n, 0) / totals.n end as frequency,
            totals.names as campaign_names, campaign_name as first_campaign_name{lingering}
        from (select * from {name} where {in_landscapes}) as points
        left join counts on points.minimum_id = counts.named
        left join passed on points.minimum_id = passed.named
        left join totals on points.landscape_id = totals.landscape_id
        left join campaigns on points.first_campaign_id = campaigns.campaign_id
        where {met if only_met else "true"}"""


def named_columns(given: str | Sequence[str] | None, valid: pa.Schema) -> list[str]:
    """The columns that a choice names, each once, in its order; all where it names none. Raises InputError."""
    return list(dict.fromkeys(_valid(entry, valid, "columns") for entry in _entries(given, "columns"))) or valid.names


def _entries(given: Any, option: str) -> list[str]:
    entries = given.split(",") if isinstance(given, str) else given or ()
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise InputError(f"`{option}` takes names of columns, in a list or with commas between, got {given!r}.")
    return [entry.strip() for entry in entries if entry.strip()]


def _valid(column: str, valid: pa.Schema, option: str) -> str:
    if column not in valid.names:
        raise InputError(
            f"`{option}` names {column!r}, which is no column here. The columns are {', '.join(valid.names)}."
        )
    return column


def _sort_key(entry: str, valid: pa.Schema) -> str:
    column, _, direction = entry.removeprefix("-").strip().partition(" ")
    direction = direction.strip().lower()
    if direction not in ("", "asc", "desc"):
        raise InputError(f"`sort` takes names with `-` before or ` desc` behind them, got {entry!r}.")
    falls = entry.startswith("-") != (direction == "desc")
    return f'"{_valid(column, valid, "sort")}" {"desc" if falls else "asc"} nulls last'


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"`{name}` must be a whole number >= 0, got {value!r}.")
    return value
