"""The command `enumerator`. It only takes arguments apart: the work is done elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, NoReturn

import pyarrow as pa
import typer

from cluster import checks, jobs_commands, serving, statistics_commands, upkeep
from cluster.describe import describe
from cluster.inputs import DEFAULT_STARTS, Request, duration, nearly_symmetric, read_campaign_file, request
from cluster.options import (
    ActivationOption,
    CampaignArgument,
    CatalogueArgument,
    DimensionOption,
    DynamicsOption,
    FormatOption,
    LandscapeOption,
    OutputOption,
    ScaleOption,
    SeedOption,
    StudentsOption,
    TeachersOption,
    say,
)
from cluster.output import choose_format, write_table, write_text
from cluster.progress import DISPLAYS, check_display
from cluster.stopping import stop_as_interrupt_does
from cluster.usage import COMPLETE, print_version, program, usage_message
from enumerator.activations import ACTIVATIONS
from enumerator.campaign_names import name_of
from enumerator.catalogue import Catalogue
from enumerator.constraints import CONSTRAINTS
from enumerator.errors import CatalogueError, InputError
from enumerator.parsing import shown
from enumerator.problem import DYNAMICS, SECOND_LAYER_LAWS, SECOND_LAYERS
from enumerator.selection import COUNTED, counted_together
from enumerator.stops import FLOW_TIMES, GRADIENT_NORMS

if TYPE_CHECKING:
    from cluster.driver import RunSummary

# Set to see where an error comes from.
DEBUG = "ENUMERATOR_DEBUG"


def _choices(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


app = typer.Typer(
    help="An atlas of the local minima of two-layer networks: enumerate, deduplicate, store, query.",
    epilog="First: enumerator run --students 6 --teachers 6 --starts 200 --catalogue atlas",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _enumerator(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """What stands before a command. That it is there lets commands be named, also if there were one only."""


@app.command(
    epilog="Example: enumerator run --students 17 --teachers 17 --starts 10000 --catalogue atlas",
)
def run(
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
    # Here: only this command needs Ray, which takes its time to import.
    from cluster import grid
    from cluster.driver import check_request, run_campaign

    format = choose_format(format, output)
    check_display(progress)
    seconds = None if time_limit is None else duration(time_limit, "--time-limit")
    options = {
        "students": students, "teachers": teachers, "starts": starts, "teacher": teacher, "dimension": dimension,
        "scale": scale, "initial": initial, "seed": seed, "dynamics": dynamics, "step": step, "flow_time": flow_time,
        "activation": activation, "activation_slope": activation_slope, "constraint": constraint,
        "second_layer": second_layer, "second_layer_law": second_layer_law,
        "shard_size": shard_size, "lingering": lingering, "precision": precision, "snap_teachers": snap_teachers,
    }  # fmt: skip
    settings = {} if campaign is None else read_campaign_file(campaign)
    given = {name: value for name, value in options.items() if value is not None}
    if campaign is not None and "grid" in settings:
        grid.run_file(
            campaign, settings, given, catalogue, workers, device, progress, address, seconds, dry_run, format, output
        )
        return
    wanted = request(settings | given)
    device = check_request(wanted.starts, workers, device, wanted.shard_size, address)
    tell = say if progress != "json" else lambda text: None
    for line in nearly_symmetric([wanted]):
        tell(line)
    if dry_run:
        _estimate(wanted, catalogue, workers, device, format, output)
        return
    atlas = Catalogue(catalogue, create=True)
    summary = run_campaign(
        wanted.campaign, wanted.starts, atlas, workers, device, wanted.shard_size, progress, address, seconds
    )
    stored = f"{summary.tally.done:,} of {wanted.starts:,} starts are stored in {catalogue}"
    if summary.interrupted:
        tell(f"Stopped. {stored}; the same command goes on from there.")
        raise typer.Exit(130)
    found = atlas.minima(campaign=summary.campaign_id)
    write_table(found, "minima", format, output)
    if summary.timed_out:
        tell(f"\nStopped after {time_limit}. {stored}; the same command goes on from there.")
    else:
        tell(_closing(summary, name_of(wanted.campaign), catalogue, program(), found))


def _estimate(
    wanted: Request, catalogue: str, workers: int | None, device: str, format: str, output: Path | None
) -> None:
    """Print what the run would take."""
    from cluster.estimate import estimate

    say("Measuring on a few starts ...")
    # Opened only if there is one: a dry run makes nothing. What is there but is no catalogue is refused, as by a run.
    folder = Path(catalogue)
    nothing_there = "://" not in catalogue and not (folder.exists() and (folder.is_file() or any(folder.iterdir())))
    atlas = None if nothing_there else Catalogue(catalogue)
    found = estimate(wanted.campaign, wanted.starts, atlas, workers, device, wanted.shard_size)
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


def _selecting(kind: str) -> Callable[..., None]:
    """The command that prints the table `kind`, cut to what its options select."""

    def command(
        catalogue: CatalogueArgument,
        students: StudentsOption = None,
        teachers: TeachersOption = None,
        activation: ActivationOption = None,
        landscape: LandscapeOption = None,
        campaign: Annotated[
            str | None, typer.Option(metavar="NAME|ID", help="Only this campaign; hits count in it.")
        ] = None,
        dynamics: DynamicsOption = None,
        dimension: DimensionOption = None,
        scale: ScaleOption = None,
        seed: SeedOption = None,
        where: Annotated[str | None, typer.Option(metavar="SQL", help="A condition on the columns.")] = None,
        columns: Annotated[str | None, typer.Option(help="Columns to print, with commas between.")] = None,
        sort: Annotated[str | None, typer.Option(help="Columns to sort by; -loss is loss descending.")] = None,
        limit: Annotated[int | None, typer.Option(help="At most so many rows.")] = None,
        format: FormatOption = None,
        output: OutputOption = None,
    ) -> None:
        choose_format(format, output)
        selection = {
            "students": students, "teachers": teachers, "activation": activation, "landscape": landscape,
            "campaign": campaign, "dynamics": dynamics, "dimension": dimension, "scale": scale, "seed": seed,
            "where": where, "columns": columns, "sort": sort, "limit": limit,
        }  # fmt: skip
        is_counted = kind in ("minima", "saddles")
        if is_counted and columns is not None:
            selection["columns"] = f"{columns},{','.join(COUNTED)}"
        table = getattr(Catalogue(catalogue), kind)(**selection)
        unlike = counted_together(table) if is_counted else []
        if is_counted and columns is not None:
            asked = {name.strip() for name in columns.split(",")}
            table = table.drop_columns([name for name in COUNTED if name not in asked])
        write_table(table, kind, format, output, all_columns=columns is not None)
        if unlike:
            named = ", ".join(unlike[:3]) + (f" and {len(unlike) - 3} more" if len(unlike) > 3 else "")
            say(
                f"note: no frequency where unlike campaigns are counted together: {named}. Choose by --campaign, "
                f"--dynamics, --dimension or --scale; `{program()} stats {quote(catalogue)}` has the shares of each."
            )

    return command


_TABLES = {
    "minima": ("The minima, with hits and frequency.", "atlas --students 17 --sort -frequency --limit 5"),
    "saddles": ("The saddles that starts ended on.", "atlas --students 17 --teachers 17"),
    "starts": ("Every start and what became of it.", "atlas --where \"outcome = 'unfinished'\" --format csv"),
    "campaigns": ("The campaigns: landscape, dynamics, initial law, seed.", "atlas --format json"),
    "landscapes": ("The landscapes.", "atlas --columns landscape_id,students,teachers"),
}
for _kind, (_help, _example) in _TABLES.items():
    app.command(_kind, help=_help, epilog=f"Example: enumerator {_kind} {_example}")(_selecting(_kind))


@app.command(
    "early-stops", epilog="Example: enumerator early-stops atlas relu.18.17.flow.d1000.s0 --gradient-norm 1e-4"
)
def early(
    catalogue: CatalogueArgument,
    campaign: CampaignArgument,
    gradient_norm: Annotated[
        float | None, typer.Option(help=f"A gradient norm to stop at: {_choices(GRADIENT_NORMS)}.")
    ] = None,
    flow_time: Annotated[float | None, typer.Option(help=f"Or a flow time: {_choices(FLOW_TIMES)}.")] = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Frequencies by order as a solver that stops early would have reported them, beside the true ones.

    `stopped` counts the starts at the stop, `hits` where they end, each with its share of all starts and a 95%
    interval; those with a loss near zero stand apart.
    """
    from enumerator.early_stops import early_stops

    choose_format(format, output)
    write_table(early_stops(Catalogue(catalogue), campaign, gradient_norm, flow_time), "early-stops", format, output)


