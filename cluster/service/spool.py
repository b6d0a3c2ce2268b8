"""Answers on their way: kept on disk as they come, and sent from there, so that no client holds up a process.

A file has no name: it is gone when it is closed, and with the service, however that ends. Where there is no room for
more, a process waits until its client has taken what is there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

from cluster.service.limits import Limits
from cluster.service.reader_pool import Answer, AnswerError

# Bytes that are read at once.
PART = 2**18
# Bytes of one answer for which there is always room: as many as flow well.
_LEAST = 2**22
# Bytes that are left free on the disk.
_FREE = 2**28
# Seconds after which a process that waits for its client looks whether others wait for it.
_LOOK_SECONDS = 1.0
# Copies that are kept for who reads by ranges, each of which takes a file descriptor.
_MOST_KEPT = 8

Ask = Callable[[], Awaitable[Answer]]


class Spool:
    """The room on disk for answers, and their turns: one process is left for those that are short."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.waiting = limits, 0
        self._turns = asyncio.Semaphore(max(1, limits.readers - 1))
        self._used: Counter[str] = Counter()  # bytes by client
        self._kept: dict[str, Copy] = {}  # by tag, those used last at the end

    def fresh(self, ask: Ask, client: str) -> Copy:
        """A copy of the answer for one user."""
        return Copy(self, ask, client)

    def kept(self, tag: str) -> Copy | None:
        """The copy that is kept by this tag."""
        return self._kept.get(tag)

    def keep(self, tag: str, ask: Ask, client: str) -> Copy:
        """The copy kept by this tag, made if there is none. Raises AnswerError if too many are in use."""
        copy = self._kept.pop(tag, None)
        if copy is None:
            if len(self._kept) >= _MOST_KEPT and not self._forget_one():
                raise AnswerError(429, "too many tables are read by ranges at once: ask again in a moment.")
            copy = Copy(self, ask, client, lambda: self._forget(tag))
        self._kept[tag] = copy
        return copy

    def close(self) -> None:
        """Forget all copies."""
        for tag in list(self._kept):
            self._forget(tag)

    def take(self, size: int, client: str) -> bool:
        """Take so many bytes of room for a client, if there are as many: half of all at most for one client."""
        most = self.limits.spool_bytes
        while self._used.total() + size > most and self._forget_one():
            pass
        is_room = self._used.total() + size <= most and self._used[client] + size <= most // 2
        if is_room and shutil.disk_usage(tempfile.gettempdir()).free >= _FREE + size:
            self._used[client] += size
            return True
        return False

    def give_back(self, size: int, client: str) -> None:
        """Give back room that was taken."""
        self._used[client] -= size
        if not self._used[client]:
            del self._used[client]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn of an answer that may hold its process for long. Raises AnswerError."""
        if self.waiting >= self.limits.waiting:
            raise AnswerError(429, "too many requests wait already: ask again in a moment.")
        self.waiting += 1
        try:
            async with asyncio.timeout(self.limits.wait_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise AnswerError(429, "all processes that stream are busy: ask again in a moment.") from None
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    def _forget_one(self) -> bool:
        """Forget the copy that nobody has used for longest; whether there is one."""
        for tag, copy in self._kept.items():
            if not copy.users:
                self._forget(tag)
                return True
        return False

    def _forget(self, tag: str) -> None:
        if (copy := self._kept.pop(tag, None)) is not None:
            copy.close()


class Copy:
    """One answer: its header, and its bytes, which come while others read them.

    It is closed with its last user; with `forget`, which is to close it, a while after that.
    """

    def __init__(self, spool: Spool, ask: Ask, client: str, forget: Callable[[], None] | None = None) -> None:
        self.header: dict[str, Any] | None = None
        self.size, self.users, self.is_complete = 0, 0, False
        self._spool, self._client, self._forget = spool, client, forget
        self._error: Exception | None = None
        with _on_disk():
            self._file = _File()
        # The first byte that is still there, the first that was not sent on yet, and the bytes for which room is taken.
        self._first = self._sent = self._held = 0
        self._waited = 0.0  # seconds for room
        self._news = asyncio.Condition()
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._fill(ask))

    @contextmanager
    def used(self) -> Iterator[Copy]:
        """While it has one more user."""
        self.users += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            yield self
        finally:
            self.users -= 1
            if not self.users and (self._forget is None or not self.is_complete):
                (self._forget or self.close)()
            elif not self.users and self._forget is not None:
                self._timer = asyncio.get_running_loop().call_later(self._spool.limits.kept_seconds, self._forget)

    def close(self) -> None:
        """Stop it, and give its room back."""
        if self._timer is not None:
            self._timer.cancel()
        self._task.cancel()
        self._spool.give_back(self._held, self._client)
        self._held = 0
        asyncio.get_running_loop().run_in_executor(None, self._file.close)

    async def begun(self) -> dict[str, Any]:
        """The header, once it has come. Raises AnswerError."""
        await self._until(lambda: self.header is not None)
        assert self.header is not None
        return self.header

    async def whole(self) -> int:
        """The number of bytes, once all have come. Raises AnswerError."""
        await self._until(lambda: self.is_complete)
        return self.size

    async def parts(self, first: int = 0, last: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `first` up to `last` (exclusive), as they come. Raises AnswerError where they break off."""
        position = first
        while last is None or position < last:
            await self._until(partial(self._is_beyond, position))
            end = self.size if last is None else min(self.size, last)
            if position >= end:
                return
            part = await asyncio.to_thread(self._file.read, position - self._first, min(PART, end - position))
            yield part
            position += len(part)
            self._sent = position
            await self._tell()

    def _is_beyond(self, position: int) -> bool:
        return self.size > position or self.is_complete

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(lambda: holds() or self._error is not None)
        if self._error is not None and not holds():
            raise self._error

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _fill(self, ask: Ask) -> None:
        try:
            async with self._spool.turn():
                answer = await ask()
                try:
                    self.header = answer.header
                    await self._tell()
                    async for part in answer.parts():
                        with _on_disk():
                            await self._room(len(part))
                            await asyncio.to_thread(self._file.write, self.size - self._first, part)
                        self.size += len(part)
                        await self._tell()
                finally:
                    await answer.close()
            self.is_complete = True
        except Exception as error:  # told to whoever waits for the answer
            self._error = error
        finally:
            await self._tell()

    async def _room(self, size: int) -> None:
        """Take room for a part; where there is none, once the client has taken what is there. Raises AnswerError."""
        while self.size - self._first + size > _LEAST:
            if self._spool.take(size, self._client):
                self._held += size
                return
            if self._forget is not None:
                raise AnswerError(
                    422, "there is no room to keep so large a table to be read by ranges: select fewer rows."
                )
            if self._sent == self.size:
                self._file.empty()
                self._spool.give_back(self._held, self._client)
                self._first, self._held = self.size, 0
                return
            if self._spool.waiting and self._waited > self._spool.limits.hold_seconds:
                raise AnswerError(429, "the answer was read too slowly while others waited: select fewer rows.")
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS), self._news:
                    await self._news.wait()
            self._waited += time.monotonic() - began


@contextmanager
def _on_disk() -> Iterator[None]:
    """Raise AnswerError for what cannot be done on the disk: one that is full, a folder that is gone."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise AnswerError(503, f"the service cannot keep the answer on its way, in $TMPDIR: {reason}.") from error


class _File:
    """A file without a name, for several threads: some may be at work in it that nobody waits for any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed when all have read it
        self._lock = threading.Lock()

    def read(self, first: int, size: int) -> bytes:
        """So many bytes; none of a file that is closed."""
        with self._lock:
            return b"" if self._file.closed else os.pread(self._file.fileno(), size, first)

    def write(self, first: int, part: bytes) -> None:
        """Write all of a part; nothing into a file that is closed."""
        left = memoryview(part)
        with self._lock:
            while left and not self._file.closed:
                written = os.pwrite(self._file.fileno(), left, first)
                first, left = first + written, left[written:]

    def empty(self) -> None:
        """Forget all bytes."""
        with self._lock:
            self._file.truncate(0)

    def close(self) -> None:
        """Close it, and so forget it; once those at work in it are done."""
        with self._lock:
            self._file.close()
