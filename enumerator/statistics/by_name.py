"""The statistics by name, as the command and the service offer them: which options each takes, and its table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.snapshot import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

# What `stats --of` prints. Their functions load SciPy's distributions, which takes a second: when first called.
TABLES = ("frequencies", "unseen", "accumulation", "distributions", "comparison", "trend")

# The options that not all of them take.
_TAKES = {"frequencies": ("by",), "distributions": ("by", "quantity"), "trend": ("quantity",), "unseen": ("more",)}


def misplaced(of: str, options: Iterable[str]) -> tuple[str, str] | None:
    """The first of the options by, quantity and more that the table `of` does not take, and the tables that do."""
    for name in options:
        if name not in _TAKES.get(of, ()):
            return name, " or ".join(key for key, names in _TAKES.items() if name in names)
    return None


def computed(
    atlas: Catalogue | Snapshot, of: str, options: dict[str, Any], confidence: float, selection: dict[str, Any]
) -> pa.Table:
    """The table `of`, one of TABLES, of the starts selected; its `options` are by, quantity and more. InputError."""
    from enumerator import statistics

    options = {"of" if name == "quantity" else name: value for name, value in options.items()}
    if of == "comparison":
        campaigns = selection.get("campaign")
        rest = {name: value for name, value in selection.items() if name != "campaign"}
        return statistics.compare(atlas, confidence=confidence, campaigns=campaigns, **rest)
    if of == "distributions":
        return statistics.distributions(atlas, **options, **selection)
    function = {"frequencies": statistics.frequencies, "unseen": statistics.unseen}
    function |= {"accumulation": statistics.accumulation, "trend": statistics.trend}
    return function[of](atlas, confidence=confidence, **options, **selection)
