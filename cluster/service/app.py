"""The application: its routes put together, over one catalogue. Run by uvicorn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cluster.service import campaign_routes, read_routes
from cluster.service.bodies import InvalidError, unknown
from cluster.service.campaign_processes import Runs
from cluster.service.connections import Connections
from cluster.service.limits import Limits
from cluster.service.metrics import Metrics
from cluster.service.middleware import Shell
from cluster.service.ranges import Steady
from cluster.service.reader_pool import AnswerError, Nursery, Readers
from cluster.service.spool import Spool
from cluster.service.view import Clock
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.records import software_version
from enumerator.errors import CatalogueError, EnumeratorError, InputError

# Seconds for which an answer may be older than the catalogue.
STALE_SECONDS = 0.5

DESCRIPTION = """
The local minima of two-layer networks, from one catalogue. Every answer is taken from one moment of it, which the
header `Enumerator-Snapshot` names: send it as `snapshot` to get the next page from the same moment.

Tables come as JSON, CSV, Arrow IPC stream or Parquet, as the header `Accept` (or `format`) asks. JSON comes in pages;
the header `Link` leads to the next one. Every GET has its HEAD; tables as CSV or Parquet can be read by ranges of
bytes, as files are. A POST wants `Content-Type: application/json`. Errors are objects with one line, `error`.
"""


class State:
    """What the routes share."""

    def __init__(self, address: str, limits: Limits, runs: Runs) -> None:
        self.limits, self.runs, self.metrics = limits, runs, Metrics()
        self.connections = Connections(limits)
        self.catalogue = Catalogue(address)
        self.nursery = Nursery(address)
        self.readers = Readers(self.nursery, limits, limits.readers, limits.query_seconds, limits.reader_bytes)
        # Identification compiles and computes for longer: in processes of its own, so that it holds up nobody, and that
        # of a large network no small one.
        seconds, memory = limits.identify_seconds, limits.identify_bytes
        self.identifiers = Readers(self.nursery, limits, limits.identifiers, seconds, memory)
        self.large_identifiers = Readers(self.nursery, limits, 1, limits.identify_large_seconds, memory)
        self.spool, self.steady = Spool(limits), Steady()
        self._clock, self._lock = Clock(self.catalogue.store), asyncio.Lock()
        self._token, self._read_at = "", -STALE_SECONDS
        # A thread of its own: those that others share may all be taken when one asks whether the service lives.
        self._thread = ThreadPoolExecutor(1)

    async def snapshot(self) -> str:
        """The token of the present moment, or of one at most STALE_SECONDS ago. Raises CatalogueError."""
        if time.monotonic() - self._read_at >= STALE_SECONDS:
            async with self._lock:
                if time.monotonic() - self._read_at >= STALE_SECONDS:
                    now = asyncio.get_running_loop().run_in_executor(self._thread, self._clock.now)
                    self._token = await now
                    self._read_at = time.monotonic()
        return self._token


def create_app(
    address: str,
    token: str | None = None,
    limits: Limits | None = None,
    runs: Runs | None = None,
    root_path: str = "",
) -> FastAPI:
    """The application over the catalogue at `address`. Raises InputError where there is none.

    `root_path` is what a proxy in front takes away from the front of paths, such as `/atlas`.
    """
    state = State(address, limits or Limits(), runs or Runs(address))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        state.nursery.start()
        try:
            await state.readers.start()
            await state.identifiers.start()
            await state.large_identifiers.start()
            yield {"connections": state.connections}
        finally:
            await asyncio.to_thread(state.runs.close)
            state.spool.close()
            await state.readers.close()
            await state.identifiers.close()
            await state.large_identifiers.close()
            state.nursery.close()

    app = FastAPI(
        title="enumerator",
        version=software_version(),
        summary="An atlas of the local minima of two-layer networks.",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.state.enumerator = state
    surrounding = {"token": token, "limits": state.limits, "metrics": state.metrics, "root_path": root_path}
    app.add_middleware(Shell, **surrounding)  # type: ignore[arg-type]  # a plain ASGI class
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.include_router(read_routes.router)
    app.include_router(campaign_routes.router)
    return app


def _told(status: int, message: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(message.split())}, status, headers)


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnswerError)
    return _told(error.status, str(error), {"Retry-After": "1"} if error.status == 429 else None)


async def _our_error(_: Request, error: Exception) -> JSONResponse:
    status = (
        422
        if isinstance(error, InvalidError)
        else 400
        if isinstance(error, InputError)
        else 503
        if isinstance(error, CatalogueError)
        else 500
    )
    return _told(status, str(error))


async def _bad_request(request: Request, error: Exception) -> JSONResponse:
    """What does not fit the description of a request, with where and why."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"][1:]) or str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return _told(422, unknown(where, _parameters(request)))
    return _told(422, f"`{where}`: {first['msg']}.")


def _parameters(request: Request) -> list[str]:
    """The names of the query parameters of the route of a request, which are the fields of models."""
    models = [parameter.field_info.annotation for parameter in request.scope["route"].dependant.query_params]
    return [name for model in models for name in model.model_fields]


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _told(error.status_code, str(error.detail), error.headers)


_HANDLERS = {
    AnswerError: _answer_error,
    EnumeratorError: _our_error,
    RequestValidationError: _bad_request,
    HTTPException: _http_error,
}
