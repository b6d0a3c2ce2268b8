"""The processes that answer queries, as the service sees them: asked one thing at a time, stopped, killed, replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from cluster.runs.machine import available_cores, worker_environment
from cluster.service.limits import Limits
from cluster.service.reader_protocol import HEAD_BYTES, Head, head, packed

# Seconds that a process has to stop what it is at, before it is killed.
LAST_WORDS = 3.0
# Seconds in which a new process is up: on a busy machine it takes its time.
START_SECONDS = 120.0
# Seconds until it is tried again where it did not start.
RETRY_SECONDS = 1.0


class AnswerError(Exception):
    """An answer that is an error: its HTTP status and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Nursery:
    """The process of `cluster.service.reader_process` that makes the others."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start it; the first child shows when it is ready."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cluster.service.reader_process", self._address, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                env={**worker_environment("cpu"), **os.environ, "JAX_PLATFORMS": "cpu"},
                start_new_session=True,  # Ctrl-C is for the service, which then ends it
            )

    def child(self, settings: dict[str, Any]) -> socket.socket:
        """A connection to a new child. Raises OSError where there can be none now."""
        assert self._control is not None and self._process is not None
        if self._process.poll() is not None:
            self._control.close()
            self.start()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [json.dumps(settings).encode()], [theirs.fileno()])
        return ours

    def close(self) -> None:
        """End it; its children go with their connections."""
        if self._process is not None and self._control is not None:
            self._control.close()
            self._process.kill()
            self._process.wait()


class ForeignFrameError(Exception):
    """A frame that belongs to another request than the one asked."""


class Reader:
    """One process that answers queries."""

    def __init__(self, nursery: Nursery, settings: dict[str, Any], seconds: float) -> None:
        self._nursery, self._settings, self.seconds = nursery, settings, seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._process = self._number = 0
        self._head: Head | None = None
        self._left = seconds  # that the query at work may still compute

    async def start(self) -> None:
        """Start the process, in the place of one that died."""
        self._number, self._head = 0, None
        self._streams = await asyncio.open_connection(sock=self._nursery.child(self._settings), limit=2**20)
        _, content = await self.frame(START_SECONDS)
        self._process = json.loads(content)["process"]

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended, as far as is known."""
        return self._streams is not None and not self._streams[0].at_eof() and not self._streams[1].is_closing()

    async def ask(self, request: dict[str, Any], body: bytes = b"") -> None:
        """Send a request, with the body that it came with, and see it taken up.

        Raises EOFError or OSError if the process is gone.
        """
        self._number += 1
        await self._send(b"R", json.dumps(request).encode() + b"\n" + body)
        kind, _ = await self.frame(START_SECONDS)
        assert kind == b"A", kind
        self._left = self.seconds

    async def _send(self, kind: bytes, content: bytes = b"") -> None:
        if self._streams is None or self._streams[1].is_closing():
            raise ConnectionResetError("the process is gone")
        self._streams[1].write(packed(kind, self._number, content))
        await self._streams[1].drain()

    async def part(self) -> tuple[bytes, bytes]:
        """The next frame of an answer, as `frame`; TimeoutError if the query has computed for longer than it may.

        What counts is the time for which it is waited for here, not that in which the answer is sent on.
        """
        while True:
            began = time.monotonic()
            kind, content = await self.frame(max(self._left, 0.0))
            self._left -= time.monotonic() - began
            if kind != b"Q":
                return kind, content
            self._left = self.seconds

    async def frame(self, seconds: float) -> tuple[bytes, bytes]:
        """The kind and content of the next frame of the request asked last.

        Raises TimeoutError if it takes too long, EOFError or OSError if the process is gone. A frame of another request
        is the end of the process, and raises ForeignFrameError.
        """
        assert self._streams is not None
        async with asyncio.timeout(seconds):
            # Kept, in case that the wait for the content is cancelled: the next call goes on with it.
            self._head = self._head or head(await self._streams[0].readexactly(HEAD_BYTES))
            if self._head.number != self._number:
                message = f"asked {self._number}, answered {self._head.number}"
                self.kill()
                raise ForeignFrameError(message)
            content = await self._streams[0].readexactly(self._head.size)
        kind, self._head = self._head.kind, None
        return kind, content

    async def stop(self) -> bool:
        """Stop the answer that is at work; whether that succeeded."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._send(b"S")
                while (await self.frame(LAST_WORDS))[0] not in b"EZ":
                    pass
        except (TimeoutError, EOFError, OSError, ForeignFrameError):
            return False
        return True

    def kill(self) -> None:
        """End the process, whatever it is at."""
        if self._streams is not None:
            if self._process and self.is_alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process, signal.SIGKILL)
            self._streams[1].close()
            self._streams, self._process, self._head = None, 0, None


class Answer:
    """A header, and the parts of a body that come as they are asked for; to be closed in any case."""

    def __init__(self, frames: AsyncGenerator[tuple[bytes, bytes]], header: dict[str, Any]) -> None:
        self._frames = frames
        self.header = header

    async def parts(self) -> AsyncIterator[bytes]:
        """The parts of the body. Raises AnswerError where it breaks off."""
        async for _, content in self._frames:
            yield content

    async def whole(self) -> bytes:
        """All parts together."""
        try:
            return b"".join([part async for part in self.parts()])
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop the answer, if it has not ended."""
        await self._frames.aclose()


