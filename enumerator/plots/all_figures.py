"""All figures of a catalogue at once, each into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from enumerator.errors import InputError
from enumerator.plots.curves import accumulation, stopped_early, trend
from enumerator.plots.histograms import flow_times, lacks_orders, losses, orders
from enumerator.plots.matrices import MOST_MINIMA, overlaps, spectra
from enumerator.statistics.counting import Sample, samples
from enumerator.storage.sql import one_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from enumerator.catalogue.catalogue import Catalogue

KINDS = ("png", "svg", "pdf")

# Minima of each sample whose overlaps `plot_all` draws: those hit most often.
MOST_OVERLAPS = 4


def plot_all(catalogue: Catalogue, folder: Path | str, kind: str = "png", **selection: Any) -> list[Path]:
    """Write every figure of the starts selected into a folder, with a folder below it for each sample.

    Args:
        catalogue: A catalogue.
        folder: Where the files go; it is made if needed.
        kind: Ending of the files: `png`, `svg` or `pdf`.
        **selection: Which starts, by the keywords of `enumerator.statistics.StartSelection`.

    Returns:
        The files.

    Raises:
        InputError: If nothing is selected, for another `kind`, or if the folder cannot be written.
    """
    if kind not in KINDS:
        raise InputError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    chosen = samples(catalogue, **selection)
    if not chosen:
        raise InputError("no starts selected: there is nothing to draw.")
    written: list[Path] = []
    folder = Path(folder)
    for sample in chosen:
        for name, drawn in _figures(catalogue, sample):
            written.append(_save(drawn, folder / sample.names[0] / f"{name}.{kind}"))
    if len({sample.students for sample in chosen}) > 1:
        for of, name in (("global", "share-of-the-global-minimum"), ("order", "mean-order")):
            if of == "global" or any(row["anti_aligned"] is not None for sample in chosen for row in sample.ends()):
                written.append(_save(trend(catalogue, of, **selection), folder / f"{name}.{kind}"))
    return written


def _figures(catalogue: Catalogue, sample: Sample) -> list[tuple[str, Figure]]:
    """The figures of one sample that its starts allow, by name."""
    one: Any = {"campaign": sample.campaign_ids}
    minima = sorted((row for row in sample.ends() if row["hits"]), key=lambda row: -row["hits"])
    figures = [("losses", losses(catalogue, **one))]
    figures += [] if lacks_orders(sample) else [("orders", orders(catalogue, **one))]
    figures += [("flow-times", flow_times(catalogue, **one)), ("accumulation", accumulation(catalogue, **one))]
    if minima:
        often = one_of("minimum_id", [row["minimum_id"] for row in minima[:MOST_MINIMA]])
        figures.append(("spectra", spectra(catalogue, landscape=sample.landscape_id, where=often)))
        if any(row["anti_aligned"] is not None for row in minima):
            figures.append(("stopped-early", stopped_early(catalogue, sample.campaign_ids)))
    for row in minima[:MOST_OVERLAPS]:
        found = catalogue.minimum(row["minimum_id"])
        if found["effective_students"]:
            figures.append((f"overlaps-{row['label']}", overlaps(catalogue, row["minimum_id"])))
    return figures


def _save(drawn: Figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a date: the same catalogue gives the same files.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
        drawn.savefig(path, dpi=200, metadata=metadata)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}: choose another folder with -o.") from None
    return path
