"""What the library knows of an activation g: the two-point kernel k(u, v) = E[g(u.x) g(v.x)] and its derivatives.

k depends on the overlaps u.u, u.v and v.v only, so dk/du = mutual v + 2 dk/d(u.u) u, and the gradient of the loss
closes on the overlaps. All methods are pure and take one student; the first axis of a geometry is its K students,
the second all N = K + M neurons.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.activations.geometry import Geometry


class Norms(NamedTuple):
    """Norms of the students in a ball, (K,) each: at least `shortest`, at most `longest`.

    `others` (K,) bounds the sum of the norms of all other neurons, of which each student has `neighbours`.
    """

    shortest: NDArray[np.float64]
    longest: NDArray[np.float64]
    others: NDArray[np.float64]
    neighbours: int


class Activation(ABC):
    """An activation function; instances are immutable, equal if they are the same function, and hashable.

    Neither homogeneous nor odd is possible: then no two neurons merge or cancel. An even one is not: w and -w would be
    one neuron, a symmetry that no identity here knows.
    """

    # g(c z) = c g(z) for c > 0: parallel neurons merge into one, and one of zero norm has one-sided derivatives only.
    is_homogeneous: bool
    # g(-z) = -g(z): opposite neurons cancel.
    is_odd: bool

    @property
    def vanishes_at_rest(self) -> bool:
        """g(0) = 0: a neuron of zero norm adds nothing."""
        return float(self.apply(jnp.zeros(()))) == 0

    @property
    def slopes(self) -> tuple[float, float]:
        """g(1) and -g(-1): all of a homogeneous g."""
        above, below = np.asarray(self.apply(jnp.asarray([1.0, -1.0]))).tolist()
        return above, -below

    @property
    def own_weight(self) -> float:
        """k(u, u)/|u|^2 of a homogeneous activation: A_ii, which the splitting S_i = H_ii - A_ii I leaves out."""
        above, below = self.slopes
        return (above**2 + below**2) / 2

    def plain_kernel(self, own: Any, other: Any, mutual: Any, m: Any) -> Any:
        """k(u, v) from u.u, v.v and u.v in functions of the module m: numpy, jax.numpy or mpmath.

        What verification knows of an activation that is not homogeneous: it takes every derivative by itself. A
        homogeneous one is known by its slopes.
        """
        raise NotImplementedError(f"{self} is homogeneous.")

    @abstractmethod
    def third_derivatives(self, norms: Norms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds (K,), (K,) on third derivatives of the loss at any angles, as operators.

        That in a direction e of student i alone is at most the first times |e|^3; those in e twice and in a direction
        f of one other student are, all three together, at most the second times |e|^2 |f|. Infinite if there is none.
        """

    @abstractmethod
    def apply(self, z: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """g itself, for networks of finite dimension."""

    @abstractmethod
    def kernel(self, geometry: Geometry) -> Float[Array, "K N"]:
        """k(w_i, n) of all pairs."""

    @abstractmethod
    def mutual(self, geometry: Geometry) -> Float[Array, "K N"]:
        """dk/d(u.v) of all pairs: A beside B of the design."""

    @abstractmethod
    def alpha(self, geometry: Geometry, weights: Float[Array, " N"]) -> Float[Array, " K"]:
        """sum_n weights_n 2 dk/d(u.u) at (w_i, n), for each student."""

    @abstractmethod
    def hessian_blocks(
        self, neurons: Float[Array, "N D"], geometry: Geometry, weights: Float[Array, " N"]
    ) -> tuple[Float[Array, "K K D D"], Float[Array, "K D D"]]:
        """d^2 k(w_i, w_j)/dw_i dw_j, and sum_n weights_n d^2 k(w_i, n)/dw_i^2 with n held fixed."""
