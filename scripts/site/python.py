"""The page of the Python interface: every public name, whose docstrings the site builder then reads."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import enumerator
from enumerator import plots, statistics
from scripts.site.text import cell, described, first_sentence, table

_HEAD = """\
# Python

Every name below is reached from `import enumerator as en`. Shapes stand in the types: `Float[Array, "K M"]` is a
float64 array of K rows and M columns.

"""
_MODULES = (("enumerator", enumerator), ("enumerator.statistics", statistics), ("enumerator.plots", plots))


def _path(module: ModuleType, name: str) -> str:
    """Where a public name is defined: packages load it from there when it is first used."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{module.__name__}.{name}"


def _names(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """The public names that are no modules: as they are written, short, and where they are defined."""
    for name in module.__all__:
        if not inspect.ismodule(getattr(module, name)):
            yield f"{module.__name__.replace('enumerator', 'en', 1)}.{name}", name, _path(module, name)


def _summary(module: ModuleType, shown: str, name: str) -> str:
    value = getattr(module, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return ""  # a constant, or a type: the docstring of its class would say nothing of it
    return cell(first_sentence(described(f"`{shown}`", inspect.getdoc(value))))


def _section(title: str, module: ModuleType) -> str:
    rows, entries = [], []
    for shown, name, path in _names(module):
        rows.append((f"[`{shown}`][{path}]", _summary(module, shown, name)))
        options = f"    options:\n      heading: {shown}\n      toc_label: {name}\n      heading_level: 3\n"
        entries.append(f"::: {path}\n{options}")
    return f"## {title}\n\n" + table(("name", "what it is"), rows) + "\n" + "\n".join(entries) + "\n"


def page() -> str:
    """The package first, then its two modules of functions."""
    return _HEAD + "\n".join(_section(title, module) for title, module in _MODULES)
