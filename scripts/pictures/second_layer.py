"""docs/concepts/second-layer.md: every neuron moves along the hyperbola of its balance."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

import enumerator as en
from enumerator.catalogue.campaign_names import name_of
from enumerator.replay import replay
from scripts.pictures.look import BLUE, GREY, ORANGE, WIDTH

SIZE, STARTS = 7, 24


def balance() -> Figure:
    """Length and second-layer weight of each neuron along one start, for two laws of the second layer."""
    drawn = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    for axes, law in zip(panels, ("ones", "signs"), strict=True):
        landscape = en.Landscape(SIZE, SIZE, second_layer="trained")
        found = en.enumerate_minima(landscape, starts=STARTS, law=en.InitialLaw(SIZE, second_layer=law))
        index = _start_with_dead_neurons(found) if law == "signs" else 0
        _paths(axes, replay(found.result.campaign, index).to_pylist())
        axes.set(title=f"law {law}, start {index}", xlabel=r"length $|w|$ of the neuron")
        print(name_of(found.result.campaign), index, found.starts["end_loss"][index])
    panels[0].set_ylabel("second-layer weight $a$")
    return drawn


def _start_with_dead_neurons(found: en.Enumeration) -> int:
    """The first start that ends in a minimum of positive loss with fewer neurons than students."""
    minima = [row for row in found.minima.to_pylist() if row["loss"] > 0]
    few = {row["minimum_id"] for row in minima if row["effective_students"] < SIZE}
    return next(row["start_index"] for row in found.starts.to_pylist() if row["minimum_id"] in few)


def _paths(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Each neuron from its start (open) to its end (full), over hyperbolas |w|^2 - a^2 = c."""
    norms = np.sqrt(np.array([np.reshape(row["Q"], (SIZE, SIZE)).diagonal() for row in rows]))
    layer = np.array([row["second_layer"] for row in rows])
    x, y = np.meshgrid(np.linspace(0, 1.9, 200), np.linspace(-1.9, 1.9, 400))
    axes.contour(x, y, x**2 - y**2, levels=np.arange(-3, 3.1, 0.5), colors=GREY, linewidths=0.5, linestyles="solid")
    for neuron in range(SIZE):
        colour = BLUE if norms[0, neuron] > abs(layer[0, neuron]) else ORANGE
        axes.plot(norms[:, neuron], layer[:, neuron], color=colour)
        axes.plot(norms[0, neuron], layer[0, neuron], "o", color=colour, mfc="white", markersize=5)
        axes.plot(norms[-1, neuron], layer[-1, neuron], "o", color=colour, markersize=5)
    axes.axhline(0, color=GREY, linewidth=0.8)


PICTURES = {"second_layer_balance": balance}
