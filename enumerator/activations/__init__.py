"""The activations on offer. A new one is a file beside these and a line in `ACTIVATIONS`."""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from enumerator.errors import InputError

if TYPE_CHECKING:
    from enumerator.activations.base import Activation

# By name, the class of the activation, as module:class: it takes the slope that the landscape gives, if any. The
# module, and JAX with it, loads when it is first asked for.
ACTIVATIONS = {
    "relu": "enumerator.activations.relu:Rectifier",
    "leaky_relu": "enumerator.activations.relu:Rectifier",
    "erf": "enumerator.activations.erf:Erf",
}
# Those that have a slope.
SLOPED = ("leaky_relu",)


def check_slope(name: str, slope: float | None) -> None:
    """Raise InputError for a slope that the activation of this name has not, or that is not in [0, 1)."""
    if (slope is not None) != (name in SLOPED):
        raise InputError(f"`activation_slope` goes with activation {', '.join(SLOPED)}, and only with it.")
    if slope is not None and not 0 <= slope < 1:
        raise InputError(f"`activation_slope` must be at least 0 and below 1, got {slope!r}.")


def homogeneous() -> list[str]:
    """The names of the activations with g(c z) = c g(z) for c > 0."""
    return [name for name, address in ACTIVATIONS.items() if resolve_name(address).is_homogeneous]


@cache
def activation_named(name: str, slope: float | None = None) -> Activation:
    """The activation of this name. Raises InputError for a wrong slope, see `check_slope`."""
    check_slope(name, slope)
    activation = resolve_name(ACTIVATIONS[name])
    return activation() if slope is None else activation(slope)
