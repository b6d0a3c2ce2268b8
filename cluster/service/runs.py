"""The campaigns that the service runs: each is the command `enumerator run` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from cluster.inputs import Request, as_toml, check_settings, request
from cluster.service.limits import MOST_NEURONS
from enumerator.errors import InputError

# Lines of what a run says that are kept.
LINES = 500
# Seconds that a run has to stop when asked to.
PATIENCE = 60.0
# Campaigns that may run at once; each takes all cores that it is given.
MOST_RUNS = 1
# What stands for the files of a campaign file: matrices, in the request itself.
MATRICES = ("T", "Q", "R")
# Settings of a campaign file that a request cannot have, and why.
REFUSED = {
    "teacher": "names a file, which a request cannot: send T",
    "initial": "names a file, which a request cannot: send Q and R",
    "grid": "makes many campaigns of one file, and a request starts one: send a request for each",
}


class Runs:
    """Starts, follows and cancels campaigns on the catalogue at `address`.

    `arguments` are further options of `enumerator run`, such as workers. Safe to call from several threads.
    """

    def __init__(self, address: str, arguments: tuple[str, ...] = (), most: int = MOST_RUNS) -> None:
        self._address, self._arguments, self._most = address, arguments, most
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """How many are at work."""
        return sum(run.is_alive for run in self._runs.values())

    def start(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Run a campaign, unless it runs already; how it stands. Raises InputError for settings that cannot be."""
        with tempfile.TemporaryDirectory(prefix="enumerator-request-") as folder:
            wanted = read_request(settings, Path(folder))
        name = wanted.campaign.id
        with self._lock:
            run = self._runs.get(name)
            if run is None or not run.is_alive:
                if self.running >= self._most:
                    at_work = ", ".join(key for key, run in self._runs.items() if run.is_alive)
                    raise BusyError(f"{at_work} is running: wait for its end, or cancel it.")
                self._runs[name] = _Run(settings, self._address, self._arguments, wanted.starts)
        return self.status(name) or {}

    def status(self, name: str) -> dict[str, Any] | None:
        """How a campaign stands that was started here; None for any other."""
        run = self._runs.get(name)
        return None if run is None else {"campaign_id": name, **run.status()}

    def logs(self, name: str) -> str | None:
        """What a run has said last, its progress left out."""
        run = self._runs.get(name)
        return None if run is None else "".join(f"{line}\n" for line in list(run.said))

    def cancel(self, name: str) -> bool:
        """Ask a run to stop, after the shard that it is storing; whether there is one."""
        run = self._runs.get(name)
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


def read_request(settings: dict[str, Any], folder: Path) -> Request:
    """The campaign that a request describes, by way of files in `folder`. Raises InputError."""
    return request(_as_file(settings, folder))


def _as_file(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings as a campaign file has them: matrices in files. Raises InputError."""
    settings = dict(settings)
    for name, reason in REFUSED.items():
        if name in settings:
            raise InputError(f"`{name}` {reason}.")
    for name in ("students", "teachers"):
        # A number with a point counts as well: to the schema 1e9 is a whole number.
        if isinstance(settings.get(name), int | float) and settings[name] > MOST_NEURONS:
            raise InputError(f"`{name}` must be at most {MOST_NEURONS} here, got {settings[name]}.")
    matrices = {name: _array(name, settings.pop(name)) for name in MATRICES if name in settings}
    check_settings(settings, "the request")
    if "T" in matrices:
        np.save(folder / "T.npy", matrices["T"])
        settings["teacher"] = str(folder / "T.npy")
    if "Q" in matrices or "R" in matrices:
        if not {"Q", "R"} <= set(matrices):
            raise InputError("given starts need both Q and R.")
        np.savez(folder / "initial.npz", Q=matrices["Q"], R=matrices["R"])
        settings["initial"] = str(folder / "initial.npz")
    return settings


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` must hold numbers, in lists of one length.") from None


class _Run:
    """One process, and what it has said."""

    def __init__(self, settings: dict[str, Any], address: str, arguments: tuple[str, ...], starts: int) -> None:
        self.cancelled = False
        self.said: deque[str] = deque(maxlen=LINES)
        self._progress: dict[str, Any] = {"done": 0, "asked": starts}
        self._folder = tempfile.TemporaryDirectory(prefix="enumerator-run-")
        folder = Path(self._folder.name)
        (folder / "campaign.toml").write_text(as_toml(_as_file(settings, folder)), encoding="utf-8")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cluster.service.run", "run", str(folder / "campaign.toml")),
                *("--starts", str(starts), "--catalogue", address, "--progress", "json", *arguments),
                *("--format", "csv"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                told = json.loads(line)
                self._progress = {key: value for key, value in told.items() if key != "campaign_id"}
            except (ValueError, AttributeError):
                self.said.append(line.rstrip("\n"))
        self.process.wait()
        self._folder.cleanup()

    @property
    def is_alive(self) -> bool:
        """Whether it is at work."""
        return self.process.poll() is None

    def status(self) -> dict[str, Any]:
        """Where it stands: running, complete, cancelled or failed, its progress, and why it failed."""
        code = self.process.poll()
        if code is None:
            status = "cancelling" if self.cancelled else "running"
        else:
            status = "complete" if code == 0 else "cancelled" if self.cancelled else "failed"
        error = self.said[-1] if status == "failed" and self.said else None
        return {"status": status, **self._progress} | ({"error": error} if error else {})

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
