"""The page of the Python interface: every public name, whose docstrings the site builder then reads."""

from __future__ import annotations

import inspect
from types import ModuleType

import enumerator
from enumerator import plots, statistics

_HEAD = """\
# Python

Every name below is reached from `import enumerator as en`. Shapes stand in the types: `Float[Array, "K M"]` is a
float64 array of K rows and M columns.

"""


def _path(module: ModuleType, name: str) -> str:
    """Where a public name is defined: packages load it from there when it is first used."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{module.__name__}.{name}"


def _section(title: str, module: ModuleType, level: int) -> str:
    entries = []
    for name in module.__all__:
        if inspect.ismodule(getattr(module, name)):
            continue
        shown = f"{module.__name__.replace('enumerator', 'en', 1)}.{name}"
        options = f"    options:\n      heading: {shown}\n      toc_label: {name}\n      heading_level: {level}\n"
        entries.append(f"::: {_path(module, name)}\n{options}")
    return f"## {title}\n\n" + "\n".join(entries) + "\n"


def page() -> str:
    """The package first, then its two modules of functions."""
    sections = (("enumerator", enumerator), ("enumerator.statistics", statistics), ("enumerator.plots", plots))
    return _HEAD + "\n".join(_section(title, module, 3) for title, module in sections)
