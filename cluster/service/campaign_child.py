"""A campaign that the service runs, in a process of its own: when the service is gone, however it went, it stops.

    python -m cluster.service.campaign_child CATALOGUE DESCRIPTOR [WORKERS]

The open file DESCRIPTOR holds the body of the request that describes the campaign. On stderr progress is told as JSON,
and an error on one line.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from cluster.failure import DEBUG, told
from cluster.runs.driver import run_campaign
from cluster.runs.options import RunOptions
from cluster.service.settings import read_request
from cluster.terminal import printable
from enumerator.catalogue.catalogue import Catalogue


def _watch() -> None:
    """Wait for the end of stdin, which the service holds open."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def run(address: str, body: bytes, workers: int | None) -> int:
    """Run the campaign that a body describes; the exit code, as that of the command `run`."""
    try:
        options = RunOptions(workers, progress="json")
        summary = run_campaign(read_request(body), Catalogue(address, create=True), options)
    except Exception as error:  # whatever it is, the service is told on one line
        if os.environ.get(DEBUG):
            raise
        text, code = told(error)
        print(printable(f"error: {text}"), file=sys.stderr, flush=True)
        return code
    return 130 if summary.interrupted else 0


def main(address: str, descriptor: str, workers: str | None = None) -> int:
    """Watch the service, and run the campaign."""
    threading.Thread(target=_watch, daemon=True).start()
    with open(int(descriptor), "rb") as file:
        body = file.read()
    return run(address, body, None if workers is None else int(workers))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
