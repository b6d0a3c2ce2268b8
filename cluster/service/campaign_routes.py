"""Routes that act: start a campaign, follow it, cancel it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from cluster.service.bodies import described
from cluster.service.campaign_processes import BusyError
from cluster.service.read_routes import ERROR, ERRORS, CampaignName
from cluster.service.reader_pool import AnswerError
from cluster.service.settings import settings_schema
from enumerator.errors import InputError

router = APIRouter()

_STATUS = {
    "campaign_id": "c-5345c825919c86a2", "campaign_name": "relu.9.9.flow.d1000.s0", "status": "running",
    "done": 512, "asked": 1000, "rate": 84.2,
    "seconds_left": 5.8, "minima": 3, "unfinished": 0,
}  # fmt: skip
_STANDS: dict[int | str, dict[str, Any]] = {
    200: {"description": "How the campaign stands.", "content": {"application/json": {"example": _STATUS}}}
}
_TAKEN: dict[int | str, dict[str, Any]] = {
    202: {"description": "It runs.", "content": {"application/json": {"example": _STATUS}}},
    409: {"description": "As many campaigns run as may run at once.", "content": ERROR},
}


@router.post(
    "/campaigns",
    tags=["campaigns"],
    status_code=202,
    responses={**_TAKEN, **ERRORS},
    openapi_extra=described(settings_schema()),
)
async def start(request: Request) -> JSONResponse:
    """Run a campaign, described as in a campaign file; the same request again resumes it, or extends it."""
    state, body = request.app.state.enumerator, await request.body()
    wanted = json.loads(await (await state.readers.ask({"op": "campaign"}, body)).whole())
    names = wanted["campaign_id"], wanted["campaign_name"]
    try:
        stands = await asyncio.to_thread(state.runs.start, names, wanted["starts"], body)
    except BusyError as error:
        raise AnswerError(409, str(error)) from None
    where = f"{request.scope['root_path']}/campaigns/{stands['campaign_id']}"
    return JSONResponse(stands, 202, {"Location": where})


@router.get("/campaigns/{name}", tags=["campaigns"], responses={**_STANDS, **ERRORS})
async def status(name: CampaignName, request: Request) -> dict[str, Any]:
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
    columns = "campaign_id,campaign_name,status,starts"
    try:
        (row,) = catalogue.campaigns(campaign=name, columns=columns).to_pylist()
    except InputError:
        return None
    minima = catalogue.minima(campaign=row["campaign_id"], columns="minimum_id").num_rows
    status = "stored" if row["status"] == "running" else row["status"]
    return row | {"status": status, "minima": minima, "done": row.pop("starts")}


@router.get("/campaigns/{name}/logs", tags=["campaigns"], response_class=PlainTextResponse, responses=ERRORS)
async def logs(name: CampaignName, request: Request) -> PlainTextResponse:
    """What a run that was started here has said."""
    text = request.app.state.enumerator.runs.logs(name)
    if text is None:
        raise AnswerError(404, f"no campaign {name[:80]!r} was started here.")
    return PlainTextResponse(text)


@router.post("/campaigns/{name}/cancel", tags=["campaigns"], responses={**_STANDS, **ERRORS})
async def cancel(name: CampaignName, request: Request) -> dict[str, Any]:
    """Stop a run that was started here, after the shard that it is storing; what is stored stays."""
    runs = request.app.state.enumerator.runs
    if not runs.cancel(name) and runs.status(name) is None:
        raise AnswerError(404, f"no campaign {name[:80]!r} was started here.")
    return runs.status(name)
