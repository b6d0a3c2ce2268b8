"""Routes that act: start a campaign, follow it, cancel it."""

from __future__ import annotations

import asyncio
import copy
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from cluster.service.limits import MOST_NEURONS
from cluster.service.readers import AnswerError
from cluster.service.runs import REFUSED, BusyError
from cluster.service.tables import ERROR, ERRORS
from enumerator.tables import campaign_file_schema

router = APIRouter()

_STATUS = {
    "campaign_id": "c-5345c825919c86a2", "status": "running", "done": 512, "asked": 1000, "rate": 84.2,
    "seconds_left": 5.8, "minima": 3, "unfinished": 0,
}  # fmt: skip
_STANDS: dict[int | str, dict[str, Any]] = {
    200: {"description": "How the campaign stands.", "content": {"application/json": {"example": _STATUS}}}
}
_TAKEN: dict[int | str, dict[str, Any]] = {
    202: {"description": "It runs.", "content": {"application/json": {"example": _STATUS}}},
    409: {"description": "As many campaigns run as may run at once.", "content": ERROR},
}


def _settings_schema() -> dict[str, Any]:
    """What a campaign file may hold, with matrices in the place of files; of one campaign."""
    schema = copy.deepcopy(campaign_file_schema())
    properties = schema["properties"]
    for name in REFUSED:
        properties.pop(name)
    for name in ("students", "teachers"):
        properties[name]["maximum"] = MOST_NEURONS
    matrix = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    properties["T"] = {**matrix, "description": "Teacher overlaps (M, M); orthonormal teachers if not given."}
    for name, shape in (("Q", "(n, K, K)"), ("R", "(n, K, M)")):
        properties[name] = {"type": "array", "items": matrix, "description": f"Given initial overlaps {shape}."}
    return {key: schema[key] for key in ("type", "additionalProperties", "required", "properties")}


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _settings_schema(),
                "example": {"students": 9, "teachers": 9, "starts": 1000, "seed": 0},
            }
        },
    }
}


@router.post("/campaigns", tags=["campaigns"], status_code=202, responses={**_TAKEN, **ERRORS}, openapi_extra=_BODY)
async def start(request: Request, settings: Annotated[dict[str, Any], Body()]) -> JSONResponse:
    """Run a campaign, described as in a campaign file; the same request again resumes it, or extends it."""
    try:
        stands = await asyncio.to_thread(request.app.state.enumerator.runs.start, settings)
    except BusyError as error:
        raise AnswerError(409, str(error)) from None
    where = f"{request.scope['root_path']}/campaigns/{stands['campaign_id']}"
    return JSONResponse(stands, 202, {"Location": where})


@router.get("/campaigns/{name}", tags=["campaigns"], responses={**_STANDS, **ERRORS})
async def status(name: str, request: Request) -> dict[str, Any]:
    """How a campaign stands: progress, rate, time left, distinct minima, unfinished starts."""
    state = request.app.state.enumerator
    if (stands := state.runs.status(name)) is not None:
        return stands
    found = await asyncio.to_thread(_stored, state.catalogue, name)
    if found is None:
        raise AnswerError(404, f"no campaign {name[:80]!r} in this catalogue, and none that was started here.")
    return found


def _stored(catalogue: Any, name: str) -> dict[str, Any] | None:
    """How a campaign stands that this service does not run, from what is stored."""
    row = catalogue.campaign_table.row(name)
    if row is None:
        return None
    minima = catalogue.minima(campaign=name, columns="minimum_id").num_rows
    stored = catalogue.campaigns(campaign=name, columns="starts")["starts"][0].as_py()
    return {"campaign_id": name, "status": "stored" if row["status"] == "running" else row["status"]} | {
        "done": stored, "minima": minima,
    }  # fmt: skip


@router.get("/campaigns/{name}/logs", tags=["campaigns"], response_class=PlainTextResponse, responses=ERRORS)
async def logs(name: str, request: Request) -> PlainTextResponse:
    """What a run that was started here has said."""
    text = request.app.state.enumerator.runs.logs(name)
    if text is None:
        raise AnswerError(404, f"no campaign {name[:80]!r} was started here.")
    return PlainTextResponse(text)


@router.post("/campaigns/{name}/cancel", tags=["campaigns"], responses={**_STANDS, **ERRORS})
async def cancel(name: str, request: Request) -> dict[str, Any]:
    """Stop a run that was started here, after the shard that it is storing; what is stored stays."""
    runs = request.app.state.enumerator.runs
    if not runs.cancel(name) and runs.status(name) is None:
        raise AnswerError(404, f"no campaign {name[:80]!r} was started here.")
    return runs.status(name)
