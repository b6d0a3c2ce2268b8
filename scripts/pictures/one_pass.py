"""docs/concepts/one-pass-sgd.md: the population loss along runs of one-pass SGD, and along the flow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

import enumerator as en
from enumerator.replay import replay
from scripts.pictures.look import BLACK, BLUE, GREY, ORANGE, WIDTH

SIZE, DIMENSION, STARTS, FLOW_TIME = 8, 100, 48, 240.0
STEPS = ((0.1, ORANGE), (0.02, BLUE))


def loss_along() -> Figure:
    """Of the starts that the flow takes to a minimum of positive loss, the one that is there first."""
    law = en.InitialLaw(DIMENSION)
    found = en.enumerate_minima(en.Landscape(SIZE, SIZE), starts=STARTS, law=law)
    spurious = [row for row in found.starts.to_pylist() if row["end_loss"] is not None and row["end_loss"] > 1e-3]
    first = min(spurious, key=lambda row: row["flow_time"])
    index, level = first["start_index"], first["end_loss"]
    drawn = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = drawn.subplots()
    for step, colour in STEPS:
        dynamics = en.Dynamics("one-pass-sgd", step=step, flow_time=FLOW_TIME)
        rows = replay(replace(found.result.campaign, dynamics=dynamics), index).to_pylist()
        times, losses = ([row[name] for row in rows] for name in ("flow_time", "loss"))
        axes.plot(times, losses, color=colour, linewidth=1.1, label=f"SGD, step {step:g}")
        late = [loss for time, loss in zip(times, losses, strict=True) if time >= 0.8 * FLOW_TIME]
        print(f"start {index}, step {step}: mean loss over the last fifth {np.mean(late):.5f}, minimum {level:.5f}")
    rows = replay(found.result.campaign, index).to_pylist()
    axes.plot(*([row[name] for row in rows] for name in ("flow_time", "loss")), color=BLACK, label="gradient flow")
    axes.axhline(level, color=BLACK, linewidth=0.8, linestyle=":")
    axes.axvspan(0.8 * FLOW_TIME, FLOW_TIME, color=GREY, alpha=0.25, linewidth=0)
    axes.text(0.9 * FLOW_TIME, 0.42, "averaged", ha="center")
    axes.set(xlim=(0, FLOW_TIME), ylim=(0.015, 1), yscale="log", xlabel="flow time $t$", ylabel="population loss")
    axes.legend(loc="upper center")
    return drawn


PICTURES = {"one_pass_loss": loss_along}
