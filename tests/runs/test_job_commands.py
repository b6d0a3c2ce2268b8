"""What the commands for jobs say: the id of a job, what the job has said, and nothing of Ray's own."""

import logging
import shlex
from types import SimpleNamespace
from typing import ClassVar

import pytest
import ray.dashboard.modules.dashboard_sdk
import ray.job_submission

from cluster.cli import run_command

SDK = logging.getLogger(ray.dashboard.modules.dashboard_sdk.__name__)
PROGRESS = '{"campaign_id": "c-1", "done": 3}\n'


class Head:
    """Stands for the client of a head: it keeps what was submitted, and logs as Ray's own does."""

    said = PROGRESS
    submitted: ClassVar[dict] = {}

    def __init__(self, address):
        pass

    def list_jobs(self):
        return [SimpleNamespace(submission_id="enumerator-1")]

    def submit_job(self, **arguments):
        SDK.info("Uploading package gcs://x.zip.")
        SDK.error("the disk is full")
        Head.submitted = arguments

    def get_job_logs(self, job):
        return self.said


@pytest.fixture(autouse=True)
def head(monkeypatch):
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", Head)


def submit(tmp_path):
    file = tmp_path / "campaign.toml"
    file.write_text("students = 3\nteachers = 3\n")
    return run_command(["submit", str(file), "--catalogue", "s3://bucket/atlas", "--workers", "2"])


def test_submit_prints_the_id_and_passes_on_the_errors_of_ray_alone(tmp_path, capsys, monkeypatch):
    heard = []
    monkeypatch.setattr(SDK, "handlers", [handler := logging.Handler()])
    monkeypatch.setattr(handler, "emit", lambda record: heard.append(record.getMessage()))
    assert SDK.isEnabledFor(logging.INFO)
    assert submit(tmp_path) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("enumerator-") and out.count("\n") == 1
    assert heard == ["the disk is full"]
    assert SDK.isEnabledFor(logging.INFO), "as before"


def test_a_job_prints_no_table_into_its_logs(tmp_path, capsys):
    assert submit(tmp_path) == 0
    command = shlex.split(Head.submitted["entrypoint"])
    assert command[command.index("-o") + 1] == "/dev/null"
    assert command[command.index("--progress") + 1] == "json"


@pytest.mark.parametrize(
    ("said", "out", "err"),
    [
        (PROGRESS + "error: the disk is full.\n" + PROGRESS, "error: the disk is full.\n", ""),
        (PROGRESS, "", "No warning and no error. How far it is: "),
    ],
)
def test_logs_are_the_messages_alone(capsys, monkeypatch, said, out, err):
    monkeypatch.setattr(Head, "said", said)
    assert run_command(["logs", "enumerator-1"]) == 0
    found = capsys.readouterr()
    assert found.out == out
    assert found.err.startswith(err) and found.err.count("\n") == bool(err)
