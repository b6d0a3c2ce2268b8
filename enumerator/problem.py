"""What is enumerated: landscape, dynamics, initial law, campaign; validated, hashable, each with an id.

An id is the hash of the canonical JSON of whatever differs from the defaults, so that a field
added later, with a default, leaves every id that exists unchanged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from enumerator.errors import InputError

ACTIVATIONS = ("relu", "leaky_relu", "erf")
CONSTRAINTS = ("none", "normalized", "orthonormalized")
SECOND_LAYERS = ("fixed", "trained")
DYNAMICS = ("gradient-flow", "newton", "gradient-descent", "one-pass-sgd")

# Entries of a teacher overlap matrix may miss symmetry by this much of the largest entry: ten
# thousand roundings, what a product of long weight vectors leaves; more is a wrong matrix.
SYMMETRY_TOLERANCE = 1e-12
# A pivot of the Cholesky factor below this part of the largest diagonal entry counts as zero: the
# rounding of a Gram matrix of some hundred vectors, far below any overlap that a user writes down.
RANK_TOLERANCE = 1e-10


def digest(content: dict[str, Any]) -> str:
    """Sixteen hex digits of the SHA-256 of the canonical JSON of `content` (64 bits: no collision in 10^9)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _changed_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    changed = {}
    for entry in dataclasses.fields(value):
        current = getattr(value, entry.name)
        if entry.default is dataclasses.MISSING or current != entry.default:
            changed[entry.name] = current
    return changed


def _check_count(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"`{name}` must be a whole number >= {least}, got {value!r}.")
    return int(value)


def _check_positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (np.isfinite(number) and number > 0):
        raise InputError(f"`{name}` must be a positive finite number, got {value!r}.")
    return number


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise InputError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")
    return value


def _check_teacher_overlaps(T: ArrayLike, teachers: int) -> NDArray[np.float64]:
    """A symmetric positive semidefinite (M, M) matrix, symmetrised exactly, or InputError."""
    matrix = np.asarray(T)
    if matrix.dtype.kind not in "fiu":
        raise InputError(f"`T` must hold real numbers, got an array of {matrix.dtype}: save it with numpy.save.")
    matrix = matrix.astype(np.float64)
    if matrix.shape != (teachers, teachers):
        raise InputError(
            f"`T` must have shape (M, M) = ({teachers}, {teachers}), got {matrix.shape}: "
            "pass one row and one column per teacher."
        )
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(f"`T` must be finite, got {matrix[row, column]} at row {row}, column {column}.")
    largest = np.abs(matrix).max()
    excess = np.abs(matrix - matrix.T)
    if excess.max() > SYMMETRY_TOLERANCE * largest:
        row, column = np.unravel_index(excess.argmax(), excess.shape)
        raise InputError(
            f"`T` must be symmetric, got T[{row},{column}] = {matrix[row, column]} and "
            f"T[{column},{row}] = {matrix[column, row]}: pass the overlaps V V^T of the teachers."
        )
    matrix = (matrix + matrix.T) / 2
    smallest = np.linalg.eigvalsh(matrix)[0]
    if smallest < -RANK_TOLERANCE * largest:
        raise InputError(
            f"`T` must be positive semidefinite, got the eigenvalue {smallest:.3g}: "
            "pass the overlaps V V^T of the teachers."
        )
    if largest == 0:
        raise InputError("`T` must have a teacher of positive norm, got all zeros: there is nothing to learn.")
    if np.abs(matrix - np.eye(teachers)).max() <= SYMMETRY_TOLERANCE:
        return np.eye(teachers)  # orthonormal up to rounding is orthonormal: one landscape, one id
    return matrix + 0.0  # -0.0 becomes 0.0: the id must not depend on it


def gram_factor(gram: NDArray[np.float64], tolerance: float = RANK_TOLERANCE) -> NDArray[np.float64]:
    """Factor V (n, rank) with V V^T = `gram`, by Cholesky with diagonal pivoting (Higham 1990).

    Deterministic (no eigenvectors, whose basis depends on the linear algebra library), and the
    identity for the identity matrix.
    """
    remainder = gram.copy()
    columns = []
    for _ in range(len(gram)):
        diagonal = np.diag(remainder)
        pivot = int(np.argmax(diagonal))
        if diagonal[pivot] <= tolerance * max(1e-300, float(np.diag(gram).max())):
            break
        column = remainder[:, pivot] / np.sqrt(diagonal[pivot])
        columns.append(column)
        remainder = remainder - np.outer(column, column)
    return np.stack(columns, axis=1) if columns else np.zeros((len(gram), 0))


