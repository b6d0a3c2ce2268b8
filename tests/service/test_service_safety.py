"""The service against those who mean it ill: hostile SQL, no token, too much of everything, made-up requests."""

import asyncio
import http.client
import logging
import os
import socket
import stat
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from cluster.cli import run_command
from cluster.service import reader_pool
from cluster.service.limits import check_exposure, is_authorised, is_loopback, read_token
from cluster.service.reader_pool import Reader
from enumerator.errors import InputError
from tests.support.hostile import ENDLESS, REFUSED
from tests.support.serving import serving
from tests.support.stand_ins import contents

TOKEN = "a-token-of-32-characters-or-more"
QUERY_SECONDS = 2


@pytest.fixture(scope="module")
def service(path):
    # Without campaigns that could be started: one worker each would be at work for the rest of the tests.
    options = ("--query-seconds", str(QUERY_SECONDS), "--query-memory", "256", "--readers", "2", "--workers", "1")
    with serving(path, *options, AWS_SECRET_ACCESS_KEY="never-to-be-seen") as service:
        yield service


def one_line(reply) -> str:
    """The error of a reply, which is one line."""
    assert list(reply.json) == ["error"], reply
    (line,) = reply.json.values()
    assert line and "\n" not in line and "Traceback" not in line
    return line


def test_hostile_statements_are_refused_and_change_nothing(path, service, tmp_path):
    before, listing = contents(path), sorted(Path("/tmp").iterdir())
    for statement in REFUSED:
        reply = service.request("POST", "/sql", {"query": statement})
        assert reply.status in (400, 422), (statement, reply)
        assert "root:" not in one_line(reply) and "never-to-be-seen" not in one_line(reply)
    assert len(REFUSED) >= 40
    assert contents(path) == before
    assert not [new for new in set(Path("/tmp").iterdir()) - set(listing) if "stolen" in new.name]
    # The same as a condition.
    for condition in ("(select content from read_text('/etc/passwd')) = ''", "true); drop view starts; --", "1) or (1"):
        reply = service.get(f"/tables/minima?where={quote(condition)}")
        assert reply.status in (200, 400), (condition, reply)


def test_endless_statements_are_stopped_and_the_service_goes_on(service):
    process = psutil.Process(service.process.pid)

    def ask(statement):
        began = time.monotonic()
        return service.request("POST", "/sql", {"query": statement}), time.monotonic() - began

    with ThreadPoolExecutor(2) as pool:
        for (reply, seconds), statement in zip(pool.map(ask, ENDLESS), ENDLESS, strict=True):
            assert reply.status in (400, 422), (statement, reply)
            assert "memory" in one_line(reply) or "stopped" in one_line(reply), (statement, reply.body)
            assert seconds < 60, statement
    assert process.memory_info().rss < 2**30
    assert service.get("/tables/minima?columns=hits").json == [{"hits": 125}] * 3


def test_a_query_that_streams_is_stopped_when_it_has_computed_for_long_enough(service):
    # Each part comes within a small part of the limit; all of them would take many times as long.
    slow = "levenshtein(repeat('a', 20), repeat(chr(65 + i::int % 26), 20))"
    query = quote(f"select i, {slow} as n, repeat('x', 200) as s from range(9000000) t(i)")
    with pytest.raises(http.client.IncompleteRead):
        service.get(f"/sql?format=csv&query={query}")


def test_the_time_that_a_client_takes_to_read_is_not_that_of_the_query(service):
    query = quote("select i, repeat('x', 1000) as s from range(50000) t(i)")
    with urllib.request.urlopen(f"{service.url}/sql?format=csv&query={query}", timeout=60) as answer:
        lines = answer.read(1000).count(b"\n")
        time.sleep(1.5 * QUERY_SECONDS)
        lines += answer.read().count(b"\n")
    assert lines == 50_001


def test_what_counts_is_what_a_query_computes_and_each_window_of_a_stream_counts_anew(monkeypatch):
    clock, allowed = [0.0], []
    monkeypatch.setattr(reader_pool.time, "monotonic", lambda: clock[0])

    class Computing(Reader):
        """Gives frames after so many seconds each."""

        async def frame(self, seconds):
            allowed.append(seconds)
            kind, took = frames.pop(0)
            clock[0] += took
            return kind, b""

    frames = [(b"A", 5.0), (b"H", 3.0), (b"D", 4.0), (b"Q", 2.0), (b"D", 9.0), (b"Z", 1.0)]
    reader = Computing(None, {}, 10.0)  # type: ignore[arg-type]  # starts no process
    monkeypatch.setattr(reader, "_send", lambda kind, content: asyncio.sleep(0))

    async def answer():
        await reader.ask({})
        kinds = []
        for _ in range(4):
            kinds.append((await reader.part())[0])
            clock[0] += 100  # while it is sent on
        return kinds

    assert asyncio.run(answer()) == [b"H", b"D", b"D", b"Z"]
    assert allowed[1:] == [10.0, 7.0, 3.0, 10.0, 1.0]


