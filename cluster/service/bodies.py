"""Bodies of requests: read and checked by the processes that answer, never by the one that all requests go through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from cluster.service.limits import MOST_NEURONS
from enumerator.errors import InputError

# The first wrong number ends the reading: there may be hundreds of thousands.
_Row = Annotated[list[float], Field(fail_fast=True)]
Matrix = Annotated[list[_Row], Field(fail_fast=True, max_length=MOST_NEURONS)]
_Model = TypeVar("_Model", bound=BaseModel)
# Characters of a name, or of a list of them, that a message repeats.
_SHOWN = 80


class Network(BaseModel):
    """Overlaps Q (K, K), R (K, M) in reduced units, or weights W (K, d) with teachers V (M, d) or orthonormal ones."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"Q": [[1.0, 0.1], [0.1, 1.0]], "R": [[0.9, 0.0], [0.1, 0.8]], "teachers": 2}},
    )

    Q: Annotated[Matrix | None, Field(description="Student overlaps (K, K), in reduced units.")] = None
    R: Annotated[Matrix | None, Field(description="Student-teacher overlaps (K, M), in reduced units.")] = None
    T: Annotated[Matrix | None, Field(description="Teacher overlaps; orthonormal teachers if not given.")] = None
    W: Annotated[Matrix | None, Field(description="Instead of Q and R: student weights (K, d).")] = None
    V: Annotated[Matrix | None, Field(description="Teacher weights (M, d), with `W`.")] = None
    teachers: Annotated[int | None, Field(ge=1, le=MOST_NEURONS, description="M, orthonormal teachers.")] = None
    students: Annotated[int | None, Field(ge=1, le=MOST_NEURONS, description="K, with `teachers`.")] = None
    reduced: Annotated[bool, Field(description="W and V are divided by sqrt d already.")] = False
    landscape: Annotated[str | None, Field(max_length=100, description="Or a landscape of the catalogue, an id.")] = (
        None
    )

    @property
    def neurons(self) -> int:
        """Of the larger of the two layers, as far as the rows tell."""
        rows = (len(matrix) for matrix in (self.Q, self.T, self.W, self.V) if matrix is not None)
        return max(*rows, *(len(row) for row in (self.R or [])[:1]), self.teachers or 0, 0)


class InvalidError(InputError):
    """A body that is not what the description asks for."""


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises InvalidError; for texts that are no Unicode and for NaN, too."""
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidError(f"expected a body in JSON: {error}.") from None
    if not isinstance(content, dict):
        raise InvalidError(f"expected an object in JSON, got a {type(content).__name__}.")
    return content


def read_as(model: type[_Model], body: bytes) -> _Model:
    """What a body says. Raises InvalidError for the first thing in it that is wrong."""
    content, known = read_object(body), model.model_fields
    for name in content:
        if name not in known:
            raise InvalidError(unknown(name, known))
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidError(f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}.") from None


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a name that is none of those that are known."""
    return f"`{name[:_SHOWN]}` is not known here: known are {', '.join(known)}."


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """What the description of the interface says of a route that takes such a body."""
    example = {"example": schema["example"]} if "example" in schema else {}
    content = {"application/json": {"schema": schema, **example}}
    return {"requestBody": {"required": True, "content": content}}
