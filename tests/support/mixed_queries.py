"""Clients that ask a service for all sorts of things at once, give up in the midst, and check every answer."""

from __future__ import annotations

import http.client
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import pyarrow as pa

# Seconds that the service has, after the last answer, to have all of its readers idle again.
SETTLING = 30.0
# The first rows come at once; of those from the 200,000th on, each takes longer than the one before.
_LENGTH = "10 + greatest(i::int - 200000, 0) // 500"
SLOW = f"levenshtein(repeat('a', {_LENGTH}), repeat(chr(65 + i::int % 26), {_LENGTH}))"


class WrongError(Exception):
    """An answer that is not that of its question."""


class LateError(Exception):
    """An answer that says that there was no time for one, which on a busy machine is no fault."""


class Client:
    """Asks one thing after the other; each question has a number of its own, which its answer must carry."""

    def __init__(self, url: str, seed: int) -> None:
        self._address = url.removeprefix("http://")
        self._chance = random.Random(seed)
        self._first, self._asked = 10_000_000 * (seed + 1), 0
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, until: float) -> None:
        """Ask until that time."""
        kinds = (self._small, self._small, self._small, self._long, self._failing, self._left, self._unread)
        kinds = (*kinds, self._table, self._stopped, self._cut)
        while time.monotonic() < until:
            kind = self._chance.choice(kinds)
            self._asked += 1
            name = kind.__name__.strip("_")
            try:
                kind(self._first + self._asked)
            except LateError:
                name = "late"
            except WrongError as wrong:
                self.wrong.append(f"{name}: {wrong}")
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{name}: {error!r}")
            self.counts[name] += 1

    @contextmanager
    def _answer(self, target: str, body: dict | None = None) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._address, timeout=120)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request("GET" if body is None else "POST", target, content, headers)
            yield connection.getresponse()
        finally:
            connection.close()

    @contextmanager
    def _sql(self, query: str, format: str = "csv") -> Iterator[http.client.HTTPResponse]:
        if self._chance.random() < 0.5:
            with self._answer(f"/sql?format={format}&query={quote(query)}") as answer:
                yield answer
        else:
            with self._answer("/sql", {"query": query, "format": format}) as answer:
                yield answer

    def _small(self, number: int) -> None:
        format = self._chance.choice(["json", "csv", "arrow"])
        with self._sql(f"select {number} as k, i from range(3) t(i)", format) as answer:
            body = _expected(answer, 200)
        if format == "json":
            found = json.loads(body) == [{"k": number, "i": i} for i in range(3)]
        elif format == "csv":
            found = body.decode() == '"k","i"\n' + "".join(f"{number},{i}\n" for i in range(3))
        else:
            found = pa.ipc.open_stream(body).read_all().to_pydict() == {"k": [number] * 3, "i": [0, 1, 2]}
        _check(found, number, body)

    def _long(self, number: int) -> None:
        """Some megabytes, all of which have to come unless there was no time."""
        with self._sql(f"select {number} as k, i from range(300000) t(i)") as answer:
            _expect(answer, 200)
            try:
                body = answer.read()
            except http.client.IncompleteRead as cut:
                _check(_only(number, cut.partial), number, cut.partial)
                raise LateError from None
        _check(body == b'"k","i"\n' + b"".join(b"%d,%d\n" % (number, i) for i in range(300_000)), number, body)

    def _failing(self, number: int) -> None:
        with self._sql(f"select no_{number} from starts") as answer:
            body = _expected(answer, 400)
        _check(f"no_{number}" in json.loads(body)["error"], number, body)

    def _table(self, number: int) -> None:
        """Rows of a table that carry the number by way of a condition."""
        where = quote(f"start_index = {number % 500} and {number} = {number}")
        with self._answer(f"/tables/starts?columns=start_index&where={where}") as answer:
            body = _expected(answer, 200)
        _check(json.loads(body) == [{"start_index": number % 500}], number, body)

    def _left(self, number: int) -> None:
        """A stream that is left in the midst."""
        with self._sql(f"select {number} as k, repeat('x', 500) as s from range(2000000)") as answer:
            _expect(answer, 200)
            read = answer.read(self._chance.choice([1000, 1_000_000]))
        _check(_only(number, read), number, read)

    def _unread(self, number: int) -> None:
        """A question whose answer is not waited for."""
        connection = http.client.HTTPConnection(self._address, timeout=120)
        connection.request("GET", f"/sql?query={quote(f'select {number} as k, sum({SLOW}) from range(300000) t(i)')}")
        time.sleep(0.2 * self._chance.random())
        connection.close()

    def _stopped(self, number: int) -> None:
        """A query that is stopped at its limit before there is anything of its answer."""
        with self._sql(f"select {number} as k, sum({SLOW}) from range(1000000000) t(i)") as answer:
            body = _expected(answer, 422)
        _check("stopped" in json.loads(body)["error"], number, body)

    def _cut(self, number: int) -> None:
        """A stream that is stopped at its limit in the midst, and is seen to be cut."""
        query = f"select {number} as k, {SLOW} as n, repeat('x', 200) as s from range(900000000) t(i)"
        read = bytearray()
        with self._sql(query) as answer:
            _expect(answer, 200)
            try:
                while part := answer.read(2**18):
                    read += part if len(read) < 2**20 else b""
            except http.client.IncompleteRead:
                _check(_only(number, bytes(read)), number, bytes(read))
                return
        raise WrongError(f"{number}: the stream was not cut")


def _expect(answer: http.client.HTTPResponse, status: int) -> None:
    """Raise WrongError if an answer has another status, LateError if that says that there was no time."""
    if answer.status != status:
        body = answer.read()
        is_late = answer.status == 429 or (answer.status == 422 and b"was stopped" in body)
        raise LateError if is_late else WrongError(f"{answer.status} for {status}: {body[:200]!r}")


def _expected(answer: http.client.HTTPResponse, status: int) -> bytes:
    """The body of an answer with that status."""
    _expect(answer, status)
    return answer.read()


def _only(number: int, lines: bytes) -> bool:
    """Whether the lines of a CSV file that were read begin with this number, the first and the last one left out."""
    return all(line.startswith(b"%d," % number) for line in lines.split(b"\n")[1:-1])


def _check(is_right: bool, number: int, body: bytes) -> None:
    if not is_right:
        raise WrongError(f"question {number} was answered {body[:200]!r}")


def ask_all_sorts(url: str, seconds: float, clients: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """How often each sort was asked for, and what was wrong."""
    asking = [Client(url, 1000 * seed + k) for k in range(clients)]
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda client: client.run(until), asking))
    counts = sum((client.counts for client in asking), Counter[str]())
    wrong = [line for client in asking for line in client.wrong]
    if (busy := busy_in_the_end(url)) != 0:
        wrong.append(f"{busy} readers are busy, and nobody asks anything")
    return counts, wrong


def busy_in_the_end(url: str) -> float:
    """The readers that the service counts as busy, once that is 0, or has not been for SETTLING seconds."""
    deadline = time.monotonic() + SETTLING
    while True:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        connection.request("GET", "/metrics")
        found = re.search(rb"^enumerator_readers_busy (\S+)", connection.getresponse().read(), re.MULTILINE)
        connection.close()
        assert found is not None
        if float(found[1]) == 0 or time.monotonic() > deadline:
            return float(found[1])
        time.sleep(0.1)
