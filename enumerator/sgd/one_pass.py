"""One-pass SGD of a real two-layer network in d dimensions: a fresh Gaussian sample at every update.

On x ~ N(0, I_d) the weights w (K, d), and the second layer a (K,) where it is trained, go down the gradient of
1/2 (f(x) - f*(x))^2 of that one sample. With learning rate `step` on the weights sqrt(d) w of a network that
divides its pre-activations by sqrt(d), that is for reduced weights

    w_k <- w_k - step/d (f - f*) a_k g'(w_k.x) x,    flow time t = step x updates / d:

each unit of flow time averages over d/step samples, and as the step falls the overlaps follow the gradient flow of
the population loss (Saad & Solla 1995; Goldt et al. 2019). `step_bias.overlap_bias` says how fast.

The law of the sample is invariant under rotations of R^d. So is that of the overlaps' trajectory, given those at
the start: the teachers may fill the first r coordinates, and the lifted students the first D, padded with zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Integer, PRNGKeyArray
from numpy.typing import NDArray

from enumerator.activations.base import Activation
from enumerator.errors import InputError
from enumerator.lanes.sampling import initial_weights, lane_width, start_key
from enumerator.loss.second_layer import EXTRA
from enumerator.problem import Campaign, Landscape

# A pytree of what is trained: first_layer (K, d), and second_layer (K,) where it is.
Parameters = dict[str, Array]

# Folded into the key of a start: its samples share nothing with the draw of its initial weights.
_SAMPLES = 0x5347D
# On a CPU the weights of a batch and their average keep within this many bytes, those of its second-level cache.
_CACHE_BYTES = 1 << 20
# Updates are numbered by 32 bits in the keys of the samples.
_MOST_UPDATES = 2**32


class TwoLayer(nn.Module):
    """f(x) = sum_k a_k g(w_k.x): reduced weights w (K, d), and a (K,), all ones unless it is trained."""

    students: int
    activation: Activation
    trains_second_layer: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The output for one input x (d,)."""
        shape = (self.students, x.shape[0])
        W = self.param("first_layer", nn.initializers.normal(1 / np.sqrt(x.shape[0])), shape, jnp.float64)
        hidden = self.activation.apply(W @ x)
        if not self.trains_second_layer:
            return hidden.sum()
        return self.param("second_layer", nn.initializers.ones, (self.students,), jnp.float64) @ hidden


def network_of_landscape(landscape: Landscape) -> TwoLayer:
    """The student of a landscape."""
    return TwoLayer(landscape.students, landscape.g, landscape.second_layer == "trained")


def sample_key(seed: int, index: Integer[Array, ""]) -> PRNGKeyArray:
    """The key of all samples of one start, a function of seed and index alone."""
    return jax.random.fold_in(start_key(seed, index), _SAMPLES)


def draw_sample(key: PRNGKeyArray, update: Integer[Array, ""], dimension: int) -> Float[Array, " d"]:
    """The sample x ~ N(0, I_d) of one update, a function of the start's key and the number of the update alone.

    Drawn in single precision, which takes half the time (random numbers are two thirds of a run, at K = 8), and
    computed with in double: 2^23 equally likely values, whose second, fourth and sixth moments are those of a
    Gaussian less 4e-6, 4e-5 and 2e-4 of them, far below what a step of finite size does.
    """
    return jax.random.normal(jax.random.fold_in(key, update), (dimension,), jnp.float32).astype(jnp.float64)


def sgd_update(
    landscape: Landscape, V: Float[Array, "M r"], rate: float | Float[Array, ""]
) -> Callable[[Parameters, Float[Array, " d"]], Parameters]:
    """One update of the parameters on a sample x (d,), by automatic differentiation; `rate` is step/d.

    Normalized students are put back on the sphere after it.
    """
    network, g = network_of_landscape(landscape), landscape.g

    def sample_loss(parameters: Parameters, x: Float[Array, " d"]) -> Float[Array, ""]:
        target = g.apply(V @ x[: V.shape[1]]).sum()
        return 0.5 * jnp.square(network.apply({"params": parameters}, x) - target)  # type: ignore[operator]  # no tuple: nothing is mutable

    def update(parameters: Parameters, x: Float[Array, " d"]) -> Parameters:
        moved = jax.tree.map(lambda p, slope: p - rate * slope, parameters, jax.grad(sample_loss)(parameters, x))
        return _constrained(landscape, moved)

    return update


