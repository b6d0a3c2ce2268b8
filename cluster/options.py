"""Arguments and options that several commands take, and how they talk to the user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.terminal import printable

CatalogueArgument = Annotated[str, typer.Argument(metavar="CATALOGUE", help="Directory of the catalogue.")]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="table, json, csv, arrow or parquet; by the ending of -o, or table, if not given."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Into FILE: .txt, .json, .csv, .arrow, .feather, .parquet, .csv.gz."
    ),
]


def say(text: str) -> None:
    """A line for the user, on stderr: stdout is for results."""
    print(printable(text, "\n"), file=sys.stderr, flush=True)
