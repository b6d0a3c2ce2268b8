"""The soak script: what it finds in a minute, and that Ctrl-C leaves nothing running."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "soak"


@pytest.mark.slow
def test_a_minute_of_kills_changes_nothing(tmp_path):
    command = [sys.executable, str(SCRIPT), "60", "--interval", "8", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every start is there once, no minimum twice, verify is silent, all as without kills." in done.stdout
    assert (tmp_path / "kept" / "atlas" / "starts").is_dir()


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
