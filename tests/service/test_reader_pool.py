"""The processes that answer: each is handed back once, and no answer reaches another question."""

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from cluster.service.limits import Limits
from cluster.service.media_types import MEDIA_TYPES
from cluster.service.reader_pool import AnswerError, Nursery, Readers
from cluster.service.reader_protocol import HEAD_BYTES, head, packed
from cluster.service.view import Clock
from enumerator.catalogue.catalogue import Catalogue
from tests.support.mixed_queries import SLOW, ask_all_sorts, busy_in_the_end
from tests.support.serving import serving


@pytest.fixture(scope="module")
def service(path):
    with serving(path, "--query-seconds", "1", "--readers", "2") as service:
        yield service


def test_after_a_stream_that_hit_its_limit_every_answer_is_that_of_its_question(service):
    query = quote(f"select i, {SLOW} as n, repeat('x', 200) from range(9000000) t(i)")
    with pytest.raises(http.client.IncompleteRead):
        for _ in range(5):  # on a busy machine the limit may come before the answer begins, which is another case
            service.get(f"/sql?format=csv&query={query}")
    assert any("An answer broke off: the query was stopped" in line for line in service.said)
    assert len(service.said) <= 10, service.said  # no traceback: nothing of the service is wrong
    assert busy_in_the_end(service.url) == 0
    for number in range(8):
        assert service.get(f"/sql?query={quote(f'select {number} as k')}").json == [{"k": number}]


def test_an_answer_that_was_given_up_leaves_nothing_to_the_next(path):
    """A Parquet file writes its end also when it is given up: to nobody."""
    query = {"op": "sql", "query": "select i from range(1000) t(i)", "snapshot": Clock(Catalogue(path).store).now()}
    nursery = Nursery(str(path))

    async def ask():
        readers = Readers(nursery, Limits(rows=100, json_rows=100), 1, 60, 2**30)
        await readers.start()
        for format in MEDIA_TYPES:
            with pytest.raises(AnswerError, match="the answer has more than 100 rows"):
                await (await readers.ask(query | {"format": format})).whole()
            answer = await readers.ask({"op": "network"}, b'{"W": [[1.0]]}')
            assert await answer.whole() == b'{"neurons": 1}\n', format
        await readers.close()

    nursery.start()
    try:
        asyncio.run(ask())
    finally:
        nursery.close()


def test_every_answer_is_that_of_its_question_whatever_else_is_asked_left_and_stopped(service):
    counts, wrong = ask_all_sorts(service.url, seconds=8, clients=8)
    assert wrong == []
    assert counts.total() - counts["late"] >= 16, counts


def test_where_the_process_that_makes_readers_is_gone_another_one_takes_its_place(service):
    nurseries = psutil.Process(service.process.pid).children()
    killed = [*nurseries, *(reader for nursery in nurseries for reader in nursery.children())]
    for process in killed:
        process.kill()
    for process in killed:
        with suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
    assert len(killed) >= 4
    assert service.get("/sql?query=select%202%20as%20a").json == [{"a": 2}]


class Played(Nursery):
    """Gives connections to a process that the test plays: `play` is told each request, and gives the frames.

    Of each frame: its letter, its content, and how far its number is from that of the request.
    """

    def __init__(self, play) -> None:
        super().__init__("")
        self._play = play
        self.made = 0

    def child(self, settings):
        ours, theirs = socket.socketpair()
        self.made += 1
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return ours

    def _serve(self, theirs: socket.socket) -> None:
        with theirs, suppress(OSError):
            theirs.sendall(packed(b"H", 0, json.dumps({"process": 0}).encode()))
            stream = theirs.makefile("rb")
            while len(start := stream.read(HEAD_BYTES)) == HEAD_BYTES:
                kind, number, size = head(start)
                content = stream.read(size)
                for letter, text, away in [(b"Z", b"", 0)] if kind == b"S" else self._play(json.loads(content)):
                    theirs.sendall(packed(letter, number + away, text))


def asked(play, scenario, seconds: float = 0.2, count: int = 1):
    """What comes of a scenario over readers that are played; how many were started, and how many are idle then."""

    async def run():
        nursery = Played(play)
        readers = Readers(nursery, Limits(), count, seconds, 2**30)
        await readers.start()
        result = await scenario(readers)
        async with asyncio.timeout(30):
            while readers.busy != 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # what is handed back twice would come now
        idle = readers._idle.qsize()
        await readers.close()
        return result, nursery.made, idle

    return asyncio.run(run())


TAKEN, HEADER, END = (b"A", b"", 0), (b"H", b"{}", 0), (b"Z", b"", 0)


def started(request):
    """An answer that begins, and then takes for ever."""
    return [TAKEN, HEADER, (b"D", b"first", 0)]


async def stopped_while_it_answers(readers):
    answer = await readers.ask({})
    with pytest.raises(AnswerError, match="took longer than"):
        async for _ in answer.parts():
            pass
    await answer.close()
    await answer.close()


async def left(readers):
    answer = await readers.ask({})
    async for _ in answer.parts():
        break
    await answer.close()
    await answer.close()


async def forgotten(readers):
    await readers.ask({})


async def cancelled(readers):
    answer = await readers.ask({})
    task = asyncio.create_task(answer.whole())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await answer.close()


@pytest.mark.parametrize("scenario", [stopped_while_it_answers, left, forgotten, cancelled])
def test_however_an_answer_ends_its_reader_is_handed_back_once(scenario):
    _, made, idle = asked(started, scenario)
    assert (made, idle) == (1, 1)


def test_an_answer_that_ends_as_it_should_or_by_an_error_hands_its_reader_back():
    def play(request):
        failure = (b"E", json.dumps({"status": 400, "error": "no"}).encode(), 0)
        return [TAKEN, HEADER, (b"D", b"part", 0), failure if request["fails"] else END]

    async def scenario(readers):
        for fails in (False, True, False):
            answer = await readers.ask({"fails": fails})
            if fails:
                with pytest.raises(AnswerError, match="no"):
                    await answer.whole()
            else:
                assert await answer.whole() == b"part"

    _, made, idle = asked(play, scenario)
    assert (made, idle) == (1, 1)


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_a_frame_of_another_request_ends_the_process(late):
    """Whether it comes in the place of the first, the second, the third, or the last frame."""

    def play(request):
        frames = [TAKEN, HEADER, (b"D", b"own", 0), END]
        frames[late] = (*frames[late][:2], 77)
        return frames

    async def scenario(readers):
        with pytest.raises(AnswerError, match="mixed up its requests") as raised:
            await (await readers.ask({})).whole()
        return raised.value.status

    status, made, idle = asked(play, scenario, seconds=30)
    assert (status, made, idle) == (503, 2, 1)


@pytest.mark.slow
def test_the_soak_of_queries_passes_for_some_seconds():
    script = Path(__file__).parents[2] / "scripts" / "query_soak"
    done = subprocess.run([sys.executable, str(script), "--seconds", "20"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Every answer was that of its question, and no reader is busy in the end.")
