"""The pictures of the pages in docs/concepts/, one module a page: `scripts/concept_pictures` draws them.

A module has `PICTURES`: names of files, without ending, and the functions without arguments that give their figures.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from matplotlib.figure import Figure

MODULES = (
    "overlaps",
    "ends",
    "identity",
    "flat_families",
    "lingering",
    "constraints",
    "second_layer",
    "one_pass",
    "statistics",
)


def all_pictures() -> dict[str, Callable[[], Figure]]:
    """Every picture by its name."""
    found: dict[str, Callable[[], Figure]] = {}
    for name in MODULES:
        found |= importlib.import_module(f"scripts.pictures.{name}").PICTURES
    return found
