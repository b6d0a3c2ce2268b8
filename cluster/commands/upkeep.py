"""The commands of a long life: merge, delete, compact, migrate, export, import."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from cluster.commands.options import CampaignArgument, CatalogueArgument, FormatOption, OutputOption, say
from cluster.commands.output import choose_format, write_table
from cluster.inputs import duration
from cluster.runs.progress import Parts
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import SCHEMA_VERSION
from enumerator.errors import InputError
from enumerator.upkeep.bundle import export, opened
from enumerator.upkeep.compaction import compact, delete
from enumerator.upkeep.merge import MergeSummary, merge, merge_tables
from enumerator.upkeep.migration import migrate


def add_commands(app: typer.Typer) -> None:
    """Enter the commands of this module."""
    for name, command, example in (
        ("merge", _merge, "merge atlas other-atlas"),
        ("delete", _delete, "delete atlas relu.9.9.newton.d1000.s0"),
        ("compact", _compact, "compact atlas --retention 1d"),
        ("migrate", _migrate, "migrate atlas"),
        ("export", _export, "export atlas --students 17 -o atlas-17.tar"),
        ("import", _import, "import atlas atlas-17.tar"),
    ):
        app.command(name, epilog=f"Example: enumerator {example}")(command)


def _merge(
    catalogue: CatalogueArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The catalogue to add; it is only read.")],
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Add another catalogue to this one, each start and each minimum once; print what was added.

    Ids and labels of CATALOGUE stay; what OTHER adds keeps its own where they are free. A merge that was stopped is
    finished by the same command; runs may go on meanwhile.
    """
    format = choose_format(format, output)
    target = Catalogue(catalogue)
    with closing(Parts()) as shown:
        summary = merge(target, Catalogue(other), shown)
    _report(summary, format, output)


def _report(summary: MergeSummary, format: str, output: Path | None) -> None:
    """What came in, as a row; a warning where both had a start, with different ends."""
    row = {name: getattr(summary, name) for name in ("campaigns", "minima", "saddles", "starts")}
    write_table(pa.Table.from_pylist([row]), None, format, output)
    if summary.disagreeing:
        say(
            f"warning: {summary.disagreeing:,} starts were there with another end, the first {summary.text_of_first}: "
            "`enumerator verify` on both catalogues tells which is wrong. The ends that were there were kept."
        )


def _delete(
    catalogue: CatalogueArgument,
    campaign: CampaignArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a campaign and its starts. The minima and saddles stay: they are facts about the landscape."""
    atlas = Catalogue(catalogue)
    (row,) = atlas.campaigns(campaign=campaign, columns="starts,status").to_pylist()
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("deleting needs an answer, and this is no terminal: add --yes.")
        running = ", which may be running," if row["status"] == "running" else ""
        say(f"Delete campaign {campaign}{running} and its {row['starts']:,} starts from {catalogue}? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("Nothing was deleted.")
            raise typer.Exit(1)
    starts = delete(atlas, campaign)
    say(f"Deleted campaign {campaign} and {starts:,} starts. `enumerator compact` gives the room back, in its time.")


def _compact(
    catalogue: CatalogueArgument,
    retention: Annotated[
        str, typer.Option(metavar="12h|7d", help="How long versions of the past can still be read.")
    ] = "7d",
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Join small files and remove those of versions older than --retention; print files and bytes of each table."""
    format = choose_format(format, output)
    seconds = duration(retention, "--retention")
    if seconds == 0:
        say("warning: with --retention 0 commands that read or write this catalogue now may fail; nothing is lost.")
    atlas = Catalogue(catalogue)
    with closing(Parts()) as shown:
        report = compact(atlas, timedelta(seconds=seconds), shown)
    write_table(report, None, format, output)
    before, after = (sum(report[f"bytes_{when}"].to_pylist()) for when in ("before", "after"))
    if after > before:
        say(
            f"{after - before:,} bytes more than before, for now: the files that were joined stay for {retention}, for "
            "whoever still reads them. `enumerator compact` removes them then."
        )


def _migrate(catalogue: CatalogueArgument) -> None:
    """Bring a catalogue of an older version of this software to the version of today.

    May be stopped and started again. The older software does not read the catalogue afterwards.
    """
    had = migrate(catalogue)
    if had == SCHEMA_VERSION:
        say(f"{catalogue} has schema version {SCHEMA_VERSION} already: nothing was changed.")
    else:
        say(f"{catalogue} has schema version {SCHEMA_VERSION} now, it had {had}.")


def _export(
    catalogue: CatalogueArgument,
    file: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.tar", help="The bundle to write.")],
    campaign: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|ID", help="Only this campaign and the points that it found; may be given again."),
    ] = None,
    landscape: Annotated[str | None, typer.Option(metavar="ID", help="Only this landscape.")] = None,
    students: Annotated[int | None, typer.Option(help="Only landscapes with so many students.")] = None,
    teachers: Annotated[int | None, typer.Option(help="Only landscapes with so many teachers.")] = None,
) -> None:
    """Write a selection, or all, into one file that explains itself: Parquet tables, schemas, checksums, citation.

    The same content gives the same bytes. `enumerator import` reads it; so does anything that reads Parquet.
    """
    atlas = Catalogue(catalogue)
    with closing(Parts()) as shown:
        rows = export(atlas, file, tuple(campaign or ()), landscape, students, teachers, shown)
    listed = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in rows.items() if count)
    size = f", {file.stat().st_size:,} bytes" if file.is_file() else ""
    say(f"{file}: {listed or 'nothing'}{size}.")


def _import(
    catalogue: Annotated[
        str, typer.Argument(metavar="CATALOGUE", help="Directory of the catalogue, made if it is not there.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="A bundle made by `enumerator export`.")],
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Add what was exported to a catalogue, as merge does, once all of it was checked; print what was added."""
    format = choose_format(format, output)
    if not file.is_file():
        raise InputError(f"expected a bundle made by `enumerator export`, found no file {file}.")
    with closing(Parts()) as shown, opened(file, shown) as tables:
        # Made now, not before: of a bundle that is damaged nothing comes.
        summary = merge_tables(Catalogue(catalogue, create=True), tables, shown)
    _report(summary, format, output)
