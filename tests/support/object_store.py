"""An S3-compatible store on this machine, in a process of its own, and a proxy before it that fails on purpose."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.exceptions import ClientError

# Credentials that no store checks, and that must never be seen in what is stored or said.
KEY, SECRET = "an-access-key", "a-secret-key-never-to-be-seen"

# The store answers requests in threads and checks before it writes: between both nobody may come in.
SERVER = """
import logging, sys, threading, time
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
logging.disable(logging.CRITICAL)
lock, put = threading.RLock(), S3Response.put_object
def locked(*arguments, **options):
    with lock:
        return put(*arguments, **options)
S3Response.put_object = locked
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def environment(port: int) -> dict[str, str]:
    """The usual variables of S3 clients, for a store on this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def client(port: int):
    """A plain client of the store."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


def assert_one_create_wins(port: int, count: int = 100) -> None:
    """Create one object so many times at once, each time only if it is not there: one must win, and it must be what is
    stored. Every commit rests on it; were it not so, the store would be no store for a catalogue."""
    s3 = client(port)

    def create(number: int) -> str:
        try:
            s3.put_object(Bucket="bucket", Key="raced", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            return error.response["Error"]["Code"]
        return f"won {number}"

    with ThreadPoolExecutor(25) as pool:
        ends = list(pool.map(create, range(count)))
    winners = [end for end in ends if end.startswith("won")]
    assert len(winners) == 1, winners
    assert set(ends) - set(winners) <= {"PreconditionFailed", "ConditionalRequestConflict"}, set(ends)
    assert f"won {s3.get_object(Bucket='bucket', Key='raced')['Body'].read().decode()}" == winners[0]


@contextmanager
def object_store() -> Iterator[int]:
    """The port of a store with the bucket `bucket`."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
        text=True,
        start_new_session=True,  # Ctrl-C is for who started it, and whose commits it still takes.
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        client(port).create_bucket(Bucket="bucket")
        yield port
    finally:
        process.kill()
        process.communicate(timeout=30)


class FailingProxy(ThreadingHTTPServer):
    """Passes requests on to a store, but for a part of them that fails in one of three ways.

    `lost`: the store does what it is asked to, and the connection is cut before the answer; `busy`: answered 503;
    `cut`: the connection is cut and the store never sees the request. Of each 1/rate requests of a method one fails, at
    a random place, in these three ways in turn: no run gets by without a lost write.
    """

    daemon_threads = True

    def __init__(self, store: int, rate: float, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store, self.failures = store, Counter[str]()
        self._block, self._chance, self._lock = round(1 / rate), random.Random(seed), threading.Lock()
        self._counted, self._failing = Counter[str](), dict[str, int]()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def fate(self, method: str) -> str:
        """What happens to the next request of a method."""
        with self._lock:
            block, place = divmod(self._counted[method], self._block)
            self._counted[method] += 1
            if place == 0:
                self._failing[method] = self._chance.randrange(self._block)
            fate = ("lost", "busy", "cut")[block % 3] if place == self._failing[method] else "passed"
            self.failures[f"{fate} {method}"] += 1
            return fate

    def handle_error(self, *_: object) -> None:
        """Clients that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FailingProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.server.fate(self.command)
        if fate == "cut":
            self._cut()
            return
        if fate == "busy":
            self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.store, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if fate == "lost":
            self._cut()
            return
        self._answer(answer.status, answer.getheaders(), content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = dict((name.lower(), value) for name, value in headers).get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def failing_proxy(store: int, rate: float) -> Iterator[FailingProxy]:
    """A proxy before the store at this port, at which a part `rate` of all requests fails."""
    with FailingProxy(store, rate) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
