"""Ids and labels of stationary points: both are given once, and never change."""

from __future__ import annotations

from collections.abc import Container

from enumerator.points import has_zero_loss
from enumerator.problem import Landscape, digest

# A label shows at least six digits, the precision of published tables, and at most twelve: beyond
# these the digits are rounding on some machine, and a counter tells two points apart.
FEWEST_DIGITS, MOST_DIGITS = 6, 12


def _shown_loss(loss: float, landscape: Landscape) -> float:
    return 0.0 if has_zero_loss(loss, landscape) else loss


def point_id(landscape: Landscape, loss: float, is_saddle: bool, taken: Container[str]) -> str:
    """`m-` or `s-` and sixteen hex digits: the hash of landscape and loss, and of a counter where that is taken."""
    content = {"landscape_id": landscape.id, "loss": f"{_shown_loss(loss, landscape):.9e}"}
    prefix = "s-" if is_saddle else "m-"
    counter = 1
    while (name := prefix + digest(content)) in taken:
        counter += 1
        content["counter"] = str(counter)
    return name


def _digits(loss: float, significant: int) -> str:
    """0.0247664 -> "0247664"; 3.25617 -> "3p25617"; 0 -> "0"."""
    if loss == 0:
        return "0"
    exponent = int(f"{loss:.{significant - 1}e}".partition("e")[2])
    whole, _, fraction = f"{loss:.{max(1, significant - 1 - exponent)}f}".partition(".")
    return fraction if whole == "0" else f"{whole}p{fraction}"


def _stem(landscape: Landscape) -> str:
    """`relu.17.17`, with six hex digits of the landscape id unless T = I, unconstrained, fixed second layer."""
    is_plain = set(landscape.to_dict()) <= {"students", "teachers", "activation"}
    stem = f"{landscape.activation}.{landscape.students}.{landscape.teachers}"
    return stem if is_plain else f"{stem}.{landscape.id[3:9]}"


def point_label(landscape: Landscape, loss: float, is_saddle: bool, taken: Container[str]) -> str:
    """A readable name that is not `taken`: `relu.17.17.0247664`, with an `s` behind it for a saddle.

    More digits of the loss where two collide, then a counter (`-2`) where digits do not help.
    """
    possible = possible_labels(landscape, loss, is_saddle)
    for label in possible:
        if label not in taken:
            return label
    counter = 2
    while f"{possible[0]}-{counter}" in taken:
        counter += 1
    return f"{possible[0]}-{counter}"


def possible_labels(landscape: Landscape, loss: float, is_saddle: bool) -> list[str]:
    """The labels, without a counter, that a point of this loss may have: the shortest first."""
    stem, ending, shown = _stem(landscape), "s" if is_saddle else "", _shown_loss(loss, landscape)
    return [f"{stem}.{_digits(shown, significant)}{ending}" for significant in range(FEWEST_DIGITS, MOST_DIGITS + 1)]