@app.command(epilog="Example: enumerator show atlas relu.17.17.0247664")
def show(
    catalogue: CatalogueArgument,
    minimum: Annotated[str, typer.Argument(metavar="MINIMUM", help="Its id or label.")],
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """One minimum or saddle: loss, verdicts, symmetry, frequency, and its overlaps Q and R.

    Formats other than table have its whole row, `orbit_size` in digits besides.
    """
    format = choose_format(format, output)
    found = Catalogue(catalogue).minimum_row(minimum)
    if format == "table":
        width = shutil.get_terminal_size().columns if output is None and sys.stdout.isatty() else None
        write_text(describe(found.to_pylist()[0], width), output)
    else:
        write_table(found, None, format, output)


@app.command(epilog='Example: enumerator sql atlas "select outcome, count(*) as n from starts group by outcome"')
def sql(
    catalogue: CatalogueArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT statement.")],
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Any question: read-only SQL (DuckDB) on the tables landscapes, campaigns, minima, saddles and starts."""
    choose_format(format, output)
    write_table(Catalogue(catalogue).sql(query), None, format, output)


checks.add_commands(app)
upkeep.add_commands(app)
serving.add_commands(app)
jobs_commands.add_commands(app)
statistics_commands.add_commands(app)


def _fail(error: Exception) -> int:
    """Print an error on one line; the exit code."""
    text, code, advice = str(error), 1, ""
    if isinstance(error, typer.TyperException):
        text, code = usage_message(error), 2
    elif isinstance(error, InputError):
        code = 2
    elif isinstance(error, OSError) and error.filename is not None:
        text, code = f"cannot use {shown(error.filename)}: {error.strerror}.", 2
    elif not isinstance(error, CatalogueError):
        advice = f" ({type(error).__name__}; {DEBUG}=1 shows where)"
    say(f"error: {' '.join(text.split()) or type(error).__name__}{advice}")
    return code


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code: 0 success, 2 bad usage or input, 130 stopped, 1 anything else."""
    try:
        return (
            app(
                args=list(arguments) or ["--help"],
                prog_name=program(),
                complete_var=COMPLETE,
                standalone_mode=False,
            )
            or 0
        )
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        return _fail(error)


def main() -> NoReturn:
    """Entry point of the console script."""
    # This process computes little: it must not take a GPU away from the workers.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    stop_as_interrupt_does()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
