"""The command that runs campaigns, one or those of a grid."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
import typer

from cluster.campaign_grid import expand
from cluster.commands.options import FormatOption, OutputOption, say
from cluster.commands.output import choose_format, write_table, write_text
from cluster.inputs import DEFAULT_STARTS, Request, duration, loaded, nearly_symmetric, read_campaign_file, request
from cluster.runs.options import RunOptions
from cluster.runs.progress import DISPLAYS
from cluster.usage import program
from enumerator.activations import ACTIVATIONS
from enumerator.catalogue.campaign_names import name_of
from enumerator.catalogue.catalogue import Catalogue
from enumerator.constraints import CONSTRAINTS
from enumerator.errors import InputError
from enumerator.problem import DYNAMICS, SECOND_LAYER_LAWS, SECOND_LAYERS

if TYPE_CHECKING:
    from cluster.runs.driver import RunSummary


def add_commands(app: typer.Typer) -> None:
    """Enter the command of this module."""
    example = "Example: enumerator run --students 17 --teachers 17 --starts 10000 --catalogue atlas"
    app.command("run", epilog=example)(_run)


def _run(
    campaign: Annotated[
        Path | None, typer.Argument(metavar="[CAMPAIGN.toml]", help="A file with the options below; they win over it.")
    ] = None,
    students: Annotated[int | None, typer.Option(help="K, hidden units of the student.")] = None,
    teachers: Annotated[int | None, typer.Option(help="M, hidden units of the teacher.")] = None,
    starts: Annotated[
        int | None, typer.Option(help=f"Starts wanted in total, those stored included.  [default: {DEFAULT_STARTS}]")
    ] = None,
    catalogue: Annotated[str, typer.Option(help="Directory of the catalogue, made if it is not there.")] = "atlas",
    teacher: Annotated[
        str | None, typer.Option(metavar="orthonormal|FILE.npy", help="The (M, M) teacher overlaps T.")
    ] = None,
    snap_teachers: Annotated[
        bool | None,
        typer.Option("--snap-teachers/--no-snap-teachers", help="Round T to the symmetric one nearby.  [default: no]"),
    ] = None,
    dimension: Annotated[int | None, typer.Option(help="Input dimension d of the starts.  [default: 1000]")] = None,
    scale: Annotated[
        float | None, typer.Option(help="Standard deviation s of the initial weights, N(0, s^2 I).  [default: 1]")
    ] = None,
    initial: Annotated[
        str | None, typer.Option(metavar="FILE", help="Given initial overlaps: .npz, .arrow or .parquet with Q and R.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the starts.  [default: 0]")] = None,
    dynamics: Annotated[str | None, typer.Option(help=f"{', '.join(DYNAMICS)}.  [default: gradient-flow]")] = None,
    step: Annotated[float | None, typer.Option(help="Step of gradient-descent and one-pass-sgd.")] = None,
    flow_time: Annotated[float | None, typer.Option(help="Flow time of one-pass-sgd, step x updates / d.")] = None,
    activation: Annotated[str | None, typer.Option(help=f"{', '.join(ACTIVATIONS)}.  [default: relu]")] = None,
    activation_slope: Annotated[float | None, typer.Option(help="Slope of leaky_relu, in [0, 1).")] = None,
    constraint: Annotated[str | None, typer.Option(help=f"{', '.join(CONSTRAINTS)}.  [default: none]")] = None,
    second_layer: Annotated[str | None, typer.Option(help=f"{', '.join(SECOND_LAYERS)}.  [default: fixed]")] = None,
    second_layer_law: Annotated[
        str | None, typer.Option(help=f"{', '.join(SECOND_LAYER_LAWS)}: a trained one at the start.  [default: ones]")
    ] = None,
    lingering: Annotated[
        bool | None,
        typer.Option(
            "--lingering/--no-lingering", help="Catalogue the saddles that starts linger on.  [default: lingering]"
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="double, or mixed: single until the gradient is small.  [default: double]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes at work.  [default: one per core, or per GPU]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    shard_size: Annotated[
        int | None, typer.Option(help="Starts in a unit of work, fixed with the first run of a campaign.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to run on; auto: the one this machine is part of.  [default: a Ray of its own]"),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="90s|30m|2h", help="Stop after so long, as Ctrl-C does, but with exit code 0.")
    ] = None,
    progress: Annotated[
        str, typer.Option(metavar="|".join(DISPLAYS), help="How progress is shown, on stderr; json: see below.")
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how long it would take, and how much memory and disk; write nothing.")
    ] = False,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Enumerate the minima of a landscape into a catalogue, and print those that this campaign found.

    The same command resumes a run that was stopped; a larger --starts extends it. Ctrl-C stops a run after the shard
    that is being stored (exit code 130), as SIGTERM and the end of its terminal do, and --time-limit, with exit code 0
    and the minima found so far. `nohup enumerator run ...` outlives its terminal.

    --progress json prints an object on a line when there is news, at most once a second and at the end, and nothing
    else but an error: campaign_id and campaign_name; done and asked, starts; rate, starts per second, and seconds_left,
    both null at first; minima, distinct ones; unfinished, starts. A run that ends with done below asked was stopped.

    A file with a table [grid] of lists, such as teachers = [6, 7, 8] and students = ["teachers", "teachers + 1"], is
    many campaigns: every combination, one after the other. What is printed then is a table of the campaigns.
    """
    format = choose_format(format, output)
    limit = None if time_limit is None else duration(time_limit, "--time-limit")
    options = RunOptions(workers, device, address, limit, progress)
    settings = {
        "students": students, "teachers": teachers, "starts": starts, "teacher": teacher, "dimension": dimension,
        "scale": scale, "initial": initial, "seed": seed, "dynamics": dynamics, "step": step, "flow_time": flow_time,
        "activation": activation, "activation_slope": activation_slope, "constraint": constraint,
        "second_layer": second_layer, "second_layer_law": second_layer_law,
        "shard_size": shard_size, "lingering": lingering, "precision": precision, "snap_teachers": snap_teachers,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    in_file = {} if campaign is None else read_campaign_file(campaign)
    grid_of = campaign if "grid" in in_file else None
    requests = [request(loaded(in_file | given))] if grid_of is None else expand(in_file, grid_of.parent, given)
    if dry_run and grid_of is not None:
        found = f"{campaign} has {len(requests)}"
        raise InputError(f"`--dry-run` measures one campaign, {found}: pass the settings of one.")
    for line in nearly_symmetric(requests):
        _tell(options, line)
    if grid_of is not None:
        _run_grid(requests, catalogue, options, format, output)
    elif dry_run:
        _estimate(requests[0], catalogue, options, format, output)
    else:
        _run_one(requests[0], catalogue, options, time_limit, format, output)


def _tell(options: RunOptions, text: str) -> None:
    """A line for the user, where one may stand."""
    if options.progress != "json":
        say(text)


def _run_one(
    wanted: Request, catalogue: str, options: RunOptions, time_limit: str | None, format: str, output: Path | None
) -> None:
    """Run a campaign: print its minima."""
    # Here, as below: only these need Ray, which takes its time to import.
    from cluster.runs.driver import run_campaign

    atlas = Catalogue(catalogue, create=True)
    summary = run_campaign(wanted, atlas, options)
    stored = f"{summary.tally.done:,} of {wanted.starts:,} starts are stored in {catalogue}"
    if summary.interrupted:
        _tell(options, f"Stopped. {stored}; the same command goes on from there.")
        raise typer.Exit(130)
    found = atlas.minima(campaign=summary.campaign_id)
    write_table(found, "minima", format, output)
    if summary.timed_out:
        _tell(options, f"\nStopped after {time_limit}. {stored}; the same command goes on from there.")
    else:
        _tell(options, _closing(summary, name_of(wanted.campaign), catalogue, program(), found))


def _run_grid(requests: list[Request], catalogue: str, options: RunOptions, format: str, output: Path | None) -> None:
    """Run the campaigns of a grid: print them, and how far they are."""
    from cluster.runs.grid import run_grid

    summary = run_grid(requests, Catalogue(catalogue, create=True), options)
    write_table(summary.table(), None, format, output)
    if summary.interrupted or summary.timed_out:
        begun = f"{len(summary.summaries)} of {len(requests)} campaigns"
        _tell(options, f"Stopped after {begun}; the same command goes on from there.")
        if summary.interrupted:
            raise typer.Exit(130)
        return
    done = f"Done in {summary.seconds:.0f} s: {len(requests)} campaigns in {catalogue}"
    _tell(options, f"\n{done}. What to type next:")
    _tell(options, f"  {program()} stats {quote(catalogue)}\n  {program()} plot {quote(catalogue)} -o figures")


def _estimate(wanted: Request, catalogue: str, options: RunOptions, format: str, output: Path | None) -> None:
    """Print what the run would take."""
    from cluster.runs.estimate import estimate

    say("Measuring on a few starts ...")
    # Opened only if there is one: a dry run makes nothing. What is there but is no catalogue is refused, as by a run.
    folder = Path(catalogue)
    nothing_there = "://" not in catalogue and not (folder.exists() and (folder.is_file() or any(folder.iterdir())))
    found = estimate(wanted, None if nothing_there else Catalogue(catalogue), options)
    if format == "table":
        write_text(found.text(), output)
    else:
        write_table(found.table(), None, format, output)


def _closing(summary: RunSummary, name: str, catalogue: str, command: str, found: pa.Table) -> str:
    """What was done, where it lies, and what to type next."""
    tally = summary.tally
    done = f"Done in {summary.seconds:.0f} s" if tally.fresh else "Nothing was missing"
    lines = [
        f"\n{done}: {tally.text()}.",
        f"The catalogue lies in {catalogue}; this is its campaign {name} ({summary.campaign_id}). What to type next:",
        f"  {command} minima {quote(catalogue)} --format csv -o minima.csv",
        f"  {command} starts {quote(catalogue)} --campaign {name} --limit 10",
    ]
    if found.num_rows:
        lines.append(f"  {command} show {quote(catalogue)} {found['label'][0].as_py()}")
    return "\n".join([*lines, f"  {command} --help"])
