"""Independent routes that the tests compare with: definitions written out plainly, and published numbers."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from enumerator.activations import activation_named
from enumerator.constraints import constraint_named
from enumerator.loss.equations import Equations

# The activation of most tests.
RELU = activation_named("relu")
# Of unconstrained students.
FREE = Equations(RELU, constraint_named("none"))

REFERENCE = Path(__file__).parents[1] / "reference"


def published_cases() -> list[dict]:
    """Stationary points recomputed from the data of Safran & Shamir (2018); see the file's own source note."""
    return json.loads((REFERENCE / "published_minima.json").read_text())["cases"]


@jax.jit
def plain_loss(W, V):
    """The population loss, Cho & Saul (2009), eq. 6, for automatic differentiation away from collinear pairs."""
    neurons = jnp.concatenate([W, jnp.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))])
    signs = jnp.concatenate([jnp.ones(len(W)), -jnp.ones(len(V))])
    own = jnp.eye(len(neurons), dtype=bool)
    norms = jnp.sqrt((neurons**2).sum(axis=1))
    product = norms[:, None] * norms[None, :]
    # A neuron with itself stands at angle zero, where arccos has no derivative: |u|^2/2 instead.
    angle = jnp.arccos(jnp.where(own, 0.0, neurons @ neurons.T / product))
    kernel = product * (jnp.sin(angle) + (np.pi - angle) * jnp.cos(angle)) / (2 * np.pi)
    return signs @ jnp.where(own, norms**2 / 2, kernel) @ signs / 2


def exact_global_spectrum(M):
    """Eigenvalues, with multiplicities, at the global minimum for K = M = d >= 3 and an orthonormal teacher."""
    pi = np.pi
    pairs = [(M / 4 + 1 / 2, (M + 1) / 16 + 1 / (4 * pi) - 1 / (4 * pi**2), M - 1)]
    last_sum = M * (1 / 4 + 1 / (2 * pi)) + 1 / 2
    last_product = M**2 / (8 * pi) + M * (1 / 16 - 1 / (8 * pi) + 1 / (4 * pi**2)) + 1 / 16 + 1 / (4 * pi)
    pairs.append((last_sum, last_product - 1 / (4 * pi**2), 1))
    values = [1 / 4 - 1 / (2 * pi)] * (M * (M - 1) // 2) + [1 / 4 + 1 / (2 * pi)] * (M * (M - 3) // 2)
    for total, product, multiplicity in pairs:
        root = np.sqrt(total**2 / 4 - product)
        values += [total / 2 - root] * multiplicity + [total / 2 + root] * multiplicity
    return np.sort(values)
