"""docs/concepts/overlaps.md: one start in its overlaps."""

from __future__ import annotations

from matplotlib.figure import Figure

from scripts.pictures.look import BLACK, BLUE, GREY, RED, WIDTH
from scripts.pictures.runs import enumeration, path


def one_start() -> Figure:
    """The entries of R and the loss against flow time, of the first start that ends at order 1."""
    found = enumeration(9, 9, 1000)
    first_order = next(row["minimum_id"] for row in found.minima.to_pylist() if row["anti_aligned"] == 1)
    start = next(row["start_index"] for row in found.starts.to_pylist() if row["minimum_id"] == first_order)
    way = path(found.result.campaign, start)
    drawn = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for student in range(9):
        for teacher in range(9):
            last = way.R[-1, student, teacher]
            colour, height = (BLUE, 3) if last > 0.5 else (RED, 4) if last < -0.3 else (GREY, 2)
            upper.plot(way.flow_time, way.R[:, student, teacher], color=colour, linewidth=1.2, zorder=height)
    for colour, name in ((BLUE, "student and its teacher"), (GREY, "others"), (RED, "the anti-aligned student")):
        upper.plot([], [], color=colour, label=name)
    upper.legend(loc="center left", bbox_to_anchor=(0, 0.72))
    upper.set(ylabel="entries of R", xscale="log", xlim=(0.1, way.flow_time[-1]))
    lower.plot(way.flow_time, way.loss, color=BLACK)
    for row in found.minima.to_pylist()[1:]:  # that of zero loss has no place on a logarithmic axis
        lower.axhline(row["loss"], color=GREY, linestyle="--", linewidth=1, zorder=0)
        where = (0.11, row["loss"])
        lower.annotate(f"order {row['anti_aligned']}", where, textcoords="offset points", xytext=(0, 1), color="0.35")
    lower.set(yscale="log", ylim=(0.01, None), ylabel="loss", xlabel="flow time")
    return drawn


PICTURES = {"overlaps_one_start": one_start}
