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
# Which landscapes and campaigns.
StudentsOption = Annotated[int | None, typer.Option(help="Only landscapes with so many students.")]
TeachersOption = Annotated[int | None, typer.Option(help="Only landscapes with so many teachers.")]
ActivationOption = Annotated[str | None, typer.Option(help="Only landscapes with this activation.")]
LandscapeOption = Annotated[str | None, typer.Option(metavar="ID", help="Only this landscape.")]
CampaignsOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME|ID", help="Only this campaign; may be given again.")
]
DynamicsOption = Annotated[str | None, typer.Option(help="Only campaigns with this dynamics.")]
DimensionOption = Annotated[int | None, typer.Option(help="Only campaigns with this input dimension d.")]
ScaleOption = Annotated[float | None, typer.Option(help="Only campaigns with this scale of the initial weights.")]
SeedOption = Annotated[int | None, typer.Option(help="Only campaigns with this seed.")]
CampaignArgument = Annotated[
    str, typer.Argument(metavar="CAMPAIGN", help="Its name or id, as `enumerator campaigns` lists them.")
]


def say(text: str) -> None:
    """A line for the user, on stderr: stdout is for results."""
    print(printable(text, "\n"), file=sys.stderr, flush=True)