def _constrained(landscape: Landscape, parameters: Parameters) -> Parameters:
    if landscape.constraint != "normalized":
        return parameters
    W = parameters["first_layer"]
    return parameters | {"first_layer": W / jnp.sqrt((W * W).sum(axis=-1, keepdims=True))}


# Samples that are drawn at once: one by one, an update takes twice as long.
_DRAWN_TOGETHER = 20


@lru_cache(maxsize=32)
def _kernel(landscape: Landscape) -> Callable:
    """Compiled once per landscape and shape: updates [first, last) of a batch of runs; parameters, and their averages.

    Averages are over the last of each `_DRAWN_TOGETHER` updates, and those left over: a few out of the tens of
    thousands for which a fluctuation lasts.
    """

    def run(V: Array, rate: Array, first: Array, last: Array, key: PRNGKeyArray, parameters: Parameters) -> tuple:
        update = sgd_update(landscape, V, rate)
        dimension = parameters["first_layer"].shape[1]

        def together(part: Array, carry: tuple[Parameters, Parameters]) -> tuple[Parameters, Parameters]:
            numbers = first + part * _DRAWN_TOGETHER + jnp.arange(_DRAWN_TOGETHER)
            samples = jax.vmap(lambda k: draw_sample(key, k, dimension))(numbers)
            moved = jax.lax.fori_loop(0, _DRAWN_TOGETHER, lambda j, p: update(p, samples[j]), carry[0])
            return moved, jax.tree.map(jnp.add, carry[1], moved)

        def alone(k: Array, carry: tuple[Parameters, Parameters]) -> tuple[Parameters, Parameters]:
            moved = update(carry[0], draw_sample(key, k, dimension))
            return moved, jax.tree.map(jnp.add, carry[1], moved)

        whole = (last - first) // _DRAWN_TOGETHER
        rest = first + whole * _DRAWN_TOGETHER
        carry = (parameters, jax.tree.map(jnp.zeros_like, parameters))
        carry = jax.lax.fori_loop(0, whole, together, carry)
        moved, sums = jax.lax.fori_loop(rest, last, alone, carry)
        return moved, jax.tree.map(lambda total: total / (whole + last - rest), sums)

    return jax.jit(jax.vmap(run, in_axes=(None, None, None, None, 0, 0)))


class Plan(NamedTuple):
    """A run of `blocks` blocks of `updates` updates each: the flow time asked for, or a little longer."""

    dimension: int
    step: float
    blocks: int
    updates: int

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.blocks * self.updates

    @property
    def flow_times(self) -> NDArray[np.float64]:
        """At the start and after each block (blocks + 1,)."""
        return np.linspace(0, self.step / self.dimension * self.total, self.blocks + 1)


def plan_runs(campaign: Campaign, blocks: int) -> Plan:
    """The runs of a one-pass-sgd campaign in `blocks` blocks, or InputError."""
    landscape, dynamics, d = campaign.landscape, campaign.dynamics, campaign.law.dimension
    if dynamics.step is None or dynamics.flow_time is None:
        raise InputError(f"`dynamics` must be one-pass-sgd, with `step` and `flow_time`, got {dynamics.name}.")
    if landscape.constraint == "orthonormalized":
        raise InputError("`constraint` must be none or normalized for one-pass-sgd, got orthonormalized.")
    asked = dynamics.flow_time * d / dynamics.step  # may be beyond every number
    updates = np.ceil(asked / blocks * (1 - 1e-12))
    if not blocks * updates < _MOST_UPDATES:
        raise InputError(f"`flow_time` x d / `step` must be below 2^32 updates, got {asked:.3g}: take a larger step.")
    return Plan(d, dynamics.step, blocks, int(updates))


def check_sgd(campaign: Campaign) -> None:
    """Raise InputError for what one-pass SGD does not do, and for a dimension in which given overlaps do not fit."""
    if campaign.landscape.second_layer != "fixed":
        raise InputError(
            "`second_layer` must be fixed for one-pass-sgd in this version: `trajectories` follows it along the way."
        )
    plan = plan_runs(campaign, 1)
    embedded(np.zeros((0, 0, lane_width(campaign))), plan.dimension)


