"""A campaign on a real Ray cluster of several nodes on this machine, under a hail of kills: scripts/soak --nodes 4."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from small_cluster import SmallCluster

# When nodes and drivers are killed, as parts of the time.
NODE_KILLS = (0.3, 0.7)
DRIVER_KILLS = (0.2, 0.55)
# Seconds after which a node takes the place of one that was killed.
AWAY = 5.0
# Longest time without progress that is put up with, in seconds: a node that is gone has to be noticed, a driver to
# start again and its workers to load what they need.
LONGEST_STALL = 150.0


class Driver:
    """The process that drives the campaign, started again whenever it was killed."""

    def __init__(self, command: list[str], project: Path, log: Path) -> None:
        self._command, self._project, self._log = command, project, log
        self.expected_to_die = False
        self.begin()

    def begin(self) -> None:
        """Start it."""
        self.expected_to_die = False
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self._project, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def look(self) -> str:
        """Start it again if it was killed; what went wrong if it ended by itself."""
        code = self.process.poll()
        if code is None or code == 0:
            return ""
        if not self.expected_to_die:
            return f"the driver ended with {code}: {self._log.read_text()[-600:]}"
        self.begin()
        return ""

    def kill(self) -> None:
        """Kill it (-9)."""
        self.expected_to_die = True
        self.process.kill()
        self.process.wait()


def hail(
    folder: Path,
    project: Path,
    command: Callable[[str], list[str]],
    stored: Callable[[], int],
    seconds: float,
    interval: float,
    seed: int,
    nodes: int,
    tell: Callable[[str], None],
) -> tuple[Counter[str], float, list[str]]:
    """Let a campaign run on a cluster, and kill workers every `interval` seconds, nodes twice, the driver twice.

    `command` gives the command for the address of a cluster, `stored` the number of starts that are stored. Returns the
    kills by kind, the longest time without progress in seconds, and what went wrong.
    """
    chance, kills, wrong = random.Random(seed), Counter[str](), []
    node_kills = [part * seconds for part in NODE_KILLS]
    driver_kills = [part * seconds for part in DRIVER_KILLS]
    joins: list[float] = []
    with SmallCluster(nodes) as cluster:
        driver = Driver(command(cluster.address), project, folder / "driver.log")
        began = moved = time.monotonic()
        due, seen, stall = interval, 0, 0.0
        try:
            while (elapsed := time.monotonic() - began) < seconds and not wrong:
                time.sleep(0.5)
                if (now := stored()) != seen:
                    seen, moved = now, time.monotonic()
                stall = max(stall, time.monotonic() - moved)
                if stall > LONGEST_STALL:
                    wrong.append(f"no progress for {stall:.0f} s: {(folder / 'driver.log').read_text()[-600:]}")
                if error := driver.look():
                    wrong.append(error)
                if joins and elapsed >= joins[0]:
                    joins.pop(0)
                    tell(f"{elapsed:5.0f} s: {cluster.add()} joins")
                if node_kills and elapsed >= node_kills[0]:
                    node_kills.pop(0)
                    victim = chance.choice(list(cluster.nodes))
                    # It may be the one by which the driver reaches the cluster: then that dies, too, and starts again.
                    driver.expected_to_die = True
                    count = cluster.kill_node(victim)
                    kills["node"] += 1
                    joins.append(elapsed + AWAY)
                    tell(f"{elapsed:5.0f} s: {victim} killed, {count} processes; {seen:,} starts")
                elif driver_kills and elapsed >= driver_kills[0]:
                    driver_kills.pop(0)
                    driver.kill()
                    kills["driver"] += 1
                    tell(f"{elapsed:5.0f} s: driver killed; {seen:,} starts")
                elif elapsed >= due:
                    due += interval
                    if workers := cluster.workers():
                        chance.choice(workers).kill()
                        kills["worker"] += 1
                        tell(f"{elapsed:5.0f} s: worker killed; {seen:,} starts")
        finally:
            driver.process.terminate()
            try:
                driver.process.wait(40)
            except subprocess.TimeoutExpired:
                driver.process.kill()
    os.environ.pop("RAY_ADDRESS", None)
    return kills, stall, wrong
