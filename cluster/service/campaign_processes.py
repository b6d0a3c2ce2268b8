"""The campaigns that the service runs: each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from typing import Any

from enumerator.errors import InputError

# Lines of what a run says that are kept.
LINES = 500
# Seconds that a run has to stop when asked to.
PATIENCE = 60.0
# Campaigns that may run at once; each takes all cores that it is given.
MOST_RUNS = 1


class Runs:
    """Starts, follows and cancels campaigns on the catalogue at `address`.

    Each has so many `workers`, one per core if None, or per GPU. Safe to call from several threads.
    """

    def __init__(self, address: str, workers: int | None = None, most: int = MOST_RUNS) -> None:
        self._address, self._workers, self._most = address, workers, most
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """How many are at work."""
        return sum(run.is_alive for run in self._runs.values())

    def start(self, names: tuple[str, str], starts: int, body: bytes) -> dict[str, Any]:
        """Run the campaign that the body of a request describes, unless it runs already; how it stands.

        `names` are its id and its name, `starts` those that it is to have.
        """
        name = names[0]
        with self._lock:
            run = self._runs.get(name)
            if run is None or not run.is_alive:
                if self.running >= self._most:
                    at_work = ", ".join(key for key, run in self._runs.items() if run.is_alive)
                    raise BusyError(f"{at_work} is running: wait for its end, or cancel it.")
                self._runs[name] = _Run(names, starts, body, self._address, self._workers)
        return self._runs[name].status()

    def status(self, name: str) -> dict[str, Any] | None:
        """How a campaign stands that was started here; None for any other."""
        run = self._named(name)
        return None if run is None else run.status()

    def _named(self, name: str) -> _Run | None:
        """The run of a campaign, by its id or its name."""
        return self._runs.get(name) or next((run for run in self._runs.values() if run.names[1] == name), None)

    def logs(self, name: str) -> str | None:
        """What a run has said last, its progress left out."""
        run = self._named(name)
        return None if run is None else "".join(f"{line}\n" for line in list(run.said))

    def cancel(self, name: str) -> bool:
        """Ask a run to stop, after the shard that it is storing; whether there is one."""
        run = self._named(name)
        if run is None or not run.is_alive:
            return False
        run.cancelled = True
        run.process.terminate()
        return True

    def close(self) -> None:
        """Stop all runs."""
        for run in self._runs.values():
            run.end()


class BusyError(InputError):
    """As many campaigns run as may run at once."""


class _Run:
    """One process, and what it has said."""

    def __init__(self, names: tuple[str, str], starts: int, body: bytes, address: str, workers: int | None) -> None:
        self.cancelled = False
        # The id and the name of the campaign.
        self.names = names
        self.said: deque[str] = deque(maxlen=LINES)
        self._progress: dict[str, Any] = {"done": 0, "asked": starts}
        with tempfile.TemporaryFile() as file:  # without a name: it goes with those who have it open
            file.write(body)
            file.seek(0)
            command = [sys.executable, "-m", "cluster.service.campaign_child", address, str(file.fileno())]
            self.process = subprocess.Popen(
                command if workers is None else [*command, str(workers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[file.fileno()],
                text=True,
                start_new_session=True,
                # As for the command: this process must not take a GPU away from the workers.
                env={"JAX_PLATFORMS": "cpu", **os.environ},
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                told = json.loads(line)
                self._progress = {key: value for key, value in told.items() if not key.startswith("campaign_")}
            except (ValueError, AttributeError):
                self.said.append(line.rstrip("\n"))
        self.process.wait()

    @property
    def is_alive(self) -> bool:
        """Whether it is at work."""
        return self.process.poll() is None

    def status(self) -> dict[str, Any]:
        """Which it is, and where it stands: running, complete, cancelled or failed, its progress, why it failed."""
        code = self.process.poll()
        if code is None:
            status = "cancelling" if self.cancelled else "running"
        else:
            status = "complete" if code == 0 else "cancelled" if self.cancelled else "failed"
        error = self._error(code) if status == "failed" else None
        named = dict(zip(("campaign_id", "campaign_name"), self.names, strict=True))
        return {**named, "status": status, **self._progress} | ({"error": error} if error else {})

    def _error(self, code: int | None) -> str:
        """Why it failed: the line of its error, or, if it was ended from outside, by what."""
        told = (line for line in reversed(list(self.said)) if line.startswith("error: "))
        return next(told, f"error: its process ended with code {code}, and gave no reason.")

    def end(self) -> None:
        """Stop it; wait for it."""
        if not self.is_alive:
            return
        self.cancelled = True
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
