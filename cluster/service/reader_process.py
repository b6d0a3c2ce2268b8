"""The processes that answer queries for the service, each one at a time: what a query can break is such a process.

    python -m cluster.service.reader_process ADDRESS DESCRIPTOR

This process loads what is needed, and then only waits for sockets on the socket DESCRIPTOR, with settings as JSON; each
goes to a new child, made in milliseconds, which answers on it. What is said either way are frames, each of which
carries the number of its request. `R` is a request: a line of JSON, and the body that it came with. `S` stops it if it
is at work. Of an answer, `A` says that the request is taken up, `H` holds a header as JSON, `D` a part of the body, `E`
an error as JSON, `Z` the end; each begins with the first and ends with one of the last two. `Q` says that a stream of
starts goes on with another query, for which the time that is allowed begins anew. A process ends with its socket,
whatever it is at: so none outlives the service. Nothing is pickled.
"""

from __future__ import annotations

import io
import json
import os
import queue
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

import pyarrow as pa

import enumerator.statistics.comparison  # noqa: F401  # loads SciPy's distributions: once, for all children
from cluster.encoding.encoders import ENCODERS
from cluster.service.answers import identification, point_as_json
from cluster.service.bodies import InvalidError, Network, read_as
from cluster.service.reader_protocol import HEAD_BYTES, head, packed
from cluster.service.settings import read_request
from cluster.service.view import GoneError, Moments, View
from enumerator.catalogue.campaign_names import name_of
from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import CatalogueError, EnumeratorError, InputError
from enumerator.statistics.by_name import computed
from enumerator.statistics.stopped_early import early_stops
from enumerator.storage import sql

# Bytes of a part of an answer, about.
PART = 2**18


class NotFoundError(InputError):
    """There is nothing by this name."""


class LimitError(InputError):
    """An answer would be larger than is allowed."""


# The status of an answer with an error; the first that fits.
STATUS = (
    (GoneError, 410),
    (NotFoundError, 404),
    (LimitError, 422),
    (InvalidError, 422),
    (InputError, 400),
    (CatalogueError, 503),
)
# Characters of an error: it may repeat what was sent.
LONGEST = 2000


