"""Routes that read: tables, one minimum, statistics, SQL, identification, health and metrics."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from cluster.service import metrics
from cluster.service.bodies import Network, described, read_as
from cluster.service.media_types import MEDIA_TYPES
from cluster.service.reader_pool import AnswerError
from cluster.service.responses import Form, format_of, respond
from enumerator.catalogue.schema import TABLE_NAMES, table_schema
from enumerator.catalogue.selection import MEANINGS, Selection, output_schema
from enumerator.statistics.by_name import misplaced

router = APIRouter()

# Rows of a page of JSON where no limit is given.
PAGE = 100
TableName = Literal["landscapes", "initial_overlaps", "campaigns", "minima", "saddles", "starts"]
Statistic = Literal["frequencies", "unseen", "accumulation", "distributions", "comparison", "trend"]
CampaignName = Annotated[str, Path(description="Name or id of the campaign.")]
_WHOLE = 2**53
_LIST = 10_000
# Bytes of the body of a statement: each of its characters may be two escapes of six.
_STATEMENT_BYTES = 2**17
# How errors and tables look, for the description of the interface.
ERROR = {
    "application/json": {
        "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": ERROR}
    for status, text in {
        400: "Something in the request cannot be: one line says what.",
        401: "The token is missing, or another.",
        403: "A page of another site asks.",
        404: "There is nothing by this name.",
        406: "None of the formats that are accepted can be given.",
        410: "The snapshot can no longer be read.",
        408: "The body did not come in time.",
        413: "The request is too large.",
        415: "A POST without `Content-Type: application/json`.",
        421: "Without a token the service answers to the names of this machine only.",
        422: "A value is not what the description asks for, or the answer goes beyond a limit.",
        429: "Too many requests at once.",
        503: "The catalogue cannot be read.",
    }.items()
}
_ROW = {
    "label": "relu.9.9.0374890", "loss": 0.0374889628, "hits": 9, "starts": 2000, "frequency": 0.0045,
    "campaign_names": "relu.9.9.flow.d1000.s0",
}  # fmt: skip
_SHARE = {
    "students": 9, "teachers": 9, "outcome": "converged", "anti_aligned": 0, "hits": 1210, "starts": 2000,
    "frequency": 0.605, "exact_low": 0.5832, "exact_high": 0.6265,
}  # fmt: skip


def _rows(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """An answer of rows such as this one."""
    json_rows = {"schema": {"type": "array", "items": {"type": "object"}}, "example": [example]}
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {kind: json_rows if kind == "application/json" else binary for kind in MEDIA_TYPES.values()}
    return {
        200: {"description": "The rows, in the format asked for.", "content": content},
        304: {"description": "Nothing has changed since the answer with this ETag."},
    }


_STOPPED = {"anti_aligned": 0, "zero_loss": True, "stopped": 1189, "hits": 1210, "frequency": 0.605}
TABLE, STATISTIC, EARLY = _rows(_ROW), _rows(_SHARE), _rows(_STOPPED)
# What tables say besides that, of which parts can be asked for.
PART: dict[int | str, dict[str, Any]] = {
    206: {"description": "The bytes that `Range` asks for, of CSV and Parquet."},
    412: {"description": "The table has another ETag than `If-Match` asks for."},
    416: {"description": "The table has no such bytes."},
}


class _Selected(Form):
    """Which landscapes and dynamics."""

    students: Annotated[int | None, Field(ge=0, le=_WHOLE, description=MEANINGS["students"], examples=[9])] = None
    teachers: Annotated[int | None, Field(ge=0, le=_WHOLE, description=MEANINGS["teachers"], examples=[9])] = None
    activation: Annotated[str | None, Field(max_length=100, description=MEANINGS["activation"])] = None
    landscape: Annotated[str | None, Field(max_length=100, description=MEANINGS["landscape"])] = None
    dynamics: Annotated[str | None, Field(max_length=100, description=MEANINGS["dynamics"])] = None
    dimension: Annotated[int | None, Field(ge=0, le=_WHOLE, description=MEANINGS["dimension"], examples=[1000])] = None
    scale: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description=MEANINGS["scale"])] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63, description=MEANINGS["seed"])] = None


class TableQuery(_Selected):
    """Which rows and columns, in which order."""

    campaign: Annotated[
        str | None, Field(max_length=200, description="Only this campaign, a name or an id; hits count in it.")
    ] = None
    where: Annotated[
        str | None,
        Field(max_length=10_000, description="An SQL condition on the columns.", examples=["loss > 0.01 and hits > 3"]),
    ] = None
    columns: Annotated[
        str | None,
        Field(max_length=_LIST, description="Names with commas between.", examples=["label,loss,hits,frequency"]),
    ] = None
    sort: Annotated[
        str | None,
        Field(
            max_length=_LIST,
            description="Names with commas between, `-` before one that falls.",
            examples=["-frequency"],
        ),
    ] = None
    limit: Annotated[
        int | None, Field(ge=0, le=_WHOLE, description=f"At most so many rows; {PAGE} for JSON if not given, else all.")
    ] = None
    offset: Annotated[int | None, Field(ge=0, le=_WHOLE, description="After so many others.")] = None

    def selection(self) -> Selection:
        """The selection of `enumerator.catalogue.selection`."""
        names = Selection.__annotations__
        return Selection(**{k: v for k, v in self.model_dump(exclude_none=True).items() if k in names})  # type: ignore[typeddict-item]  # in names


class StatisticsQuery(_Selected):
    """Which starts, and how they are counted."""

    campaign: Annotated[
        str | None, Field(max_length=_LIST, description="Only these campaigns, names or ids with commas between.")
    ] = None
    where: Annotated[
        str | None,
        Field(max_length=10_000, description="An SQL condition on the columns of starts.", examples=["loss > 0.01"]),
    ] = None
    by: Annotated[
        Literal["minimum", "order", "outcome"] | None,
        Field(description="Frequencies and distributions: by minimum if not given.", examples=["order"]),
    ] = None
    quantity: Annotated[
        Literal["flow_time", "loss", "evaluations", "gradient_norm", "distance", "global", "order"] | None,
        Field(description="Distributions: a column of starts, flow_time if not given. Trend: global, or order."),
    ] = None
    more: Annotated[int | None, Field(ge=0, le=_WHOLE, description="Unseen: predict for so many further starts.")] = (
        None
    )
    confidence: Annotated[float, Field(gt=0, lt=1, description="Of every interval.")] = 0.95

    def selection(self) -> dict[str, Any]:
        """The selection of `enumerator.statistics`."""
        names = {*_Selected.model_fields, "campaign", "where"} - {*Form.model_fields}
        chosen = self.model_dump(include=names, exclude_none=True)
        return chosen | ({"campaign": chosen["campaign"].split(",")} if "campaign" in chosen else {})


class EarlyStopQuery(Form):
    """Where the starts would have been stopped: at one of the two."""

    gradient_norm: Annotated[
        float | None, Field(description="A gradient norm to stop at: 1e-3, 1e-4 or 1e-6.", examples=[1e-4])
    ] = None
    flow_time: Annotated[float | None, Field(description="Or a flow time: 1e2, 1e3, 1e4 or 1e5.")] = None


class SqlQuery(Form):
    """One statement."""

    query: Annotated[
        str,
        Field(
            max_length=10_000,
            description="One SELECT statement (DuckDB).",
            examples=["select outcome, count(*) as n from starts group by outcome"],
        ),
    ]


@router.get("/", tags=["service"], responses={401: ERRORS[401]})
async def face(request: Request) -> dict[str, Any]:
    """What answers here: the version of the software, and where the description of the interface and the tables are."""
    at, app = request.scope["root_path"], request.app
    tables = {name: f"{at}/tables/{name}" for name in TABLE_NAMES}
    told = {"name": app.title, "summary": app.summary, "version": app.version}
    return told | {"description": f"{at}/openapi.json", "columns": f"{at}/tables", "tables": tables}


@router.get("/health", tags=["service"], responses={503: ERRORS[503]})
async def health(request: Request) -> dict[str, str]:
    """Whether the service answers, and can read the catalogue."""
    return {"status": "ok", "snapshot": await request.app.state.enumerator.snapshot()}


@router.get("/metrics", tags=["service"], response_class=Response, responses={401: ERRORS[401]})
async def prometheus(request: Request) -> Response:
    """Metrics in the text format of Prometheus."""
    state = request.app.state.enumerator
    query = (
        "select (select count(*) from minima) as catalogue_minima, count(*) as catalogue_starts, "
        "count(*) filter (outcome = 'unfinished') as catalogue_starts_unfinished from starts"
    )
    asked = {"op": "sql", "query": query, "format": "json", "snapshot": await state.snapshot()}
    (row,) = json.loads(await (await state.readers.ask(asked)).whole())
    text = state.metrics.text(readers_busy=state.readers.busy, runs=state.runs.running, **row)
    return Response(text, media_type=metrics.CONTENT_TYPE)


@router.get("/tables", tags=["tables"])
async def describe_tables() -> dict[str, Any]:
    """The tables with their columns, each with its type and what it holds."""
    return {name: _described(name) for name in TABLE_NAMES}


def _described(name: str) -> dict[str, Any]:
    schema = table_schema(name)
    told = {column.name: column.description for column in schema.columns}
    columns = [
        {"name": field.name, "type": str(field.type), "nullable": field.nullable, "description": told.get(field.name)}
        for field in output_schema(name)
    ]
    return {"description": schema.description, "key": schema.key, "columns": columns}


@router.get("/tables/{name}", tags=["tables"], responses={**TABLE, **PART, **ERRORS}, response_class=JSONResponse)
async def table(
    name: Annotated[TableName, Path(description="Name of the table.")],
    request: Request,
    query: Annotated[TableQuery, Query()],
) -> Response:
    """The rows of a table that the parameters select."""
    limits = request.app.state.enumerator.limits
    format, selection = format_of(request, query), query.selection()
    page = query.limit
    if format == "json":
        page = PAGE if page is None else page
        if page > limits.json_rows:
            raise AnswerError(
                422, f"JSON comes in pages of {limits.json_rows:,} rows at most: ask for Arrow, or use `limit`."
            )
    elif page is not None and page > limits.json_rows:
        page = None  # streamed, without a look ahead
    if page is not None:
        selection["limit"] = page + 1  # the last tells that there are more
    question = {"op": "table", "name": name, "selection": selection, "format": format}
    return await respond(request, query, question, page, by_ranges=True)


@router.get("/minima/{name}", tags=["tables"], responses={**TABLE, **ERRORS}, response_class=JSONResponse)
async def minimum(
    name: Annotated[str, Path(description="Its label or id.")], request: Request, query: Annotated[Form, Query()]
) -> Response:
    """One minimum or saddle by its label or id; in JSON its matrices Q and R are lists of rows."""
    return await respond(request, query, {"op": "point", "name": name})


@router.get("/statistics/{of}", tags=["tables"], responses={**STATISTIC, **ERRORS}, response_class=JSONResponse)
async def statistics(
    of: Annotated[Statistic, Path(description="Which statistic.")],
    request: Request,
    query: Annotated[StatisticsQuery, Query()],
) -> Response:
    """A statistic of the starts selected: their shares, what was not seen, comparisons, trends; as `enumerator stats`.

    Every share is one of all starts. Starts are counted together where campaigns differ in the seed alone.
    """
    options = query.model_dump(include={"by", "quantity", "more"}, exclude_none=True)
    if (wrong := misplaced(of, options)) is not None:
        raise AnswerError(422, f"`{wrong[0]}` goes with {wrong[1]}, got {of}.")
    question = {"op": "statistics", "of": of, "options": options, "confidence": query.confidence}
    return await respond(request, query, question | {"selection": query.selection()})


@router.get("/early-stops/{campaign}", tags=["tables"], responses={**EARLY, **ERRORS}, response_class=JSONResponse)
async def early_stops(campaign: CampaignName, request: Request, query: Annotated[EarlyStopQuery, Query()]) -> Response:
    """Frequencies by order as a solver that stops early would have reported them, beside the true ones."""
    asked = query.model_dump(include={"gradient_norm", "flow_time"}, exclude_none=True)
    return await respond(request, query, {"op": "early-stops", "campaign": campaign, "asked": asked})


@router.get("/sql", tags=["tables"], responses={**TABLE, **ERRORS}, response_class=JSONResponse)
async def sql(request: Request, query: Annotated[SqlQuery, Query()]) -> Response:
    """The result of one SELECT statement over the tables. Nothing else can be read, nothing can be written."""
    return await respond(request, query, {"op": "sql", "query": query.query})


@router.post(
    "/sql",
    tags=["tables"],
    responses={**TABLE, **ERRORS},
    response_class=JSONResponse,
    openapi_extra=described(SqlQuery.model_json_schema()),
)
async def sql_in_body(request: Request) -> Response:
    """The same with the statement in the body."""
    body = await request.body()
    if len(body) > _STATEMENT_BYTES:
        raise AnswerError(413, f"a statement may have {_STATEMENT_BYTES:,} bytes at most with all around it.")
    asked = read_as(SqlQuery, body)  # as small as the head of a request
    return await respond(request, asked, {"op": "sql", "query": asked.query})


@router.post("/identify", tags=["tables"], responses=ERRORS, openapi_extra=described(Network.model_json_schema()))
async def identify(request: Request) -> Response:
    """Which minimum a network is at, or near, how far away, and where the gradient flow takes it."""
    state, body = request.app.state.enumerator, await request.body()
    size = json.loads(await (await state.readers.ask({"op": "network"}, body)).whole())
    identifiers = state.identifiers if size["neurons"] <= state.limits.small_neurons else state.large_identifiers
    return Response(await (await identifiers.ask({"op": "identify"}, body)).whole(), media_type="application/json")
