"""Initial overlaps: w ~ N(0, s^2 I_d) for any d without d-dimensional vectors, or rows of a given table."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray
from numpy.typing import NDArray

from enumerator.dynamics.symmetric_starts import all_different, lane_classes
from enumerator.loss.overlaps import lift
from enumerator.loss.second_layer import EXTRA, lane_of
from enumerator.minima.effective import release_dead
from enumerator.problem import Campaign, Landscape


def sample_weights(
    key: PRNGKeyArray, students: int, rank: int, degrees: Float[Array, " width"], unit: Float[Array, ""]
) -> Float[Array, "K D"]:
    """Lift of the overlaps of w ~ N(0, unit^2 I_d), D = rank + width.

    The parallel part is Gaussian; the perpendicular Gram matrix is Wishart with d - rank degrees
    of freedom, drawn by its Bartlett factor: a chi of d - rank - j `degrees` on the diagonal of column
    j = 0, 1, ..., N(0, 1) below, zero above. Cost and memory do not depend on d.
    """
    width = len(degrees)
    parallel_key, diagonal_key, below_key = jax.random.split(key, 3)
    parallel = jax.random.normal(parallel_key, (students, rank), dtype=jnp.float64)
    chi = jnp.sqrt(jax.random.chisquare(diagonal_key, degrees, dtype=jnp.float64)) if width else jnp.zeros(0)
    below = jax.random.normal(below_key, (students, width), dtype=jnp.float64)
    perpendicular = jnp.tril(below, -1) + jnp.eye(students, width) * chi[None, :]
    return jnp.concatenate([parallel, perpendicular], axis=1) * unit


def start_key(seed: int | Integer[Array, ""], index: Integer[Array, ""]) -> PRNGKeyArray:
    """The key of one start: a function of seed and index alone, whatever the batch, shard or worker."""
    # The generator by its name: the default is a setting of the user.
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(key, index >> 32), index & 0xFFFFFFFF)


def lane_width(campaign: Campaign) -> int:
    """The number of columns of every lane of the campaign: D of the lifted weights, two more with a second layer."""
    landscape, law = campaign.landscape, campaign.law
    rank = landscape.teacher_rank
    extra = EXTRA if landscape.second_layer == "trained" else 0
    if law.is_table:
        return rank + landscape.students + extra
    return rank + min(landscape.students, law.dimension - rank) + extra


# Starts are drawn so many at a time, or more: drawing takes milliseconds, and compiling it for another shape seconds.
FEWEST_DRAWN = 256


def initial_weights(campaign: Campaign, indices: NDArray[np.int64], block: int = FEWEST_DRAWN) -> NDArray[np.float64]:
    """Lifted weights (n, K, D) of the starts with the given indices (n,), drawn at least `block` at a time.

    A fixed `block` keeps one compiled shape; no start depends on it.
    """
    landscape, law = campaign.landscape, campaign.law
    padded = np.pad(indices, (0, max(0, block - len(indices))), mode="edge")
    at = jnp.asarray(padded, dtype=jnp.int64)
    if law.Q is not None and law.R is not None:
        weights = np.stack([_given_weights(landscape, law.Q[index], law.R[index]) for index in indices])
    else:
        rank, unit = landscape.teacher_rank, law.scale / np.sqrt(law.dimension)
        degrees = np.float64(law.dimension - rank - np.arange(min(landscape.students, law.dimension - rank)))
        draw = _sampler(landscape.students, rank)
        drawn = np.asarray(draw(campaign.seed, at, degrees, unit))[: len(indices)]
        weights = landscape.equations.manifold.project(drawn)
    if landscape.second_layer == "fixed":
        return weights
    layer = _layer_sampler(landscape.students, law.second_layer)
    return lane_of(weights, np.asarray(layer(campaign.seed, at))[: len(indices)])


def _given_weights(landscape: Landscape, Q: NDArray[np.float64], R: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lift (K, r + K) of given overlaps, neurons of zero norm released."""
    weights = np.concatenate(lift(Q, R, landscape.teacher_factor), axis=1)
    return release_dead(landscape.equations.manifold.project(weights), landscape)


def start_classes(campaign: Campaign, indices: NDArray[np.int64]) -> NDArray[np.int32] | None:
    """The symmetry (n, K, M + K) of the starts with these indices (n,), see `lane_classes`; None if none has any.

    Starts drawn at random have none.
    """
    landscape, law = campaign.landscape, campaign.law
    if law.Q is None or law.R is None:
        return None
    classes = [lane_classes(law.Q[index], law.R[index], landscape) for index in indices]
    if all(found is None for found in classes):
        return None
    trivial = all_different(landscape.students, landscape.teachers)
    return np.stack([trivial if found is None else found for found in classes])


# On a CPU the generator's rounds are many lines, which are no faster for being optimised; no number depends on it.
_HARDLY_OPTIMISED = {"xla_backend_optimization_level": 1}


@lru_cache(maxsize=32)
def _sampler(students: int, rank: int) -> Callable[..., Array]:
    """Compiled once for all dimensions that give the same shape: see `sample_weights`, for indices (n,)."""

    def draw(
        seed: Integer[Array, ""], index: Integer[Array, ""], degrees: Float[Array, " width"], unit: Float[Array, ""]
    ) -> Float[Array, "K D"]:
        return sample_weights(start_key(seed, index), students, rank, degrees, unit)

    options = _HARDLY_OPTIMISED if jax.default_backend() == "cpu" else None
    return jax.jit(jax.vmap(draw, in_axes=(None, 0, None, None)), compiler_options=options)


# Folded into the key of a start: its second layer shares nothing with its weights.
_SECOND_LAYER = 0x2A


@lru_cache(maxsize=32)
def _layer_sampler(students: int, law: str) -> Callable[[int, Array], Array]:
    """Seed and indices (n,) to second layers (n, K): ones, signs, or normal numbers."""

    def draw(seed: Integer[Array, ""], index: Integer[Array, ""]) -> Float[Array, " K"]:
        key = jax.random.fold_in(start_key(seed, index), _SECOND_LAYER)
        if law == "ones":
            return jnp.ones(students)
        draw = jax.random.rademacher if law == "signs" else jax.random.normal
        return draw(key, (students,), dtype=jnp.float64)

    return jax.jit(jax.vmap(draw, in_axes=(None, 0)))
