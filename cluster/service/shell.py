"""What surrounds every request: who may ask, how much may be sent, how it is counted. Plain ASGI: answers stream."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cluster.service.limits import Limits, is_authorised, is_loopback
from cluster.service.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# Asked by those who watch whether the service lives; tells nothing else.
OPEN_PATHS = ("/health",)


class TooLargeError(Exception):
    """A body larger than is allowed."""


class Shell:
    """Lets in who has the token, and bodies of the allowed size; without a token, who calls this machine by its name.

    The last shuts out web pages that have made a browser believe that their own name is this machine (DNS rebinding).
    """

    def __init__(self, app: App, token: str | None, limits: Limits, metrics: Metrics) -> None:
        self._app, self._token, self._limits, self._metrics = app, token, limits, metrics

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
            await send(message)

        try:
            await self._handle(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request(scope["method"], route, status, time.perf_counter() - began)

    async def _handle(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is None and not is_loopback(_host(headers.get(b"host", ""))):
            await refuse(send, 421, "without a token this service answers to localhost and 127.0.0.1 only.")
            return
        if scope["path"] not in OPEN_PATHS and not is_authorised(headers.get(b"authorization"), self._token):
            message = "a token is needed: send the header `Authorization: Bearer TOKEN`."
            await refuse(send, 401, message, (b"www-authenticate", b"Bearer"))
            return
        most, seen, begun = self._limits.body_bytes, 0, False
        announced = headers.get(b"content-length", "0")
        if not announced.isdigit() or int(announced) > most:
            await self._too_large(receive, send)
            return

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, bounded, watched)
        except TooLargeError:
            if begun:
                raise
            await self._too_large(receive, send)

    async def _too_large(self, receive: Receive, send: Send) -> None:
        # A client that still sends sees no answer, but a connection that is cut: so some more is taken, and dropped.
        dropped = 0
        while dropped < self._limits.dropped_bytes:
            message = await receive()
            dropped += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await refuse(send, 413, f"a request may have {self._limits.body_bytes:,} bytes at most.")


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    return header.partition("]")[0][1:] if header.startswith("[") else header.partition(":")[0]


async def refuse(send: Send, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer with an error."""
    body = json.dumps({"error": message}).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
