"""What a compiled function depends on beside the shapes: the activation, the manifold of the students, the layer."""

from __future__ import annotations

from typing import NamedTuple

from enumerator.activations.base import Activation
from enumerator.constraints.base import Constraint


class Equations(NamedTuple):
    """Hashable, equal for equal landscapes of any size."""

    g: Activation
    manifold: Constraint
    is_trained: bool = False
