"""Commands that are told to end, by `kill` or with their terminal: nothing is left behind, and a run goes on later."""

import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from enumerator.catalogue.catalogue import Catalogue
from tests.support.stand_ins import fill, make_campaign, new_catalogue

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu"}

# The command, held where its temporary files are complete.
EXPORT = """
import sys, time
from enumerator.upkeep import bundle
from cluster.cli import main
pack = bundle._pack
def held(*arguments):
    pack(*arguments)
    print("packed", flush=True)
    time.sleep(120)
bundle._pack = held
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_export_that_is_ended_leaves_nothing(tmp_path, number):
    fill(new_catalogue(tmp_path / "atlas"), make_campaign(), (0, 5))
    command = [sys.executable, "-c", EXPORT, "export", "atlas", "-o", "b.tar"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "packed\n"
        assert len(os.listdir(tmp_path)) > 1
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == ("" if number == signal.SIGINT else f"Stopped by {number.name}.\n")
    assert os.listdir(tmp_path) == ["atlas"]


WAITING = """
import signal, sys, time
from cluster.runs.driver import StopSignals
if sys.argv[1] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with StopSignals() as stop:
    print("ready", flush=True)
    sys.stdin.readline()
    print(stop.asked, flush=True)
"""


@pytest.mark.parametrize(("how", "asked"), [("plain", "True"), ("nohup", "False")])
def test_end_of_a_terminal_asks_a_run_to_stop_unless_it_is_to_outlive_it(how, asked):
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, how], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert process.communicate("\n", timeout=60)[0] == f"{asked}\n"


def test_run_whose_terminal_goes_stops_as_by_ctrl_c_and_its_folder_was_its_own(tmp_path):
    """A connection that breaks: all processes of the terminal are told, and writing to it fails from then on."""
    atlas = tmp_path / "atlas"
    command = [sys.executable, "-m", "cluster.cli", "run", "--students", "6", "--teachers", "6", "--starts", "100000"]
    command += [
        "--workers",
        "1",
        "--device",
        "cpu",
        "--shard-size",
        "8",
        "--catalogue",
        str(atlas),
        "--progress",
        "bar",
    ]
    parent, child = os.openpty()
    process = subprocess.Popen(
        command, stdin=child, stdout=child, stderr=child, env=ENVIRONMENT, cwd=PROJECT,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(child)
    os.set_blocking(parent, False)
    try:
        deadline = time.monotonic() + 240
        while not ((atlas / "starts" / "_delta_log").is_dir() and Catalogue(atlas).starts(limit=1).num_rows):
            assert process.poll() is None and time.monotonic() < deadline, _read(parent)
            _read(parent)
            time.sleep(0.2)
        tree = psutil.Process(process.pid).children(recursive=True)
        lines = " ".join(" ".join(one.cmdline()) for one in tree if one.is_running())
        folder, *_ = sorted(set(re.findall(r"(/\S*?/enumerator-[^/\s]+)/ray/", lines)))
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        os.close(parent)
        assert process.wait(timeout=240) == 130
    finally:
        process.kill()
        process.wait()
    ranges = Catalogue(atlas).done(Catalogue(atlas).campaigns()["campaign_id"][0].as_py())
    assert 0 < sum(last - first for first, last in ranges) < 100_000
    # Ray's agents take a minute to see that they are alone, and more on a machine with much to do.
    assert not psutil.wait_procs(tree, timeout=240)[1], "something of Ray was left"


def _read(terminal: int) -> bytes:
    """What a run has shown until now, so that it can show more."""
    shown = b""
    try:
        while block := os.read(terminal, 65536):
            shown += block
    except OSError:  # nothing more for now
        return shown
    return shown
