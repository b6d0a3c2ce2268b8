"""How many points permutations make of a stored one, exactly: from the name of its isotropy group."""

from __future__ import annotations

import math
import re
from typing import Any

import pyarrow as pa

from enumerator.catalogue.records import landscape_from_row
from enumerator.symmetry.canonical import group_of

# Largest difference of the stored logarithm and that of the exact number: rounding.
_AGREE = 1e-9
_FACTOR = re.compile(r"S(\d+)(?:\^(\d+))?")
_ORDER = re.compile(r"order (\d+) on [\d+]+")


def isotropy_order(name: str) -> int | None:
    """The order of the group that is named as `CanonicalForm.isotropy` names it; None for another name."""
    order = 1
    for part in name.split(", students "):
        if found := _ORDER.fullmatch(part):
            order *= int(found[1])
            continue
        for factor in part.split(" x "):
            found = _FACTOR.fullmatch(factor)
            if found is None:
                return None
            order *= math.factorial(int(found[1])) ** int(found[2] or 1)
    return order


def orbit_size(row: dict[str, Any], landscape: dict[str, Any]) -> int | None:
    """K! |Aut T| / |isotropy group| of a row of `minima` or `saddles`, K its effective students; None if it is flat.

    `landscape` is its row of `landscapes`. None as well where what is stored contradicts itself: `verify` says so.
    """
    stored, isotropy = row["orbit_size_log10"], row["isotropy"]
    stabiliser = None if isotropy is None else isotropy_order(isotropy)
    if stored is None or not stabiliser:
        return None
    copies = math.factorial(row["effective_students"]) * group_of(landscape_from_row(landscape).teacher_classes)[1]
    size, remainder = divmod(copies, stabiliser)
    return size if not remainder and size and abs(math.log10(size) - stored) <= _AGREE else None


def with_orbit_size(rows: pa.Table, landscapes: pa.Table) -> pa.Table:
    """Rows of `minima` or `saddles` with a last column `orbit_size`: digits, since a number may be too long for others.

    `landscapes` has their landscapes.
    """
    known = {row["landscape_id"]: row for row in landscapes.to_pylist()}
    sizes = [orbit_size(row, known[row["landscape_id"]]) for row in rows.to_pylist()]
    return rows.append_column("orbit_size", pa.array([None if size is None else str(size) for size in sizes]))
