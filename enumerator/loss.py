"""Population loss of the ReLU student and teacher: value, gradient, Hessian-vector product, Hessian, and C.

Everything is a function of reduced weights W (K, D) and teachers V (M, r), r <= D: V fills the
first r coordinates, the others are perpendicular to all teachers. Two routes to the angle t between
u and v: arccos of the cosine, whose error cancels in the gradient (3e-15), in the batch loop; and
2 atan2(|u - v|, |u + v|) of unit vectors, exact to rounding for every t, wherever second derivatives
are stored. Formulas: Safran & Shamir (2018), section 2; the design of this project, checked
against automatic differentiation and Monte Carlo in the tests.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from enumerator.activations import PI, fast_arccos, relu_kernel
from enumerator.overlaps import Overlaps

# Stands in for a norm of zero in a denominator; its square is still a normal number.
_TINY = 1e-150


class Geometry(NamedTuple):
    """Norms and angles of the students against all K + M neurons, students first."""

    norms: Float[Array, " K"]
    other_norms: Float[Array, " N"]
    cosine: Float[Array, "K N"]
    sine: Float[Array, "K N"]
    angle: Float[Array, "K N"]


def _fast_geometry(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Geometry:
    """Angles by arccos of the overlaps: two matrix products, nothing of size K^2 D."""
    K = W.shape[0]
    gram = W @ W.T
    norms = jnp.sqrt(jnp.diagonal(gram))
    teacher_norms = jnp.sqrt((V * V).sum(axis=1))
    other_norms = jnp.concatenate([norms, teacher_norms])
    products = jnp.concatenate([gram, W[:, : V.shape[1]] @ V.T], axis=1)
    cosine = products / jnp.maximum(norms[:, None] * other_norms[None, :], _TINY)
    cosine = jnp.clip(jnp.where(jnp.eye(K, K + V.shape[0], dtype=bool), 1.0, cosine), -1.0, 1.0)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    return Geometry(norms, other_norms, cosine, sine, fast_arccos(cosine))


def _unit(W: Float[Array, "N D"]) -> tuple[Float[Array, "N D"], Float[Array, " N"]]:
    """Unit vectors (zero for a zero row) and norms."""
    norms = jnp.sqrt((W * W).sum(axis=1))
    return W / jnp.maximum(norms, _TINY)[:, None], norms


def _neurons(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, "N D"]:
    """Students and teachers in the same D coordinates."""
    return jnp.concatenate([W, jnp.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))])


def _safe_norm(x: Float[Array, "K N D"]) -> Float[Array, "K N"]:
    return jnp.sqrt((x * x).sum(axis=-1))


def exact_geometry(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Geometry:
    """Angles by 2 atan2(|u - v|, |u + v|): full accuracy also at and near collinear and antiparallel pairs."""
    units, norms = _unit(_neurons(W, V))
    K = W.shape[0]
    minus = _safe_norm(units[:K, None] - units[None])
    plus = _safe_norm(units[:K, None] + units[None])
    # A zero neuron has no direction: its unit vector is zero, and it stands at right angles to all.
    angle = 2 * jnp.arctan2(minus, plus)
    angle = jnp.where(jnp.eye(K, len(units), dtype=bool), 0.0, angle)
    return Geometry(norms[:K], norms, jnp.cos(angle), jnp.sin(angle), angle)


def _loss_of(geometry: Geometry, teacher_constant: Float[Array, ""]) -> Float[Array, ""]:
    K = len(geometry.norms)
    product = geometry.norms[:, None] * geometry.other_norms[None, :]
    kernel = relu_kernel(product, geometry.cosine, geometry.sine, geometry.angle)
    return 0.5 * kernel[:, :K].sum() - kernel[:, K:].sum() + teacher_constant


def _multipliers(geometry: Geometry) -> tuple[Float[Array, "K N"], Float[Array, " K"]]:
    """A beside B, (pi - t)/(2 pi) for all pairs, and alpha (K,): the gradient is (A + diag alpha) W - B V."""
    K = len(geometry.norms)
    signed_norms = jnp.concatenate([geometry.norms, -geometry.other_norms[K:]])
    alpha = geometry.sine @ signed_norms / (2 * PI * jnp.maximum(geometry.norms, _TINY))
    return (PI - geometry.angle) / (2 * PI), jnp.where(geometry.norms == 0, 0.0, alpha)


def teacher_constant(V: Float[Array, "M r"]) -> Float[Array, ""]:
    """The part of the loss that the teachers fix: 1/2 sum_mn J(v_m, v_n)."""
    geometry = exact_geometry(V, V[:0])
    return _loss_of(geometry, jnp.zeros(()))


def weight_loss(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, ""]:
    """Half the mean squared error of reduced weights W (K, D) against V (M, r), angles by arctangent."""
    return _loss_of(exact_geometry(W, V), teacher_constant(V))


@jax.jit
def _kernel_matrix(neurons: Float[Array, "N D"]) -> Float[Array, "N N"]:
    """J of all pairs of neurons."""
    norms, others, cosine, sine, angle = exact_geometry(neurons, neurons[:0])
    return relu_kernel(norms[:, None] * others[None, :], cosine, sine, angle)


def exact_loss(W: np.ndarray, V: np.ndarray) -> float:
    """`weight_loss` on the host with the sum of the kernels rounded once: what is stored. Absolute error 1e-15.

    The loss of a good student is a small difference of (K + M)^2 kernels; summed in any order it
    would be off by 1e-13 at K = M = 17, a fifth of the digits of a loss of 1e-5.
    """
    neurons = np.concatenate([W, np.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))])
    signs = np.where(np.arange(len(neurons)) < len(W), 1.0, -1.0)
    terms = np.asarray(_kernel_matrix(neurons)) * np.outer(signs, signs) / 2
    return max(0.0, math.fsum(terms.ravel()))


def fast_loss(W: Float[Array, "K D"], V: Float[Array, "M r"], constant: Float[Array, ""]) -> Float[Array, ""]:
    """`weight_loss` with angles by arccos, absolute error 1e-15 K^2; `constant` is `teacher_constant(V)`."""
    return _loss_of(_fast_geometry(W, V), constant)


def population_loss(overlaps: Overlaps) -> Float[Array, ""]:
    """Half the mean squared error under x ~ N(0, I). Cho & Saul (2009), eq. 6; Safran & Shamir (2018), sec. 2.

    From overlaps alone, hence angles by arccos: half the digits are lost at collinear pairs, where
    the loss itself is flat to third order.
    """
    joint = jnp.block([[overlaps.Q, overlaps.R], [overlaps.R.T, overlaps.T]])
    K = overlaps.Q.shape[0]
    norms = jnp.sqrt(jnp.diagonal(joint))
    product = norms[:, None] * norms[None, :]
    cosine = jnp.clip(joint / jnp.maximum(product, _TINY), -1.0, 1.0)
    cosine = jnp.where(jnp.eye(len(norms), dtype=bool), 1.0, cosine)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    kernel = relu_kernel(product, cosine, sine, jnp.arccos(cosine))
    signs = jnp.where(jnp.arange(len(norms)) < K, 1.0, -1.0)
    return 0.5 * signs @ kernel @ signs


def _gradient_of(geometry: Geometry, W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, "K D"]:
    """(A + diag alpha) W - B V; zero in the row of a zero neuron, which has one-sided derivatives only."""
    K = W.shape[0]
    multipliers, alpha = _multipliers(geometry)
    gradient = multipliers[:, :K] @ W + alpha[:, None] * W
    gradient = gradient.at[:, : V.shape[1]].add(-(multipliers[:, K:] @ V))
    return jnp.where(geometry.norms[:, None] == 0, 0.0, gradient)


def gradient(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, "K D"]:
    """Gradient of the loss in reduced weights, angles by arctangent."""
    return _gradient_of(exact_geometry(W, V), W, V)


def fast_gradient(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, "K D"]:
    """Gradient with angles by arccos, error 3e-15: what the batch loop evaluates."""
    return _gradient_of(_fast_geometry(W, V), W, V)


class Derivatives(NamedTuple):
    """Loss, gradient, and the Hessian applied to one direction, at one point."""

    loss: Float[Array, ""]
    gradient: Float[Array, "K D"]
    hessian_product: Float[Array, "K D"]


def fast_derivatives(
    W: Float[Array, "K D"], V: Float[Array, "M r"], P: Float[Array, "K D"], constant: Float[Array, ""]
) -> Derivatives:
    """Loss, gradient and Hessian product H P by differentiating (A + diag alpha) W - B V along P, in closed form.

    The derivative of an angle grows like 1/sin t, its effect on the product vanishes like sin t: a
    collinear pair contributes nothing.
    """
    K, r = W.shape[0], V.shape[1]
    geometry = _fast_geometry(W, V)
    norms, others, cosine, sine, _ = geometry
    P = jnp.where(norms[:, None] == 0, 0.0, P)
    multipliers, alpha = _multipliers(geometry)
    inverse_norms = jnp.where(norms == 0, 0.0, 1 / jnp.maximum(norms, _TINY))

    mixed = P @ W.T
    norm_rates = jnp.diagonal(mixed) * inverse_norms
    other_rates = jnp.concatenate([norm_rates, jnp.zeros(V.shape[0])])
    product_rates = jnp.concatenate([mixed + mixed.T, P[:, :r] @ V.T], axis=1)
    inverse_others = jnp.where(others == 0, 0.0, 1 / jnp.maximum(others, _TINY))
    cosine_rates = product_rates * inverse_norms[:, None] * inverse_others[None, :] - cosine * (
        (norm_rates * inverse_norms)[:, None] + (other_rates * inverse_others)[None, :]
    )
    off_diagonal = ~jnp.eye(*sine.shape, dtype=bool)
    angle_rates = jnp.where(off_diagonal & (sine > 0), -cosine_rates / jnp.maximum(sine, _TINY), 0.0)

    signs = jnp.where(jnp.arange(len(others)) < K, 1.0, -1.0)
    alpha_rates = ((cosine * angle_rates) @ (signs * others) + sine @ (signs * other_rates)) * inverse_norms / (2 * PI)
    alpha_rates = alpha_rates - alpha * norm_rates * inverse_norms
    multiplier_rates = -angle_rates / (2 * PI)

    product = multipliers[:, :K] @ P + multiplier_rates[:, :K] @ W + alpha[:, None] * P + alpha_rates[:, None] * W
    product = product.at[:, :r].add(-(multiplier_rates[:, K:] @ V))
    product = jnp.where(norms[:, None] == 0, 0.0, product)
    return Derivatives(_loss_of(geometry, constant), _gradient_of(geometry, W, V), product)


def perpendicular_block(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, "K K"]:
    """C = A + diag(alpha), the Hessian in each direction perpendicular to all neurons and teachers."""
    K = W.shape[0]
    multipliers, alpha = _multipliers(exact_geometry(W, V))
    return multipliers[:, :K] + jnp.diag(alpha)


def hessian(W: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, "K D K D"]:
    """Closed-form Hessian in reduced weights, exact to rounding also at and near collinear pairs.

    Off-diagonal blocks ((pi - t) I + sin t (p p^T - q q^T))/(2 pi), p and q the unit vectors along
    u + v and u - v; diagonal blocks I/2 + sum_n +-|n| sin t (I - u u^T + n n^T)/(2 pi |w|).
    Rows of a zero neuron are zero.
    """
    K, D = W.shape
    geometry = exact_geometry(W, V)
    units, norms = _unit(_neurons(W, V))
    identity = jnp.eye(D)
    distinct = ~jnp.eye(K, len(units), dtype=bool)

    plus = units[:K, None] + units[None]
    minus = units[:K, None] - units[None]
    p = plus / jnp.maximum(_safe_norm(plus), _TINY)[..., None]
    q = minus / jnp.maximum(_safe_norm(minus), _TINY)[..., None]
    blocks = (PI - geometry.angle)[:, :K, None, None] * identity
    blocks = blocks + jnp.einsum("ij,ija,ijb->ijab", geometry.sine[:, :K], p[:, :K], p[:, :K])
    blocks = blocks - jnp.einsum("ij,ija,ijb->ijab", geometry.sine[:, :K], q[:, :K], q[:, :K])
    blocks = blocks / (2 * PI)

    # In-plane normal of w_i towards n: from the nearer of n - w and n + w, which keeps its digits.
    nearer = jnp.where((geometry.angle < PI / 2)[..., None], -minus, plus)
    normal = nearer - jnp.einsum("ija,ia->ij", nearer, units[:K])[..., None] * units[:K, None]
    normal = normal / jnp.maximum(_safe_norm(normal), _TINY)[..., None]
    signs = jnp.where(jnp.arange(len(units)) < K, 1.0, -1.0)
    strength = jnp.where(distinct, geometry.sine * signs * norms, 0.0)
    strength = strength / (2 * PI * jnp.maximum(geometry.norms, _TINY))[:, None]
    projector = identity - units[:K, :, None] * units[:K, None, :]
    diagonal = 0.5 * identity + strength.sum(axis=1)[:, None, None] * projector
    diagonal = diagonal + jnp.einsum("ij,ija,ijb->iab", strength, normal, normal)
    blocks = jnp.where(jnp.eye(K, dtype=bool)[:, :, None, None], diagonal[:, None], blocks)

    dead = geometry.norms == 0  # not "norm <= 0 or NaN": what is not a number must stay visible
    blocks = jnp.where((dead[:, None] | dead[None, :])[:, :, None, None], 0.0, blocks)
    return blocks.transpose(0, 2, 1, 3)


def one_sided_derivative(direction: np.ndarray, W: np.ndarray, V: np.ndarray) -> float:
    """Rate of the loss as a neuron of zero norm grows along `direction` (D,), per unit norm.

    sum_j J(u, w_j) - sum_m J(u, v_m) at the unit vector u: to first order the loss is linear in the
    norm of a small neuron, and the other students W (K, D) and teachers V (M, r) stay where they are.
    """
    unit = np.asarray(direction) / np.linalg.norm(direction)
    students = np.asarray(W).reshape(-1, len(unit))
    neurons = np.concatenate([unit[None], students, np.pad(V, ((0, 0), (0, len(unit) - V.shape[1])))])
    kernel = np.asarray(_kernel_matrix(neurons))[0, 1:]
    return float(kernel[: len(students)].sum() - kernel[len(students) :].sum())


def one_sided_gradient(direction: np.ndarray, W: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Gradient (D,) with respect to a vanishingly small neuron w along `direction`, where the loss is linear in |w|."""
    unit = np.asarray(direction) / np.linalg.norm(direction)
    neurons = jnp.concatenate([1e-100 * jnp.asarray(unit)[None], jnp.asarray(W).reshape(-1, len(unit))])
    return np.asarray(gradient(neurons, jnp.asarray(V))[0])


def as_numpy(x: Array) -> np.ndarray:
    """A float64 numpy copy on the host."""
    return np.asarray(x, dtype=np.float64)
