"""Campaigns as jobs of a Ray cluster: packed, submitted once, followed, cancelled. The driver runs on the cluster."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import cluster
import enumerator
from cluster.campaign_grid import expand
from cluster.inputs import FILES, loaded, read_campaign_file, request
from enumerator.catalogue.schema import resource
from enumerator.errors import EnumeratorError, InputError
from enumerator.problem import digest

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# Our jobs are called so.
PREFIX = "enumerator-"
# Seconds after which no head that does not take jobs is asked again; each time it thinks for ten.
AGENT_SECONDS = 15.0
# Seconds for which the name of a job that has ended is left alone. The head looks at each job once a second until its
# process is gone; what takes up the name before that is taken for the old job, and for dead.
NAME_SECONDS = 10.0
# What `status` tells of a job.
STATUS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("job", "status", "campaign_id", "campaign_name", "catalogue")),
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


def asked_of(settings: dict[str, Any], folder: Path) -> dict[str, int]:
    """How many starts are asked of each campaign of a campaign file in `folder`, by id. Raises InputError."""
    found = expand(settings, folder, {}) if "grid" in settings else [request(loaded(settings))]
    return {wanted.campaign.id: wanted.starts for wanted in sorted(found, key=lambda wanted: wanted.campaign.id)}


def job_id(campaigns: Iterable[str], catalogue: str) -> str:
    """The id of the job of some campaigns: they and the catalogue decide, not their order, nor how many starts."""
    return PREFIX + digest({"campaigns": sorted(campaigns), "catalogue": catalogue})


def submit(
    file: Path,
    address: str,
    catalogue: str,
    options: tuple[str, ...] = (),
    pip: bool = False,
    patience: float = AGENT_SECONDS,
) -> Submission:
    """Run a campaign file as a job; the job that is there, if it waits, runs, or has ended well with as many starts.

    A job that failed or was stopped goes on where it was. With `pip`, the cluster installs what the project needs.
    A head that is up, but takes no jobs, has `patience` seconds to begin with it. Raises InputError for
    a bad file or catalogue, ClusterError where the cluster cannot be reached.
    """
    if "://" not in catalogue and not Path(catalogue).is_absolute():
        raise InputError(
            f"`--catalogue` must be a place that the cluster reaches, such as s3://bucket/atlas or an absolute path on "
            f"a disk that all its nodes share, got {catalogue}."
        )
    settings = read_campaign_file(file)
    campaigns = asked_of(settings, file.parent)
    job, asked = job_id(campaigns, catalogue), " ".join(map(str, campaigns.values()))
    with _reaching(address) as client, tempfile.TemporaryDirectory(prefix="enumerator-job-") as folder:
        known = {entry.submission_id: entry for entry in client.list_jobs()}.get(job)
        if known is not None:
            same = (known.metadata or {}).get("starts") == asked
            if not known.status.is_terminal() or (known.status == "SUCCEEDED" and same):
                return Submission(job, existed=True)
            ended = (known.end_time or 0) / 1000
            time.sleep(min(NAME_SECONDS, max(0.0, ended + NAME_SECONDS - time.time())))
            client.delete_job(job)
        pack(file, settings, Path(folder))
        environment: dict[str, Any] = {"working_dir": folder}
        if pip:
            environment["pip"] = requirements()
        command = ["python", "-m", "cluster.cli", "run", "campaign.toml", "--catalogue", catalogue, "--address", "auto"]
        _patiently(
            address,
            patience,
            client.submit_job,
            # Its table is left out of its logs: whoever asks for minima asks the catalogue.
            entrypoint=shlex.join([*command, "--progress", "json", "--format", "csv", "-o", os.devnull, *options]),
            submission_id=job,
            runtime_env=environment,
            metadata={"catalogue": catalogue, "starts": asked},
        )
    return Submission(job, existed=False)


def _patiently(address: str, patience: float, call: Callable[..., Any], **arguments: Any) -> None:
    """Call, again for `patience` seconds as long as the head has not started all that takes jobs. Raises ClusterError.

    That can be a minute after the rest.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            call(**arguments)
            return
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the head of the Ray cluster at {address} takes no jobs: its agent does not answer. It may still "
                    "be starting: submit again in a minute. If that does not help, another Ray of that machine holds "
                    "the agent's port, 52365: start the head with --dashboard-agent-listen-port 0."
                ) from error
        time.sleep(1)


