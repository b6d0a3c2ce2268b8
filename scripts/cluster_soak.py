"""A campaign on a real Ray cluster of several nodes on this machine, under a hail of kills: scripts/soak --nodes 4."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from small_cluster import SmallCluster

PROJECT = Path(__file__).parent.parent
# When nodes and drivers are killed, as parts of the time.
NODE_KILLS = (0.3, 0.7)
DRIVER_KILLS = (0.2, 0.55)
# Seconds after which a node takes the place of one that was killed.
AWAY = 5.0
# Longest time without progress that is put up with, in seconds: a node that is gone has to be noticed, a driver to
# start again and its workers to load what they need.
LONGEST_STALL = 150.0
# Seconds in which a driver may end by itself after a node was killed: it reached the cluster by that one.
NOTICED = 30.0


@dataclass(frozen=True)
class Fire:
    """What a campaign is put through: for how many seconds, a worker killed every `interval`, on how many nodes."""

    seconds: float
    interval: float
    seed: int
    nodes: int

    def plan(self) -> list[tuple[float, str]]:
        """When something is killed, in seconds, and what; in order."""
        due = [(part * self.seconds, "node") for part in NODE_KILLS]
        due += [(part * self.seconds, "driver") for part in DRIVER_KILLS]
        count = int((self.seconds - 1) // self.interval)
        return sorted([*due, *((k * self.interval, "worker") for k in range(1, count + 1))])


@dataclass
class Toll:
    """The kills planned and done by kind, drivers that ended with their node, the longest stall, what went wrong."""

    planned: Counter[str]
    kills: Counter[str] = field(default_factory=Counter)
    fell: int = 0
    stall: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        done = ", ".join(f"{self.kills[kind]} of {self.planned[kind]} {kind}s" for kind in ("worker", "node", "driver"))
        return f"kills: {done}; {self.fell} drivers ended with a node; longest time without progress {self.stall:.0f} s"


class Driver:
    """A process that drives the campaign, started again whenever it was killed."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        self.begin()

    def begin(self) -> None:
        """Start it."""
        self._killed, self._excused = False, 0.0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=PROJECT,
                env={**os.environ, **self._environment},
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def excuse(self) -> None:
        """For a while it may end by itself, since a node was killed."""
        self._excused = time.monotonic() + NOTICED

    def look(self, toll: Toll) -> None:
        """Start it again if it was killed, or fell with a node; any other end is wrong."""
        code = self.process.poll()
        if code is None:
            return
        if self._killed or (code and time.monotonic() < self._excused):
            toll.fell += not self._killed
            self.begin()
        else:
            toll.wrong.append(f"a driver ended with {code}: {self.said()}")

    def kill(self) -> bool:
        """Kill it (-9); whether it was there to be killed."""
        if self.process.poll() is not None:
            return False
        self.process.kill()
        self._killed = self.process.wait() < 0
        return self._killed

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-600:]


class Progress:
    """The number of starts that are stored, when it last grew, and the longest time that it did not."""

    def __init__(self, stored: Callable[[], int]) -> None:
        self._stored = stored
        self.starts, self.moved, self.stall = stored(), time.monotonic(), 0.0

    def look(self) -> None:
        """See whether there is more."""
        starts, now = self._stored(), time.monotonic()
        self.stall = max(self.stall, now - self.moved)
        if starts != self.starts:
            self.starts, self.moved = starts, now


