"""docs/concepts/flat-families.md: the loss where two students share one neuron."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from enumerator.loss.population import compiled_hessian, exact_loss
from enumerator.points import StationaryPoint
from enumerator.problem import Landscape
from scripts.pictures.look import BLUE, RED, WIDTH
from scripts.pictures.runs import enumeration

Matrix = NDArray[np.float64]


def directions() -> Figure:
    """The loss of ten students: two of them share a neuron of a minimum of nine, unequally, or part."""
    found = enumeration(9, 9, 1000)
    landscape = found.result.campaign.landscape
    V = landscape.teacher_factor
    spurious = next(point for point in found.result.points if point.anti_aligned == 1)
    neuron = int(np.argmax(np.diag(spurious.Q)))
    lowest, direction = lowest_split(spurious, neuron)
    drawn = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    shares, sizes = np.linspace(0, 1, 41), np.linspace(0, 0.25, 41)
    cases = ((V, 0, V[1], BLUE, "zero loss"), (spurious.W, neuron, direction, RED, f"loss {spurious.loss:.4f}"))
    for W, copied, way, colour, name in cases:
        still = [rise(landscape, W, copied, share, 0 * way) for share in shares]
        apart = [rise(landscape, W, copied, 0.5, size * way) for size in sizes]
        left.plot(shares, 1e3 * np.array(still), color=colour, linestyle="-" if colour == BLUE else (0, (4, 4)))
        right.plot(sizes, 1e3 * np.array(apart), color=colour, label=name)
    right.plot(sizes, 1e3 * 2 * lowest * sizes**2, ":", color=RED, label="its second order")
    right.legend(loc="upper left")
    left.set(title="norm moves", xlabel="share of a copy", ylabel=r"change of the loss, $10^{-3}$", ylim=(-4, 7))
    right.set(title="the copies part", xlabel=r"$|e|$")
    return drawn


def rise(landscape: Landscape, W: Matrix, neuron: int, share: float, apart: Matrix) -> float:
    """Change of the loss as copies share w + apart and (1 - share) w - apart take the place of a neuron w."""
    w, V = W[neuron], landscape.teacher_factor
    copies = np.stack([share * w + apart, (1 - share) * w - apart])
    student = np.concatenate([np.delete(W, neuron, axis=0), copies])
    return exact_loss(landscape.g, student, V) - exact_loss(landscape.g, W, V)


def lowest_split(point: StationaryPoint, neuron: int) -> tuple[float, Matrix]:
    """The lowest eigenvalue of S = H_ii - I/2 orthogonal to a neuron w_i, and its direction (r,)."""
    landscape, w = point.landscape, point.W[neuron]
    H = compiled_hessian(landscape.g, jnp.asarray(point.W), jnp.asarray(landscape.teacher_factor), None)
    block = np.asarray(H)[neuron, :, neuron] - np.eye(len(w)) / 2
    complement = np.linalg.svd(w[None])[2][1:]
    values, vectors = np.linalg.eigh(complement @ block @ complement.T)
    return float(values[0]), complement.T @ vectors[:, 0]


PICTURES = {"flat_directions": directions}
