"""Who may ask the service: programs, its own pages; not the pages of other sites that a browser shows."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.support.serving import serving
from tests.support.stand_ins import commit, make_campaign, new_catalogue

CAMPAIGN = make_campaign()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    path = tmp_path_factory.mktemp("guard") / "atlas"
    atlas = new_catalogue(path)
    atlas.register(CAMPAIGN, 300, "cpu")
    commit(atlas, CAMPAIGN, 0, 300, [0.1, 0.2, 0.3])
    with serving(path, "--readers", "1", "--workers", "1") as service:
        yield service


def raw(service, request: bytes, wait: float = 30) -> bytes:
    """What a service answers to bytes, until it closes the connection."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=wait) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
]
ROUTES = [
    ("GET", "/"),
    ("GET", "/tables/minima"),
    ("GET", "/sql?query=select+1"),
    ("GET", "/health"),
    ("HEAD", "/tables/minima"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/campaigns"),
    ("POST", "/campaigns"),
    ("POST", f"/campaigns/{CAMPAIGN.id}/cancel"),
    ("POST", "/identify"),
    ("POST", "/sql"),
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_are_refused_everywhere(service, headers):
    for method, path in ROUTES:
        body = {"query": "select 1"} if method == "POST" else None
        reply = service.request(method, path, body, **headers)
        assert reply.status == 403, (method, path, reply)
        assert not reply.headers["Access-Control-Allow-Origin"]
    assert "pages of other sites may not ask" in service.get("/tables", **headers).json["error"]


def test_programs_and_the_pages_of_the_service_itself_may_ask(service):
    host = service.url.removeprefix("http://")
    for headers in ({}, {"Sec-Fetch-Site": "none"}, {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}):
        assert service.get("/tables/minima", **headers).status == 200
    # Behind a proxy with TLS the page is of https, the request of http.
    assert service.get("/tables/minima", Origin=f"https://{host}").status == 200


def test_two_origins_of_which_one_is_foreign(service):
    head = "GET /tables HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nOrigin: http://localhost\r\n"
    assert raw(service, head.encode() + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "host", ["attacker.example", "localhost.attacker.example", "127.0.0.1.nip.io", "0.0.0.0", "[::1]e.org", ""]
)
def test_a_name_made_to_lead_to_this_machine_is_refused(service, host):
    # After DNS rebinding the page is of the same origin as the service: the name alone tells.
    head = f"GET /tables HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n"
    assert raw(service, head.encode() + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 421 ")


def test_names_of_this_machine_are_read_as_the_standard_says(service):
    port = urlsplit(service.url).port
    for host in (f"LOCALHOST:{port}", "[::1]", "127.0.0.1:"):
        head = f"GET /tables HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert raw(service, head.encode()).startswith(b"HTTP/1.1 200 ")


def test_without_a_host_there_is_no_answer(service):
    assert raw(service, b"GET /tables HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None, ""])
def test_what_changes_or_computes_wants_json(service, kind):
    address = urlsplit(service.url)
    for path, content in (
        ("/campaigns", {"students": 2, "teachers": 2}),
        (f"/campaigns/{CAMPAIGN.id}/cancel", None),
        ("/identify", {"Q": [[1.0]], "R": [[1.0]], "teachers": 1}),
        ("/sql", {"query": "select 1"}),
    ):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        body = None if content is None else json.dumps(content)
        connection.request("POST", path, body, {} if kind is None else {"Content-Type": kind})
        reply = connection.getresponse()
        told = json.load(reply)["error"]
        connection.close()
        assert (reply.status, told.split(", got")[0]) == (415, "expected the header `Content-Type: application/json`")
    assert service.request("POST", "/sql", {"query": "select 1 as n"}).json == [{"n": 1}]
    reply = service.request("POST", "/sql", {"query": "select 1 as n"}, Content_Type="Application/JSON; charset=utf-8")
    assert reply.json == [{"n": 1}]
    # What the client of Python sends without a body passes as well.
    assert service.request("POST", f"/campaigns/{CAMPAIGN.id}/cancel", b"").status == 404
