"""The connections of the service: how many there are, and for how long one may keep it waiting.

uvicorn sets no bound to the time that the head of a request takes, nor to connections: here is what it lacks. A
connection waits for its client from its opening, or the end of an answer, until the next request has come in whole. One
that waits for too long is closed; where there are too many, those that wait make room, of the client that has most of
them first. Where all are at work a few more are let in, which are told no more than whether the service lives.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cluster.service.limits import Limits
from enumerator.errors import InputError

# Descriptors that the service needs for itself: its processes, the files of the catalogue, connections to a store.
_OWN_FILES = 64
# Connections beyond the most that is allowed, for those who watch whether the service lives.
_RESERVE = 8
# Fewer are of no use.
_FEWEST = 8
# Seconds for which the end of the service waits for answers on their way.
_LAST_SECONDS = 10


def most_connections(limits: Limits) -> int:
    """As many as are allowed, and have a descriptor each for themselves and for an answer. Raises InputError."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = _OWN_FILES + _RESERVE + 2 * _FEWEST
    if files == resource.RLIM_INFINITY:
        return limits.connections
    if files < least:
        raise InputError(f"expected {least} file descriptors or more for the service, got {files}: raise `ulimit -n`.")
    return min(limits.connections, (files - _OWN_FILES - _RESERVE) // 2)


class Connections:
    """All connections of one service. Raises InputError where there can be too few."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.most = limits, most_connections(limits)
        self._of: Counter[str] = Counter()
        self._waiting: dict[Connection, None] = {}  # those that have waited for longest first

    @property
    def is_crowded(self) -> bool:
        """Whether there are more than are allowed, so that only those who watch are answered."""
        return self._of.total() > self.most

    def enter(self, connection: Connection) -> None:
        """Take in a new connection; another one may have to go, or this one."""
        if self.is_crowded or self._of.total() == self.most:
            self._make_room()
        self._of[connection.peer] += 1
        if self._of.total() > self.most + _RESERVE:
            connection.abort()

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._waiting.pop(connection, None)
        self._of[connection.peer] -= 1
        if not self._of[connection.peer]:
            del self._of[connection.peer]

    def waits(self, connection: Connection) -> None:
        """A connection that waits for its client from now on."""
        self._waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """A connection for which the service is at work."""
        self._waiting.pop(connection, None)

    def _make_room(self) -> None:
        idle = [connection for connection in self._waiting if connection.is_silent]
        if idle:
            connection = max(idle, key=lambda one: self._of[one.peer])
            self.works(connection)  # so that it goes once
            connection.abort()


class Connection(H11Protocol):
    """One connection; the requests on it find it in the state of their scope, by the name `connection`."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self._all: Connections = app_state["connections"]
        self._pipe: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._requests = 0
        self.peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take it in."""
        super().connection_made(transport)
        address = transport.get_extra_info("peername")
        self._pipe, self.peer = transport, str(address[0]) if address else ""
        self._all.enter(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_timer()
        self._pipe = None
        self._all.leave(self)
        super().connection_lost(exc)

    @property
    def is_crowded(self) -> bool:
        """Whether the service has more connections than it can answer."""
        return self._all.is_crowded

    @property
    def is_silent(self) -> bool:
        """Whether nothing is on its way to the client."""
        return self._pipe is None or not self._pipe.get_write_buffer_size()

    def head_came(self) -> None:
        """The head of a request has come; its body is waited for elsewhere."""
        self._requests += 1
        self._stop_timer()

    def request_came(self) -> None:
        """A request has come in whole."""
        self._all.works(self)

    def answered(self) -> None:
        """The answer to a request has ended."""
        self._requests -= 1
        if not self._requests and self._pipe is not None:
            self._wait()

    def abort(self) -> None:
        """Close it at once."""
        if self._pipe is not None:
            self._pipe.abort()

    def _wait(self) -> None:
        self._all.waits(self)
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(self._all.limits.head_seconds, self._give_up)

    def _give_up(self) -> None:
        """Close it when the end of the last answer has gone out, or at any rate a while from now."""
        if self._pipe is not None:
            self._pipe.close()
            self._timer = asyncio.get_running_loop().call_later(self._all.limits.idle_seconds, self.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def server_of(app: Any, connections: Connections) -> uvicorn.Server:
    """The server of an application whose lifespan gives its requests the `connections`."""
    settings = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        backlog=connections.most,  # as many are taken in at once, before there is a look at any
        timeout_keep_alive=int(connections.limits.head_seconds),
        timeout_graceful_shutdown=_LAST_SECONDS,
        # Its own settings would close the handlers of all loggers of the process, and with them what those write to.
        log_config=None,
        log_level="warning",
        access_log=False,
    )
    return uvicorn.Server(settings)
