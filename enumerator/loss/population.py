"""Population loss of student and teacher for any activation: value, gradient, Hessian-vector product, Hessian, and C.

Everything is a function of an activation g, reduced weights W (K, D), teachers V (M, r), r <= D, and second-layer
weights a (K,) of the student, None for all ones; those of the teacher are ones. V fills the first r coordinates, the
others are perpendicular to all teachers. The prefix `fast` marks the route by arccos, see `geometry`.
Formulas: Safran & Shamir (2018), section 2; Saad & Solla (1995); the design of this project, checked against
automatic differentiation and Monte Carlo in the tests.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from enumerator.activations.base import Activation
from enumerator.activations.geometry import (
    TINY,
    Geometry,
    Teachers,
    all_neurons,
    combined,
    exact_geometry,
    fast_geometry,
    overlaps_with,
)
from enumerator.activations.relu import Rectifier
from enumerator.loss.overlaps import Overlaps
from enumerator.process_checks import check_jax

# Second-layer weights of the student, None for all ones.
SecondLayer = Float[Array, " K"] | None


def _signed(a: SecondLayer, geometry: Geometry) -> Float[Array, " N"]:
    """The second-layer weights of all neurons in f - f*: a, then -1 for every teacher."""
    K, N = geometry.cosine.shape
    students = jnp.ones(K, geometry.cosine.dtype) if a is None else a
    return jnp.concatenate([students, -jnp.ones(N - K, students.dtype)])


def _weighted(a: SecondLayer, x: Float[Array, "K ..."]) -> Float[Array, "K ..."]:
    """a_i x_i."""
    return x if a is None else a.reshape(-1, *[1] * (x.ndim - 1)) * x


def _at_rest(g: Activation, norms: Float[Array, " K"]) -> Bool[Array, " K"]:
    """Neurons of zero norm, which have no gradient where the activation has a kink."""
    return (norms == 0) & g.is_homogeneous


def _loss_of(g: Activation, geometry: Geometry, a: SecondLayer, constant: Float[Array, ""]) -> Float[Array, ""]:
    K = len(geometry.norms)
    rows = _weighted(a, g.kernel(geometry))
    return 0.5 * (rows[:, :K] * _signed(a, geometry)[:K]).sum() - rows[:, K:].sum() + constant


def teacher_constant(g: Activation, V: Teachers) -> Float[Array, ""]:
    """The part of the loss that the teachers fix: 1/2 sum_mn k(v_m, v_n)."""
    V = jnp.asarray(V)
    return 0.5 * g.kernel(exact_geometry(V, V[:0])).sum()


def weight_loss(
    g: Activation, W: Float[Array, "K D"], V: Float[Array, "M r"], a: SecondLayer = None
) -> Float[Array, ""]:
    """Half the mean squared error of reduced weights W (K, D) against V (M, r), angles by arctangent."""
    return _loss_of(g, exact_geometry(W, V), a, teacher_constant(g, V))


@partial(jax.jit, static_argnums=0)
def _kernel_matrix(g: Activation, neurons: Float[Array, "N D"]) -> Float[Array, "N N"]:
    """k of all pairs of neurons."""
    return g.kernel(exact_geometry(neurons, neurons[:0]))


def exact_loss(g: Activation, W: np.ndarray, V: np.ndarray, a: np.ndarray | None = None) -> float:
    """`weight_loss` on the host with the sum of the kernels rounded once: what is stored. Absolute error 1e-15.

    The loss of a good student is a small difference of (K + M)^2 kernels; summed in any order it
    would be off by 1e-13 at K = M = 17, a fifth of the digits of a loss of 1e-5.
    """
    neurons = np.concatenate([W, np.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))])
    signed = np.concatenate([np.ones(len(W)) if a is None else a, -np.ones(len(V))])
    terms = np.asarray(_kernel_matrix(g, neurons)) * np.outer(signed, signed) / 2
    return max(0.0, math.fsum(terms.ravel()))


def fast_loss(
    g: Activation, W: Float[Array, "K D"], V: Teachers, constant: Float[Array, ""], a: SecondLayer = None
) -> Float[Array, ""]:
    """`weight_loss` with angles by arccos, absolute error 1e-15 K^2; `constant` is `teacher_constant(g, V)`."""
    return _loss_of(g, fast_geometry(W, V), a, constant)


def population_loss(
    overlaps: Overlaps, activation: Activation | None = None, a: SecondLayer = None
) -> Float[Array, ""]:
    """Half the mean squared error of a student, from its overlaps, under x ~ N(0, I). Cho & Saul (2009), eq. 6.

    Overlaps give angles by arccos. So the angles of nearly parallel neurons lose half of their digits; the loss itself
    is flat to third order there. You can differentiate it by JAX.

    Args:
        overlaps: Q (K, K), R (K, M) and T (M, M), without batch dimensions.
        activation: The function g, such as `Landscape.g`; ReLU if none is given.
        a: Second layer (K,) of the student; ones if none is given. That of the teacher is always ones.

    Returns:
        The loss, a scalar in double precision.

    Examples:
        >>> import jax.numpy as jnp
        >>> overlaps = en.Overlaps(Q=jnp.eye(2), R=jnp.zeros((2, 2)), T=jnp.eye(2))  # students orthogonal to teachers
        >>> round(float(en.population_loss(overlaps)), 6)  # 1 - 1/pi
        0.68169
        >>> overlaps = en.Overlaps.from_weights(W=2 * jnp.eye(2), V=jnp.eye(2))  # students twice the teachers
        >>> round(float(en.population_loss(overlaps)), 6)
        0.659155
    """
    check_jax()
    g = activation or Rectifier()
    joint = jnp.block([[overlaps.Q, overlaps.R], [overlaps.R.T, overlaps.T]])
    norms = jnp.sqrt(jnp.diagonal(joint))
    cosine = jnp.clip(joint / jnp.maximum(norms[:, None] * norms[None, :], TINY), -1.0, 1.0)
    cosine = jnp.where(jnp.eye(len(norms), dtype=bool), 1.0, cosine)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    K = overlaps.Q.shape[0]
    signed = jnp.concatenate([jnp.ones(K) if a is None else a, -jnp.ones(len(norms) - K)])
    return 0.5 * signed @ g.kernel(Geometry(norms, norms, cosine, sine, jnp.arccos(cosine))) @ signed


def _gradient_of(
    g: Activation, geometry: Geometry, W: Float[Array, "K D"], V: Teachers, a: SecondLayer
) -> Float[Array, "K D"]:
    """C W - B V; zero in the row of a neuron at rest, which has one-sided derivatives only."""
    K = W.shape[0]
    signed = _signed(a, geometry)
    mutual = g.mutual(geometry)
    students = mutual[:, :K] if a is None else mutual[:, :K] * a
    gradient = students @ W + g.alpha(geometry, signed)[:, None] * W
    gradient = gradient.at[:, : V.shape[1]].add(-combined(mutual[:, K:], V))
    return jnp.where(_at_rest(g, geometry.norms)[:, None], 0.0, _weighted(a, gradient))


def gradient(
    g: Activation, W: Float[Array, "K D"], V: Float[Array, "M r"], a: SecondLayer = None
) -> Float[Array, "K D"]:
    """Gradient of the loss in reduced weights, angles by arctangent."""
    return _gradient_of(g, exact_geometry(W, V), W, V, a)


def fast_gradient(g: Activation, W: Float[Array, "K D"], V: Teachers, a: SecondLayer = None) -> Float[Array, "K D"]:
    """Gradient with angles by arccos, error 3e-15: what the batch loop evaluates."""
    return _gradient_of(g, fast_geometry(W, V), W, V, a)


def fast_layer_gradients(
    g: Activation, W: Float[Array, "K D"], V: Teachers, a: Float[Array, " K"]
) -> tuple[Float[Array, "K D"], Float[Array, " K"]]:
    """Gradients in W and in the second layer a: dL/da_i = sum_j a_j k(w_i, w_j) - sum_m k(w_i, v_m)."""
    geometry = fast_geometry(W, V)
    return _gradient_of(g, geometry, W, V, a), g.kernel(geometry) @ _signed(a, geometry)


class Derivatives(NamedTuple):
    """Loss, gradient, and the Hessian applied to one direction, at one point."""

    loss: Float[Array, ""]
    gradient: Float[Array, "K D"]
    hessian_product: Float[Array, "K D"]


def _geometry_rates(geometry: Geometry, W: Float[Array, "K D"], V: Teachers, P: Float[Array, "K D"]) -> Geometry:
    """Rates of change of norms and angles along P, in closed form.

    The derivative of an angle grows like 1/sin t, its effect on the product vanishes like sin t: a
    collinear pair contributes nothing.
    """
    norms, others, cosine, sine, _ = geometry
    mixed = P @ W.T
    inverse_norms = jnp.where(norms == 0, 0.0, 1 / jnp.maximum(norms, TINY))
    norm_rates = jnp.diagonal(mixed) * inverse_norms
    other_rates = jnp.concatenate([norm_rates, jnp.zeros(V.shape[0])])
    product_rates = jnp.concatenate([mixed + mixed.T, overlaps_with(V, P)], axis=1)
    inverse_others = jnp.where(others == 0, 0.0, 1 / jnp.maximum(others, TINY))
    cosine_rates = product_rates * inverse_norms[:, None] * inverse_others[None, :] - cosine * (
        (norm_rates * inverse_norms)[:, None] + (other_rates * inverse_others)[None, :]
    )
    off_diagonal = ~jnp.eye(*sine.shape, dtype=bool)
    angle_rates = jnp.where(off_diagonal & (sine > 0), -cosine_rates / jnp.maximum(sine, TINY), 0.0)
    cosine_rates, sine_rates = -sine * angle_rates, cosine * angle_rates
    return Geometry(norm_rates, other_rates, cosine_rates, sine_rates, angle_rates)


def fast_derivatives(
    g: Activation, W: Float[Array, "K D"], V: Teachers, P: Float[Array, "K D"], constant: Float[Array, ""]
) -> Derivatives:
    """Loss, gradient and Hessian product H P by differentiating C W - B V along P, for a second layer of ones."""
    K, r = W.shape[0], V.shape[1]
    geometry = fast_geometry(W, V)
    at_rest = _at_rest(g, geometry.norms)[:, None]
    P = jnp.where(at_rest, 0.0, P)
    signed = _signed(None, geometry)
    (mutual, alpha), (mutual_rates, alpha_rates) = jax.jvp(
        lambda geometry: (g.mutual(geometry), g.alpha(geometry, signed)),
        (geometry,),
        (_geometry_rates(geometry, W, V, P),),
    )
    product = mutual[:, :K] @ P + mutual_rates[:, :K] @ W + alpha[:, None] * P + alpha_rates[:, None] * W
    product = product.at[:, :r].add(-combined(mutual_rates[:, K:], V))
    product = jnp.where(at_rest, 0.0, product)
    return Derivatives(_loss_of(g, geometry, None, constant), _gradient_of(g, geometry, W, V, None), product)


def perpendicular_block(
    g: Activation, W: Float[Array, "K D"], V: Float[Array, "M r"], a: SecondLayer = None
) -> Float[Array, "K K"]:
    """C = A + diag(alpha), the Hessian in each direction perpendicular to all neurons and teachers."""
    geometry = exact_geometry(W, V)
    block = g.mutual(geometry)[:, : W.shape[0]]
    block = block if a is None else a[:, None] * block * a[None, :]
    return block + jnp.diag(_weighted(a, g.alpha(geometry, _signed(a, geometry))))


def hessian(
    g: Activation, W: Float[Array, "K D"], V: Float[Array, "M r"], a: SecondLayer = None
) -> Float[Array, "K D K D"]:
    """Closed-form Hessian in reduced weights, exact to rounding also at and near collinear pairs.

    Blocks a_i a_j d^2 k(w_i, w_j)/dw_i dw_j, and on the diagonal a_i times the sum over all neurons n of
    a_n d^2 k(w_i, n)/dw_i^2 besides. Rows of a neuron at rest are zero.
    """
    K = W.shape[0]
    geometry = exact_geometry(W, V)
    blocks, own = g.hessian_blocks(all_neurons(W, V), geometry, _signed(a, geometry))
    if a is not None:
        blocks = a[:, None, None, None] * blocks * a[None, :, None, None]
    blocks = blocks.at[jnp.arange(K), jnp.arange(K)].add(_weighted(a, own))
    at_rest = _at_rest(g, geometry.norms)  # not "norm <= 0 or NaN": what is not a number must stay visible
    blocks = jnp.where((at_rest[:, None] | at_rest[None, :])[:, :, None, None], 0.0, blocks)
    return blocks.transpose(0, 2, 1, 3)


# Compiled once per activation and shape.
compiled_gradient = jax.jit(gradient, static_argnums=0)
compiled_hessian = jax.jit(hessian, static_argnums=0)
compiled_perpendicular = jax.jit(perpendicular_block, static_argnums=0)


def one_sided_derivative(
    g: Activation, direction: np.ndarray, W: np.ndarray, V: np.ndarray, a: np.ndarray | None = None
) -> float:
    """Rate of the loss as a neuron of zero norm grows along `direction` (D,), per unit norm; g homogeneous.

    sum_j a_j k(u, w_j) - sum_m k(u, v_m) at the unit vector u: to first order the loss is linear in the
    norm of a small neuron, and the other students W (K, D) and teachers V (M, r) stay where they are.
    """
    unit = np.asarray(direction) / np.linalg.norm(direction)
    students = np.asarray(W).reshape(-1, len(unit))
    neurons = np.concatenate([unit[None], students, np.pad(V, ((0, 0), (0, len(unit) - V.shape[1])))])
    kernel = np.asarray(_kernel_matrix(g, neurons))[0, 1:]
    weights = np.ones(len(students)) if a is None else a
    return float(kernel[: len(students)] @ weights - kernel[len(students) :].sum())


def one_sided_gradient(
    g: Activation, direction: np.ndarray, W: np.ndarray, V: np.ndarray, a: np.ndarray | None = None
) -> np.ndarray:
    """Gradient (D,) with respect to a vanishingly small neuron w along `direction`, where the loss is linear in |w|."""
    unit = np.asarray(direction) / np.linalg.norm(direction)
    neurons = jnp.concatenate([1e-100 * jnp.asarray(unit)[None], jnp.asarray(W).reshape(-1, len(unit))])
    layer = None if a is None else jnp.concatenate([jnp.ones(1), jnp.asarray(a)])
    return np.asarray(compiled_gradient(g, neurons, jnp.asarray(V), layer)[0])


def as_numpy(x: Array) -> np.ndarray:
    """A float64 numpy copy on the host."""
    return np.asarray(x, dtype=np.float64)
