"""Arguments and options that several commands take, and how they talk to the user."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.terminal import printable
from enumerator.catalogue.selection import MEANINGS

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
# Which landscapes and campaigns: the options that `selecting` gives a command, each a name of its selection. Some
# commands take one campaign, others several.
CampaignOption = Annotated[str | None, typer.Option(metavar="NAME|ID", help=MEANINGS["campaign"])]
CampaignsOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME|ID", help="Only this campaign; may be given again.")
]
_SELECTION: dict[str, Any] = {
    "students": Annotated[int | None, typer.Option(help=MEANINGS["students"])],
    "teachers": Annotated[int | None, typer.Option(help=MEANINGS["teachers"])],
    "activation": Annotated[str | None, typer.Option(help=MEANINGS["activation"])],
    "landscape": Annotated[str | None, typer.Option(metavar="ID", help=MEANINGS["landscape"])],
    "campaign": CampaignsOption,
    "dynamics": Annotated[str | None, typer.Option(help=MEANINGS["dynamics"])],
    "dimension": Annotated[int | None, typer.Option(help=MEANINGS["dimension"])],
    "scale": Annotated[float | None, typer.Option(help=MEANINGS["scale"])],
    "seed": Annotated[int | None, typer.Option(help=MEANINGS["seed"])],
}
CampaignArgument = Annotated[
    str, typer.Argument(metavar="CAMPAIGN", help="Its name or id, as `enumerator campaigns` lists them.")
]


def selecting(command: Callable[..., None], campaign: Any = CampaignsOption) -> Callable[..., None]:
    """A command with options in the place of its parameter `selection`, which it is handed as a dictionary.

    `campaign` is the option of that name: several campaigns, or one.
    """
    own = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (_SELECTION | {"campaign": campaign}).items()
    ]
    others = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own.parameters.values()]
    place = list(own.parameters).index("selection")

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        # Of several none is a list of none.
        selection = {name: None if (value := given.pop(name)) == [] else value for name in _SELECTION}
        command(selection=selection, **given)

    with_options.__signature__ = own.replace(parameters=[*others[:place], *options, *others[place + 1 :]])  # type: ignore[attr-defined]  # what `inspect.signature` looks for
    return with_options


def say(text: str) -> None:
    """A line for the user, on stderr: stdout is for results."""
    print(printable(text, "\n"), file=sys.stderr, flush=True)
