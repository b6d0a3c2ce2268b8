"""The commands for campaigns on a Ray cluster: submit, status, logs, cancel."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cluster.commands.options import FormatOption, OutputOption, say
from cluster.commands.output import choose_format, write_table, write_text
from cluster.runs.machine import DEVICES
from cluster.usage import program
from enumerator.validation import check_choice, check_count

AddressOption = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help="The head's dashboard, http://HEAD:8265.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Its id, as `submit` prints it.")]


def add_commands(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    where = "--address http://head:8265"
    app.command("submit", epilog=f"Example: enumerator submit campaign.toml {where} --catalogue s3://bucket/atlas")(
        _submit
    )
    app.command("status", epilog=f"Example: enumerator status enumerator-5345c825919c86a2 {where}")(_status)
    app.command("logs", epilog=f"Example: enumerator logs enumerator-5345c825919c86a2 {where}")(_logs)
    app.command("cancel", epilog=f"Example: enumerator cancel enumerator-5345c825919c86a2 {where}")(_cancel)


def _submit(
    campaign: Annotated[Path, typer.Argument(metavar="CAMPAIGN.toml", help="The campaign file, a grid too.")],
    address: AddressOption = "http://127.0.0.1:8265",
    catalogue: Annotated[
        str, typer.Option(help="Where the cluster stores it: s3://bucket/atlas, or a path that all nodes share.")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Processes at work.  [default: all the cluster has room for]")
    ] = None,
    pip: Annotated[
        bool, typer.Option("--pip", help="Let the nodes install what the project needs, where their image lacks it.")
    ] = False,
) -> None:
    """Run a campaign on a Ray cluster, and print the id of its job; sent twice, it is the same job.

    A job that failed or was cancelled goes on from what is stored; one that has ended, with more starts in the file,
    is extended. This software goes to the cluster as it is here; credentials for the catalogue must be in the
    environment of its nodes, and are never sent.
    """
    from cluster.runs import jobs

    check_choice("device", device, [name for name in DEVICES if name != "auto"])
    if workers is not None:
        check_count("workers", workers)
    options = ("--device", device, *(() if workers is None else ("--workers", str(workers))))
    found = jobs.submit(campaign, address, catalogue, options, pip)
    if found.existed:
        say("This job is there already.")
    say(f"Follow it with: {program()} status {quote(found.job)} --address {quote(address)}")
    write_text(found.job)


def _status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Its id; all jobs if not given.")] = None,
    address: AddressOption = "http://127.0.0.1:8265",
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """How jobs stand: progress, rate (starts per second), seconds left, distinct minima, unfinished starts."""
    from cluster.runs import jobs

    choose_format(format, output)
    write_table(jobs.status(address, job), None, format, output)


def _logs(job: JobArgument, address: AddressOption = "http://127.0.0.1:8265") -> None:
    """What a job has said: its warnings and errors. `status` has its progress, the catalogue its minima."""
    from cluster.runs import jobs

    if said := jobs.logs(address, job).rstrip("\n"):
        write_text(said)
    else:
        say(f"No warning and no error. How far it is: {program()} status {quote(job)} --address {quote(address)}")


def _cancel(job: JobArgument, address: AddressOption = "http://127.0.0.1:8265") -> None:
    """Stop a job; what is stored stays, and `submit` goes on from there."""
    from cluster.runs import jobs

    say("Stopped; what is stored stays." if jobs.cancel(address, job) else "It was not at work.")
