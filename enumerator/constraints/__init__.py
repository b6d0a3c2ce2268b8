"""The constraints on offer. A new one is a file beside these and a line in `CONSTRAINTS`."""

from __future__ import annotations

from enumerator.constraints.base import Constraint
from enumerator.constraints.none import Free
from enumerator.constraints.normalized import Normalized
from enumerator.constraints.orthonormalized import Orthonormalized

CONSTRAINTS: dict[str, Constraint] = {
    "none": Free(),
    "normalized": Normalized(),
    "orthonormalized": Orthonormalized(),
}
