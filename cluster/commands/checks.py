"""The commands that look closely: verify a catalogue, replay a start, identify weights."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from cluster.commands.options import CampaignArgument, CatalogueArgument, FormatOption, OutputOption, say
from cluster.commands.output import choose_format, write_table
from cluster.inputs import archived, load_numpy
from cluster.runs.progress import Parts
from cluster.usage import program
from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import InputError
from enumerator.parsing import shortened
from enumerator.progress import duration_text
from enumerator.storage.sql import quoted

if TYPE_CHECKING:
    from enumerator.identification.identify import Identification


def add_commands(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    app.command("verify", epilog="Example: enumerator verify atlas --sample 100")(_verify)
    app.command("replay", epilog="Example: enumerator replay atlas relu.9.9.flow.d1000.s0 17 -o path.parquet")(_replay)
    app.command("identify", epilog="Example: enumerator identify atlas weights.npy --teachers 17")(_identify)


def _verify(
    catalogue: CatalogueArgument,
    sample: Annotated[
        int, typer.Option(help="So many starts are run again, so many points of each table checked in 50 digits.")
    ] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    mend: Annotated[
        bool, typer.Option("--repair", help="Repair what follows from what is intact; says what was, and what was not.")
    ] = False,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Recompute and check everything that is stored; print every disagreement. Exit code 1 if any is (left)."""
    from enumerator.verification.repair import repair
    from enumerator.verification.verify import verify

    format = choose_format(format, output)
    if sample < 0 or seed < 0:
        raise InputError(f"`--sample` and `--seed` must be 0 or more, got {sample} and {seed}.")
    atlas = Catalogue(catalogue)
    began, display = time.monotonic(), Parts()
    try:
        found = (repair if mend else verify)(atlas, sample, seed, display)
    finally:
        display.close()
    if found.num_rows or format != "table" or output is not None:
        write_table(found, None, format, output)
    seconds = duration_text(time.monotonic() - began)
    if not found.num_rows:
        say(f"{_contents(atlas)}: no disagreement, in {seconds}.")
        return
    count = f"{found.num_rows:,} disagreement{'s' if found.num_rows > 1 else ''}"
    if not mend:
        say(f"{count}, in {seconds}. To repair what can be: {program()} verify {quote(catalogue)} --repair")
        raise typer.Exit(1)
    left = found["repaired"].to_pylist().count(False)
    say(f"{count}, {left:,} left, in {seconds}.{_to_run_again(atlas)}")
    raise typer.Exit(1 if left else 0)


def _contents(atlas: Catalogue) -> str:
    names = ("minima", "saddles", "campaigns", "starts")
    counts = ", ".join(f"(select count(*) from {name}) {name}" for name in names)
    (row,) = atlas.sql(f"select {counts}").to_pylist()
    return ", ".join(f"{row[name]:,} {name}" for name in names)


def _to_run_again(atlas: Catalogue) -> str:
    """The campaigns that a repair has left with starts to solve."""
    names = atlas.sql("select campaign_name from campaigns where status in ('running', 'stopped') order by all")
    listed = ", ".join(names["campaign_name"].to_pylist())
    return f" Not complete: {listed}. The same `enumerator run` again solves what is missing." if listed else ""


def _replay(
    catalogue: CatalogueArgument,
    campaign: CampaignArgument,
    index: Annotated[int, typer.Argument(metavar="INDEX", help="Number of the start in it, from 0.")],
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Follow one start again: evaluations, flow time, loss and gradient norm of each step, and Q and R with -o FILE."""
    from enumerator.replay import replay

    format = choose_format(format, output)
    atlas = Catalogue(catalogue)
    wanted = atlas.campaign(campaign)
    write_table(replay(wanted, index), "trajectory", format, output)
    condition = f"campaign_id = {quoted(wanted.id)} and start_index = {index}"
    columns = "outcome, coalesce(minimum_id, saddle_id) point, distance"
    stored = atlas.sql(f"select {columns} from starts where {condition}").to_pylist()
    if not stored:
        say(f"Start {index} of {campaign} is not stored yet.")
        return
    outcome, point, distance = stored[0].values()
    ended = "" if point is None else f" at distance {distance:.3g} from {atlas.minimum(point)['label']}"
    say(f"Stored for this start: {outcome}{ended}.")


def _identify(
    catalogue: CatalogueArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Weights (K, d) in a .npy file, f(x) = sum relu(w.x/sqrt d), with sqrt d times the first M "
            "unit vectors as teachers; or a .npz file with W (K, d) and V (M, d), or with Q (K, K) and R (K, M).",
        ),
    ],
    landscape: Annotated[str | None, typer.Option(metavar="ID", help="The landscape, one of the catalogue.")] = None,
    students: Annotated[int | None, typer.Option(help="K, with --teachers.  [default: M]")] = None,
    teachers: Annotated[int | None, typer.Option(help="M, orthonormal teachers.  [default: from the file]")] = None,
    reduced: Annotated[
        bool, typer.Option("--reduced", help="W and V are divided by sqrt d already: f(x) = sum relu(w.x).")
    ] = False,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Which minimum are weights at, or near, how far away, and where does the gradient flow take them?"""
    from enumerator.identification.identify import identify

    format = choose_format(format, output)
    atlas = Catalogue(catalogue)
    try:
        found = identify(
            atlas,
            **_arrays(file),
            landscape=landscape,
            students=teachers if students is None else students,
            teachers=teachers,
            reduced=reduced,
        )
    except InputError as error:
        raise InputError(_with_dashes(str(error))) from error
    found = replace(found, hint=None if found.hint is None else _with_dashes(found.hint))
    write_table(pa.Table.from_pylist([vars(found)]), "identification", format, output)
    say(_told(found))


def _with_dashes(text: str) -> str:
    """A message that names an argument as Python does, with the option in its place."""
    return text.replace("`reduced`", "`--reduced`")


def _told(found: Identification) -> str:
    from enumerator.identification.identify import read_as

    size = f"K = {found.students}, M = {found.teachers}" + (f", d = {found.dimension}" if found.dimension else "")
    read = f"Read as {size}, {found.teacher} teachers, {read_as(found.units)}, exact to {found.rounding:.1g}."
    near = "The catalogue knows no minimum of this landscape"
    if found.nearest is not None:
        bound = "" if found.proven else " at most, and another may be nearer"
        near = f"Nearest: {found.nearest}, at distance {found.distance:.3g}{bound}"
        near += ", inside the ball that provably flows into it" if found.inside else ""
    if found.outcome not in ("converged", "saddle"):
        end = f"The flow from here: {found.outcome}."
    else:
        order = "" if found.reached_order is None else f" and {found.reached_order} anti-aligned students"
        reached = found.reached or f"a point with loss {found.reached_loss:.9g}{order}, not in the catalogue"
        end = f"The flow from here ends in {reached}."
    return " ".join([read, f"{near}.", end, *([found.hint] if found.hint else [])])


def _arrays(file: Path) -> dict[str, Any]:
    """The arrays of a network in a file, by their names."""
    what = "weights (K, d) in a .npy file, or W and V, or Q and R, in a .npz file"
    content = load_numpy(file, what)
    if isinstance(content, np.ndarray):
        return {"W": content}
    wanted = next(({*names} for names in (("W", "V"), ("W",), ("Q", "R")) if {*names} <= {*content.files}), None)
    if wanted is None:
        raise InputError(
            f"expected {what}, got {shortened(', '.join(sorted(content.files))) or 'no arrays'} in {file}."
        )
    if "Q" in wanted and "T" in content.files:
        wanted.add("T")
    return archived(content, sorted(wanted), file)