def test_every_process_that_answers_has_a_bound_of_memory(service):
    deadline, bounds = time.monotonic() + 30, []
    while len(bounds) < 5 or bounds[0] <= 0:  # two for queries, three for identification; RLIM_INFINITY is -1
        assert time.monotonic() < deadline, bounds
        found = [grand for child in psutil.Process(service.process.pid).children() for grand in child.children()]
        bounds = sorted(process.rlimit(psutil.RLIMIT_DATA)[0] for process in found)
    # They have the same memory at first; then queries may take 768 MiB more here, an identification 4 GiB.
    assert all(3 * 2**30 < bound - bounds[1] < 4 * 2**30 for bound in bounds[2:])


def test_networks_have_bounds(service):
    for body in ({"W": [[1.0]] * 513, "teachers": 1}, {"Q": [[1.0]], "R": [[1.0]], "teachers": 513}):
        reply = service.request("POST", "/identify", body)
        assert reply.status == 422 and "512" in one_line(reply)


NUMBERS = st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 1e-300, -1e300, 1e308, 1e6]))


@st.composite
def networks(draw):
    """A small network: its shapes fit mostly, its numbers seldom."""
    K, M, d = (draw(st.integers(1, 3)) for _ in range(3))

    def matrix(rows, columns):
        return draw(st.lists(st.lists(NUMBERS, min_size=columns, max_size=columns), min_size=rows, max_size=rows))

    if draw(st.booleans()):
        return {"W": matrix(K, d), "V": matrix(M, d)} if draw(st.booleans()) else {"W": matrix(K, d), "teachers": M}
    W = np.array(matrix(K, d))
    with np.errstate(over="ignore", invalid="ignore"):
        Q = np.nan_to_num(W @ W.T).tolist() if draw(st.booleans()) else matrix(K, K)
    return {"Q": Q, "R": matrix(K, M)} | ({"T": matrix(M, M)} if draw(st.booleans()) else {"teachers": M})


@settings(max_examples=12, database=None, derandomize=True, phases=[Phase.generate])
@given(body=networks())
def test_networks_made_up_never_end_in_an_error_of_the_service(service, body):
    reply = service.request("POST", "/identify", body)
    assert reply.status == 200 or (reply.status in (400, 422) and one_line(reply)), (body, reply)


def test_a_reader_that_is_killed_is_replaced(service):
    assert service.get("/tables/minima?limit=1").status == 200
    deadline, killed = time.monotonic() + 30, []
    while len(killed) < 5:  # they start in the background
        assert time.monotonic() < deadline, f"{len(killed)} of 5 processes that answer"
        time.sleep(0.05)
        children = psutil.Process(service.process.pid).children()
        killed = [grandchild for child in children for grandchild in child.children()]
    for process in killed:
        process.kill()
    for process in killed:
        with suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
    assert [service.get("/tables/minima?limit=1").status for _ in range(4)] == [200] * 4


def test_a_reader_of_answers_that_goes_away_is_noticed(service):
    host, port = service.url.removeprefix("http://").split(":")
    for _ in range(6):
        with socket.create_connection((host, int(port))) as connection:
            query = quote("select repeat('x', 1000) from range(5000000)")
            connection.sendall(f"GET /sql?query={query}&format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connection.recv(1000)
    assert service.get("/tables/minima?limit=1").status == 200


def test_answers_have_bounds(service):
    assert service.get("/tables/starts?limit=10001").status == 422
    reply = service.request("POST", "/sql", {"query": "select * from range(10001)"})
    assert (reply.status, "more than 10,000 rows" in one_line(reply)) == (422, True)
    with pytest.raises(http.client.IncompleteRead):  # an answer that is too long breaks off, and is seen to
        service.get("/sql?format=csv&query=" + quote("select i from range(20000000) t(i)"))


def test_bodies_have_bounds(service):
    reply = service.request("POST", "/sql", b"x" * (9 * 2**20))
    assert (reply.status, one_line(reply)) == (413, "a request may have 8,388,608 bytes at most.")
    deep = b'{"query": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert service.request("POST", "/sql", deep).status in (400, 422)
    for body in (b"{", b"\xff\xfe", b"null", b"[]", b'{"query": 1}', b'{"query": "select 1", "more": 1}'):
        assert one_line(service.request("POST", "/sql", body))
        assert service.request("POST", "/sql", body).status in (400, 422)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/tables/../minima",
            "/tables/%2e%2e%2fminima",
            "/tables/minima%2f..%2f_delta_log",
            "/minima/../../etc/passwd",
        ),
        *("/minima/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/minima/%00", "/campaigns/..%2f..%2fx", "/campaigns/%00/logs"),
        *("/tables/_delta_log", "/static/../../etc/passwd", "//etc/passwd", "/tables/starts%00"),
        *(
            "/tables/minima?campaign=..%2f..%2fx",
            "/tables/minima?columns=%22%3B--",
            "/tables/minima?landscape=%27%20or%201=1",
        ),
    ],
)
def test_no_path_and_no_id_leaves_the_catalogue(service, target):
    reply = service.get(target)
    assert reply.status in (200, 400, 404, 422), reply
    assert b"root:" not in reply.body
    if reply.status == 200:
        assert reply.json == []  # an id that nothing has


