"""Campaigns that requests describe: the settings of a campaign file, with matrices in the place of files."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from cluster.inputs import Request, check_settings, request, shaped, sized
from cluster.service.bodies import read_object
from cluster.service.limits import MOST_NEURONS
from enumerator.catalogue.schema import campaign_file_schema
from enumerator.errors import InputError

# What stands for the files of a campaign file.
_MATRICES = ("T", "Q", "R")
# Settings of a campaign file that a request cannot have, and why.
_REFUSED = {
    "teacher": "names a file, which a request cannot: send T",
    "initial": "names a file, which a request cannot: send Q and R",
    "grid": "makes many campaigns of one file, and a request starts one: send a request for each",
}


def settings_schema() -> dict[str, Any]:
    """What a campaign file may hold, with matrices in the place of files; of one campaign."""
    schema = copy.deepcopy(campaign_file_schema())
    properties = schema["properties"]
    for name in _REFUSED:
        properties.pop(name)
    for name in ("students", "teachers"):
        properties[name]["maximum"] = MOST_NEURONS
    matrix = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    properties["T"] = {**matrix, "description": "Teacher overlaps (M, M); orthonormal teachers if not given."}
    for name, shape in (("Q", "(n, K, K)"), ("R", "(n, K, M)")):
        properties[name] = {"type": "array", "items": matrix, "description": f"Given initial overlaps {shape}."}
    example = {"students": 9, "teachers": 9, "starts": 1000, "seed": 0}
    return {key: schema[key] for key in ("type", "additionalProperties", "required", "properties")} | {
        "example": example
    }


def read_request(body: bytes) -> Request:
    """The campaign that a body describes. Raises InputError for settings that cannot be."""
    settings = read_object(body)
    for name, reason in _REFUSED.items():
        if name in settings:
            raise InputError(f"`{name}` {reason}.")
    for name in ("students", "teachers"):
        # A number with a point counts as well: to the schema 1e9 is a whole number.
        if isinstance(settings.get(name), int | float) and settings[name] > MOST_NEURONS:
            raise InputError(f"`{name}` must be at most {MOST_NEURONS} here, got {settings[name]}.")
    matrices = {name: _array(name, settings.pop(name)) for name in _MATRICES if name in settings}
    check_settings(settings, "the request")
    if ("Q" in matrices) != ("R" in matrices):
        raise InputError("given starts need both Q and R.")
    if "Q" in matrices:
        matrices["Q"], matrices["R"] = shaped(matrices, sized(settings))
    return request(settings | matrices)


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(value, np.float64)
    except (OverflowError, TypeError, ValueError):
        raise InputError(f"`{name}` must hold numbers, in lists of one length.") from None