def hail(
    fire: Fire,
    commands: Callable[[str], list[list[str]]],
    environment: dict[str, str],
    folder: Path,
    stored: Callable[[], int],
    tell: Callable[[str], None],
) -> Toll:
    """Let a campaign run on a cluster, and kill workers every `interval` seconds, nodes twice, a driver twice.

    `commands` gives a command for each driver, from the address of the cluster; they run with `environment` besides.
    `stored` is the number of starts that are stored; time counts from when it first grows. A kill for which there is
    nothing to be killed waits; one that never came, though there was progress after it was due, is wrong.
    """
    plan = fire.plan()
    toll = Toll(Counter(kind for _, kind in plan))
    with SmallCluster(fire.nodes) as cluster:
        asked = commands(cluster.address)
        drivers = [Driver(command, environment, folder / f"driver-{k}.log") for k, command in enumerate(asked)]
        try:
            began = _first_progress(drivers, stored, toll)
            progress = Progress(stored)
            _under_fire(fire, plan, cluster, drivers, progress, toll, began, tell)
            toll.stall = progress.stall
            missed = [f"{kind} at {due:.0f} s" for due, kind in plan if progress.moved - began > due]
            if missed and not toll.wrong:
                toll.wrong.append(f"planned and never killed: {', '.join(missed)}")
        finally:
            for driver in drivers:
                driver.process.terminate()
            for driver in drivers:
                try:
                    driver.process.wait(40)
                except subprocess.TimeoutExpired:
                    driver.process.kill()
    os.environ.pop("RAY_ADDRESS", None)
    return toll


def _first_progress(drivers: list[Driver], stored: Callable[[], int], toll: Toll) -> float:
    """Wait until a start is stored; when that was."""
    began = time.monotonic()
    while stored() == 0 and not toll.wrong:
        time.sleep(0.5)
        for driver in drivers:
            driver.look(toll)
        if time.monotonic() - began > LONGEST_STALL:
            toll.wrong.append(f"no start within {LONGEST_STALL:.0f} s: {drivers[0].said()}")
    return time.monotonic()


def _under_fire(
    fire: Fire,
    plan: list[tuple[float, str]],
    cluster: SmallCluster,
    drivers: list[Driver],
    progress: Progress,
    toll: Toll,
    began: float,
    tell: Callable[[str], None],
) -> None:
    """Kill what is due, and let nodes join again; what is done is taken out of the plan."""
    chance, joins, last_worker = random.Random(fire.seed), list[float](), 0.0
    while (elapsed := time.monotonic() - began) < fire.seconds and not toll.wrong:
        time.sleep(0.5)
        progress.look()
        for driver in drivers:
            driver.look(toll)
        if progress.stall > LONGEST_STALL:
            toll.wrong.append(f"no progress for {progress.stall:.0f} s: {drivers[0].said()}")
        if joins and elapsed >= joins[0]:
            joins.pop(0)
            tell(f"{elapsed:5.0f} s: {cluster.add()} joins")
        for entry in [entry for entry in plan if entry[0] <= elapsed]:
            kind = entry[1]
            # Workers whose turn was put off make up for it one by one: all at once would be another experiment.
            if kind == "worker" and elapsed < last_worker + fire.interval / 2:
                continue
            victim = _kill(kind, cluster, drivers, chance)
            if not victim:
                continue
            plan.remove(entry)
            toll.kills[kind] += 1
            if kind == "worker":
                last_worker = elapsed
            if kind == "node":
                joins.append(elapsed + AWAY)
            tell(f"{elapsed:5.0f} s: {victim} killed; {progress.starts:,} starts")
            break


def _kill(kind: str, cluster: SmallCluster, drivers: list[Driver], chance: random.Random) -> str:
    """Kill a worker, a node or a driver; what it was, in words, empty if there was none to kill."""
    if kind == "node":
        victim = chance.choice(list(cluster.nodes))
        # It may be the one by which a driver reaches the cluster: then that ends, too, and starts again.
        for driver in drivers:
            driver.excuse()
        count = cluster.kill_node(victim)
        return f"{victim}, {count} processes," if count else ""
    if kind == "driver":
        number = chance.randrange(len(drivers))
        return f"driver {number}" if drivers[number].kill() else ""
    workers = cluster.workers()
    if not workers:
        return ""
    worker = chance.choice(workers)
    try:
        worker.kill()
        return "worker" if _gone(worker) else ""
    except psutil.NoSuchProcess:
        return ""


def _gone(process: psutil.Process) -> bool:
    """Whether a process that was killed has ended, within seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
