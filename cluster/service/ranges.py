"""Answers out of the spool: whole as they come, or read as files are, HEAD for the size and then ranges (RFC 9110)."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cluster.service.reader_pool import AnswerError
from cluster.service.spool import Copy

_LOG = logging.getLogger("uvicorn.error")

# One range; of several, which a server need not give, the whole is given.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# Seconds between two requests, at most, of who is in the midst of reading: who begins within is a second reader.
_AT_ONCE = 1.0
# Seconds for which who reads by ranges stays at one moment, after the last of them, and in all.
_PAUSE, _STAY = 60.0, 600.0


class CopyResponse(Response):
    """The bytes of the copy that `find` gives.

    `more` gives further headers from that of the answer. `by_ranges` tells whether parts may be asked for: they are
    told apart by the ETag among `headers`. HEAD gets no bytes.
    """

    def __init__(
        self,
        find: Callable[[], Copy],
        headers: dict[str, str],
        by_ranges: bool,
        more: Callable[[dict[str, Any]], dict[str, str]] = lambda _: {},
    ) -> None:
        super().__init__(None, 200, headers)
        self._find, self._told, self._more = find, headers, more
        self._by_ranges = by_ranges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises AnswerError."""
        asked, is_head = Headers(scope=scope), is_only_asked_about(scope)
        with self._find().used() as copy:
            told = self._told | self._more(await copy.begun())
            status, first, last = 200, 0, None
            if self._by_ranges and (is_head or "range" in asked):
                size = await copy.whole()
                status, first, last = (200, 0, size) if is_head else _part(asked, told["ETag"], size)
                told |= _of_part(status, first, last, size)
            elif copy.is_complete:
                told["Content-Length"] = str(copy.size)
            if is_head or status >= 400:
                first = last = 0
            try:
                await StreamingResponse(copy.parts(first, last), status, told)(scope, receive, send)
            except AnswerError as error:  # too late for a status: the connection is cut, which the reader of it sees
                _LOG.warning("An answer broke off: %s", error)


def is_only_asked_about(scope: Mapping[str, Any]) -> bool:
    """Whether a request is a HEAD, which routes get as a GET."""
    return scope.get("is_head", False)


def begins_anew(asked: Headers, scope: Scope) -> bool:
    """Whether a request for a part is one with which readers begin: for the size, or the end of what has a size."""
    return is_only_asked_about(scope) or asked.get("range", "").startswith("bytes=-")


def _part(asked: Headers, tag: str, size: int) -> tuple[int, int, int]:
    """The status of an answer of so many bytes, and its first byte and the one after its last."""
    if "if-match" in asked and not {"*", tag} & {one.strip() for one in asked["if-match"].split(",")}:
        return 412, 0, 0
    wanted = _RANGE.fullmatch(asked.get("range", "").replace(" ", ""))
    if wanted is None or not any(wanted.groups()) or asked.get("if-range", tag) != tag:
        return 200, 0, size
    begin, end = wanted.groups()
    if not begin:
        first, last = max(0, size - int(end)), size
    else:
        first, last = int(begin), min(size, int(end) + 1) if end else size
        if end and int(end) < first:
            return 200, 0, size
    return (206, first, last) if first < last else (416, 0, 0)


def _of_part(status: int, first: int, last: int, size: int) -> dict[str, str]:
    if status == 416:
        return {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
    parts = {"Content-Range": f"bytes {first}-{last - 1}/{size}"} if status == 206 else {}
    return {"Content-Length": str(last - first), **parts}


@dataclass
class _Moment:
    token: str
    begun: float
    used: float


class Steady:
    """The moments at which those stay who read by ranges without naming one: each that at which it began."""

    def __init__(self) -> None:
        self._moments: dict[tuple[str, str], _Moment] = {}  # by client and what it reads

    async def moment(self, client: str, what: str, begins: bool, latest: Callable[[], Awaitable[str]]) -> str:
        """The moment of a request: `latest`, or that at which its reader stays."""
        now = time.monotonic()
        self._moments = {k: m for k, m in self._moments.items() if now < min(m.used + _PAUSE, m.begun + _STAY)}
        moment = self._moments.get((client, what))
        if moment is None or (begins and now > moment.used + _AT_ONCE):
            moment = self._moments[client, what] = _Moment(await latest(), now, now)
        moment.used = now
        return moment.token
