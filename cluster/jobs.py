"""Campaigns as jobs of a Ray cluster: packed, submitted once, followed, cancelled. The driver runs on the cluster."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import cluster
import enumerator
from cluster.inputs import read_campaign_file, request
from enumerator.errors import EnumeratorError, InputError
from enumerator.problem import digest
from enumerator.tables import resource

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# Our jobs are called so.
PREFIX = "enumerator-"
# The files of a campaign file, which go with it.
_FILES = ("teacher", "initial")
# Seconds in which the head of a cluster that has just been started takes jobs.
AGENT_SECONDS = 120.0
# What `status` tells of a job.
STATUS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("job", "status", "campaign_id", "catalogue")),
        *(pa.field(name, pa.int64()) for name in ("done", "asked")),
        *(pa.field(name, pa.float64()) for name in ("rate", "seconds_left")),
        *(pa.field(name, pa.int64()) for name in ("minima", "unfinished")),
    ]
)


class ClusterError(EnumeratorError):
    """The cluster cannot be reached, or refuses."""


@dataclass(frozen=True)
class Submission:
    """A job, and whether it was there already."""

    job: str
    existed: bool


def job_id(settings: dict[str, Any], catalogue: str) -> str:
    """The id of the job of a campaign file: its campaigns and the catalogue decide, not how many starts are asked."""
    asked = {name: value for name, value in settings.items() if name not in ("starts", "shard_size")}
    if "grid" not in asked:
        asked = {"campaign": request(settings).campaign.id}
    return PREFIX + digest({**asked, "catalogue": catalogue})


def submit(file: Path, address: str, catalogue: str, options: tuple[str, ...] = (), pip: bool = False) -> Submission:
    """Run a campaign file as a job; the job that is there, if it waits, runs, or has ended well with as many starts.

    A job that failed or was stopped goes on where it was. With `pip`, the cluster installs what the project needs.
    Raises InputError for a bad file or catalogue, ClusterError where the cluster cannot be reached.
    """
    if "://" not in catalogue and not Path(catalogue).is_absolute():
        raise InputError(
            f"`--catalogue` must be a place that the cluster reaches, such as s3://bucket/atlas or an absolute path on "
            f"a disk that all its nodes share, got {catalogue}."
        )
    settings = read_campaign_file(file)
    job, asked = job_id(settings, catalogue), str(settings.get("starts"))
    with _reaching(address) as client, tempfile.TemporaryDirectory(prefix="enumerator-job-") as folder:
        known = {entry.submission_id: entry for entry in client.list_jobs()}.get(job)
        if known is not None:
            same = (known.metadata or {}).get("starts") == asked
            if not known.status.is_terminal() or (known.status == "SUCCEEDED" and same):
                return Submission(job, existed=True)
            client.delete_job(job)  # it has ended: its name is free for what goes on from there
        pack(file, settings, Path(folder))
        environment: dict[str, Any] = {"working_dir": folder}
        if pip:
            environment["pip"] = requirements()
        command = ["python", "-m", "cluster.cli", "run", "campaign.toml", "--catalogue", catalogue, "--address", "auto"]
        _patiently(
            client.submit_job,
            entrypoint=shlex.join([*command, "--progress", "json", "--format", "csv", *options]),
            submission_id=job,
            runtime_env=environment,
            metadata={"catalogue": catalogue, "starts": asked},
        )
    return Submission(job, existed=False)


def _patiently(call: Callable[..., Any], **arguments: Any) -> None:
    """Call, again as long as the head has not started all that takes jobs, which can be a minute after the rest."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            call(**arguments)
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(1)


def pack(file: Path, settings: dict[str, Any], folder: Path) -> None:
    """Put a campaign file with its files, and this software as it is here, into a folder that goes to the cluster.

    Nothing else: credentials for the catalogue are those that the nodes of the cluster have in their environment.
    """
    text = file.read_text(encoding="utf-8")
    shutil.copyfile(file, folder / "campaign.toml")
    for number, name in enumerate(_FILES):
        if name in settings and settings[name] != "orthonormal":
            source = Path(settings[name])
            target = f"file-{number}{source.suffix}"
            shutil.copyfile(source, folder / target)
            named = str(source.relative_to(file.parent)) if source.is_relative_to(file.parent) else str(source)
            text = text.replace(json.dumps(named), json.dumps(target)).replace(f"'{named}'", json.dumps(target))
    (folder / "campaign.toml").write_text(text, encoding="utf-8")
    for package in (enumerator, cluster):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "schemas"))
    for name in ("schemas", "CITATION.cff"):
        source = resource(name)
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / name)


def requirements() -> list[str]:
    """What the project needs to run, at the versions that are installed here."""
    from importlib.metadata import requires, version

    names = [entry.split(";")[0] for entry in requires("enumerator") or () if "extra ==" not in entry]
    plain = [name.split("[")[0].split(">")[0].split("=")[0].strip() for name in names]
    return [f"{name}=={version(name)}" for name in plain if name != "ray"]  # Ray is the cluster's


def status(address: str, job: str | None) -> pa.Table:
    """How a job stands, or all of ours. Raises InputError for an unknown job."""
    with _reaching(address) as client:
        jobs = {entry.submission_id or "": entry for entry in client.list_jobs()}
        if job is not None and job not in jobs:
            raise _unknown(job)
        rows = []
        for name, entry in jobs.items():
            if not name.startswith(PREFIX) or job not in (None, name):
                continue
            told = _progress(client.get_job_logs(name))
            row = {"job": name, "status": str(entry.status).rpartition(".")[2].lower(), **told}
            rows.append(row | {"catalogue": (entry.metadata or {}).get("catalogue")})
    return pa.Table.from_pylist(rows, STATUS)


def _progress(logs: str) -> dict[str, Any]:
    """The last line of progress in the logs of a job."""
    for line in reversed(logs.splitlines()):
        if line.startswith('{"campaign_id"'):
            return json.loads(line)
    return {}


def logs(address: str, job: str) -> str:
    """What a job has said, its progress and its table left out. Raises InputError for an unknown job."""
    with _reaching(address) as client:
        _check_known(client, job)
        return "".join(f"{line}\n" for line in client.get_job_logs(job).splitlines() if not line.startswith("{"))


def cancel(address: str, job: str) -> bool:
    """Stop a job, after the shard that is being stored; whether it was at work. Raises InputError if unknown."""
    with _reaching(address) as client:
        _check_known(client, job)
        return bool(client.stop_job(job))


def _check_known(client: JobSubmissionClient, job: str) -> None:
    if job not in [entry.submission_id for entry in client.list_jobs()]:
        raise _unknown(job)


def _unknown(job: str) -> InputError:
    return InputError(f"no job {job!r} on this cluster: `enumerator status --address ...` lists those there are.")


@contextmanager
def _reaching(address: str) -> Iterator[JobSubmissionClient]:
    """A client of the cluster, whose failures become one line."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        raise InputError(f"`--address` must be that of the head's dashboard, http://HEAD:8265, got {address}.")
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterError(
            f"the Ray cluster at {address} wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the "
            "file that holds it."
        ) from error
    except (ConnectionError, RuntimeError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(f"cannot reach the Ray cluster at {address}: {first}") from error
