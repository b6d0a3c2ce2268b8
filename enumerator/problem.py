"""What is enumerated: landscape, dynamics, initial law, campaign; validated, hashable, each with an id.

An id is the hash of the canonical JSON of whatever differs from the defaults, so that a field
added later, with a default, leaves every id that exists unchanged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enumerator.activations import ACTIVATIONS, activation_named, check_slope
from enumerator.constraints import CONSTRAINTS, constraint_named
from enumerator.errors import InputError
from enumerator.notebook import block, facts, matrix
from enumerator.symmetry.teachers import teacher_classes
from enumerator.tolerances import Tolerances
from enumerator.validation import (
    MOST_NEURONS,
    check_choice,
    check_count,
    check_made,
    check_number,
    check_positive,
    check_teacher_overlaps,
    gram_factor,
    real_array,
)

if TYPE_CHECKING:
    from enumerator.activations.base import Activation
    from enumerator.loss.equations import Equations

SECOND_LAYERS = ("fixed", "trained")
# With the settings that each must have.
DYNAMICS: dict[str, tuple[str, ...]] = {
    "gradient-flow": (),
    "newton": (),
    "gradient-descent": ("step",),
    "one-pass-sgd": ("step", "flow_time"),
}
# The second layer that a student starts with where it is trained: all ones, or drawn from {-1, 1} or N(0, 1).
SECOND_LAYER_LAWS = ("ones", "signs", "normal")
# Of the gradient until it first falls to `Tolerances.single_above`; where a start ends is computed in double precision.
PRECISIONS = ("double", "mixed")
# Where mixed precision ends: the error of a gradient in single precision, 3e-7 of the weights, is a ten-thousandth of
# it there. At 1e-3 the steps become short, and a start takes 1.4 times as long.
SINGLE_ABOVE = 3e-3


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


@dataclass(frozen=True, eq=False)
class Landscape:
    """What fixes the minima: K students, M teachers, T, activation, constraint, second layer. No dimension in it.

    T is the (M, M) teacher overlap matrix; None means orthonormal teachers. It may be rank deficient;
    `snap_teachers` rounds it to the symmetric T nearby, see `teachers.snapped`. Raises InputError for anything else
    than a symmetric positive semidefinite matrix.
    """

    students: int
    teachers: int
    T: NDArray[np.float64] = None  # type: ignore[assignment]  # None on input, always a matrix afterwards
    activation: str = "relu"
    activation_slope: float | None = None
    constraint: str = "none"
    second_layer: str = "fixed"
    snap_teachers: InitVar[bool] = False

    def __post_init__(self, snap_teachers: bool) -> None:
        _set = object.__setattr__
        _set(self, "students", check_count("students", self.students, most=MOST_NEURONS))
        _set(self, "teachers", check_count("teachers", self.teachers, most=MOST_NEURONS))
        T = np.eye(self.teachers) if self.T is None else check_teacher_overlaps(self.T, self.teachers, snap_teachers)
        T.setflags(write=False)
        _set(self, "T", T)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("constraint", self.constraint, CONSTRAINTS)
        check_choice("second_layer", self.second_layer, SECOND_LAYERS)
        if self.activation_slope is not None:
            _set(self, "activation_slope", check_number("activation_slope", self.activation_slope))
        check_slope(self.activation, self.activation_slope)

    @property
    def g(self) -> Activation:
        """The activation function."""
        return activation_named(self.activation, self.activation_slope)

    @property
    def equations(self) -> Equations:
        """The activation, the manifold of the students, and whether the second layer is trained."""
        from enumerator.loss.equations import Equations

        return Equations(self.g, constraint_named(self.constraint), self.second_layer == "trained")

    @property
    def merges(self) -> bool:
        """Whether parallel students are interchangeable, so that an effective network may have fewer neurons."""
        return self.g.is_homogeneous and self.equations.manifold.is_free

    @cached_property
    def is_orthonormal(self) -> bool:
        """Whether the teachers are orthonormal, T = I."""
        return bool(np.array_equal(self.T, np.eye(self.teachers)))

    @cached_property
    def has_orders(self) -> bool:
        """Whether orders are defined: orthogonal teachers, and second layers of ones."""
        return self.second_layer == "fixed" and not (self.T - np.diag(self.T.diagonal())).any()

    @cached_property
    def teacher_norms(self) -> NDArray[np.float64]:
        """Norms (M,) of the teachers."""
        return np.sqrt(self.T.diagonal())

    @cached_property
    def teacher_classes(self) -> NDArray[np.intp]:
        """Classes (M, M) of the entries of T that are equal: Aut(T) is the group of permutations that keep them."""
        return teacher_classes(self.T)

    @cached_property
    def teacher_factor(self) -> NDArray[np.float64]:
        """V (M, r): the reduced teacher weights in an orthonormal basis of their span."""
        return gram_factor(self.T)

    @property
    def teacher_rank(self) -> int:
        """r = rank T."""
        return self.teacher_factor.shape[1]

    @cached_property
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

    def _repr_html_(self) -> str:
        """What a notebook shows: the settings, and T where it is no identity."""
        slope = "" if self.activation_slope is None else f", slope {self.activation_slope:g}"
        entries = {"students K": self.students, "teachers M": self.teachers, "activation": self.activation + slope}
        entries |= {"T": "orthonormal teachers" if self.is_orthonormal else f"given, of rank {self.teacher_rank}"}
        entries |= {"constraint": self.constraint, "second layer": self.second_layer, "id": self.id}
        return block("Landscape", facts(entries), "" if self.is_orthonormal else matrix("T", self.T.tolist()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Landscape) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Dynamics:
    """How the landscape is descended. A frequency always names its dynamics and its initial law.

    `step` is the learning rate of the dynamics that go in steps, in reduced weights; `flow_time` the time
    t = step x updates / d for which one-pass-sgd runs.
    """

    name: str = "gradient-flow"
    step: float | None = None
    flow_time: float | None = None

    def __post_init__(self) -> None:
        check_choice("dynamics", self.name, DYNAMICS)
        for name in ("step", "flow_time"):
            value, needed = getattr(self, name), name in DYNAMICS[self.name]
            if (value is not None) != needed:
                takes = f"needs `{name}`, got none" if needed else f"has no `{name}`, got {value!r}"
                raise InputError(f"`dynamics` {self.name} {takes}.")
            if value is not None:
                object.__setattr__(self, name, check_positive(name, value))

    @property
    def is_noisy(self) -> bool:
        """Whether starts fluctuate about their minimum, and never end in it."""
        return self.name == "one-pass-sgd"

    def to_dict(self) -> dict[str, Any]:
        """The name, and the settings that these dynamics have."""
        return {"name": self.name} | _changed_fields(self)


@dataclass(frozen=True, eq=False)
class InitialLaw:
    """Distribution of initial overlaps: w ~ N(0, scale^2 I_d), in any dimension d, or a table of given overlaps.

    A table is Q (n, K, K) and R (n, K, M), one pair per start; its law is known by the hash of
    its bytes, so the same numbers give the same campaign wherever the file lies. Where the students are
    constrained they are projected. `second_layer` is the law of a where it is trained; with a table all are ones.
    """

    dimension: int = 1000
    scale: float = 1.0
    second_layer: str = "ones"
    Q: NDArray[np.float64] | None = field(default=None, repr=False)
    R: NDArray[np.float64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimension", check_count("dimension", self.dimension))
        object.__setattr__(self, "scale", check_positive("scale", self.scale))
        check_choice("second_layer_law", self.second_layer, SECOND_LAYER_LAWS)
        if self.Q is not None and self.second_layer != "ones":
            raise InputError("given initial overlaps start with a second layer of ones: leave `second_layer_law` out.")
        if (self.Q is None) != (self.R is None):
            raise InputError("a table of initial overlaps needs both Q and R, got only one of them.")
        for name in ("Q", "R"):
            values = getattr(self, name)
            if values is not None:
                values = np.ascontiguousarray(real_array(name, values)) + 0.0
                values.setflags(write=False)
                object.__setattr__(self, name, values)

    @property
    def is_table(self) -> bool:
        """Whether the starts are given one by one."""
        return self.Q is not None

    def to_dict(self) -> dict[str, Any]:
        """What the campaign id hashes: dimension and scale, or the digest of the table."""
        second = {} if self.second_layer == "ones" else {"second_layer": self.second_layer}
        if self.Q is None or self.R is None:
            return {"dimension": self.dimension, "scale": self.scale} | second
        content = hashlib.sha256(self.Q.tobytes() + b"|" + self.R.tobytes()).hexdigest()
        return {"table": content[:32], "table_rows": len(self.Q)} | second


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
    tolerances: Tolerances = field(default_factory=Tolerances)

    def __post_init__(self) -> None:
        check_made(self, landscape=Landscape, dynamics=Dynamics, law=InitialLaw, tolerances=Tolerances)
        object.__setattr__(self, "seed", check_count("seed", self.seed, least=0, most=2**63 - 1))
        landscape, law = self.landscape, self.law
        if law.second_layer != "ones" and landscape.second_layer != "trained":
            raise InputError("`second_layer_law` goes with second layer trained, and only with it.")
        if not law.is_table and law.dimension < landscape.teacher_rank:
            raise InputError(
                f"`dimension` must be at least the rank of T, {landscape.teacher_rank}, got {law.dimension}: "
                "the teachers do not fit into fewer dimensions."
            )
        needed = landscape.equations.manifold.needs_dimension(landscape.students)
        if not law.is_table and law.dimension < needed:
            raise InputError(
                f"`dimension` must be at least {needed} for {landscape.students} {landscape.constraint} students, "
                f"got {law.dimension}: use more dimensions, or fewer students."
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
            "dynamics": self.dynamics.to_dict(),
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
            law=InitialLaw(Q=Q, R=R, **{name: law[name] for name in law if "table" not in name}),
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
