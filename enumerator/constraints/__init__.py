"""The constraints on offer. A new one is a file beside these and a line in `CONSTRAINTS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enumerator.constraints.base import Constraint


def _free() -> Constraint:
    from enumerator.constraints.none import Free

    return Free()


def _normalized() -> Constraint:
    from enumerator.constraints.normalized import Normalized

    return Normalized()


def _orthonormalized() -> Constraint:
    from enumerator.constraints.orthonormalized import Orthonormalized

    return Orthonormalized()


# By name; the module of a constraint, and JAX with it, loads when it is first called.
CONSTRAINTS: dict[str, Callable[[], Constraint]] = {
    "none": _free,
    "normalized": _normalized,
    "orthonormalized": _orthonormalized,
}


@cache
def constraint_named(name: str) -> Constraint:
    """The constraint of this name."""
    return CONSTRAINTS[name]()
