"""A real service in a process of its own, and plain requests to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

PROJECT = Path(__file__).parents[2]


class Reply(NamedTuple):
    """An answer: status, headers and body."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Service(NamedTuple):
    """A service that runs."""

    url: str
    process: subprocess.Popen[str]
    said: list[str]  # the lines on its stderr

    def get(self, path: str, **headers: str) -> Reply:
        """The answer to a GET, whatever its status; in a header's name `_` stands for `-`."""
        return self.request("GET", path, None, **headers)

    def request(self, method: str, path: str, content: Any = None, **headers: str) -> Reply:
        """The answer to a request; `content` is sent as JSON, or as it is if it is bytes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        request = urllib.request.Request(
            self.url + path, body, {"Content-Type": "application/json", **named}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Reply(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())


# The service with limits that the command does not ask for.
_LIMITED = """
import json, socket, sys
from cluster.service.app import create_app
from cluster.service.connections import server_of
from cluster.service.limits import Limits
app = create_app(sys.argv[1], limits=Limits(**json.loads(sys.argv[2])))
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
server_of(app, app.state.enumerator.connections).run([listener])
"""


def _keep(said: list[str], stderr: IO[str]) -> None:
    """Keep what a service says until it is closed: processes that it leaves for a moment may hold its stderr open."""
    with suppress(ValueError):  # closed while it is read
        for line in stderr:
            said.append(line)


@contextmanager
def serving(
    catalogue: Path | str,
    *options: str,
    limits: dict[str, float] | None = None,
    files: int | None = None,
    **environment: str,
) -> Iterator[Service]:
    """`enumerator serve` on a free port, until the block ends; with other limits, or so many descriptors of files."""
    command = [sys.executable, "-m", "cluster.cli", "serve", str(catalogue), "--port", "0", *options]
    if limits is not None:
        command = [sys.executable, "-c", _LIMITED, str(catalogue), json.dumps(limits)]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    inherited = {name: value for name, value in os.environ.items() if name != "ENUMERATOR_TOKEN"}
    process = subprocess.Popen(
        command, cwd=PROJECT, stderr=subprocess.PIPE, text=True, env={**inherited, **environment}
    )
    assert process.stderr is not None
    said = list[str]()
    # What it says is taken off at once: a full pipe would hold it up.
    listening = threading.Thread(target=_keep, args=(said, process.stderr), daemon=True)
    try:
        line = process.stderr.readline()
        found = re.search(r"http://\S+:\d+", line)
        assert found, line + process.stderr.read()
        listening.start()
        yield Service(found[0].replace("0.0.0.0", "127.0.0.1"), process, said)
    finally:
        process.terminate()
        process.wait(timeout=60)
        if listening.is_alive():
            listening.join(60)
        process.stderr.close()
