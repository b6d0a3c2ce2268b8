"""What the service allows: sizes, rows, seconds and memory, and who may ask at all."""

from __future__ import annotations

import hmac
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from enumerator.errors import InputError

# Where the token stands if no file is named.
TOKEN_VARIABLE = "ENUMERATOR_TOKEN"
# Students and teachers of what comes from outside: beyond, a landscape alone takes too much memory.
MOST_NEURONS = 512
# Memory beside that of DuckDB: what Arrow and the tables kept need.
BESIDE_BYTES = 2**29
# A token that can be guessed is none; `openssl rand -hex 32` has twice as many characters.
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """Bounds of one request; each answer beyond one of them is an error of one line.

    body_bytes: of a request; Q and R of given starts at K = M = 100 take 160 kB each as JSON.
    dropped_bytes: of a larger one, which are read before it is refused.
    head_seconds: in which a connection must bring the head of its next request: from its opening, or from the end of
        the answer before.
    body_seconds: in which a body must have come.
    connections: at once; fewer if there are not as many file descriptors.
    client_requests: at once from one address, waiting ones and answers on their way counted.
    rows, json_rows: of one answer; JSON is for pages, the other formats are streamed.
    query_seconds: that one query computes, and that each WINDOW of a stream of starts does; the time that
        the reader of an answer takes is not counted.
    query_bytes: memory of the queries of one process.
    identify_seconds, identify_bytes: of one identification, which compiles and follows a flow; identify_large_seconds:
        where a layer has more than small_neurons.
    idle_seconds: a reader of an answer that takes nothing for so long has gone.
    spool_bytes: of disk for answers on their way, at most half of it for one client.
    hold_seconds: for which an answer that found no room there may hold a process, if others wait for one.
    kept_seconds: for which an answer is kept after who reads it by ranges has asked last.
    wait_seconds: until a process is free to answer.
    readers: processes that answer queries, each one at a time; `waiting` requests may wait for one.
    identifiers: processes that identify small networks; one more is there for large ones.
    """

    body_bytes: int = 8 * 2**20
    dropped_bytes: int = 64 * 2**20
    head_seconds: float = 20.0
    body_seconds: float = 60.0
    connections: int = 512
    client_requests: int = 64
    rows: int = 10_000_000
    json_rows: int = 10_000
    query_seconds: float = 10.0
    query_bytes: int = 2**30
    identify_seconds: float = 60.0
    identify_large_seconds: float = 120.0
    small_neurons: int = 32
    identify_bytes: int = 4 * 2**30
    idle_seconds: float = 60.0
    spool_bytes: int = 4 * 2**30
    hold_seconds: float = 30.0
    kept_seconds: float = 60.0
    wait_seconds: float = 30.0
    readers: int = 3
    identifiers: int = 2
    waiting: int = 128

    @property
    def reader_bytes(self) -> int:
        """Memory that one process that answers queries may take beyond what it has at first."""
        return self.query_bytes + BESIDE_BYTES


def read_token(file: Path | None) -> str | None:
    """The token from a file, or from the environment; None if there is none.

    Raises InputError for a file that others may read, and for a token that is too short or not printable ASCII.
    """
    source = str(file) if file else TOKEN_VARIABLE
    if file is not None:
        try:
            if file.stat().st_mode & 0o077:
                raise InputError(f"others can read the token file {file}: chmod 600 {quote(str(file))}.")
            token = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"expected a file with a token in ASCII, cannot read {file}: {error}.") from None
    elif TOKEN_VARIABLE in os.environ:
        token = os.environ[TOKEN_VARIABLE].strip()
    else:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"the token in {source} must be {SHORTEST_TOKEN} printable ASCII characters or more, without blanks: "
            "openssl rand -hex 32."
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Raise InputError for a server that others can reach and that asks nobody for a token."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"a service on {host} can be reached by others: give it a token, --token-file FILE or {TOKEN_VARIABLE}, "
            "or let it listen on 127.0.0.1."
        )


def is_authorised(header: str | None, token: str | None) -> bool:
    """Whether the Authorization header of a request carries the token; in a time that tells nothing about it."""
    if token is None:
        return True
    scheme, _, given = (header or "").partition(" ")
    return hmac.compare_digest(given.strip().encode(), token.encode()) and scheme.lower() == "bearer"