def pack(file: Path, settings: dict[str, Any], folder: Path) -> None:
    """Put a campaign file with its files, and this software as it is here, into a folder that goes to the cluster.

    Nothing else: credentials for the catalogue are those that the nodes of the cluster have in their environment.
    """
    (folder / "campaign.toml").write_text(_as_toml(_with_files(settings, file.parent, folder)), encoding="utf-8")
    for package in (enumerator, cluster):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "schemas"))
    for name in ("schemas", "CITATION.cff"):
        source = resource(name)
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / name)


def _with_files(settings: dict[str, Any], parent: Path, folder: Path) -> dict[str, Any]:
    """The settings, the files that they name copied into `folder` and named as they are there; those of a grid too."""
    targets: dict[Path, str] = {}

    def carried(source: Path) -> str:
        if source not in targets:
            targets[source] = f"file-{len(targets)}{source.suffix}"
            shutil.copyfile(source, folder / targets[source])
        return targets[source]

    def named(values: dict[str, Any]) -> dict[str, Any]:
        """One table of a grid, whose files are relative to the campaign file."""
        files = {name: values[name] for name in FILES if name in values}
        return values | {
            name: [entry if entry == "orthonormal" else carried(parent / entry) for entry in entries]
            for name, entries in files.items()
        }

    result = dict(settings)
    for name in FILES:
        if settings.get(name, "orthonormal") != "orthonormal":
            result[name] = carried(Path(settings[name]))
    if "grid" in settings:
        grid = settings["grid"]
        result["grid"] = [named(values) for values in grid] if isinstance(grid, list) else named(grid)
    return result


def _as_toml(settings: dict[str, Any]) -> str:
    """A campaign file with these settings: texts, finite numbers and lists of them, which TOML writes as JSON does."""
    plain, tables = list[str](), list[str]()
    for name, value in settings.items():
        if isinstance(value, dict):
            tables += [f"[{name}]", *_toml_lines(value)]
        elif isinstance(value, list):
            tables += [line for table in value for line in (f"[[{name}]]", *_toml_lines(table))]
        else:
            plain += _toml_lines({name: value})
    return "\n".join([*plain, *tables]) + "\n"


def _toml_lines(values: dict[str, Any]) -> list[str]:
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]


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
            metadata = entry.metadata or {}
            told = _progress(client.get_job_logs(name), sum(map(int, metadata.get("starts", "").split())))
            row = {"job": name, "status": str(entry.status).rpartition(".")[2].lower(), **told}
            rows.append(row | {"catalogue": metadata.get("catalogue")})
    return pa.Table.from_pylist(rows, STATUS)


def _progress(logs: str, asked: int) -> dict[str, Any]:
    """How far a job is, of which so many starts are asked, by the lines of progress in its logs.

    The campaigns of a grid run one after the other: what each has found is added up (a minimum that two of them have
    found counts twice), the rate is that of the one at work.
    """
    lines = [json.loads(line) for line in logs.splitlines() if line.startswith('{"campaign_id"')]
    if not lines:
        return {}
    last = {line["campaign_id"]: line for line in lines}.values()
    found = {name: sum(line[name] for line in last) for name in ("done", "minima", "unfinished")}
    rate = lines[-1]["rate"]
    left = None if not rate else round(max(asked - found["done"], 0) / rate, 1)
    named = {name: lines[-1].get(name) for name in ("campaign_id", "campaign_name")}
    return {**named, "asked": asked, "rate": rate, "seconds_left": left, **found}


def logs(address: str, job: str) -> str:
    """What a job has said, its progress left out. Raises InputError for an unknown job."""
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
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))  # the parts of Ray have levels of their own, and tell what they upload
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterError(
            f"the Ray cluster at {address} wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the "
            "file that holds it."
        ) from error
    except (ConnectionError, RuntimeError, OSError) as error:
        raise ClusterError(f"cannot reach the Ray cluster at {address}: {_cause(error)}") from error
    finally:
        logging.disable(before)


def _cause(error: BaseException) -> str:
    """What went wrong, without the traceback of a head that sends one: its last line says it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if any("Traceback (most recent call last)" in line for line in lines) else lines[0]
