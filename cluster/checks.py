"""The commands that look closely: verify a catalogue, replay a start, identify weights."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
import typer
from numpy.typing import NDArray

from cluster.inputs import load_numpy
from cluster.options import CampaignArgument, CatalogueArgument, FormatOption, OutputOption, say
from cluster.output import choose_format, write_table
from cluster.progress import Parts, duration_text
from cluster.usage import program
from enumerator.catalogue import Catalogue
from enumerator.errors import InputError
from enumerator.problem import Landscape
from enumerator.query import quoted
from enumerator.records import from_table, landscape_from_row

if TYPE_CHECKING:
    from enumerator.identify import Identification

# Teacher overlaps of a file agree with those of a landscape within this, over the largest: they come out of a product
# of weights with up to a million dimensions, in single precision maybe.
TEACHERS_AGREE = 1e-5


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
    from enumerator.repair import repair
    from enumerator.verification import verify

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
    names = atlas.sql("select campaign_name from campaigns where status = 'running' order by all")
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
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Which minimum are weights at, or near, how far away, and where does the gradient flow take them?"""
    from enumerator.identify import identify

    format = choose_format(format, output)
    if landscape is not None and (students is not None or teachers is not None):
        raise InputError("give `--landscape`, or `--students` and `--teachers`, not both.")
    if students is not None and teachers is None:
        raise InputError("`--students` goes with `--teachers`: give both, or neither.")
    atlas = Catalogue(catalogue)
    wanted = None if landscape is None else landscape_named(atlas, landscape)
    if teachers is not None:
        wanted = Landscape(teachers if students is None else students, teachers)
    Q, R, T = _read_overlaps(atlas, file, wanted)
    wanted = wanted or landscape_like(atlas, len(Q), T)
    if (Q.shape, R.shape) != ((wanted.students,) * 2, (wanted.students, wanted.teachers)):
        raise InputError(
            f"{wanted.students} students and {wanted.teachers} teachers have Q and R of shapes "
            f"{(wanted.students,) * 2} and {(wanted.students, wanted.teachers)}, {file} gives {Q.shape} and {R.shape}: "
            "name the landscape that it belongs to with --landscape, or --students and --teachers."
        )
    if T is not None and np.abs(T - wanted.T).max() > TEACHERS_AGREE * wanted.overlap_scale:
        raise InputError(
            f"the teachers in {file} are not those of the landscape {wanted.id}, their overlaps differ by "
            f"{np.abs(T - wanted.T).max():.3g}: leave --landscape, --students and --teachers out, or mend the file."
        )
    found = identify(atlas, wanted, Q, R)
    write_table(pa.Table.from_pylist([vars(found)]), "identification", format, output)
    say(_told(found))


def _told(found: Identification) -> str:
    near = "The catalogue knows no minimum of this landscape"
    if found.nearest is not None:
        near = f"Nearest: {found.nearest}, at distance {found.distance:.3g}"
        near += ", inside the ball that provably flows into it" if found.inside else ""
    if found.outcome not in ("converged", "saddle"):
        return f"{near}. The flow from here: {found.outcome}."
    order = "" if found.reached_order is None else f" and {found.reached_order} anti-aligned students"
    reached = found.reached or f"a point with loss {found.reached_loss:.9g}{order}, not in the catalogue"
    return f"{near}. The flow from here ends in {reached}."


def landscape_named(atlas: Catalogue, name: str) -> Landscape:
    """A landscape of the catalogue by its id. Raises InputError."""
    rows = list(from_table(atlas.landscapes(landscape=name)))
    if not rows:
        raise InputError(f"no landscape {name!r} in this catalogue: `enumerator landscapes` lists them.")
    return landscape_from_row(rows[0])


def landscape_like(atlas: Catalogue, students: int, T: NDArray[np.float64] | None) -> Landscape:
    """The landscape of the catalogue with these teachers, or a new one; the only one of that size without any."""
    known = [landscape_from_row(row) for row in from_table(atlas.landscapes(students=students))]
    if T is None:
        if len(known) != 1:
            raise InputError(
                f"{len(known)} landscapes of this catalogue have {students} students: "
                "say which is meant with --landscape ID, or orthonormal teachers with --teachers M."
            )
        return known[0]
    for landscape in known:
        if landscape.T.shape == T.shape and np.abs(landscape.T - T).max() <= TEACHERS_AGREE * landscape.overlap_scale:
            return landscape
    return Landscape(students, len(T), T=T)


Overlaps = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]


def _read_overlaps(atlas: Catalogue, file: Path, landscape: Landscape | None) -> Overlaps:
    """Q, R and, if the file has teachers, T; the teachers of weights alone are those of the landscape."""
    from enumerator.identify import overlaps_of_weights

    what = "weights (K, d) in a .npy file, or W and V, or Q and R, in a .npz file"
    content = load_numpy(file, what)
    if isinstance(content, np.ndarray):
        W = _matrix(content, "weights", file)
        landscape = landscape or landscape_like(atlas, len(W), None)
        M = landscape.teachers
        if W.shape[1] < M:
            raise InputError(f"{M} teachers need {M} dimensions, {file} has weights of shape {W.shape}, (K, d).")
        if not landscape.is_orthonormal:
            raise InputError(f"the teachers of {landscape.id} are not orthonormal: give them as V beside W, in a .npz.")
        return (*overlaps_of_weights(W, np.sqrt(W.shape[1]) * np.eye(M, W.shape[1])), None)
    names = set(content.files)
    if {"W", "V"} <= names:
        W, V = (_matrix(content[name], name, file) for name in ("W", "V"))
        return (*overlaps_of_weights(W, V), V @ V.T / V.shape[1])
    if {"Q", "R"} <= names:
        Q, R = (_matrix(content[name], name, file) for name in ("Q", "R"))
        return Q, R, _matrix(content["T"], "T", file) if "T" in names else None
    raise InputError(f"expected {what}, got {', '.join(sorted(names)) or 'no arrays'} in {file}.")


def _matrix(array: NDArray, name: str, file: Path) -> NDArray[np.float64]:
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(
            f"expected {name} as a matrix of finite real numbers, got {array.dtype} of shape {array.shape} in {file}."
        )
    return array.astype(np.float64)
