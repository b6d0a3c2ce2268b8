"""The command `enumerator run` as a child of the service: when the service is gone, however it went, it stops.

    python -m cluster.child FOLDER OPTION...

FOLDER holds the body of the request that describes the campaign.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path


def _watch() -> None:
    """Wait for the end of stdin, which the service holds open."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def run(folder: Path, options: list[str]) -> int:
    """Run the campaign; the exit code."""
    # As for the command itself: this process must not take a GPU away from the workers.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from cluster.cli import run_command
    from cluster.service.runs import BODY
    from cluster.service.settings import write_campaign_file

    return run_command(["run", str(write_campaign_file((folder / BODY).read_bytes(), folder)), *options])


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
