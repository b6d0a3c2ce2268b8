"""The constraints on offer. A new one is a file beside these and a line in `CONSTRAINTS`."""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enumerator.constraints.base import Constraint

# By name, the class of the constraint, as module:class, which loads, and JAX with it, when it is first asked for.
CONSTRAINTS = {
    "none": "enumerator.constraints.none:Free",
    "normalized": "enumerator.constraints.normalized:Normalized",
    "orthonormalized": "enumerator.constraints.orthonormalized:Orthonormalized",
}


@cache
def constraint_named(name: str) -> Constraint:
    """The constraint of this name."""
    return resolve_name(CONSTRAINTS[name])()
