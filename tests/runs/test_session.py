"""The folder and the Ray of a run: gone with it, also if it was killed; for this machine alone; not nicer."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest

from cluster.runs import session
from cluster.runs.session import OWNER, own_folder, remove_stale_folders

PROJECT = Path(__file__).parents[2]
HOLD = """
import sys, time
from cluster.runs.session import own_folder
with own_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(parent: Path) -> tuple[subprocess.Popen, Path]:
    """A process with a folder of its own in `parent`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(parent)], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate(timeout=30)


def test_folder_goes_with_its_block(tmp_path):
    with own_folder(str(tmp_path)) as folder:
        Path(folder, "session", "sockets").mkdir(parents=True)
        assert Path(folder, OWNER).exists()
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_killed_run_goes_at_the_next_start_and_no_other(tmp_path):
    foreign = tmp_path / "enumerator-without-owner"
    foreign.mkdir()
    dead, left = holder(tmp_path)
    alive, kept = holder(tmp_path)
    try:
        (left / "session" / "sockets").mkdir(parents=True)
        (left / "session_latest").symlink_to(left / "session")
        end(dead)
        assert left.exists()
        with own_folder(str(tmp_path)) as folder:
            assert {entry.name for entry in tmp_path.iterdir()} == {foreign.name, kept.name, Path(folder).name}
    finally:
        end(alive)
    remove_stale_folders(str(tmp_path))
    assert list(tmp_path.iterdir()) == [foreign]


def test_ray_imported_first_is_warned_of(monkeypatch):
    monkeypatch.setattr(session.ray.util, "get_node_ip_address", lambda: "192.0.2.7")
    with pytest.warns(RuntimeWarning, match="Ray was imported before `cluster`, and listens on the network"):
        session._warn_of_visitors()
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session._warn_of_visitors()


RUN = """
import os, sys, time
from cluster.runs.driver import run_campaign
from cluster.runs.session import ray_session
import ray

class Idle:
    def niceness(self):
        return os.getpid(), os.nice(0)

if __name__ == "__main__":
    with ray_session(None, 1, "cpu"):
        found = ray.get(ray.remote(Idle).remote().niceness.remote())
        print(*found, file=sys.__stdout__, flush=True)  # a session sends what is printed to stderr
        sys.stdin.readline()
"""


def test_ray_from_plain_python_listens_on_free_ports_of_loopback_and_is_as_nice_as_the_run(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(PROJECT)
    command = ["nice", "-n", "3", sys.executable, str(script)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        worker, niceness = map(int, process.stdout.readline().split())
        assert niceness == psutil.Process(process.pid).nice()
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert worker in [process.pid for process in tree]
        sockets = [socket for process in tree for socket in process.net_connections() if socket.status == "LISTEN"]
        assert {socket.laddr.ip.removeprefix("::ffff:") for socket in sockets} == {"127.0.0.1"}
        # The agent's usual port: the head of a cluster on this machine would take no jobs without it.
        assert 52365 not in {socket.laddr.port for socket in sockets}
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    finally:
        end(process)
    deadline = time.monotonic() + 20
    while alive := [process for process in tree if process.is_running()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
