"""Campaigns that requests describe: the settings of a campaign file, with matrices in the place of files."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cluster.inputs import Request, as_toml, check_settings, request
from cluster.service.bodies import read_object
from cluster.service.limits import MOST_NEURONS
from enumerator.catalogue.schema import campaign_file_schema
from enumerator.errors import InputError

# What stands for the files of a campaign file: matrices, in the request itself.
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
    with tempfile.TemporaryDirectory(prefix="enumerator-request-") as folder:
        return request(_as_file(read_object(body), Path(folder)))


def write_campaign_file(body: bytes, folder: Path) -> Path:
    """The campaign that a body describes as a file, with those that it names, in `folder`. Raises InputError."""
    file = folder / "campaign.toml"
    file.write_text(as_toml(_as_file(read_object(body), folder)), encoding="utf-8")
    return file


def _as_file(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings as a campaign file has them: matrices in files. Raises InputError."""
    for name, reason in _REFUSED.items():
        if name in settings:
            raise InputError(f"`{name}` {reason}.")
    for name in ("students", "teachers"):
        # A number with a point counts as well: to the schema 1e9 is a whole number.
        if isinstance(settings.get(name), int | float) and settings[name] > MOST_NEURONS:
            raise InputError(f"`{name}` must be at most {MOST_NEURONS} here, got {settings[name]}.")
    matrices = {name: _array(name, settings.pop(name)) for name in _MATRICES if name in settings}
    check_settings(settings, "the request")
    if "T" in matrices:
        np.save(folder / "T.npy", matrices["T"])
        settings["teacher"] = str(folder / "T.npy")
    if "Q" in matrices or "R" in matrices:
        if not {"Q", "R"} <= set(matrices):
            raise InputError("given starts need both Q and R.")
        np.savez(folder / "initial.npz", Q=matrices["Q"], R=matrices["R"])
        settings["initial"] = str(folder / "initial.npz")
    return settings


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` must hold numbers, in lists of one length.") from None
