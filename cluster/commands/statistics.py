"""The command that counts: stats."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.commands.options import CatalogueArgument, FormatOption, OutputOption, say, selecting
from cluster.commands.output import choose_format, write_table
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.selection import named_columns
from enumerator.errors import InputError
from enumerator.statistics.by_name import TABLES, computed, misplaced

# The outcome of a start that ended in a minimum.
ENDED = "converged"


def add_commands(app: typer.Typer) -> None:
    """Enter the command of this module."""
    app.command("stats", epilog="Example: enumerator stats atlas --students 17 --teachers 17 --by order")(
        selecting(_stats)
    )


def _stats(
    catalogue: CatalogueArgument,
    *,
    of: Annotated[str, typer.Option(help=f"What to compute: {', '.join(TABLES)}.")] = "frequencies",
    by: Annotated[
        str | None,
        typer.Option(help="Frequencies and distributions: by minimum, order or outcome.  [default: minimum]"),
    ] = None,
    quantity: Annotated[
        str | None,
        typer.Option(
            help="Distributions: flow_time, loss, evaluations, gradient_norm, distance.  [default: flow_time]  "
            "Trend: global or order.  [default: global]"
        ),
    ] = None,
    more: Annotated[
        int | None, typer.Option(help="Unseen: predict for so many further starts.  [default: as many as there are]")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of every interval.")] = 0.95,
    selection: dict[str, Any],
    where: Annotated[str | None, typer.Option(metavar="SQL", help="A condition on the columns of starts.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to print, with commas between.")] = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Statistics of the starts selected: frequencies with intervals, what was not seen, comparisons, trends.

    Every share is one of all starts: those that are unfinished, diverged or on a saddle have rows of their own. Starts
    are counted together where campaigns differ in the seed alone. Intervals are exact (Clopper-Pearson) and Wilson's.

    unseen: the probability that the next start ends in a minimum not seen, with an interval where one is valid, lower
    bounds of the number of minima (Chao1, iChao1), and minima expected in --more starts. comparison: each pair of the
    campaigns, by the same starts where they share law and seed. trend: share of the global minimum, or mean order,
    against the width, with a curve.
    """
    choose_format(format, output)
    selection |= {"where": where}
    options = {name: value for name, value in (("by", by), ("quantity", quantity), ("more", more)) if value is not None}
    if of not in TABLES:
        raise InputError(f"`--of` must be one of {', '.join(TABLES)}, got {of!r}.")
    if (wrong := misplaced(of, options)) is not None:
        raise InputError(f"`--{wrong[0]}` goes with --of {wrong[1]}, got --of {of}.")
    atlas = Catalogue(catalogue)
    found = computed(atlas, of, options, confidence, selection)
    lacks_orders = by == "order" and any(
        row["outcome"] == ENDED and row["anti_aligned"] is None
        for row in found.select(["outcome", "anti_aligned"]).to_pylist()
    )
    if columns is not None:
        found = found.select(named_columns(columns, found.schema))
    write_table(found, of, format, output, all_columns=columns is not None)
    if lacks_orders:
        say("note: minima have no orders where T is not diagonal, or the second layer is trained: use --by minimum.")
    if of == "frequencies":
        _say_unseen(atlas, confidence, selection)


def _say_unseen(atlas: Catalogue, confidence: float, selection: dict[str, Any]) -> None:
    """A line for each sample on what its starts did not see."""
    from enumerator import statistics

    for row in statistics.unseen(atlas, confidence=confidence, **selection).to_pylist():
        ends = "" if row["missing_low"] is None else f" ({row['missing_low']:.2g} to {row['missing_high']:.2g})"
        bound = "" if row["missing_bound"] is None else f", at most {row['missing_bound']:.2g}"
        settings = "" if row["settings"] == statistics.PLAIN else f", {row['settings']}"
        say(
            f"K = {row['students']}, M = {row['teachers']}, {row['dynamics']}, {row['law']}{settings}: "
            f"of {row['starts']:,} starts {row['in_no_minimum']:,} ended in no minimum; the next ends in an unseen "
            f"one with probability {row['missing_mass']:.2g}{ends}{bound}; "
            f"{row['minima']} {'minimum' if row['minima'] == 1 else 'minima'} seen from this initial law, "
            f"Chao1 {row['chao1']:.1f} at least."
        )
