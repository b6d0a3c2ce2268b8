"""The commands that read: the tables, one minimum, SQL, early stops."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from cluster.commands.describe import describe, has_unlike_campaigns
from cluster.commands.options import (
    CampaignArgument,
    CampaignOption,
    CatalogueArgument,
    FormatOption,
    OutputOption,
    say,
    selecting,
)
from cluster.commands.output import choose_format, write_table, write_text
from cluster.usage import program
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.selection import COUNTED, counted_together
from enumerator.catalogue.snapshot import Snapshot
from enumerator.stop_levels import FLOW_TIMES, GRADIENT_NORMS
from enumerator.storage.sql import quoted, run

_TABLES = {
    "minima": ("The minima, with hits and frequency.", "atlas --students 17 --sort -frequency --limit 5"),
    "saddles": ("The saddles that starts ended on.", "atlas --students 17 --teachers 17"),
    "starts": ("Every start and what became of it.", "atlas --where \"outcome = 'unfinished'\" --format csv"),
    "campaigns": ("The campaigns: landscape, dynamics, initial law, seed.", "atlas --format json"),
    "landscapes": ("The landscapes.", "atlas --columns landscape_id,students,teachers"),
}


def add_commands(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    for kind, (help, example) in _TABLES.items():
        app.command(kind, help=help, epilog=f"Example: enumerator {kind} {example}")(_selecting(kind))
    for name, command, example in (
        ("early-stops", _early_stops, "early-stops atlas relu.18.17.flow.d1000.s0 --gradient-norm 1e-4"),
        ("show", _show, "show atlas relu.17.17.0247664"),
        ("sql", _sql, 'sql atlas "select outcome, count(*) as n from starts group by outcome"'),
    ):
        app.command(name, epilog=f"Example: enumerator {example}")(command)


def _choices(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _selecting(kind: str) -> Callable[..., None]:
    """The command that prints the table `kind`, cut to what its options select."""

    def command(
        catalogue: CatalogueArgument,
        selection: dict[str, Any],
        where: Annotated[str | None, typer.Option(metavar="SQL", help="A condition on the columns.")] = None,
        columns: Annotated[str | None, typer.Option(help="Columns to print, with commas between.")] = None,
        sort: Annotated[str | None, typer.Option(help="Columns to sort by; -loss is loss descending.")] = None,
        limit: Annotated[int | None, typer.Option(help="At most so many rows.")] = None,
        format: FormatOption = None,
        output: OutputOption = None,
    ) -> None:
        format = choose_format(format, output)
        selection |= {"where": where, "columns": columns, "sort": sort, "limit": limit}
        _print_selected(kind, catalogue, selection, format, output)

    return selecting(command, CampaignOption)


def _print_selected(kind: str, catalogue: str, selection: dict[str, Any], format: str, output: Path | None) -> None:
    """Print the rows of a table that are selected; say for which no frequency is defined."""
    columns, is_counted = selection["columns"], kind in ("minima", "saddles")
    if is_counted and columns is not None:
        selection = selection | {"columns": f"{columns},{','.join(COUNTED)}"}
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


def _early_stops(
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
    from enumerator.statistics.stopped_early import early_stops

    choose_format(format, output)
    write_table(early_stops(Catalogue(catalogue), campaign, gradient_norm, flow_time), "early-stops", format, output)


def _show(
    catalogue: CatalogueArgument,
    minimum: Annotated[str, typer.Argument(metavar="MINIMUM", help="Its id or label.")],
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """One minimum or saddle: loss, verdicts, symmetry, frequency, and its overlaps Q and R.

    Where the campaigns on its landscape differ in more than the seed, each has a frequency of its own.

    Formats other than table have its whole row, `orbit_size` in digits besides.
    """
    format = choose_format(format, output)
    atlas = Catalogue(catalogue)
    tables = atlas.snapshot()
    found = atlas.minimum_row(minimum, tables)
    if format == "table":
        width = shutil.get_terminal_size().columns if output is None and sys.stdout.isatty() else None
        (row,) = found.to_pylist()
        counted = _by_campaign(tables, row) if has_unlike_campaigns(row) else ()
        landscape = tables.select("landscapes", {"landscape": row["landscape_id"], "columns": "teacher"})
        (teacher,) = landscape["teacher"].to_pylist()
        write_text(describe(row, width, counted, teacher), output)
    else:
        write_table(found, None, format, output)


def _by_campaign(tables: Snapshot, minimum: dict[str, Any]) -> list[dict[str, Any]]:
    """Hits, starts and frequency of a minimum or saddle in each campaign on its landscape."""
    ended = f"coalesce(starts.minimum_id, starts.saddle_id) = {quoted(minimum['minimum_id'])}"
    counts = f"count(*) filter ({ended}) as hits, count(*) as starts, hits / count(*) as frequency"
    where = f"starts.landscape_id = {quoted(minimum['landscape_id'])}"
    named = f"select campaign_name, {counts} from starts join campaigns using (campaign_id)"
    query = f"{named} where {where} group by campaign_name order by campaign_name"
    return run(query, tables.datasets(("starts", "campaigns"))).to_pylist()


def _sql(
    catalogue: CatalogueArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT statement.")],
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Any question: read-only SQL (DuckDB) on the tables landscapes, campaigns, minima, saddles and starts."""
    choose_format(format, output)
    write_table(Catalogue(catalogue).sql(query), None, format, output)
