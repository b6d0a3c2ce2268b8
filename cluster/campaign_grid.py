"""A campaign file with a grid spelled out: which campaigns it is."""

from __future__ import annotations

import difflib
import math
import re
from itertools import product
from pathlib import Path
from typing import Any

from cluster.inputs import FILES, Request, loaded, request, said_of
from enumerator.catalogue.schema import campaign_file_schema
from enumerator.errors import InputError
from enumerator.parsing import shortened, shown

# These may follow the number of teachers: K = M + 1, d = M.
_TIED = re.compile(r"teachers\s*(?:\+\s*(\d{1,9}))?")

# The most campaigns of a file: they are spelled out before the first begins, which takes a minute.
MOST_CAMPAIGNS = 10_000

_MAY_FOLLOW = ("students", "dimension")


def expand(settings: dict[str, Any], folder: Path, options: dict[str, Any]) -> list[Request]:
    """The campaigns of a campaign file with `grid`: every combination of its lists, in order, each campaign once.

    `grid` is one table of lists, or several ([[grid]]) whose combinations are put together. A list of students or
    dimensions may hold `teachers` or `teachers + n`, and be that text alone. `options` win over the file and its grid.
    Raises InputError for names and values that are not allowed.
    """
    common = {name: value for name, value in settings.items() if name != "grid"} | options
    grids = settings["grid"] if isinstance(settings["grid"], list) else [settings["grid"]]
    spelled = [{name: _values(name, grid[name]) for name in grid if name not in options} for grid in grids]
    count = sum(math.prod(map(len, lists.values())) for lists in spelled)
    if count > MOST_CAMPAIGNS:
        raise InputError(f"a grid has {MOST_CAMPAIGNS:,} campaigns at most, got {count:,}: take shorter lists.")
    found: dict[str, Request] = {}
    for lists in spelled:
        for combination in product(*lists.values()):
            chosen = common | dict(zip(lists, combination, strict=True))
            for name in FILES:
                if name in lists and chosen[name] != "orthonormal":
                    chosen[name] = str(folder / chosen[name])
            try:
                wanted = request(loaded(_followed(chosen)))
            except InputError as error:
                place = ", ".join(f"{name} = {value}" for name, value in zip(lists, combination, strict=True))
                raise InputError(f"grid, at {shortened(place)}: {error}") from None
            found.setdefault(wanted.campaign.id, wanted)
    return list(found.values())


def _values(name: str, values: Any) -> list[Any]:
    from jsonschema import Draft202012Validator

    schemas = campaign_file_schema()["properties"]
    known = [key for key in schemas if key not in ("grid", "tolerances")]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise InputError(
            f"grid: unknown setting `{shortened(name)}`: " + (f"did you mean `{close[0]}`?" if close else "see --help.")
        )
    if isinstance(values, str) and name in _MAY_FOLLOW:
        values = [values]
    if not isinstance(values, list) or not values:
        raise InputError(f"grid: `{name}` must be a list of values, got {shown(values)}.")
    validator = Draft202012Validator(schemas[name])
    for value in values:
        if isinstance(value, str) and name in _MAY_FOLLOW:
            if not _TIED.fullmatch(value.strip()):
                raise InputError(f'grid: `{name}` must hold numbers, "teachers" or "teachers + 1", got {shown(value)}.')
        elif (error := next(validator.iter_errors(value), None)) is not None:
            raise InputError(f"grid: `{name}`: {said_of(error)}.")
    return values


def _followed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with numbers for what follows the number of teachers."""
    result = dict(settings)
    for name in _MAY_FOLLOW:
        if isinstance(result.get(name), str):
            if not isinstance(result.get("teachers"), int):
                raise InputError(f"`{name}` follows the teachers: give `teachers` too.")
            match = _TIED.fullmatch(result[name].strip())
            result[name] = result["teachers"] + int((match and match[1]) or 0)
    return result
