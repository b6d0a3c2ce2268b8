"""The peers of `scripts/benchmark`: what else descends the same loss from the same starts, each on its own terms.

Each peer takes reduced weights (n, K, D), teachers V (M, r) and the activation, and returns an `Answer`. All of them
are handed this project's loss and gradient, compiled once before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from enumerator.activations.base import Activation
from enumerator.loss.population import fast_gradient, fast_loss, teacher_constant

# Where the peers stop: the gradient norm in reduced weights. None of them gives a verdict.
STOP = 1e-7
DESCENT_STOP, DESCENT_STEP = 1e-9, 0.25


class Answer(NamedTuple):
    """Final weights (n, K, D), evaluations of the gradient of each start (n,), and how many stopped as they should."""

    weights: np.ndarray
    evaluations: np.ndarray
    finished: int


Peer = Callable[[np.ndarray], Answer]


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt((x * x).sum())


def tsit5(g: Activation, V: np.ndarray) -> Peer:
    """Gradient flow by diffrax's Tsit5 with its PID controller, vmapped, stopped by an event at STOP.

    The tolerance is a thousandth of STOP: with a larger one its steps, at the border of stability, keep the gradient
    above.
    """
    import diffrax

    rate = partial(fast_gradient, g)

    def at_rest(t, y, args, **kwargs) -> jax.Array:
        return _norm(rate(y, V)) < STOP

    def end(W: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -rate(y, V)),
            diffrax.Tsit5(),
            t0=0.0,
            t1=1e6,
            dt0=0.01,
            y0=W,
            stepsize_controller=diffrax.PIDController(rtol=STOP / 1000, atol=STOP / 1000, pcoeff=0.3, icoeff=0.4),
            event=diffrax.Event(at_rest),
            max_steps=20_000,
            throw=False,
            saveat=diffrax.SaveAt(t1=True),
        )
        # Six stages a step (the seventh is the first of the next), and one for the event.
        return found.ys[0], 7 * found.stats["num_steps"], found.result == diffrax.RESULTS.event_occurred

    compiled = jax.jit(jax.vmap(end))

    def solve(weights: np.ndarray) -> Answer:
        ends, evaluations, finished = jax.device_get(compiled(jnp.asarray(weights)))
        return Answer(ends, evaluations, int(finished.sum()))

    return solve


def lbfgs(g: Activation, V: np.ndarray) -> Peer:
    """SciPy's L-BFGS-B, one start after the other, on the jitted loss and gradient."""
    constant = teacher_constant(g, V)

    @jax.jit
    def both(W: jax.Array) -> tuple[jax.Array, jax.Array]:
        return fast_loss(g, W, V, constant), fast_gradient(g, W, V)

    def solve(weights: np.ndarray) -> Answer:
        shape = weights.shape[1:]

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            loss, slope = both(x.reshape(shape))
            return float(loss), np.asarray(slope).ravel()

        options = {"maxiter": 20_000, "maxfun": 50_000, "gtol": STOP / np.sqrt(weights[0].size), "ftol": 0.0}
        found = [
            scipy.optimize.minimize(objective, W.ravel(), jac=True, method="L-BFGS-B", options=options) for W in weights
        ]
        # Its line search gives up where the loss no longer tells points apart, at a gradient of about the square
        # root of the rounding of the loss: that is as far as it gets.
        finished = sum(float(np.linalg.norm(result.jac)) < 1e-6 for result in found)
        ends = np.stack([result.x.reshape(shape) for result in found])
        return Answer(ends, np.array([result.nfev for result in found]), finished)

    return solve


def bfgs(g: Activation, V: np.ndarray) -> Peer:
    """optimistix's BFGS, vmapped."""
    import optimistix

    constant = teacher_constant(g, V)

    @jax.custom_jvp
    def loss(W: jax.Array) -> jax.Array:
        return fast_loss(g, W, V, constant)

    # The closed-form gradient, as for everybody else: automatic differentiation of the angles costs more.
    @loss.defjvp
    def _loss_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        return loss(primals[0]), (fast_gradient(g, primals[0], V) * tangents[0]).sum()

    solver = optimistix.BFGS(rtol=0.0, atol=STOP, norm=_tree_norm)

    def end(W: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        found = optimistix.minimise(lambda y, args: loss(y), solver, W, max_steps=20_000, throw=False)
        return found.value, found.stats["num_steps"], _norm(fast_gradient(g, found.value, V)) < 1e-5

    compiled = jax.jit(jax.vmap(end))

    def solve(weights: np.ndarray) -> Answer:
        ends, evaluations, finished = jax.device_get(compiled(jnp.asarray(weights)))
        return Answer(ends, evaluations, int(finished.sum()))

    return solve


def _tree_norm(tree: object) -> jax.Array:
    return jnp.sqrt(sum((leaf * leaf).sum() for leaf in jax.tree.leaves(tree)))


def descent(g: Activation, V: np.ndarray) -> Peer:
    """Plain gradient descent with a step of DESCENT_STEP, vmapped, until every lane is at DESCENT_STOP."""

    def moves(carry: tuple) -> jax.Array:
        _, norms, count = carry
        return (norms > DESCENT_STOP).any() & (count < 200_000)

    def move(carry: tuple) -> tuple:
        W, _, count = carry
        slope = jax.vmap(lambda w: fast_gradient(g, w, V))(W)
        return W - DESCENT_STEP * slope, jax.vmap(_norm)(slope), count + 1

    @jax.jit
    def end(W: jax.Array) -> tuple:
        return jax.lax.while_loop(moves, move, (W, jnp.full(len(W), jnp.inf), 0))

    def solve(weights: np.ndarray) -> Answer:
        ends, norms, count = jax.device_get(end(jnp.asarray(weights)))
        return Answer(ends, np.full(len(weights), count), int((norms <= DESCENT_STOP).sum()))

    return solve
