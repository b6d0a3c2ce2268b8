"""How an answer is given: of which moment, in which format, with which headers, at once or by way of the spool."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from cluster.service.media_types import MEDIA_TYPES, choose_media_type
from cluster.service.ranges import CopyResponse, begins_anew, is_only_asked_about
from cluster.service.reader_pool import AnswerError
from cluster.service.spool import Copy
from cluster.service.view import TOKEN

# Formats in which the same rows are the same bytes; in Arrow those that hold no value are any.
_SAME_BYTES = ("csv", "parquet")
Format = Literal["json", "csv", "arrow", "parquet"]


class Form(BaseModel):
    """Parameters, none of which may be unknown."""

    model_config = ConfigDict(extra="forbid")

    snapshot: Annotated[
        str | None, Field(pattern=f"^{TOKEN}$", description="The moment that an earlier answer names.")
    ] = None
    format: Annotated[Format | None, Field(description="Instead of the header Accept.")] = None


def format_of(request: Request, form: Form) -> str:
    """The format that a request wants. Raises AnswerError."""
    if form.format is not None:
        return form.format
    format = choose_media_type(request.headers.get("accept"))
    if format is None:
        raise AnswerError(406, f"the formats are {', '.join(MEDIA_TYPES.values())}.")
    return format


async def respond(
    request: Request, form: Form, question: dict[str, Any], page: int | None = None, by_ranges: bool = False
) -> Response:
    """The answer of a reader, in the format that the request wants; `page` rows, with what leads to the next.

    All but JSON goes by way of the spool. `by_ranges` tells whether the rows are the same whenever they are asked
    for, so that parts of them can be. Raises AnswerError.
    """
    state, format = request.app.state.enumerator, question.get("format") or format_of(request, form)
    question = question | {"format": format, "page": page}
    by_ranges = by_ranges and format in _SAME_BYTES
    in_parts = by_ranges and (is_only_asked_about(request.scope) or "range" in request.headers)
    snapshot = form.snapshot or await _moment(request, question, in_parts)
    question |= {"snapshot": snapshot}
    tag = f'"{_tag(question)}"'
    headers = {"Enumerator-Snapshot": snapshot, "ETag": tag if by_ranges else f"W/{tag}", "Vary": "Accept"}
    headers |= {"Cache-Control": "no-cache"} | ({"Accept-Ranges": "bytes"} if by_ranges else {})
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    headers["Content-Type"] = MEDIA_TYPES[format]
    next_page = partial(_next_page, request, form, page, snapshot)
    if format == "json":
        answer = await state.readers.ask(question)
        return Response(await answer.whole(), headers=headers | next_page(answer.header))
    find = partial(_copy, request, question, in_parts)
    return CopyResponse(find, headers, by_ranges, next_page)


async def _moment(request: Request, question: dict[str, Any], in_parts: bool) -> str:
    """The present one, or the one at which a reader by ranges stays."""
    state = request.app.state.enumerator
    if not in_parts:
        return await state.snapshot()
    begins = begins_anew(request.headers, request.scope)
    return await state.steady.moment(_client(request), _tag(question), begins, state.snapshot)


def _copy(request: Request, question: dict[str, Any], is_kept: bool) -> Copy:
    """The copy of an answer in the spool, with its tag if others are to find it."""
    state, tag = request.app.state.enumerator, _tag(question)
    ask = partial(state.readers.ask, question)
    if is_kept:
        return state.spool.keep(tag, ask, _client(request))
    return state.spool.kept(tag) or state.spool.fresh(ask, _client(request))


def _next_page(request: Request, form: Form, page: int | None, snapshot: str, header: dict[str, Any]) -> dict[str, str]:
    if page is None or not header.get("more"):
        return {}
    rest = {"offset": (getattr(form, "offset", None) or 0) + page, "limit": page, "snapshot": snapshot}
    target = request.url.include_query_params(**rest)
    return {"Link": f'<{target.path}?{target.query}>; rel="next"'}


def _client(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _tag(question: dict[str, Any]) -> str:
    """What tells a question from all others."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]
