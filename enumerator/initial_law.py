"""Where starts begin: the distribution of their initial overlaps, or a table of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enumerator.errors import InputError
from enumerator.validation import check_choice, check_count, check_positive, real_array

# The second layer that a student starts with where it is trained: all ones, or drawn from {-1, 1} or N(0, 1).
SECOND_LAYER_LAWS = ("ones", "signs", "normal")


@dataclass(frozen=True, eq=False)
class InitialLaw:
    """Distribution of initial overlaps: w ~ N(0, scale^2 I_d), in any dimension d, or a table of given overlaps.

    A table has one pair of Q and R for each start. Its law is known by the hash of its bytes, so the same numbers
    give the same campaign, wherever they came from. Constrained students are projected before they start.

    Args:
        dimension: d, the dimension of the inputs, at least the rank of T.
        scale: Standard deviation of each weight, in the units of f(x) = sum_k g(w_k.x / sqrt d).
        second_layer: Law of a second layer that is trained: `ones`, `signs` from {-1, 1}, or `normal`, N(0, 1).
        Q: Overlaps (n, K, K) of the students with each other, in place of a distribution. Needs `R`.
        R: Overlaps (n, K, M) of the students with the teachers. The second layers are then ones.

    Raises:
        InputError: For numbers that are not positive, or only one of Q and R.
    """

    dimension: int = 1000
    scale: float = 1.0
    second_layer: str = "ones"
    Q: NDArray[np.float64] | None = field(default=None, repr=False)
    R: NDArray[np.float64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimension", check_count("dimension", self.dimension))
        object.__setattr__(self, "scale", check_positive("scale", self.scale))
        check_choice("second_layer_law", self.second_layer, SECOND_LAYER_LAWS)
        if self.Q is not None and self.second_layer != "ones":
            raise InputError("given initial overlaps start with a second layer of ones: leave `second_layer_law` out.")
        if (self.Q is None) != (self.R is None):
            raise InputError("a table of initial overlaps needs both Q and R, got only one of them.")
        for name in ("Q", "R"):
            values = getattr(self, name)
            if values is not None:
                values = np.ascontiguousarray(real_array(name, values)) + 0.0
                values.setflags(write=False)
                object.__setattr__(self, name, values)

    @property
    def is_table(self) -> bool:
        """Whether the starts are given one by one."""
        return self.Q is not None

    def to_dict(self) -> dict[str, Any]:
        """What the campaign id hashes: dimension and scale, or the digest of the table."""
        second = {} if self.second_layer == "ones" else {"second_layer": self.second_layer}
        if self.Q is None or self.R is None:
            return {"dimension": self.dimension, "scale": self.scale} | second
        content = hashlib.sha256(self.Q.tobytes() + b"|" + self.R.tobytes()).hexdigest()
        return {"table": content[:32], "table_rows": len(self.Q)} | second
