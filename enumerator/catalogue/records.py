"""Arrays to Arrow tables and back, to the schemas: matrices are flat lists, row-major, beside their sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from enumerator.catalogue.schema import table_schema
from enumerator.errors import CatalogueError, InputError, SolverError
from enumerator.parsing import parsing
from enumerator.points import StationaryPoint
from enumerator.problem import Campaign, Landscape
from enumerator.starts import Lingering, Outcome, ShardResult

# The names of the outcomes, in the order of their values.
OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)


@cache
def software_version() -> str:
    """Version of this package and of jax, as every row records it."""

    return f"enumerator {installed_version('enumerator')}, jax {installed_version('jax')}"


def installed_version(package: str) -> str:
    """The version of a package, `0+unknown` for a copy that was not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "0+unknown"


def to_table(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of the table `name` as Arrow. Raises SolverError where a column that must not be null is."""
    return _complete(name, pa.Table.from_pylist(list(rows), schema=table_schema(name).arrow))


def _complete(name: str, table: pa.Table) -> pa.Table:
    for field in table.schema:
        if not field.nullable and table[field.name].null_count:
            raise SolverError(f"column {field.name} of table {name} has no value in some row, and must have one.")
    return table


def settings_of(campaign_id: str, text: str) -> dict[str, Any]:
    """The stored settings of a campaign, in JSON. Raises CatalogueError for what is none, or of another form."""
    with parsing("the settings of a campaign", f"those of {campaign_id}", kind=CatalogueError):
        settings = json.loads(text)
        if not set(settings) >= {"landscape", "dynamics", "law", "seed", "tolerances"}:
            raise ValueError("they are of another form")
        return settings


def from_table(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table: numbers, strings, None; a float64 array for each list of numbers, a list if it has gaps."""
    table = table.combine_chunks()
    columns = [_values(table[name]) for name in table.column_names]
    for values in zip(*columns, strict=True):
        yield dict(zip(table.column_names, values, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    if not pa.types.is_list(column.type):
        return column.to_pylist()
    if not pa.types.is_floating(column.type.value_type) or any(chunk.flatten().null_count for chunk in column.chunks):
        return column.to_pylist()
    values: list[Any] = []
    for chunk in column.chunks:
        entries = chunk.values.to_numpy(zero_copy_only=False)
        offsets = chunk.offsets.to_numpy()
        present = chunk.is_valid().to_numpy(zero_copy_only=False)
        values += [entries[a:b] if p else None for a, b, p in zip(offsets[:-1], offsets[1:], present, strict=True)]
    return values


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _flat(matrix: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if matrix is None else np.ascontiguousarray(matrix, dtype=np.float64).ravel()


def landscape_row(landscape: Landscape, created_at: datetime) -> dict[str, Any]:
    """The row of table `landscapes`."""
    return {
        "landscape_id": landscape.id,
        "students": landscape.students,
        "teachers": landscape.teachers,
        "activation": landscape.activation,
        "activation_slope": landscape.activation_slope,
        "constraint": landscape.constraint,
        "second_layer": landscape.second_layer,
        "T": _flat(landscape.T),
        "teacher_rank": landscape.teacher_rank,
        "created_at": created_at,
    }


def landscape_from_row(row: dict[str, Any]) -> Landscape:
    """Inverse of `landscape_row`. Raises CatalogueError if the row does not give the id that it is stored under."""
    landscape = Landscape(
        students=row["students"],
        teachers=row["teachers"],
        T=np.reshape(row["T"], (row["teachers"], row["teachers"])),
        activation=row["activation"],
        activation_slope=row["activation_slope"],
        constraint=row["constraint"],
        second_layer=row["second_layer"],
    )
    if landscape.id != row["landscape_id"]:
        raise CatalogueError(f"landscape {row['landscape_id']} reads back as {landscape.id}: its row was altered.")
    return landscape


def landscape_among(landscapes: pa.Table, landscape_id: str) -> Landscape:
    """The landscape of this id in the rows of table `landscapes`. Raises InputError if there is none."""
    for row in from_table(landscapes):
        if row["landscape_id"] == landscape_id:
            return landscape_from_row(row)
    raise InputError(f"no landscape {landscape_id!r} in this catalogue: `enumerator landscapes` lists them.")


def campaign_json(campaign: Campaign) -> str:
    """The settings of a campaign as they are stored and compared."""
    return json.dumps(campaign.to_dict(), sort_keys=True, allow_nan=False)


def campaign_row(campaign: Campaign, shard_size: int, device: str, created_at: datetime) -> dict[str, Any]:
    """The row of table `campaigns` at registration."""
    return {
        "campaign_id": campaign.id,
        "landscape_id": campaign.landscape.id,
        "campaign": campaign_json(campaign),
        "status": "running",
        "starts": 0,
        "created_at": created_at,
        "finished_at": None,
        "software": software_version(),
        "device": device,
        "shard_size": shard_size,
    }


def overlaps_table(campaign: Campaign) -> pa.Table:
    """The rows of table `initial_overlaps` of a campaign that starts from given overlaps."""
    law, landscape = campaign.law, campaign.landscape
    if law.Q is None or law.R is None:
        raise SolverError(f"campaign {campaign.id} does not start from given overlaps.")
    n = len(law.Q)

    def matrices(values: NDArray[np.float64]) -> pa.Array:
        size = values[0].size
        return pa.ListArray.from_arrays(pa.array(np.arange(0, (n + 1) * size, size, dtype=np.int32)), values.ravel())

    columns = {
        "campaign_id": pa.repeat(campaign.id, n),
        "start_index": np.arange(n),
        "students": np.full(n, landscape.students, np.int32),
        "teachers": np.full(n, landscape.teachers, np.int32),
        "Q": matrices(law.Q),
        "R": matrices(law.R),
    }
    return _complete("initial_overlaps", pa.table(columns).cast(table_schema("initial_overlaps").arrow))


def point_row(
    point: StationaryPoint, name: str, label: str, campaign: Campaign, created_at: datetime
) -> dict[str, Any]:
    """The row of table `minima` or `saddles` for a point that `campaign` found first; `name` is its minimum_id."""
    return point_columns(point) | {
        "minimum_id": name,
        "label": label,
        "first_campaign_id": campaign.id,
        "created_at": created_at,
        "software": software_version(),
    }


# What names a point, and tells who found it when. All others follow from the point, and are called as its fields.
_NAMES = ("minimum_id", "label", "first_campaign_id", "created_at", "software")


def point_columns(point: StationaryPoint) -> dict[str, Any]:
    """The columns of a row that follow from the point itself: its fields, and those of its landscape."""
    landscape = point.landscape
    columns = [name for name in table_schema("minima").column_names if name not in (*_NAMES, "landscape_id")]
    values = {name: getattr(point if hasattr(point, name) else landscape, name) for name in columns}
    return {"landscape_id": landscape.id} | {name: _stored(value) for name, value in values.items()}


def _stored(value: Any) -> Any:
    """A matrix as a flat list, a number that is not finite as null."""
    if isinstance(value, np.ndarray):
        return _flat(value)
    return _finite(value) if isinstance(value, float) else value


def point_from_row(row: dict[str, Any], landscape: Landscape) -> StationaryPoint:
    """Inverse of `point_row`, from a row of `from_table`: W = R V^{+T} is rebuilt, a null eigenvalue is NaN."""
    K = row["effective_students"]
    Q, R = np.reshape(row["Q"], (K, K)), np.reshape(row["R"], (K, landscape.teachers))
    rebuilt: dict[str, Any] = {"landscape": landscape, "W": reduced_weights(Q, R, landscape), "Q": Q, "R": R}
    others = {entry.name: entry.type for entry in fields(StationaryPoint) if entry.name not in rebuilt}
    # Where a field is always a number, null stands for NaN.
    read: dict[str, Any] = {name: _number(row[name]) if kind == "float" else row[name] for name, kind in others.items()}
    return StationaryPoint(**rebuilt, **read)


def reduced_weights(Q: NDArray[np.float64], R: NDArray[np.float64], landscape: Landscape) -> NDArray[np.float64]:
    """W (K, r + p) of a stationary point with overlaps Q (K, K), R (K, M), in the basis of `teacher_factor`.

    p dimensions outside the span of the teachers, which only constrained students have.
    """
    # For orthonormal teachers V is the identity: no rounding enters.
    W = R if landscape.is_orthonormal else np.asarray(R @ np.linalg.pinv(landscape.teacher_factor).T, np.float64)
    if landscape.equations.manifold.is_free:
        return W
    return np.concatenate([W, _perpendicular_part(Q - W @ W.T)], axis=1)


# A part outside the span of the teachers is none below this: its square is 1e-12, a hundred times the rounding of Q.
_PERPENDICULAR = 1e-6


def _perpendicular_part(S: NDArray[np.float64]) -> NDArray[np.float64]:
    """X (K, p) with X X^T = S (K, K), p its rank."""
    values, vectors = np.linalg.eigh(S)
    kept = values > _PERPENDICULAR**2
    return vectors[:, kept] * np.sqrt(values[kept])


def starts_table(result: ShardResult, point_ids: Sequence[str]) -> pa.Table:
    """The rows of table `starts`; `point_ids` names the stationary points of the result, in order.

    Raises SolverError where a start that converged, or ended on a saddle, names no point.
    """
    campaign, starts = result.campaign, result.starts
    outcome = np.asarray(starts.outcome)
    _check_named(result)
    kept = np.isin(outcome, [Outcome.UNFINISHED, Outcome.DIVERGED])
    names = np.array([*point_ids, None], dtype=object)[np.asarray(starts.point)]
    columns = {
        "campaign_id": [campaign.id] * len(outcome),
        "start_index": starts.index,
        "landscape_id": [campaign.landscape.id] * len(outcome),
        "minimum_id": pa.array(names, pa.string(), mask=outcome != Outcome.CONVERGED),
        "saddle_id": pa.array(names, pa.string(), mask=outcome != Outcome.SADDLE),
        "outcome": [OUTCOMES[code] for code in outcome],
        **{name: _matrices(getattr(starts, name), kept) for name in _KEPT},
        **_lingering_columns(result, point_ids),
    }
    # All others are called as the arrays that they hold.
    schema = table_schema("starts").arrow
    columns |= {field.name: _column(getattr(starts, field.name)) for field in schema if field.name not in columns}
    return _complete("starts", pa.table(columns, schema=schema))


# What is kept of starts that ended nowhere alone.
_KEPT = ("Q", "R", "second_layer")


def _check_named(result: ShardResult) -> None:
    starts = result.starts
    is_named = np.isin(starts.outcome, [Outcome.CONVERGED, Outcome.SADDLE])
    unnamed = is_named & (np.asarray(starts.point) < 0)
    if unnamed.any():
        index = starts.index[unnamed][0]
        raise SolverError(f"start {index} of {result.campaign.id} ended in a point that is not given.")


def _column(values: NDArray[Any]) -> pa.Array:
    """A number (n,), or a list of fixed length (n, m), in each row: null where not finite, or negative if whole."""
    valid = values >= 0 if np.issubdtype(values.dtype, np.integer) else np.isfinite(values)
    entries = pa.array(values.ravel(), mask=~valid.ravel())
    if values.ndim == 1:
        return entries
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1], entries)


def _matrices(values: NDArray[np.float64], kept: NDArray[np.bool_]) -> list[NDArray[np.float64] | None]:
    """The matrices of the starts that are kept; null for the others, and where there are none."""
    return [_flat(matrix) if keep and matrix.size else None for matrix, keep in zip(values, kept, strict=True)]


def _lingering_columns(result: ShardResult, point_ids: Sequence[str]) -> dict[str, list[list[Any]]]:
    """For each start the saddles that it lingered on, in order of time, for how long, and at which gradient norm."""
    rows: dict[int, list[Lingering]] = {int(index): [] for index in result.starts.index}
    for entry in sorted(result.lingerings, key=lambda entry: entry.entered):
        rows[entry.start].append(entry)
    return {
        "lingered_on": [[point_ids[entry.point] for entry in entries] for entries in rows.values()],
        "lingered_for": [[entry.left - entry.entered for entry in entries] for entries in rows.values()],
        "lingered_norm": [[entry.gradient_norm for entry in entries] for entries in rows.values()],
        "lingered_distance": [[entry.distance for entry in entries] for entries in rows.values()],
    }
