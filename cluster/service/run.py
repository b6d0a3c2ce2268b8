"""The command `enumerator` as a child of the service: when the service is gone, however it went, it stops."""

from __future__ import annotations

import os
import signal
import threading


def _watch() -> None:
    """Wait for the end of stdin, which the service holds open."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    from cluster.cli import main

    main()
