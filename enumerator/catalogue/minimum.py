"""A row of `minima` or `saddles` as an object: matrices in their shapes, and the network that they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from enumerator.catalogue.records import reduced_weights
from enumerator.errors import InputError
from enumerator.notebook import block, facts, matrix
from enumerator.problem import Landscape

if TYPE_CHECKING:
    from enumerator.activations.base import Activation

# What tells the shapes of the matrices.
_NEEDED = ("label", "landscape_id", "students", "teachers", "effective_students", "Q", "R")

# The columns that a notebook shows.
_SHOWN = (
    *(
        "label",
        "loss",
        "verdict",
        "verdict_above",
        "anti_aligned",
        "hits",
        "starts",
        "frequency",
        "students",
        "teachers",
    ),
    *("effective_students", "hessian_min", "hessian_max", "perpendicular_min"),
    *("flat_dimension", "isotropy", "orbit_size_log10", "minimum_id", "landscape_id"),
)


@dataclass(frozen=True, eq=False)
class Student:
    """The function f(x) = sum_k a_k g(w_k.x) on inputs x ~ N(0, I_d), for any d >= D.

    Args:
        W: Reduced weights (K, D) of the students, w / sqrt d.
        second_layer: a (K,), ones where it is not trained.
        V: The teachers (M, D) in the same coordinates.
        activation: The function g.
    """

    W: NDArray[np.float64]
    second_layer: NDArray[np.float64]
    V: NDArray[np.float64]
    activation: Activation

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """f of inputs `x` (..., d), of the shape (...). Raises InputError for d < D."""
        return self._hidden(x, self.W) @ self.second_layer

    def teacher(self, x: ArrayLike) -> NDArray[np.float64]:
        """f* of inputs `x` (..., d), of the shape (...): the loss is half the mean squared difference from f."""
        return self._hidden(x, self.V).sum(axis=-1)

    def weights(self, dimension: int) -> NDArray[np.float64]:
        """Weights sqrt(d) W (K, d) of f(x) = sum_k a_k g(w_k.x / sqrt d) in d dimensions.

        Args:
            dimension: d, at least D; the columns beyond D are zero.

        Raises:
            InputError: For d < D.
        """
        self._check(dimension)
        return np.sqrt(dimension) * np.pad(self.W, ((0, 0), (0, dimension - self.W.shape[1])))

    def _hidden(self, x: ArrayLike, W: NDArray[np.float64]) -> NDArray[np.float64]:
        inputs = np.asarray(x, np.float64)
        self._check(inputs.shape[-1] if inputs.ndim else 0)
        import jax.numpy as jnp  # here: who only reads rows needs no JAX

        return np.asarray(self.activation.apply(jnp.asarray(inputs[..., : W.shape[1]] @ W.T)))

    def _check(self, dimension: int) -> None:
        if dimension < self.W.shape[1]:
            raise InputError(f"this network needs inputs of at least {self.W.shape[1]} dimensions, got {dimension}.")


class Minimum(dict[str, Any]):
    """A row of `minima` or `saddles`: its columns by name, as in row["label"], and its matrices as attributes.

    Args:
        row: A mapping, such as an entry of `to_pylist()` or a row of pandas, or a table of one row.
        landscape: The landscape, or a function that gives it. It tells the teachers; you need it where they are not
            orthonormal.

    Raises:
        InputError: For what is no such row.

    Examples:
        >>> minimum = en.Catalogue("atlas").minimum("relu.7.7.0232027")
        >>> minimum
        Minimum('relu.7.7.0232027', loss 0.0232027149)
        >>> minimum["anti_aligned"], minimum["isotropy"], minimum.Q.shape, minimum.R.shape
        (1, 'S6 x S1', (7, 7), (7, 7))
        >>> f = minimum.network
        >>> x = np.random.default_rng(0).standard_normal((100_000, 7))
        >>> loss = 0.5 * np.mean((f(x) - f.teacher(x)) ** 2)  # by Monte Carlo
        >>> f"{minimum['loss']:.3f} {loss:.3f}"
        '0.023 0.023'
    """

    def __init__(self, row: Any, landscape: Landscape | Callable[[], Landscape] | None = None) -> None:
        super().__init__(_as_mapping(row))
        if missing := [name for name in _NEEDED if name not in self]:
            raise InputError(f"expected a row of minima or saddles, with all columns, got one without {missing[0]!r}.")
        self._landscape = landscape

    def __repr__(self) -> str:
        return f"Minimum({self['label']!r}, loss {self['loss']:.9g})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the columns that hold one number or word, and Q and R."""
        columns = {name: self[name] for name in _SHOWN if name in self}
        return block(repr(self), facts(columns), matrix("Q", self.Q.tolist()), matrix("R", self.R.tolist()))

    @property
    def Q(self) -> NDArray[np.float64]:
        """Overlaps of the students of the effective network, (K, K)."""
        K = self["effective_students"]
        return np.array(self["Q"], np.float64).reshape(K, K)

    @property
    def R(self) -> NDArray[np.float64]:
        """Overlaps of these students with the teachers, (K, M)."""
        return np.array(self["R"], np.float64).reshape(self["effective_students"], self["teachers"])

    @property
    def T(self) -> NDArray[np.float64]:
        """Overlaps of the teachers, (M, M)."""
        return self.landscape.T

    @property
    def W(self) -> NDArray[np.float64]:
        """Reduced weights (K, D) of these students: Q = W W^T, and R = W V^T with the teachers of `network`."""
        return reduced_weights(self.Q, self.R, self.landscape)

    @property
    def second_layer(self) -> NDArray[np.float64]:
        """The second layer (K,): ones where it is not trained."""
        stored = self.get("second_layer_weights")
        return np.ones(self["effective_students"]) if stored is None else np.array(stored, np.float64)

    @property
    def network(self) -> Student:
        """These students as a function of inputs."""
        W, V = self.W, self.landscape.teacher_factor
        V = np.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1])))
        return Student(W, self.second_layer, V, self.landscape.g)

    @cached_property
    def landscape(self) -> Landscape:
        """The landscape. Raises InputError where only the catalogue tells its teachers."""
        if isinstance(self._landscape, Landscape):
            return self._checked(self._landscape)
        if self._landscape is not None:
            return self._checked(self._landscape())
        # An id is the hash of what a landscape is: this one, if it gives that.
        names = ("students", "teachers", "activation", "constraint", "second_layer")
        settings = {name: self[name] for name in names if name in self}
        if settings.get("activation") != "leaky_relu":
            guess = Landscape(**settings)
            if guess.id == self["landscape_id"]:
                return guess
        raise InputError(
            f"the row of {self['label']} does not hold its teachers, or a slope: pass its landscape, as in "
            f"Minimum(row, atlas.landscape({self['landscape_id']!r}))."
        )

    def _checked(self, landscape: Landscape) -> Landscape:
        if landscape.id != self["landscape_id"]:
            raise InputError(f"{self['label']} is a point of {self['landscape_id']}, not of {landscape.id}.")
        return landscape


def _as_mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, pa.Table | pa.RecordBatch):
        if row.num_rows != 1:
            raise InputError(f"expected a table of one row, got {row.num_rows}: `table.slice(k, 1)` is row k.")
        return row.to_pylist()[0]
    found = row.to_dict() if hasattr(row, "to_dict") else row
    if not isinstance(found, Mapping):
        raise InputError(f"expected a row of minima or saddles, a mapping or a table of one row, got {row!r}.")
    return found
