"""A run while its Ray starts: ended by a signal, or by what keeps Ray from starting; nothing of it stays behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster.runs import jobs
from cluster.runs.session import OWNER

PROJECT = Path(__file__).parents[2]


# Ray refuses so small a store when its first processes are up.
FAILING = """
import os, sys
from pathlib import Path
from cluster.runs import session
session.OBJECT_STORE_BYTES, session.TRIES = 1, 2
folders = []
usual = session._start
def start(folder, *rest):
    folders.append(folder)
    usual(folder, *rest)
session._start = start
try:
    with session.ray_session(None, 1, "cpu"):
        print("started", file=sys.__stdout__)
except session.StartError as error:
    print(error)
left = [entry for entry in Path("/proc").glob("[0-9]*") if entry.name != str(os.getpid())]
def command(entry):
    try:
        return (entry / "cmdline").read_text()
    except OSError:
        return ""
print(len(folders), [command(entry) for entry in left if any(folder in command(entry) for folder in folders)])
print([folder for folder in folders if Path(folder).exists()])
"""


def test_a_ray_that_does_not_start_says_why_and_leaves_nothing():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FAILING], capture_output=True, text=True, cwd=PROJECT)
    said, processes, folders = done.stdout.splitlines()
    assert said.startswith("Ray did not start on this machine in 2 tries (")
    assert "object store" in said.lower() and "The load is " in said
    assert (processes, folders) == ("2 []", "[]")


def files_of(process: int) -> str:
    """The names of the files that a process has open, a line each."""
    names = []
    for entry in Path(f"/proc/{process}/fd").glob("*"):
        try:
            names.append(os.readlink(entry))
        except OSError:
            continue
    return "\n".join(names)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_ray_starts_stops_the_run_at_once(tmp_path, number):
    command = [sys.executable, "-m", "cluster.cli", "run", "--students", "3", "--teachers", "3"]
    command += ["--starts", "1000000", "--progress", "none", "--catalogue", str(tmp_path / "atlas")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT)
    try:
        deadline = time.monotonic() + 120
        while f"/{OWNER}" not in files_of(process.pid):  # its folder is there: Ray starts
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        sent = time.monotonic()
        out, err = process.communicate(timeout=120)
        assert time.monotonic() - sent < 60
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.startswith("Stopped. 0 of 1,000,000 starts are stored in ") and err.count("\n") == 1


class Head(BaseHTTPRequestHandler):
    """A head whose agent never comes up, as its clients see it."""

    def do_GET(self) -> None:  # named so by http.server
        self._answer(
            200, b'{"version": "4", "ray_version": "2", "ray_commit": ""}' if "version" in self.path else b"[]"
        )

    def do_PUT(self) -> None:
        self._answer(200, b"{}")

    def do_POST(self) -> None:
        self._answer(500, b"No available agent to submit job, please try again later.")

    def _answer(self, status: int, body: bytes) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_head_that_takes_no_jobs_is_told_with_the_cause(tmp_path):
    file = tmp_path / "campaign.toml"
    file.write_text("students = 3\nteachers = 3\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Head) as head:
        threading.Thread(target=head.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{head.server_address[1]}"
        with pytest.raises(jobs.ClusterError, match="takes no jobs: its agent does not answer") as caught:
            jobs.submit(file, address, str(tmp_path / "atlas"), patience=0.5)
        head.shutdown()
    assert "--dashboard-agent-listen-port 0" in str(caught.value) and "\n" not in str(caught.value)


def test_nobody_waits_long_for_a_head_that_takes_no_jobs():
    """The head thinks for ten seconds each time; the last time begins before the patience ends."""
    assert jobs.AGENT_SECONDS + 10 < 30


def test_of_a_traceback_the_last_line_is_told():
    error = RuntimeError(
        "Request failed with status code 500: Traceback (most recent call last):\n  File\nOSError: full.\n"
    )
    assert jobs._cause(error) == "OSError: full."
    assert jobs._cause(ConnectionError("refused\nfor good")) == "refused"
