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
from enumerator.initial_law import SECOND_LAYER_LAWS as SECOND_LAYER_LAWS  # for the command line
from enumerator.initial_law import InitialLaw
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

    The student is f(x) = sum_k a_k g(w_k.x / sqrt d), the teacher f*(x) = sum_m g(v_m.x / sqrt d). The loss is half
    their mean squared difference under x ~ N(0, I_d). T = V V^T / d holds the overlaps of the teachers.

    Args:
        students: K, the number of neurons of the student, at most 1,024.
        teachers: M, the number of neurons of the teacher, at most 1,024.
        T: Overlaps (M, M) of the teachers, symmetric and positive semidefinite, of any rank. None: orthonormal ones.
        activation: The function g: `relu`, `leaky_relu` or `erf`, which is erf(x / sqrt 2).
        activation_slope: Slope of a leaky ReLU below zero; None for other activations.
        constraint: `none`, `normalized` students (Q_kk = 1), or `orthonormalized` ones (Q = I).
        second_layer: `fixed`, all a_k are 1, or `trained`.
        snap_teachers: Make entries of T equal that are so nearly, so that T has the symmetry that it nearly has.

    Raises:
        InputError: For numbers, choices or a matrix that cannot be.

    Examples:
        >>> landscape = en.Landscape(students=7, teachers=7)
        >>> landscape.is_orthonormal, landscape.teacher_rank
        (True, 7)
        >>> en.Landscape(students=3, teachers=2, T=[[1.0, 0.3], [0.3, 1.0]], activation="erf").id
        'ls-9b3866092afc666b'
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
        """The landscape with this `content`: the inverse of `to_dict`."""
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

    Args:
        name: `gradient-flow`, `newton`, `gradient-descent` or `one-pass-sgd`.
        step: Learning rate of gradient-descent and one-pass-sgd, in reduced weights w / sqrt d; None for others.
        flow_time: Time t = step x updates / d for which one-pass-sgd runs; None for others.

    Raises:
        InputError: For an unknown name, or for a setting that is missing or does not belong to these dynamics.
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
class Campaign:
    """Landscape x dynamics x initial law x seed x solver settings: what a frequency is a frequency of.

    The number of starts, the workers, the device and the shard size are no part of it. So you can extend a campaign,
    and no start is counted twice.

    Args:
        landscape: What has the minima.
        dynamics: How it is descended.
        law: Where the starts begin.
        seed: Number from 0 to 2^63 - 1. Start i depends on the law, the seed and i alone.
        tolerances: Settings of the solvers.

    Raises:
        InputError: For settings that do not fit together, such as a dimension below the rank of T.
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
        """The campaign with this content: the inverse of `to_dict`.

        Args:
            content: What `to_dict` gave.
            Q: Initial overlaps (n, K, K) of a campaign that starts from a table; None for others.
            R: The same of students with teachers, (n, K, M).

        Raises:
            InputError: If a table is missing, or the campaign has none.
        """
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