class Frames(io.RawIOBase):
    """The stream of frames; as a file it takes the parts of a body."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._part = stream, bytearray()
        self._header: bytes | None = None
        self._is_begun = False
        # The number of the request that is answered, and whether it was stopped.
        self.number, self.stopped = 0, False

    def stop(self, number: int) -> None:
        """Stop the answer to a request, if it is still the one at work; for another thread."""
        if number == self.number:
            self.stopped = True
            sql.interrupt()

    def frame(self, kind: bytes, content: bytes = b"") -> None:
        """Write one frame."""
        self._stream.write(packed(kind, self.number, content))
        self._stream.flush()

    def begin(self, header: dict[str, Any]) -> None:
        """Begin an answer; what goes wrong before its first part is complete is told in the place of all of it."""
        self._header, self._is_begun = json.dumps(header).encode(), True

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: Any) -> int:
        """Take in bytes of the body. Those of an answer that was given up are dropped: the end of a file may follow."""
        if self._is_begun:
            self._part += content
            if len(self._part) >= PART:
                self.end_part()
        return len(content)

    def end_part(self) -> None:
        """Send what was taken in. Raises InputError if the answer was stopped."""
        if self.stopped:
            raise InputError("the query was stopped.")
        part, self._part = bytes(self._part), bytearray()
        if self._header is not None:
            self.frame(b"H", self._header)
            self._header = None
        if part:
            self.frame(b"D", part)

    def forget(self) -> None:
        """Give up the answer."""
        self._part, self._header, self._is_begun = bytearray(), None, False


class Answers:
    """Answers requests about one catalogue."""

    def __init__(self, address: str, rows: int, json_rows: int) -> None:
        self._atlas = Catalogue(address)
        self._moments = Moments(self._atlas.store)
        self._rows, self._json_rows = rows, json_rows

    def answer(self, content: bytes, frames: Frames) -> None:
        """Answer one request. Raises EnumeratorError."""
        line, _, body = content.partition(b"\n")
        request = json.loads(line)
        if request["op"] in _OF_BODIES:
            self._whole(_OF_BODIES[request["op"]](self._atlas, body), frames)
            return
        view = self._moments.view(request["snapshot"])
        if request["op"] == "table":
            schema, batches = view.stream(request["name"], request["selection"], lambda: frames.frame(b"Q"))
            self._table(schema, batches, request, frames)
        elif request["op"] == "statistics":
            asked = (request[name] for name in ("of", "options", "confidence", "selection"))
            rows = computed(view, *asked)
            self._table(rows.schema, iter(rows.to_batches()), request, frames)
        elif request["op"] == "early-stops":
            rows = early_stops(view, **(request["asked"] | {"campaign": self._campaign(view, request["campaign"])}))
            self._table(rows.schema, iter(rows.to_batches()), request, frames)
        elif request["op"] == "sql":
            schema, batches = view.sql(request["query"])
            self._table(schema, batches, request, frames)
        elif request["op"] == "point":
            self._point(view, request, frames)
        else:
            raise ValueError(f"no operation {request['op']!r}")

    def _campaign(self, view: View, name: str) -> str:
        """The id of a campaign, by its id or name. Raises NotFoundError."""
        try:
            return view.select("campaigns", {"campaign": name, "columns": "campaign_id"})["campaign_id"][0].as_py()
        except InputError as error:
            raise NotFoundError(str(error)) from None

    def _point(self, view: View, request: dict[str, Any], frames: Frames) -> None:
        """One minimum or saddle, by its id or label."""
        name = request["name"]
        rows = view.minimum_row(name)
        if rows is None:
            raise NotFoundError(f"no minimum {name[:80]!r} in this catalogue ({sql.nearest(name, view.labels())}).")
        if request["format"] == "json":
            self._whole(point_as_json(rows), frames)
        else:
            self._table(rows.schema, iter(rows.to_batches()), request, frames)

    def _whole(self, content: dict[str, Any], frames: Frames) -> None:
        body = json.dumps(content, ensure_ascii=False).encode() + b"\n"
        frames.begin({"format": "json"})
        frames.write(body)
        frames.end_part()

    def _table(
        self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], request: dict[str, Any], frames: Frames
    ) -> None:
        """The rows in the format asked for; `page`: so many, and the header tells whether there are more."""
        page, format = request.get("page"), request["format"]
        header: dict[str, Any] = {"format": format}
        if page is not None:
            rows = pa.Table.from_batches(batches, schema)
            header |= {"more": rows.num_rows > page, "rows": min(rows.num_rows, page)}
            batches = iter(rows.slice(0, page).to_batches())
        elif format == "json":
            rows = pa.Table.from_batches(_bounded(batches, self._json_rows, "JSON is for pages: ask for Arrow"), schema)
            batches = iter(rows.to_batches())
        else:
            batches = _bounded(batches, self._rows, "select fewer")
        frames.begin(header)
        encoder = ENCODERS[format](frames, schema)
        for batch in batches:
            encoder.write(batch)
        encoder.close()
        frames.end_part()


def _network(_: Catalogue, body: bytes) -> dict[str, Any]:
    """How large the network in a body is."""
    return {"neurons": read_as(Network, body).neurons}


def _identification(atlas: Catalogue, body: bytes) -> dict[str, Any]:
    return identification(atlas, read_as(Network, body).model_dump(exclude_none=True))


def _campaign(_: Catalogue, body: bytes) -> dict[str, Any]:
    """The campaign that a body describes, and how many starts it is to have."""
    wanted = read_request(body)
    named = {"campaign_id": wanted.campaign.id, "campaign_name": name_of(wanted.campaign)}
    return named | {"starts": wanted.starts}


# What is computed from a body alone, and from no moment of the catalogue.
_OF_BODIES = {"network": _network, "identify": _identification, "campaign": _campaign}


def _bounded(batches: Iterator[pa.RecordBatch], most: int, advice: str) -> Iterator[pa.RecordBatch]:
    """The batches, as long as they have no more rows than `most`."""
    seen = 0
    for batch in batches:
        seen += batch.num_rows
        if seen > most:
            raise LimitError(f"the answer has more than {most:,} rows: {advice}, or use `limit`.")
        yield batch


def limit_memory(more: int) -> None:
    """Let this process take so many bytes more than it has."""
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmData:"))
    most = int(line.split()[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def listen(stream: IO[bytes], requests: queue.Queue[tuple[int, bytes]], frames: Frames) -> None:
    """Take requests and their numbers, until there are no more, and end the process."""
    with suppress(OSError):
        while len(start := stream.read(HEAD_BYTES)) == HEAD_BYTES:
            kind, number, size = head(start)
            content = stream.read(size)
            if kind == b"S":
                frames.stop(number)
            else:
                requests.put((number, content))
    os._exit(0)


def serve(address: str, connection: socket.socket, settings: dict[str, Any]) -> None:
    """Answer the requests that come on a connection."""
    sql.allow(settings["query_bytes"], settings["threads"])
    answers = Answers(address, settings["rows"], settings["json_rows"])
    limit_memory(settings["process_bytes"])
    frames = Frames(connection.makefile("wb"))
    requests: queue.Queue[tuple[int, bytes]] = queue.Queue()
    threading.Thread(target=listen, args=(connection.makefile("rb"), requests, frames), daemon=True).start()
    frames.frame(b"H", json.dumps({"process": os.getpid()}).encode())
    while True:
        number, content = requests.get()
        frames.number, frames.stopped = number, False
        frames.frame(b"A")
        try:
            answers.answer(content, frames)
        except (EnumeratorError, MemoryError, pa.ArrowException, RecursionError) as error:
            frames.forget()
            frames.frame(b"E", json.dumps(_told(error)).encode())
        except Exception as error:  # a fault of ours: the next request has nothing to do with it
            traceback.print_exc()
            frames.forget()
            fault = f"the service has a fault: {type(error).__name__}: {error}"
            frames.frame(b"E", json.dumps({"status": 500, "error": _line(fault)}).encode())
        else:
            frames.frame(b"Z")


def _told(error: BaseException) -> dict[str, Any]:
    """The status and the one line of an error."""
    if isinstance(error, MemoryError | pa.ArrowMemoryError):
        return {"status": 422, "error": "the query needs more memory than it is allowed: select fewer rows or columns."}
    if isinstance(error, RecursionError):
        return {"status": 400, "error": "the query is nested too deeply."}
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 400)
    return {"status": status, "error": _line(str(error))}


def _line(text: str) -> str:
    """A text on one line, not too long a one."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[:LONGEST] + " ..."


def main(address: str, descriptor: int) -> None:
    """Make a child for each socket that comes, until no more can come."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that end leave nothing
    while True:
        settings, descriptors, _, _ = socket.recv_fds(control, 2**16, 1)
        if not descriptors:
            return
        # Nothing has been started here that a child would miss: no thread, no database, no file of the catalogue.
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(address, socket.socket(fileno=descriptors[0]), json.loads(settings))
            finally:
                os._exit(1)
        os.close(descriptors[0])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