@dataclass(frozen=True, eq=False)
class Landscape:
    """What fixes the minima: K students, M teachers, T, activation, constraint, second layer. No dimension in it.

    T is the (M, M) teacher overlap matrix; None means orthonormal teachers. It may be rank
    deficient. Raises InputError for anything else than a symmetric positive semidefinite matrix.
    """

    students: int
    teachers: int
    T: NDArray[np.float64] = None  # type: ignore[assignment]  # None on input, always a matrix afterwards
    activation: str = "relu"
    activation_slope: float | None = None
    constraint: str = "none"
    second_layer: str = "fixed"

    def __post_init__(self) -> None:
        _set = object.__setattr__
        _set(self, "students", _check_count("students", self.students))
        _set(self, "teachers", _check_count("teachers", self.teachers))
        T = np.eye(self.teachers) if self.T is None else _check_teacher_overlaps(self.T, self.teachers)
        T.setflags(write=False)
        _set(self, "T", T)
        _check_choice("activation", self.activation, ACTIVATIONS)
        _check_choice("constraint", self.constraint, CONSTRAINTS)
        _check_choice("second_layer", self.second_layer, SECOND_LAYERS)
        if (self.activation == "leaky_relu") != (self.activation_slope is not None):
            raise InputError("`activation_slope` goes with activation leaky_relu, and only with it.")

    @cached_property
    def is_orthonormal(self) -> bool:
        """Whether the teachers are orthonormal, T = I."""
        return bool(np.array_equal(self.T, np.eye(self.teachers)))

    @cached_property
    def teacher_factor(self) -> NDArray[np.float64]:
        """V (M, r): the reduced teacher weights in an orthonormal basis of their span."""
        return gram_factor(self.T)

    @property
    def teacher_rank(self) -> int:
        """r = rank T."""
        return self.teacher_factor.shape[1]

    @property
    def teacher_scale(self) -> float:
        """Frobenius norm of the teachers, sqrt(trace T): the unit of weights, gradients and distances."""
        return float(np.sqrt(np.trace(self.T)))

    @property
    def overlap_scale(self) -> float:
        """Largest squared norm of a teacher: the unit of overlaps and losses."""
        return float(self.T.diagonal().max())

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from the defaults, T as a list of rows: what the id hashes."""
        content: dict[str, Any] = {"students": self.students, "teachers": self.teachers}
        if not self.is_orthonormal:
            content["T"] = self.T.tolist()
        for name, default in (
            ("activation", "relu"),
            ("activation_slope", None),
            ("constraint", "none"),
            ("second_layer", "fixed"),
        ):
            if getattr(self, name) != default:
                content[name] = getattr(self, name)
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Landscape:
        """Inverse of `to_dict`."""
        return cls(**content)

    @cached_property
    def id(self) -> str:
        """`ls-` and sixteen hex digits."""
        return "ls-" + digest(self.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Landscape) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Dynamics:
    """How the landscape is descended. A frequency always names its dynamics and its initial law."""

    name: str = "gradient-flow"

    def __post_init__(self) -> None:
        _check_choice("dynamics", self.name, DYNAMICS)


@dataclass(frozen=True, eq=False)
class InitialLaw:
    """Distribution of initial overlaps: w ~ N(0, scale^2 I_d), in any dimension d, or a table of given overlaps.

    A table is Q (n, K, K) and R (n, K, M), one pair per start; its law is known by the hash of
    its bytes, so the same numbers give the same campaign wherever the file lies.
    """

    dimension: int = 1000
    scale: float = 1.0
    Q: NDArray[np.float64] | None = field(default=None, repr=False)
    R: NDArray[np.float64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimension", _check_count("dimension", self.dimension))
        object.__setattr__(self, "scale", _check_positive("scale", self.scale))
        if (self.Q is None) != (self.R is None):
            raise InputError("a table of initial overlaps needs both Q and R, got only one of them.")
        for name in ("Q", "R"):
            values = getattr(self, name)
            if values is not None:
                values = np.ascontiguousarray(values, dtype=np.float64) + 0.0
                values.setflags(write=False)
                object.__setattr__(self, name, values)

    @property
    def is_table(self) -> bool:
        """Whether the starts are given one by one."""
        return self.Q is not None

    def to_dict(self) -> dict[str, Any]:
        """What the campaign id hashes: dimension and scale, or the digest of the table."""
        if self.Q is None or self.R is None:
            return {"dimension": self.dimension, "scale": self.scale}
        content = hashlib.sha256(self.Q.tobytes() + b"|" + self.R.tobytes()).hexdigest()
        return {"table": content[:32], "table_rows": len(self.Q)}


@dataclass(frozen=True)
class Tolerances:
    """Every tolerance of the solvers, with its reason. Stored with the campaign; part of its id."""

    # Local error of one step over the norm of the weights. Measured against the same flow at 1e-6
    # on 512 starts of K = M = 17: at 1e-4 0.2% of the starts change their minimum, at 1e-3 0.6%.
    step_error: float = 1e-4
    # Flow time after which a lane is given up as unfinished: ten times the slowest known plateau.
    max_flow_time: float = 1e6
    # Gradient evaluations after which a lane is given up: ten times the slowest of 10,000 starts
    # at K = M = 17.
    max_evaluations: int = 50_000
    # Gradient norm, over the norm of the teachers, at which a lane is first compared with the
    # minima in hand; it falls by `retry_factor` at each refusal. It only decides when to look:
    # what captures a lane is the certified ball.
    first_look: float = 3e-4
    retry_factor: float = 0.3
    # Gradient norm, over that of the teachers, at which a lane that no ball in hand holds is compared with zero loss.
    collapse_below: float = 3e-5
    # Gradient norm at which an unrecognised lane is polished, and the factor by which it falls at each
    # refusal: below it Newton's method from the lane converges for all but near-degenerate points. A polish
    # costs as much as thousands of evaluations, in which the gradient falls by much more.
    newton_below: float = 3e-6
    newton_retry_factor: float = 0.03
    # A point counts as stationary below this gradient norm (over the norm of the teachers): a
    # hundred times the rounding of the gradient (3e-15 at K = 17).
    stationary: float = 1e-12
    # An eigenvalue above this part of the largest is positive, below minus it negative, between
    # undecided: a thousand times the rounding of a symmetric eigenvalue solver at 300 variables,
    # and a thousand times below the flattest minimum known (1e-5, design, trap 2).
    definite: float = 1e-9

    # Gradient norm, over the root mean square norm of a teacher, below which a lane that does not stay
    # lingers on a saddle, which is then catalogued: where published runs were stopped. 0: none are, which
    # saves a polish for each.
    linger_below: float = 1e-4

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            if entry.name != "linger_below" or self.linger_below != 0:
                _check_positive(entry.name, getattr(self, entry.name))


@dataclass(frozen=True, eq=False)
class Campaign:
    """Landscape x dynamics x initial law x seed x solver settings: what a frequency is a frequency of.

    The number of starts, the workers, the device and the shard size are no part of it: a
    campaign can be extended, and never counts a start twice.
    """

    landscape: Landscape
    dynamics: Dynamics = Dynamics()
    law: InitialLaw = field(default_factory=InitialLaw)
    seed: int = 0
    tolerances: Tolerances = Tolerances()

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _check_count("seed", self.seed, least=0))
        if self.seed >= 2**63:
            raise InputError(f"`seed` must be below 2^63, got {self.seed}.")
        landscape, law = self.landscape, self.law
        if not law.is_table and law.dimension < landscape.teacher_rank:
            raise InputError(
                f"`dimension` must be at least the rank of T, {landscape.teacher_rank}, got {law.dimension}: "
                "the teachers do not fit into fewer dimensions."
            )
        if law.Q is not None and law.R is not None:
            K, M = landscape.students, landscape.teachers
            if law.Q.shape != (len(law.Q), K, K) or law.R.shape != (len(law.Q), K, M):
                raise InputError(
                    f"a table of initial overlaps must have Q of shape (n, {K}, {K}) and R of shape (n, {K}, {M}), "
                    f"got {law.Q.shape} and {law.R.shape}."
                )

    def to_dict(self) -> dict[str, Any]:
        """What the catalogue keeps: landscape, dynamics, law, seed, and every tolerance with its value."""
        return {
            "landscape": self.landscape.to_dict(),
            "dynamics": dataclasses.asdict(self.dynamics),
            "law": self.law.to_dict(),
            "seed": self.seed,
            "tolerances": dataclasses.asdict(self.tolerances),
        }

    @classmethod
    def from_dict(
        cls, content: dict[str, Any], Q: NDArray[np.float64] | None = None, R: NDArray[np.float64] | None = None
    ) -> Campaign:
        """Inverse of `to_dict`; one from given initial overlaps needs them again, Q (n, K, K) and R (n, K, M)."""
        law = content["law"]
        if ("table" in law) != (Q is not None):
            raise InputError("given initial overlaps go with a campaign that starts from a table, and only with it.")
        return cls(
            landscape=Landscape.from_dict(content["landscape"]),
            dynamics=Dynamics(**content["dynamics"]),
            law=InitialLaw(Q=Q, R=R) if "table" in law else InitialLaw(**law),
            seed=content["seed"],
            tolerances=Tolerances(**content["tolerances"]),
        )

    @cached_property
    def id(self) -> str:
        """`c-` and sixteen hex digits; of the dynamics and tolerances it hashes what differs from the defaults."""
        changed = {"dynamics": _changed_fields(self.dynamics), "tolerances": _changed_fields(self.tolerances)}
        return "c-" + digest(self.to_dict() | changed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Campaign) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)
