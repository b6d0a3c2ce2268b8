"""A Ray whose raylet dies while it starts, or never answers: noticed, told, tried again, and open to signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

PROJECT = Path(__file__).parents[2]
# A start that waits without limit would go on for an hour.
SESSION = """
import sys
from cluster.runs import ray_start, session
ray_start.START_SECONDS, ray_start.SAY_SECONDS, session.TRIES = float(sys.argv[1]), 1.0, int(sys.argv[2])
try:
    with session.ray_session(None, 1, "cpu", says=True):
        print("started", file=sys.__stdout__)
except session.StartError as error:
    print(error)
"""


def started(*arguments: str, **options) -> subprocess.Popen:
    """A process of Python that starts Ray."""
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT, **options
    )


def raylet_of(process: subprocess.Popen, number: signal.Signals) -> psutil.Process:
    """The raylet of a process, sent a signal as soon as it is there: it takes a second and more to come up."""
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline and process.poll() is None
        for child in psutil.Process(process.pid).children():
            if child.name() == "raylet":
                child.send_signal(number)
                return child
        time.sleep(0.01)


def tree_of(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def finish(process: subprocess.Popen, tree: list[psutil.Process]) -> None:
    """End what a failed test has left."""
    for one in [*tree, psutil.Process(process.pid)] if process.poll() is None else tree:
        if one.is_running():
            one.kill()
    process.communicate()


def test_a_raylet_that_dies_is_noticed_and_ray_starts_again():
    process = started("-c", SESSION, "3600", "2")
    tree = []
    try:
        raylet_of(process, signal.SIGKILL)
        tree = tree_of(process)
        out, err = process.communicate(timeout=240)
        assert out == "started\n", err
        assert not psutil.wait_procs(tree, timeout=60)[1]
    finally:
        finish(process, tree)


def test_a_raylet_that_never_answers_is_told_of_and_ended():
    process = started("-c", SESSION, "4", "2")
    tree = set[psutil.Process]()
    deadline = time.monotonic() + 240
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                tree.update(tree_of(process))
                for child in psutil.Process(process.pid).children():
                    if child.name() == "raylet":
                        child.send_signal(signal.SIGSTOP)
            time.sleep(0.01)
        out, err = process.communicate(timeout=60)
        # Each try takes twice the time of the one before.
        said = "Ray did not start on this machine in 2 tries (it was not up after 8 s). The load is "
        assert out.startswith(said), err
        assert "Waiting for Ray to start: the load is " in err
        assert not psutil.wait_procs(tree, timeout=60)[1]
    finally:
        finish(process, list(tree))


def command_line(atlas: Path) -> subprocess.Popen:
    """A run of the command line, at its start."""
    command = ["-m", "cluster.cli", "run", "--students", "3", "--teachers", "3", "--starts", "1000000"]
    return started(*command, "--progress", "none", "--catalogue", str(atlas))


def over_http(atlas: Path) -> subprocess.Popen:
    """A campaign of the service, at its start."""
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps({"students": 3, "teachers": 3, "starts": 1_000_000}).encode())
        file.seek(0)
        command = ["-m", "cluster.service.campaign_child", str(atlas), str(file.fileno())]
        return started(*command, stdin=subprocess.PIPE, pass_fds=[file.fileno()])


@pytest.mark.parametrize(
    ("begin", "number"), [(command_line, signal.SIGINT), (over_http, signal.SIGTERM)], ids=["run", "over HTTP"]
)
def test_a_signal_ends_a_start_that_gets_no_answer(tmp_path, begin, number):
    process = begin(tmp_path / "atlas")
    tree = []
    try:
        raylet_of(process, signal.SIGSTOP)
        time.sleep(1)  # until it waits for the raylet
        tree = tree_of(process)
        os.kill(process.pid, number)
        # A few seconds, and more where others take all cores; the start alone would last longer.
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert not psutil.wait_procs(tree, timeout=60)[1]
    finally:
        finish(process, tree)
