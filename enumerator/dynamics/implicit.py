"""The gradient flow where explicit steps do not get on: implicit steps, and neurons of zero norm as events.

Two kinds of lanes hang. The direction of a short neuron w relaxes at a rate of order 1/|w|, so a neuron that dies
in finite time stops every explicit step; and on a nearly flat family, such as that of nearly collinear teachers, the
flow takes 10^9 and longer. Both are plain for a linearly implicit step with the exact Hessian, here the L-stable
Rosenbrock formula of order two with an estimate of order three of Shampine & Reichelt (1997), "The MATLAB ODE suite",
section 3. On the host, one lane at a time, since few lanes need it.

A neuron that reaches zero norm is an event. Its direction, which is infinitely fast there, goes to a local minimum of
the one-sided derivative of the loss; if the loss falls along it the neuron grows again, else it is dead. A dead neuron
leaves along the steepest descent as soon as there is a direction of descent, and stays as long as there is none. Of
several dead ones one leaves at a time: together, in one direction, they would stay parallel for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.activations.base import Activation
from enumerator.activations.geometry import all_neurons, exact_geometry
from enumerator.loss.population import SecondLayer, gradient, hessian
from enumerator.loss.second_layer import EXTRA
from enumerator.problem import Landscape

Lane = NDArray[np.float64]

# Local error of a step over the norm of each neuron: a tenth of what the batch loop allows over that of all.
_ERROR = 1e-5
_SAFETY, _SHRINK, _GROW = 0.8, 0.2, 4.0
# No neuron moves by more than this part of its norm in a step: none steps over zero, where its direction turns.
_LARGEST_MOVE = 0.5
# The longest step over the rate at which the flow leaves a saddle: implicit steps beyond 2 would make it attractive.
_LONGEST_ESCAPE = 0.5
# A neuron is at zero below this part of the norm of the shortest teacher: what the rest of the student sees of it is a
# hundredth of the error of a step.
_ZERO = 1e-7
# A neuron leaves zero if the loss falls at this rate at least, over the norm of the teachers: the rounding of the rate
# is 1e-15, and the descent on the sphere ends within 1e-6 of an angle, hence within 1e-12 of the lowest rate.
_LEAVES = 1e-9
# Steps of a descent on the sphere, each half of what is stable: from where a neuron came to zero to the end of its way,
# and on from the ends of the last look, which every so many looks begins anew.
_TURNS, _FURTHER_TURNS, _ANEW = 300, 30, 16
# What a step costs, in evaluations of the gradient: three of them, and a Hessian that is diagonalised.
STEP_COST = 16

_D = 1 / (2 + np.sqrt(2))
_E32 = 6 + np.sqrt(2)


class FlowPoint(NamedTuple):
    """A lane at an accepted step: X (K, D), or (K, D + 2) with a second layer; `gradient_norm` of all that moves."""

    X: Lane
    flow_time: float
    gradient_norm: float
    steps: int


@partial(jax.jit, static_argnums=0)
def _rate(g: Activation, W: Float[Array, "K D"], V: Float[Array, "M r"], a: SecondLayer) -> Float[Array, " n"]:
    """Minus the gradient in W, and in a where it is trained, flat."""
    slope = -gradient(g, W, V, a).ravel()
    return slope if a is None else jnp.concatenate([slope, -_layer_slope(g, W, V, a)])


def _layer_slope(
    g: Activation, W: Float[Array, "K D"], V: Float[Array, "M r"], a: Float[Array, " K"]
) -> Float[Array, " K"]:
    kernel = g.kernel(exact_geometry(W, V))
    return kernel @ jnp.concatenate([a, -jnp.ones(V.shape[0])])


@partial(jax.jit, static_argnums=0)
def _curvature(g: Activation, W: Float[Array, "K D"], V: Float[Array, "M r"], a: SecondLayer) -> Float[Array, "n n"]:
    """The Hessian in W, and in a where it is trained."""
    H = hessian(g, W, V, a).reshape(W.size, W.size)
    if a is None:
        return H
    # The angles do not depend on a: automatic differentiation meets no collinear pair.
    mixed = jax.jacfwd(lambda layer: gradient(g, W, V, layer).ravel())(a)
    own = g.kernel(exact_geometry(W, V))[:, : len(a)]
    return jnp.block([[H, mixed], [mixed.T, own]])


@partial(jax.jit, static_argnums=(0, 1))
def _lowest_on_sphere(
    g: Activation,
    turns: int,
    units: Float[Array, "n D"],
    W: Float[Array, "K D"],
    V: Float[Array, "M r"],
    a: SecondLayer,
    sign: Float[Array, ""],
) -> tuple[Float[Array, "n D"], Float[Array, " n"]]:
    """From each unit vector the local minimum of the loss's rate along a new small neuron of weight `sign`; the rates.

    The descent is by short steps, since the direction of a neuron at zero follows the flow on the sphere.
    """
    layer = jnp.ones(len(W)) if a is None else a
    total = jnp.abs(layer) @ jnp.sqrt((W * W).sum(axis=1)) + jnp.sqrt((V * V).sum(axis=1)).sum()

    def rate(u: Float[Array, " D"]) -> Float[Array, " D"]:
        neurons = jnp.concatenate([1e-100 * u[None], W])
        return sign * gradient(g, neurons, V, jnp.concatenate([jnp.ones(1), layer]))[0]

    def turn(_: Any, u: Float[Array, " D"]) -> Float[Array, " D"]:
        slope = rate(u)
        moved = (
            u - (slope - (slope @ u) * u) / total
        )  # second derivatives are below total/pi, and the rate below total/2
        return moved / jnp.sqrt(moved @ moved)

    ends = jax.vmap(lambda u: jax.lax.fori_loop(0, turns, turn, u))(units)
    return ends, jax.vmap(lambda u: rate(u) @ u)(ends)


def _vanished(length: float) -> bool:
    """Whether a step is too short to be one."""
    return not length > np.finfo(float).tiny  # true for NaN


class _Flow:
    """One lane under way; dead neurons are rows of zeros."""

    def __init__(self, landscape: Landscape, X: Lane) -> None:
        self.g, self.V = landscape.g, jnp.asarray(landscape.teacher_factor)
        self.is_trained = landscape.equations.is_trained
        self.W = (X[:, :-EXTRA] if self.is_trained else X).copy()
        self.a = X[:, -EXTRA].copy() if self.is_trained else None
        self.balance = X[:, -1] if self.is_trained else None
        self.scale = landscape.teacher_scale
        norms = landscape.teacher_norms
        self.zero = _ZERO * float(norms[norms > 0].min())
        self.looks = 0
        self.lows: dict[float, Lane] = {}  # by the sign of a dead neuron: where the descents of the last look ended

    @property
    def lane(self) -> Lane:
        """X as the batch loop knows it."""
        if self.a is None or self.balance is None:
            return self.W.copy()
        return np.concatenate([self.W, self.a[:, None], self.balance[:, None]], axis=1)

    def _split(self, y: NDArray[np.float64]) -> tuple[Lane, NDArray[np.float64] | None]:
        size = self.W.size
        return y[:size].reshape(self.W.shape), y[size:] if self.a is not None else None

    def _joined(self) -> NDArray[np.float64]:
        return self.W.ravel() if self.a is None else np.concatenate([self.W.ravel(), self.a])

    def _moves(self) -> NDArray[np.bool_]:
        """Which entries of the flat state move: not those of dead neurons."""
        alive = self.W.any(axis=1)
        rows = np.repeat(alive, self.W.shape[1])
        return rows if self.a is None else np.concatenate([rows, alive])

    def rate(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """dy/dt of the flat state."""
        W, a = self._split(y)
        return np.asarray(_rate(self.g, jnp.asarray(W), self.V, a))

    def slope(self) -> float:
        """Norm of the gradient in all that moves."""
        return float(np.linalg.norm(self.rate(self._joined())))

    def _error(self, y: NDArray[np.float64], off: NDArray[np.float64]) -> float:
        """The largest error of a neuron over what is allowed."""
        W, a = self._split(y)
        off_W, off_a = self._split(off)
        worst = np.linalg.norm(off_W, axis=1) / np.maximum(np.linalg.norm(W, axis=1), self.zero)
        if a is not None and off_a is not None:
            worst = np.maximum(worst, np.abs(off_a) / np.maximum(np.abs(a), np.linalg.norm(W, axis=1) + self.zero))
        return float(worst.max()) / _ERROR

    def _moves_too_far(self, y: NDArray[np.float64], new: NDArray[np.float64]) -> bool:
        W, moved = self._split(y)[0], self._split(new - y)[0]
        return bool((np.linalg.norm(moved, axis=1) > _LARGEST_MOVE * np.linalg.norm(W, axis=1)).any())

    def step(self, length: float) -> tuple[float, float]:
        """One accepted step of at most this length: the length it had, and what to try next; NaN if there is none."""
        y = self._joined()
        moves = self._moves()
        curvature = np.asarray(_curvature(self.g, jnp.asarray(self.W), self.V, self.a))[np.ix_(moves, moves)]
        values, vectors = np.linalg.eigh(curvature)
        rate = self.rate(y)
        fastest = -min(float(values.min(initial=0.0)), -np.finfo(float).tiny)
        length = min(length, _LONGEST_ESCAPE / fastest)
        while not _vanished(length):
            inverse = np.zeros((len(y), len(y)))
            inverse[np.ix_(moves, moves)] = (vectors / (1 + length * _D * values)) @ vectors.T
            first = inverse @ rate
            middle = self.rate(y + length / 2 * first)
            second = inverse @ (middle - first) + first
            new = y + length * second
            third = inverse @ (self.rate(new) - _E32 * (second - middle) - 2 * (first - rate))
            error = self._error(y, length / 6 * (first - 2 * second + third))
            if error <= 1 and not self._moves_too_far(y, new):  # false for NaN
                self.W, self.a = self._split(new)
                return length, length * float(np.clip(_SAFETY * max(error, 1e-12) ** (-1 / 3), 1.0, _GROW))
            length *= float(np.clip(_SAFETY * error ** (-1 / 3), _SHRINK, 0.5)) if error > 1 else 0.5
        return np.nan, np.nan

    def _sign(self, neuron: int) -> float:
        return 1.0 if self.a is None else float(np.sign(self.a[neuron]))

    def _lowest(self, units: Lane, sign: float, turns: int) -> tuple[Lane, NDArray[np.float64]]:
        at = jnp.asarray(self.W)
        ends, rates = _lowest_on_sphere(self.g, turns, jnp.asarray(units), at, self.V, self.a, sign)
        return np.asarray(ends), np.asarray(rates)

    def meet_zero(self) -> bool:
        """Settle the neurons that have come to zero norm, and let one of the dead leave; whether anything changed."""
        norms = np.linalg.norm(self.W, axis=1)
        arrived = np.flatnonzero((norms > 0) & (norms < self.zero))
        for neuron in arrived.tolist():
            unit = self.W[neuron] / norms[neuron]
            self.W[neuron] = 0.0
            ends, rates = self._lowest(unit[None], self._sign(neuron), _TURNS)
            if rates[0] < -_LEAVES * self.scale:
                self.W[neuron] = 2 * self.zero * ends[0]
        return self._release() or bool(arrived.size)

    def _release(self) -> bool:
        """Let one dead neuron leave along the steepest descent, if there is any."""
        dead = np.flatnonzero(~self.W.any(axis=1)).tolist()
        for sign in sorted({self._sign(neuron) for neuron in dead}, reverse=True):
            begins = self.looks % _ANEW == 0 or sign not in self.lows
            units, turns = (self._directions(), _TURNS) if begins else (self.lows[sign], _FURTHER_TURNS)
            self.lows[sign], rates = self._lowest(units, sign, turns)
            lowest = int(np.argmin(rates))
            if rates[lowest] < -_LEAVES * self.scale:
                self.W[next(n for n in dead if self._sign(n) == sign)] = 2 * self.zero * self.lows[sign][lowest]
                return True
        self.looks += bool(dead)
        return False

    def _directions(self) -> Lane:
        """Where descents on the sphere begin (2 K + 2 M, D): along all neurons, and against them."""
        neurons = np.asarray(all_neurons(jnp.asarray(self.W), self.V))
        norms = np.linalg.norm(neurons, axis=1)
        longest = neurons[np.argmax(norms)]
        units = np.where(norms[:, None] > 0, neurons, longest) / np.where(norms > 0, norms, norms.max())[:, None]
        return np.concatenate([units, -units])


def implicit_flow(landscape: Landscape, X: Lane, flow_time: float) -> Iterator[FlowPoint]:
    """The flow of homogeneous neurons from X (K, D), or (K, D + 2) with a second layer, at each accepted step.

    It goes on until whoever asks has seen enough, or no step is short enough. Free students only.
    """
    flow, steps = _Flow(landscape, X), 0
    flow.meet_zero()
    wanted = 1e-3
    while np.isfinite(wanted):
        taken, wanted = flow.step(wanted)
        if not np.isfinite(taken):
            return
        flow_time, steps = flow_time + taken, steps + 1
        if flow.meet_zero():
            wanted = taken
        yield FlowPoint(flow.lane, flow_time, flow.slope(), steps)