def test_without_a_token_other_names_of_this_machine_are_refused(service):
    assert service.get("/tables", Host="attacker.example").status == 421
    assert service.get("/tables", Host="localhost:1").status == 200


def test_with_a_token_nothing_else_lets_in(path, tmp_path):
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN + "\n")
    with serving(path, "--host", "0.0.0.0", "--token-file", str(file), "--readers", "1") as service:
        assert service.get("/health").status == 200
        for header in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
        ):
            for route in ("/", "/tables", "/metrics", "/openapi.json", "/campaigns/x"):
                assert service.get(route, **header).status == 401, (header, route)
        assert service.get("/tables", Authorization=f"Bearer {TOKEN}", Host="elsewhere").status == 200
        with pytest.MonkeyPatch.context() as patch:
            import enumerator as en

            with pytest.raises(InputError, match="a token is needed"):
                en.connect(service.url).minima()
            patch.setenv("ENUMERATOR_TOKEN", TOKEN)
            assert en.connect(service.url).minima().num_rows == 3


def test_a_service_for_others_needs_a_token(path, capsys, monkeypatch):
    monkeypatch.delenv("ENUMERATOR_TOKEN", raising=False)
    assert run_command(["serve", str(path), "--host", "0.0.0.0"]) == 2
    assert capsys.readouterr().err.startswith("error: a service on 0.0.0.0 can be reached by others: give it a token")
    assert run_command(["serve", str(path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: not a catalogue: ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run_command(["serve", str(path), "--port", str(taken.getsockname()[1])]) == 2
        assert "Choose another --port" in capsys.readouterr().err


def test_the_server_leaves_the_handlers_of_other_loggers_open(path, monkeypatch):
    """Settings of its own for logging would end them all, and close what they write to."""
    monkeypatch.delenv("ENUMERATOR_TOKEN", raising=False)
    ended = []
    handler = logging.NullHandler()
    handler.close = lambda: ended.append(True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run_command(["serve", str(path), "--port", str(taken.getsockname()[1])]) == 2
    assert not ended


def test_tokens(tmp_path, monkeypatch):
    assert is_authorised(f"Bearer {TOKEN}", TOKEN) and is_authorised(None, None)
    for header in (None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer \u00e9{TOKEN}", f"bear {TOKEN}"):
        assert not is_authorised(header, TOKEN)
    assert [host for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9") if not is_loopback(host)] == []
    assert [host for host in ("0.0.0.0", "::", "10.0.0.1", "", "127.0.0.1.evil.org") if is_loopback(host)] == []
    with pytest.raises(InputError):
        check_exposure("::", None)
    file = tmp_path / "token"
    file.write_text(TOKEN)
    os.chmod(file, 0o644)
    with pytest.raises(InputError, match="others can read the token file"):
        read_token(file)
    os.chmod(file, stat.S_IRUSR)
    assert read_token(file) == TOKEN
    monkeypatch.setenv("ENUMERATOR_TOKEN", "short")
    with pytest.raises(InputError, match="must be 16 printable ASCII characters or more"):
        read_token(None)


# Requests that are right would start campaigns: of these only wrong ones are made up.
COSTLY = ("POST /campaigns",)
MADE_UP = settings(
    max_examples=10,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_requests_made_up_from_the_description_never_end_in_an_error_of_the_service(service):
    """Property-based: schemathesis makes requests, right ones and wrong ones, from the OpenAPI description."""
    schema = schemathesis.openapi.from_dict(service.get("/openapi.json").json)
    schema.config.update(base_url=service.url, request_timeout=120)  # an identification compiles
    asked: Counter[str] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:
            if mode is GenerationMode.POSITIVE and operation.label in COSTLY:
                continue

            @MADE_UP
            @given(case=operation.as_strategy(generation_mode=mode))
            def attack(case):
                response = case.call()
                asked[f"{response.status_code}"] += 1
                assert response.status_code < 500, (case, response.text)
                if response.status_code >= 400:
                    assert list(response.json()) == ["error"], (case, response.text)

            with suppress(Unsatisfiable):  # no parameter, so none that is wrong
                attack()
    assert asked["200"] >= 5, asked  # what is made up is seldom the name of a column
    assert asked["422"] >= 20, asked
    assert asked.total() >= 100, asked
