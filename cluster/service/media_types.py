"""The media types of answers, and which of them was asked for."""

from __future__ import annotations

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
# The first is what a client gets that takes anything.
MEDIA_TYPES = {"json": "application/json", "arrow": ARROW, "parquet": PARQUET, "csv": "text/csv"}
# Other names that clients use.
_ALIASES = {"application/parquet": PARQUET, "application/x-parquet": PARQUET, "application/arrow": ARROW}


def choose_media_type(accept: str | None) -> str | None:
    """The format, a key of MEDIA_TYPES, that an Accept header prefers (RFC 9110); None if it takes none of them."""
    best: tuple[float, int, str] | None = None
    ranges = [_weighed(entry) for entry in (accept or "*/*").split(",") if entry.strip()]
    for order, (name, media_type) in enumerate(MEDIA_TYPES.items()):
        family = media_type.partition("/")[0] + "/*"
        # The most specific range that fits counts, whatever its weight.
        fitting = [weight for pattern in (media_type, family, "*/*") for kind, weight in ranges if kind == pattern]
        if fitting and fitting[0] > 0 and (best is None or fitting[0] > best[0]):
            best = (fitting[0], order, name)
    return None if best is None else best[2]


def _weighed(entry: str) -> tuple[str, float]:
    """The media type of one entry of an Accept header, and its weight."""
    kind, *parameters = (part.strip().lower() for part in entry.split(";"))
    weight = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                weight = 0.0
    return _ALIASES.get(kind, kind), weight
