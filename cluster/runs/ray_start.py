"""How Ray starts on this machine: within a time, noticing at once that a process of it has died, and open to signals.

Ray itself waits for its node in one call outside Python, for minutes, also when the node is dead; Python takes up no
signal meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ray.exceptions import RayError

from cluster.runs.machine import available_cores
from enumerator.errors import EnumeratorError

# Seconds that the first try may take, each other one twice as many as the one before: with fifteen busy processes to a
# core Ray needs more than a minute and a half. Only what is frozen is waited for so long: what has died is noticed.
START_SECONDS = 90.0
# Seconds after which the user is told what is waited for.
SAY_SECONDS = 10.0
# Seconds between two looks for signals and dead processes.
LOOK_SECONDS = 0.2
# The processes without which no Ray comes up, by the names that the system has for them.
NEEDED = ("gcs_server", "raylet")


class StartError(EnumeratorError):
    """Ray does not start on this machine, or does not answer."""


class _Process(NamedTuple):
    """A process, as /proc tells of it."""

    number: int
    parent: int
    name: str
    has_ended: bool


def _processes() -> list[_Process]:
    """All processes; none where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
            start, _, rest = entry.joinpath("stat").read_text().rpartition(")")
            state, parent = rest.split()[:2]
            found.append(_Process(int(entry.name), int(parent), start.partition("(")[2], state in "ZX"))
    return found


def _children() -> dict[int, _Process]:
    """Those of this process, by their numbers."""
    return {process.number: process for process in _processes() if process.parent == os.getpid()}


def end_processes(folder: str) -> None:
    """Kill what this process has started with `folder` in its command line, and all that those have started.

    A Ray that came up in part does not know them.
    """
    processes = _processes()
    ending = {process.number for process in processes if process.parent == os.getpid() and _names(process, folder)}
    size = 0
    while len(ending) > size:
        size = len(ending)
        ending |= {process.number for process in processes if process.parent in ending}
    for number in ending:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _names(process: _Process, folder: str) -> bool:
    try:
        return folder.encode() in Path(f"/proc/{process.number}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return False


@contextlib.contextmanager
def watched_start(says: bool, tried: int = 0) -> Iterator[None]:
    """Ray's waits in the block end by StartError when one of its processes has died, or when their time is over.

    That is START_SECONDS, longer if it was `tried` before. Signals are taken up meanwhile. `says` lets a line on stderr
    tell what is waited for, when that takes long.
    """
    seconds = START_SECONDS * 2**tried
    earlier, deadline = set(_children()), time.monotonic() + seconds

    def check() -> None:
        for number, process in _children().items():
            if number not in earlier and process.has_ended and process.name in NEEDED:
                raise StartError(f"its process {process.name} has ended")
        if time.monotonic() > deadline:
            raise StartError(f"it was not up after {seconds:.0f} s")

    told = threading.Timer(SAY_SECONDS, _say)
    told.daemon = True
    if says:
        told.start()
    try:
        with _short_waits(check):
            yield
    finally:
        told.cancel()


def load_text() -> str:
    """How busy the machine is."""
    return f"the load is {os.getloadavg()[0]:.0f} on {available_cores()} cores"


def _say() -> None:
    print(f"Waiting for Ray to start: {load_text()}.", file=sys.stderr, flush=True)


def _module(name: str) -> Any:
    """A module of Ray's own: what happens there has no public name."""
    return importlib.import_module(f"ray._private.{name}")


@contextlib.contextmanager
def _short_waits(check: Callable[[], None]) -> Iterator[None]:
    """Each wait of Ray for its own processes, in the block, is many short ones with a `check` before each."""
    node, services = _module("node"), _module("services")
    usual_port, usual_node = node.wait_for_persisted_port, services.get_node

    def wait_for_port(*where: Any, timeout_ms: int) -> int:
        while True:
            check()
            with contextlib.suppress(RuntimeError):  # not yet
                return usual_port(*where, timeout_ms=int(1000 * LOOK_SECONDS))

    def get_node(address: str, node_id: str) -> dict[str, Any]:
        while not _is_up(address, node_id):
            check()
            time.sleep(LOOK_SECONDS)
        return usual_node(address, node_id)

    node.wait_for_persisted_port, services.get_node = wait_for_port, get_node
    try:
        yield
    finally:
        node.wait_for_persisted_port, services.get_node = usual_port, usual_node


def _is_up(address: str, node_id: str) -> bool:
    """Whether a node has told that it is up; asked anew, within a second."""
    services = _module("services")
    try:
        nodes = services.GcsClient(address=address).get_all_node_info(timeout=1)
    except (RayError, RuntimeError):  # it does not answer now
        return False
    return any(key.hex() == node_id and info.state == services.GcsNodeInfo.ALIVE for key, info in nodes.items())


@contextlib.contextmanager
def free_ports() -> Iterator[None]:
    """Every port of a Ray that starts in the block is one that was free.

    All are but one, which `ray.init` does not ask for: that of the agent, 52365, without which the head of a cluster
    on this machine would take no jobs.
    """
    parameter = _module("parameter")
    usual = parameter.RayParams
    parameter.RayParams = functools.partial(usual, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        parameter.RayParams = usual
