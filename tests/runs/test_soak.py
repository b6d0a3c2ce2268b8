"""The soak script: what it finds in a minute, and that Ctrl-C leaves nothing running."""

import importlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak"


@pytest.fixture
def soak(monkeypatch):
    """The module of the soak on a cluster; what it sets in the environment goes with the test."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    with patch.dict(os.environ):
        yield importlib.import_module("cluster_soak")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_minute_of_kills_changes_nothing(tmp_path, kind):
    command = [sys.executable, str(SCRIPT), "60", "--interval", "8", "--keep", str(tmp_path / "kept")]
    command += ["--catalogue", kind]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every start is there once, no minimum twice, verify is silent, all as without kills." in done.stdout
    assert (tmp_path / "kept" / "atlas" / "starts").is_dir() == (kind == "disk")


def test_a_kill_that_was_planned_is_counted_or_missed(soak, monkeypatch, tmp_path):
    """A cluster without workers to kill, on which there is progress all the same: every worker's turn is missed."""
    monkeypatch.setattr(soak, "SmallCluster", _ClusterWithoutWorkers)
    counter = itertools.count(1)
    idle = [sys.executable, "-c", "import time; time.sleep(60)"]
    fire = soak.Fire(seconds=8, interval=2, seed=0, nodes=2)
    toll = soak.hail(fire, lambda address: [idle, idle], {}, tmp_path, lambda: next(counter), lambda text: None)
    assert toll.planned == {"worker": 3, "node": 2, "driver": 2}
    assert toll.kills == {"node": 2, "driver": 2}
    assert toll.wrong == ["planned and never killed: worker at 2 s, worker at 4 s, worker at 6 s"]
    assert str(toll).startswith("kills: 0 of 3 workers, 2 of 2 nodes, 2 of 2 drivers;")


def test_a_driver_may_fall_with_a_node_but_not_later(soak, monkeypatch, tmp_path):
    monkeypatch.setattr(soak, "NOTICED", 0.5)
    toll = soak.Toll(Counter())
    driver = soak.Driver(
        [sys.executable, "-c", "import sys, time; time.sleep(2); sys.exit('lost')"], {}, tmp_path / "log"
    )
    driver.excuse()
    driver.process.wait()
    driver.look(toll)
    assert toll.fell == 0 and toll.wrong == ["a driver ended with 1: lost\n"]
    monkeypatch.setattr(soak, "NOTICED", 30.0)
    driver.begin()
    driver.excuse()
    driver.process.wait()
    driver.look(toll)
    assert toll.fell == 1 and len(toll.wrong) == 1
    assert driver.kill()
    driver.look(toll)
    assert toll.fell == 1 and len(toll.wrong) == 1
    assert driver.kill()


class _ClusterWithoutWorkers:
    """Stands in for a cluster: nodes that can be killed, and no worker."""

    address = ""

    def __init__(self, nodes: int) -> None:
        self.nodes = dict.fromkeys(f"node-{k}" for k in range(nodes))

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def workers(self) -> list[psutil.Process]:
        return []

    def kill_node(self, name: str) -> int:
        del self.nodes[name]
        return 1

    def add(self) -> str:
        self.nodes["another"] = None
        return "another"


@pytest.mark.slow
def test_interrupt_leaves_nothing_running(tmp_path):
    command = [sys.executable, str(SCRIPT), "600", "--keep", str(tmp_path / "kept")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(20)
        tree = psutil.Process(process.pid).children(recursive=True)
        assert len(tree) > 3, "the runs are at work"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=120)[0] == ""
    assert process.returncode == 130
    assert not psutil.wait_procs(tree, timeout=10)[1]
