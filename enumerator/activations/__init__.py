"""The activations on offer. A new one is a file beside these and a line in `ACTIVATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from enumerator.activations.base import Activation
from enumerator.activations.erf import Erf
from enumerator.activations.relu import Rectifier
from enumerator.errors import InputError

# By name: from the slope that the landscape gives (None: none) to the activation.
ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "relu": Rectifier,
    "leaky_relu": Rectifier,
    "erf": Erf,
}
# Those that have a slope.
SLOPED = ("leaky_relu",)


@cache
def activation_named(name: str, slope: float | None = None) -> Activation:
    """The activation of this name. Raises InputError for a slope that it has not, or that is not in [0, 1)."""
    if (slope is not None) != (name in SLOPED):
        raise InputError(f"`activation_slope` goes with activation {', '.join(SLOPED)}, and only with it.")
    if slope is None:
        return ACTIVATIONS[name]()
    if not 0 <= slope < 1:
        raise InputError(f"`activation_slope` must be at least 0 and below 1, got {slope!r}.")
    return ACTIVATIONS[name](slope)