class Readers:
    """A few processes, and the requests that wait for one.

    A reader is at one place at a time: among the idle, in one `_frames` at work, or in one `_recover`.
    """

    def __init__(self, nursery: Nursery, limits: Limits, count: int, seconds: float, process_bytes: int) -> None:
        settings = {
            "rows": limits.rows,
            "json_rows": limits.json_rows,
            "query_bytes": limits.query_bytes,
            "process_bytes": process_bytes,
            "threads": max(1, available_cores() // count),
        }
        self._readers = [Reader(nursery, settings, seconds) for _ in range(count)]
        self._idle: asyncio.LifoQueue[Reader] = asyncio.LifoQueue()  # the last one has the tables at hand
        self._limits, self._seconds = limits, seconds
        self._waiting = 0
        self._recoveries: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all processes."""
        await asyncio.gather(*(reader.start() for reader in self._readers))
        for reader in self._readers:
            self._idle.put_nowait(reader)

    async def close(self) -> None:
        """End all processes."""
        for task in self._recoveries:
            task.cancel()
        for reader in self._readers:
            reader.kill()

    @property
    def busy(self) -> int:
        """How many are at work, or being replaced."""
        return len(self._readers) - self._idle.qsize()

    async def ask(self, request: dict[str, Any], body: bytes = b"") -> Answer:
        """The answer to a request, and to the body that it came with, from its header on. Raises AnswerError."""
        frames = self._frames(request, body)
        _, header = await anext(frames)
        return Answer(frames, json.loads(header))

    async def _frames(self, request: dict[str, Any], body: bytes) -> AsyncGenerator[tuple[bytes, bytes]]:
        """The header and the parts of one answer. Raises AnswerError.

        This is the one owner of the reader at work, and hands it back once, however it ends: with the answer, by an
        error, cancelled, closed, or forgotten.
        """
        while True:
            reader, has_ended = await self._free(), False
            try:
                try:
                    await reader.ask(request, body)
                except (EOFError, OSError):  # it died before it took the request up, which another one can do
                    continue
                while True:
                    kind, content = await reader.part()
                    has_ended = kind in b"EZ"
                    if kind == b"E":
                        raise _error(content)
                    if has_ended:
                        return
                    yield kind, content
            except TimeoutError:
                message = f"the query was stopped: it took longer than {self._seconds:g} s, which is all it is allowed."
                raise AnswerError(422, message) from None
            except (EOFError, OSError):
                message = "the query ended its process: it needs more memory than it is allowed, select fewer rows or "
                raise AnswerError(422, message + "columns.") from None
            except ForeignFrameError as error:
                message = f"a process that answers mixed up its requests ({error}), and was ended: ask again."
                raise AnswerError(503, message) from None
            finally:
                self._hand_back(reader, has_ended)

    async def _free(self) -> Reader:
        if self._waiting >= self._limits.waiting:
            raise AnswerError(429, "too many requests wait already: ask again in a moment.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                while not (reader := await self._idle.get()).is_alive:
                    self._hand_back(reader, has_ended=False)
                return reader
        except TimeoutError:
            raise AnswerError(429, "all processes that answer are busy: ask again in a moment.") from None
        finally:
            self._waiting -= 1

    def _hand_back(self, reader: Reader, has_ended: bool) -> None:
        """A reader whose answer has ended is idle; another one has to be brought to that, while others go on."""
        if has_ended:
            self._idle.put_nowait(reader)
            return
        # Not awaited: whoever hands back may be cancelled already, and would be at once in any wait.
        task = asyncio.create_task(self._recover(reader))
        self._recoveries.add(task)
        task.add_done_callback(self._recoveries.discard)

    async def _recover(self, reader: Reader) -> None:
        """Stop what a reader is at, or put a new process in its place; however long that takes."""
        is_ready = await reader.stop()
        while not is_ready:
            reader.kill()
            try:
                await reader.start()
                is_ready = True
            except (EOFError, OSError, ForeignFrameError):
                await asyncio.sleep(RETRY_SECONDS)
        self._idle.put_nowait(reader)


def _error(content: bytes) -> AnswerError:
    told = json.loads(content)
    return AnswerError(told["status"], told["error"])
