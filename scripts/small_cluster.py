"""A real Ray cluster of several nodes on this machine: each has its own raylet, workers and resources; on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from typing import Any

import psutil

# Before Ray is imported, which looks then.
os.environ.update(
    {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_raylet_start_wait_time_s": "300",  # on a busy machine it takes its time
        # A node that is gone is noticed within seconds.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "10",
    }
)

# An environment variable that all processes of a node inherit: so they are found, and no others.
MARK = "ENUMERATOR_SMALL_CLUSTER"
OBJECT_STORE = 100 * 2**20


class SmallCluster:
    """A head, and `nodes` nodes with `cpus` cores each; `jobs` starts what takes jobs, too.

    The head has room for no workers unless it takes jobs: nodes of one machine unpack what a job brings into one and
    the same folder, each anew, so that jobs go with a head alone.
    """

    def __init__(self, nodes: int, cpus: int = 1, jobs: bool = False) -> None:
        self._cpus, self._count, self._jobs, self._made = cpus, nodes, jobs, 0
        self._head_cpus = cpus if jobs else 0
        self.folder = tempfile.mkdtemp(prefix="enr-", dir="/tmp")  # paths of sockets must be short
        self.nodes: dict[str, Any] = {}
        self._seen: dict[int, psutil.Process] = {}

    def __enter__(self) -> SmallCluster:
        from ray.cluster_utils import Cluster

        os.environ[MARK] = f"{self.folder}/head"
        # Ray notes the address of its last cluster there: not where other Rays of this machine look for it.
        os.environ["RAY_TMPDIR"] = self.folder
        os.makedirs(f"{self.folder}/ray")
        options: dict[str, Any] = {"num_cpus": self._head_cpus, "object_store_memory": OBJECT_STORE}
        options["temp_dir"] = self.folder
        options["include_dashboard"] = self._jobs
        if self._jobs:
            options |= {"dashboard_host": "127.0.0.1", "dashboard_port": free_port()}
            self.url = f"http://127.0.0.1:{options['dashboard_port']}"
        try:
            self._cluster = Cluster(initialize_head=True, head_node_args=options)
            self.address = self._cluster.address
            for _ in range(self._count):
                self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (MARK, "RAY_TMPDIR"):
            os.environ.pop(name, None)
        self.processes("")
        for process in self._seen.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(list(self._seen.values()), timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self) -> str:
        """Let a node join; its name."""
        name = f"node-{self._made:03d}"  # of one length: none begins like another
        self._made += 1
        os.environ[MARK] = f"{self.folder}/{name}"
        self.nodes[name] = self._cluster.add_node(num_cpus=self._cpus, object_store_memory=OBJECT_STORE)
        os.environ[MARK] = f"{self.folder}/head"
        return name

    def processes(self, name: str) -> list[psutil.Process]:
        """The processes of a node, or of all."""
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(MARK, "")
            except (psutil.Error, OSError):
                continue
            if process.pid != os.getpid() and mark.startswith(f"{self.folder}/{name}"):
                found.append(process)
                self._seen[process.pid] = process
        return found

    def workers(self) -> list[psutil.Process]:
        """The processes that solve shards."""
        return [process for process in self.processes("node-") if name_of(process).startswith("ray::Solver")]

    def kill_node(self, name: str) -> int:
        """Kill (-9) all processes of a node, as when its machine goes away; how many there were."""
        victims = self.processes(name)
        for process in victims:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        del self.nodes[name]
        return len(victims)


def name_of(process: psutil.Process) -> str:
    """The name of a process, empty if it is gone."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
