"""The service against clients that keep it waiting: half-open requests, slow bodies, slow readers, too many at once."""

import asyncio
import errno
import os
import shutil
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from urllib.parse import quote, urlsplit

import psutil
import pytest

from cluster.service.limits import Limits
from cluster.service.reader_pool import Answer, AnswerError
from cluster.service.spool import Spool
from tests.support.serving import serving
from tests.support.stand_ins import commit, make_campaign, new_catalogue


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("slow") / "atlas"
    atlas, campaign = new_catalogue(path), make_campaign()
    atlas.register(campaign, 300, "cpu")
    commit(atlas, campaign, 0, 300, [0.1, 0.2, 0.3])
    return path


@pytest.fixture(scope="module")
def service(path):
    """With as few descriptors as an old system gives."""
    with serving(path, "--readers", "3", "--workers", "1", files=128) as service:
        yield service


def connect(service, stack: ExitStack, content: bytes) -> socket.socket:
    """A connection on which so much of a request was sent, and on which little is taken that is not asked for."""
    address = urlsplit(service.url)
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    connection.settimeout(30)
    connection.connect((address.hostname, address.port))
    connection.sendall(content)
    return connection


BODY = b"POST /sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
HALVES = {
    "nothing": b"",
    "half a head": b"GET /tables HTTP/1.1\r\nHost: loc",
    "half a body": BODY + b'{"query": ',
    "a kept connection": b"GET /tables/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_half_open_requests_leave_the_service_reachable(service, half):
    with ExitStack() as stack:
        for _ in range(120):
            connect(service, stack, half)
        began = time.monotonic()
        for _ in range(5):
            assert service.get("/health").json["status"] == "ok"
        assert service.get("/tables/minima?columns=hits").json == [{"hits": 100}] * 3
        assert time.monotonic() - began < 20


def rows(count: int) -> str:
    """The target of an answer with so many lines of 1,000 bytes."""
    return "/sql?format=csv&query=" + quote(f"select repeat('x', 997) as s from range({count})")


def slow_reader(service, stack: ExitStack, count: int = 10_000) -> socket.socket:
    """A connection on which the head of a large answer was taken, and nothing more."""
    connection = connect(service, stack, f"GET {rows(count)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    return connection


def rest(connection: socket.socket) -> int:
    """How many bytes come until the connection is closed."""
    return sum(len(part) for part in iter(lambda: connection.recv(2**20), b""))


def nameless(service) -> int:
    """How many files without a name the service has open."""
    where = f"/proc/{service.process.pid}/fd"
    found = 0
    for name in os.listdir(where):
        with suppress(FileNotFoundError):
            found += os.readlink(f"{where}/{name}").endswith("(deleted)")
    return found


def until(holds) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_slow_readers_of_large_answers_hold_up_nobody(service):
    before = nameless(service)
    with ExitStack() as stack:
        for _ in range(4):  # more than there are processes
            slow_reader(service, stack)
        began = time.monotonic()
        assert service.get("/tables/minima?columns=hits").json == [{"hits": 100}] * 3
        with urllib.request.urlopen(service.url + rows(10_000), timeout=60) as answer:
            assert len(answer.read()) == 1000 * 10_000 + len('"s"\n')
        assert time.monotonic() - began < 20
        assert nameless(service) >= before + 4
    until(lambda: nameless(service) == before)  # what they left is gone


def test_where_all_connections_are_at_work_those_who_watch_are_answered_still(service):
    with ExitStack() as stack:
        request = f"GET {rows(10_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

        def is_full() -> bool:
            # One that has not brought its request yet makes room for the next: so one after the other.
            connect(service, stack, request)
            return service.get("/tables").status == 503

        until(is_full)
        assert service.get("/health").json["status"] == "ok"
        connect(service, stack, b"GET /tab")
        assert service.get("/health").json["status"] == "ok"
    until(lambda: service.get("/tables").status == 200)


@pytest.fixture(scope="module")
def impatient(path):
    """With little time and little room."""
    limits = {"head_seconds": 2, "body_seconds": 2, "client_requests": 4, "spool_bytes": 2**24, "hold_seconds": 1}
    with serving(path, limits=limits) as service:
        yield service


def trickle(connection: socket.socket, content: bytes) -> bytes:
    """What comes back while bytes are sent slowly, until the connection is closed."""
    connection.settimeout(0.1)
    answer, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(content[:1])
            content = content[1:] or content
        try:
            if not (part := connection.recv(2**16)):
                return answer
            answer += part
        except TimeoutError:
            pass
        except ConnectionResetError:
            return answer
    raise AssertionError("the connection stays open")


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_who_says_nothing_more_is_let_go(impatient, half):
    with ExitStack() as stack:
        connection = connect(impatient, stack, half)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert (b"408" in answer) == (half.startswith(BODY))


def test_who_says_a_little_now_and_then_is_let_go(impatient):
    with ExitStack() as stack:
        assert trickle(connect(impatient, stack, b"GET /tables HTTP/1.1\r\n"), b"X-More: y\r\n" * 99) == b""
        assert b" 408 " in trickle(connect(impatient, stack, BODY), b" " * 899)
        chunked = BODY.replace(b"Content-Length: 900", b"Transfer-Encoding: chunked")
        assert b" 408 " in trickle(connect(impatient, stack, chunked), b"1\r\n \r\n" * 999)


def test_who_asks_in_time_is_answered_on_one_connection(impatient):
    with ExitStack() as stack:
        connection = connect(impatient, stack, b"")
        for _ in range(3):
            time.sleep(0.8)
            connection.sendall(b"HEAD /tables/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(2**16).startswith(b"HTTP/1.1 422 ")


def test_a_chunked_body_beyond_the_limit_is_too_large(impatient):
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    with ExitStack() as stack:
        chunked = BODY.replace(b"Content-Length: 900", b"Transfer-Encoding: chunked")
        connection = connect(impatient, stack, chunked + 9 * chunk + b"0\r\n\r\n")
        assert connection.recv(15).startswith(b"HTTP/1.1 413 ")


def test_one_client_may_have_so_many_requests_at_once(impatient):
    with ExitStack() as stack:
        for _ in range(4):
            connect(impatient, stack, BODY)
        until(lambda: impatient.get("/tables").status == 429)
        reply = impatient.get("/tables")
        assert (reply.headers["Retry-After"], reply.json["error"]) == (
            "1",
            "one client may have 4 requests at once: wait for the end of others.",
        )
        assert impatient.get("/health").status == 200
    until(lambda: impatient.get("/tables").status == 200)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_who_takes_nothing_of_an_answer_is_let_go(path, kind):
    target = f"/sql?format={kind}&query=" + quote("select repeat('x', 100000) as s from range(150)")
    with serving(path, limits={"idle_seconds": 1, "readers": 1}) as service, ExitStack() as stack:
        with urllib.request.urlopen(service.url + target, timeout=60) as answer:
            assert len(answer.read()) > 15_000_000
        connection = connect(service, stack, f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        local = connection.getsockname()[1]
        served = psutil.Process(service.process.pid).net_connections
        until(lambda: all(not one.raddr or one.raddr.port != local for one in served("tcp")))


def test_an_answer_larger_than_the_room_comes_whole(impatient):
    with urllib.request.urlopen(impatient.url + rows(60_000), timeout=60) as answer:
        head = answer.read(1000)
        time.sleep(1.5)  # longer than it may hold its process if others waited
        body = head + answer.read()
    assert len(body) == 1000 * 60_000 + len('"s"\n')
    assert body.count(b'"' + b"x" * 997 + b'"\n') == 60_000


def test_who_reads_slowly_what_there_is_no_room_for_is_cut_when_others_wait(impatient):
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        slow = [slow_reader(impatient, stack, 60_000) for _ in range(2)]  # both turns of those that stream
        began = time.monotonic()
        assert impatient.get("/tables/minima?columns=hits").json == [{"hits": 100}] * 3
        other = pool.submit(lambda: urllib.request.urlopen(impatient.url + rows(100), timeout=60).read())
        assert len(other.result()) == 1000 * 100 + len('"s"\n')
        assert time.monotonic() - began < 20
        assert min(rest(one) for one in slow) < 5e7


def test_a_disk_that_takes_nothing_is_told_in_one_line(path, tmp_path):
    (tmp_path / "gone").mkdir()
    with serving(path, limits={"readers": 2}, TMPDIR=str(tmp_path / "gone")) as service:
        assert service.get("/tables/minima?format=csv").status == 200
        shutil.rmtree(tmp_path / "gone")
        for method, range in (("GET", {}), ("GET", {"Range": "bytes=0-9"}), ("HEAD", {})):
            assert service.request(method, "/tables/starts?format=csv", **range).status == 503
        told = service.get("/tables/starts?format=csv").json["error"]
        assert told == "the service cannot keep the answer on its way, in $TMPDIR: No such file or directory."
        assert service.get("/sql?query=select+1+as+a").json == [{"a": 1}]
    assert not any("Traceback" in line for line in service.said), service.said


def test_a_disk_that_is_full_ends_an_answer_in_one_line(monkeypatch):
    """Whoever reads it sees an error, and the process that answers is handed back."""

    def full(file: int, part: bytes, first: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def answered() -> Answer:
        async def frames():
            try:
                yield b"D", b"x" * 1000
            finally:
                closed.append(True)

        return Answer(frames(), {"format": "csv"})

    async def read() -> None:
        with Spool(Limits()).fresh(answered, "client").used() as copy:
            await copy.begun()
            with pytest.raises(AnswerError, match=r"in [$]TMPDIR: No space left on device") as error:
                await copy.whole()
            assert error.value.status == 503

    closed: list[bool] = []
    monkeypatch.setattr(os, "pwrite", full)
    asyncio.run(read())
    assert closed
