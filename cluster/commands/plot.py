"""The command that draws."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import CatalogueArgument, say, selecting
from enumerator.catalogue.catalogue import Catalogue


def add_commands(app: typer.Typer) -> None:
    """Enter the command of this module."""
    app.command("plot", epilog="Example: enumerator plot atlas --students 17 --teachers 17 -o figures")(
        selecting(_plot)
    )


def _plot(
    catalogue: CatalogueArgument,
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the figures, made if needed.")
    ],
    kind: Annotated[str, typer.Option(help="Ending of the files: png, svg or pdf.")] = "png",
    selection: dict[str, Any],
) -> None:
    """Draw all figures of the starts selected into a folder, and print their names.

    For each landscape, dynamics and initial law: losses, orders, spectra, overlaps, accumulation, flow times, early
    stops; and the share of the global minimum against the width.
    """
    from enumerator import plots

    written = plots.plot_all(Catalogue(catalogue), output, kind, **selection)
    for path in written:
        print(path)
    for folder in sorted({path.parent for path in written if path.stem == "losses"}):
        if folder / f"orders.{kind}" not in written:
            say(
                f"note: no figure of orders in {folder}: minima have none where T is not diagonal, or the second layer "
                "is trained."
            )