def embedded(W: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """Lifted weights (n, K, D) padded with zeros to (n, K, d); InputError if d is too small for them."""
    if W.shape[-1] > dimension:
        raise InputError(
            f"`dimension` must be at least {W.shape[-1]} for these initial overlaps, the rank of T and one for each "
            f"student, got {dimension}."
        )
    return np.pad(W, ((0, 0), (0, 0), (0, dimension - W.shape[-1])))


class Runs:
    """A few runs that advance together, from the initial overlaps of their starts; `parameters` lead with an axis n."""

    def __init__(self, campaign: Campaign, indices: NDArray[np.int64], plan: Plan) -> None:
        landscape = campaign.landscape
        self.landscape, self.plan, self.done = landscape, plan, 0
        self.V = jnp.asarray(landscape.teacher_factor)
        self.keys = jax.vmap(lambda index: sample_key(campaign.seed, index))(jnp.asarray(indices, dtype=jnp.int64))
        drawn, parameters = initial_weights(campaign, indices), {}
        if landscape.second_layer == "trained":
            drawn, parameters["second_layer"] = drawn[..., :-EXTRA], jnp.asarray(drawn[..., -EXTRA])
        parameters["first_layer"] = jnp.asarray(embedded(drawn, plan.dimension))
        self.parameters = _constrained(landscape, parameters)

    def advance(self) -> Parameters:
        """Do the updates of the next block; returns the averages of the parameters over it."""
        first, last = self.done, self.done + self.plan.updates
        rate = jnp.asarray(self.plan.step / self.plan.dimension)
        # Long lists of updates run on the device alone, whatever their number.
        self.parameters, averages = _kernel(self.landscape)(
            self.V, rate, jnp.asarray(first), jnp.asarray(last), self.keys, self.parameters
        )
        self.done = last
        return averages

    def overlaps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Q (n, K, K) and R (n, K, M) now."""
        W = self.parameters["first_layer"]
        Q, R = jnp.einsum("nkd,njd->nkj", W, W), W[..., : self.V.shape[1]] @ self.V.T
        return np.asarray(Q), np.asarray(R)


def batches(indices: NDArray[np.int64], landscape: Landscape, dimension: int) -> list[NDArray[np.int64]]:
    """The indices (n,) in batches that fit the cache of a core, or an eighth of the memory of an accelerator."""
    run_bytes = 2 * 8 * landscape.students * dimension
    device = jax.devices()[0]
    memory = (
        _CACHE_BYTES if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit", 8 << 30) // 8
    )
    lanes = int(np.clip(memory // run_bytes, 4, 1 << 14))
    return [indices[first : first + lanes] for first in range(0, len(indices), lanes)]


@dataclass(frozen=True)
class Trajectory:
    """Overlaps along n runs at P evenly spaced flow times (P,), the first 0: Q (n, P, K, K), R (n, P, K, M).

    `second_layer` (n, P, K) where it is trained.
    """

    flow_time: NDArray[np.float64]
    Q: NDArray[np.float64]
    R: NDArray[np.float64]
    second_layer: NDArray[np.float64] | None = None


def trajectories(campaign: Campaign, indices: NDArray[np.int64], intervals: int = 100) -> Trajectory:
    """The runs with these indices (n,) from their initial overlaps to the flow time of the campaign.

    Memory grows with the number of `intervals`, not with that of the updates. Raises InputError for what one-pass
    SGD does not do, and for a dimension in which the initial overlaps do not fit.
    """
    plan = plan_runs(campaign, intervals)
    seen: list[list[NDArray[np.float64]]] = [[], [], []]
    for batch in batches(indices, campaign.landscape, plan.dimension):
        runs = Runs(campaign, batch, plan)
        along = [_state(runs)]
        for _ in range(intervals):
            runs.advance()
            along.append(_state(runs))
        for column, values in zip(seen, zip(*along, strict=True), strict=True):
            column.append(np.stack(values, axis=1))
    Q, R, second = (np.concatenate(column) for column in seen)
    return Trajectory(plan.flow_times, Q, R, second if second.size else None)


def _state(runs: Runs) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Overlaps and second layer (n, 0 without)."""
    second = runs.parameters.get("second_layer", jnp.zeros((len(runs.keys), 0)))
    return *runs.overlaps(), np.asarray(second)
