"""What surrounds every request: who may ask, how much may be sent, how it is counted. Plain ASGI: answers stream."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from cluster.service.access import OPEN_PATHS, Headers, Refusal, refusal
from cluster.service.connections import Connection
from cluster.service.limits import Limits
from cluster.service.metrics import Metrics
from cluster.service.spool import PART

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# What a proxy may take away from the front of paths.
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_CLOSE = (b"connection", b"close")
_LATER = ((b"retry-after", b"1"),)


class GoneAwayError(Exception):
    """The client has closed its connection, or takes nothing of its answer."""


class Shell:
    """Lets in who may ask, with bodies of the allowed size, which it takes in whole; counts what is asked.

    Routes for GET answer HEAD as well. They see the paths of clients: with what a proxy takes away from their front,
    which is `root_path`, or else what the proxy says in X-Forwarded-Prefix.
    """

    def __init__(self, app: App, token: str | None, limits: Limits, metrics: Metrics, root_path: str = "") -> None:
        self._app, self._token, self._limits, self._metrics = app, token, limits, metrics
        self._root_path = root_path
        self._at_work: Counter[str] = Counter()  # requests by client

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            for part in _parts(message):
                await self._send(scope, send, part)

        headers = Headers(scope["headers"])
        asked = _with_prefix(scope, self._root_path or _forwarded(headers))
        if scope["method"] == "HEAD":  # the server sends no body
            asked |= {"method": "GET", "is_head": True}
        try:
            with self._admitted(scope, headers) as refused:
                body = refused or await self._body(headers, receive)
                if isinstance(body, Refusal):
                    await refuse(counted, body)
                    return
                if (connection := _connection(scope)) is not None:
                    connection.request_came()
                await self._app(asked, _replayed(body, receive), counted)
        except GoneAwayError:
            pass
        finally:
            route = getattr(asked.get("route"), "path", "none")
            self._metrics.request(scope["method"], route, status, time.perf_counter() - began)

    @contextmanager
    def _admitted(self, scope: MutableMapping[str, Any], headers: Headers) -> Iterator[Refusal | None]:
        """While a request is at work: why it is refused, if it is."""
        client, connection = (scope.get("client") or [""])[0], _connection(scope)
        if connection is not None:
            connection.head_came()
        self._at_work[client] += 1
        try:
            refused = refusal(scope["method"], scope["path"], headers, self._token)
            if refused is None and scope["path"] not in OPEN_PATHS:
                refused = self._too_many(client, connection)
            yield refused
        finally:
            self._at_work[client] -= 1
            if not self._at_work[client]:
                del self._at_work[client]
            if connection is not None:
                connection.answered()

    def _too_many(self, client: str, connection: Connection | None) -> Refusal | None:
        most = self._limits.client_requests
        if connection is not None and connection.is_crowded:
            return Refusal(503, "the service has too many connections: ask again in a moment.", (_CLOSE, *_LATER))
        if self._at_work[client] > most:
            return Refusal(429, f"one client may have {most} requests at once: wait for the end of others.", _LATER)
        return None

    async def _send(self, scope: MutableMapping[str, Any], send: Send, message: Message) -> None:
        """Send a part of an answer. Raises GoneAwayError for a client that takes nothing for too long."""
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                await send(message)
        except TimeoutError:
            if (connection := _connection(scope)) is not None:
                connection.abort()
            raise GoneAwayError from None

    async def _body(self, headers: Headers, receive: Receive) -> bytes | Refusal:
        """The whole body. Raises GoneAwayError."""
        most, announced = self._limits.body_bytes, headers.get("content-length", "0")
        body, seen, is_too_large = bytearray(), 0, not announced.isdigit() or int(announced) > most
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                # A client that still sends sees no answer, but a connection that is cut: so some more than is allowed
                # is taken, and dropped.
                while seen < self._limits.dropped_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise GoneAwayError
                    seen += len(message.get("body", b""))
                    is_too_large = is_too_large or seen > most
                    body = bytearray() if is_too_large else body + message.get("body", b"")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            return Refusal(408, f"a body must come within {self._limits.body_seconds:g} s.", (_CLOSE,))
        return Refusal(413, f"a request may have {most:,} bytes at most.", (_CLOSE,)) if is_too_large else bytes(body)


def _parts(message: Message) -> Iterator[Message]:
    """A message of an answer in parts, so that it is seen whether the client takes them."""
    body = message.get("body", b"")
    for first in range(0, max(1, len(body)), PART):
        is_last = first + PART >= len(body)
        more = {"body": body[first : first + PART], "more_body": message.get("more_body", False) or not is_last}
        yield message if is_last and not first else {**message, **more}


def _connection(scope: MutableMapping[str, Any]) -> Connection | None:
    """The connection on which a request came; None under another server than ours."""
    return scope.get("state", {}).get("connection")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What receives a body that was taken in already."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _forwarded(headers: Headers) -> str:
    prefix = headers.get("x-forwarded-prefix").rstrip("/")
    return prefix if PREFIX.fullmatch(prefix) else ""


def _with_prefix(scope: MutableMapping[str, Any], prefix: str) -> dict[str, Any]:
    """The scope with a prefix in front of its paths, as ASGI has it."""
    raw = scope.get("raw_path") or scope["path"].encode()
    paths = {"root_path": prefix, "path": prefix + scope["path"], "raw_path": prefix.encode() + raw}
    return {**scope, **paths} if prefix else {**scope}


async def refuse(send: Send, refused: Refusal) -> None:
    """Answer with an error."""
    body = json.dumps({"error": refused.message}).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": refused.status, "headers": [*fixed, *refused.headers]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
