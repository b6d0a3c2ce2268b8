"""The service against those who mean it ill: hostile SQL, no token, too much of everything, made-up requests."""

import http.client
import os
import socket
import stat
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
import pytest
import schemathesis
from hostile import ENDLESS, REFUSED
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from serving import serving
from stand_ins import commit, contents, make_campaign, new_catalogue

from cluster.cli import run_command
from cluster.service.limits import check_exposure, is_authorised, is_loopback, read_token
from enumerator.errors import InputError

TOKEN = "a-token-of-32-characters-or-more"
QUERY_SECONDS = 2


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("safety") / "atlas"
    atlas, campaign = new_catalogue(path), make_campaign()
    atlas.register(campaign, 500, "cpu")
    commit(atlas, campaign, 0, 500, [0.1, 0.2, 0.3], ended=np.arange(500) % 4 - 1)
    return path


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


def test_a_reader_that_is_killed_is_replaced(service):
    assert service.get("/tables/minima?limit=1").status == 200
    deadline, killed = time.monotonic() + 30, []
    while len(killed) < 3:  # they start in the background
        assert time.monotonic() < deadline, f"{len(killed)} of 3 processes that answer"
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
    deep = b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
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
            for route in ("/tables", "/metrics", "/openapi.json", "/campaigns/x"):
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


# Requests that are right would start campaigns, or compute for seconds: of these only wrong ones are made up.
COSTLY = ("POST /campaigns", "POST /identify")
MADE_UP = settings(
    max_examples=10,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_requests_made_up_from_the_description_never_end_in_an_error_of_the_service(service):
    """Property-based: schemathesis makes requests, right ones and wrong ones, from the OpenAPI description."""
    schema = schemathesis.openapi.from_dict(service.get("/openapi.json").json)
    schema.config.update(base_url=service.url)
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
