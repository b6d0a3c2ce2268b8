"""The service and the clients of others: those that ask HEAD first, those that read by ranges, those behind a proxy."""

import http.client
import socket
from urllib.parse import urlsplit

import numpy as np
import pytest

from cluster.cli import run_command
from tests.support.serving import serving
from tests.support.stand_ins import commit, make_campaign, new_catalogue

LOSSES = [0.01 * k for k in range(1, 151)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("clients") / "atlas"
    atlas, campaign = new_catalogue(path), make_campaign()
    atlas.register(campaign, 300, "cpu")
    commit(atlas, campaign, 0, 300, LOSSES, ended=np.arange(300) % (len(LOSSES) + 1) - 1)
    return path


@pytest.fixture(scope="module")
def service(path):
    with serving(path, "--readers", "2", "--workers", "1") as service:
        yield service


def asked(service, method: str, path: str, headers=()) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request, read to the end of what the server sends on the connection."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = http.client.HTTPResponse(connection, method="GET")  # so that a body after HEAD would be read
        answer.begin()
        told = {name.lower(): value for name, value in answer.getheaders()}
        if method == "HEAD":
            assert connection.recv(1) == b"" and answer.fp.peek() == b"", "a body after HEAD"
            return answer.status, told, b""
        return answer.status, told, answer.read()


@pytest.mark.parametrize(
    "target",
    [
        *("/health", "/metrics", "/tables", "/openapi.json", "/tables/minima", "/tables/minima?format=csv&limit=3"),
        *("/tables/starts?format=parquet", "/tables/minima?format=parquet&limit=2", "/statistics/frequencies"),
        *("/sql?query=select+1+as+n", "/sql?query=select+1+as+n&format=arrow", "/minima/nothing", "/tables/nothing"),
        *("/campaigns/nothing", "/campaigns/nothing/logs", "/sql?query=select+nothing", "/nowhere"),
    ],
)
def test_head_tells_what_get_would_without_the_body(service, target):
    status, told, _ = asked(service, "HEAD", target)
    expected, full, body = asked(service, "GET", target)
    assert status == expected
    for name in ("content-type", "etag", "link", "vary", "accept-ranges"):
        assert told.get(name) == full.get(name), name
    if "/sql" in target and "format=" in target:  # not computed to the end for its size
        assert "content-length" not in told
    elif target != "/metrics":  # which counts
        assert int(told["content-length"]) == len(body)


def test_head_of_what_only_posts_is_no_request_for_it(service):
    for path in ("/identify", "/campaigns/x/cancel", "/campaigns"):
        status, told, _ = asked(service, "HEAD", path)
        assert (status, told["allow"]) == (405, "POST")


def links(service, *headers: str) -> list[str]:
    """Where the next page, a redirect and the description lead, with paths as clients see them."""
    next_page = asked(service, "GET", "/tables/minima?limit=2", headers)[1]["link"]
    redirect = asked(service, "GET", "/tables/", headers)[1]["location"]
    return [next_page.split("?")[0].removeprefix("<"), urlsplit(redirect).path]


def test_links_are_those_of_clients_behind_a_proxy_that_takes_a_prefix_away(service):
    assert links(service) == ["/tables/minima", "/tables"]
    assert links(service, "X-Forwarded-Prefix: /atlas") == ["/atlas/tables/minima", "/atlas/tables"]
    assert links(service, "X-Forwarded-Prefix: /a/b-1/") == ["/a/b-1/tables/minima", "/a/b-1/tables"]
    assert b'"servers":[{"url":"/atlas"}]' in asked(service, "GET", "/openapi.json", ["X-Forwarded-Prefix: /atlas"])[2]
    # What is no path is no prefix: a link never leads to another place, or out of the header.
    for made_up in ("//evil.example", "http://evil.example", "/a>; rel=next, <x", "/a?b", "a", "/a//b", "/%2F"):
        assert links(service, f"X-Forwarded-Prefix: {made_up}") == ["/tables/minima", "/tables"]


def test_a_root_path_counts_and_not_what_a_client_says(path, capsys):
    with serving(path, "--readers", "1", "--workers", "1", "--root-path", "/atlas/v1") as service:
        assert service.get("/health").status == 200
        assert links(service, "X-Forwarded-Prefix: /evil") == ["/atlas/v1/tables/minima", "/atlas/v1/tables"]
    assert run_command(["serve", str(path), "--root-path", "atlas/"]) == 2
    assert capsys.readouterr().err.startswith("error: `--root-path` must be a path such as /atlas, without a slash")
