"""What the library knows of an activation g: the two-point kernel k(u, v) = E[g(u.x) g(v.x)] and its derivatives.

k depends on the overlaps u.u, u.v and v.v only, so dk/du = mutual v + 2 dk/d(u.u) u, and the gradient of the loss
closes on the overlaps. All methods are pure and take one student; the first axis of a geometry is its K students,
the second all N = K + M neurons.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Array, Float

from enumerator.geometry import Geometry


@dataclass(frozen=True)
class DerivativeBounds:
    """Bounds on the third derivative of k(u, v) in a direction (e, f): own |e|^3 and mixed |e|^2 |f|.

    `own` multiplies the norm of v, and divides by |u|^2 for a homogeneous activation; `mixed` divides by |u|. For a
    bounded one they hold as they stand, and `own` once per neuron. They hold for every angle.
    """

    own: float
    mixed: float


class Activation(ABC):
    """An activation function; instances are immutable, equal if they are the same function, and hashable."""

    # g(c z) = c g(z) for c > 0: parallel neurons merge into one, and a neuron of zero norm has no gradient.
    is_homogeneous: bool

    @property
    def own_weight(self) -> float:
        """k(u, u)/|u|^2 of a homogeneous activation: A_ii, which the splitting S_i = H_ii - A_ii I leaves out."""
        raise NotImplementedError(f"{self} is not homogeneous.")

    @property
    @abstractmethod
    def third_derivative(self) -> DerivativeBounds:
        """See `DerivativeBounds`."""

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
