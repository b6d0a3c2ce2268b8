"""What a user hands in: campaign files, teacher matrices, tables of initial overlaps. Read, checked, made a campaign.

Everything here raises InputError before anything is written or started.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from enumerator.activations import ACTIVATIONS
from enumerator.catalogue.schema import campaign_file_schema
from enumerator.constraints import CONSTRAINTS
from enumerator.errors import InputError
from enumerator.parsing import parsing, shortened, shown
from enumerator.problem import (
    DYNAMICS,
    PRECISIONS,
    SINGLE_ABOVE,
    Campaign,
    Dynamics,
    InitialLaw,
    Landscape,
    Tolerances,
)
from enumerator.symmetry.teachers import near_symmetry
from enumerator.validation import MOST_STARTS, check_choice, check_count

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

# Settings that are files, relative to the campaign file.
FILES = ("teacher", "initial")
# Starts of a campaign that does not say how many: enough to see every minimum that holds 1% of them.
DEFAULT_STARTS = 1000
# Bytes; a grid of thousands of values fits.
LARGEST_CAMPAIGN_FILE = 2**20
# Names with dots between them, in a line of a campaign file; it has two.
_DEEPEST = 100
_SAVE = "Save it with numpy.save or numpy.savez."
# How a file in the Arrow IPC file format begins; a stream begins otherwise.
_ARROW_FILE = b"ARROW1"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Request:
    """A campaign, and what is no part of it: how many starts, and in shards of which size (None: chosen).

    Raises InputError for numbers that cannot be.
    """

    campaign: Campaign
    starts: int
    shard_size: int | None = None

    def __post_init__(self) -> None:
        check_count("starts", self.starts, most=MOST_STARTS)
        if self.shard_size is not None:
            check_count("shard_size", self.shard_size, most=MOST_STARTS)


def read_campaign_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, checked against schemas/campaign.json, its own files relative to it."""
    with parsing("a campaign file in TOML", path):
        if path.is_dir():
            raise InputError(
                f"expected a campaign file, {path} is a directory: a catalogue is named by an option, "
                f"--catalogue {quote(str(path))}."
            )
        if _readable(path, "campaign file").stat().st_size > LARGEST_CAMPAIGN_FILE:
            raise InputError(f"a campaign file may have {LARGEST_CAMPAIGN_FILE:,} bytes at most, {path} has more.")
        text = path.read_text(encoding="utf-8")
        if any(line.count(".") > _DEEPEST and "," not in line for line in text.splitlines()):
            raise RecursionError  # the time that it takes to read a.a.a... grows like the square of its length
        settings = tomllib.loads(text)
        check_settings(settings, str(path))
    for name in FILES:
        if name in settings and settings[name] != "orthonormal":
            settings[name] = str(path.parent / settings[name])
    return settings


def check_settings(settings: dict[str, Any], source: str) -> None:
    """Raise InputError for the first setting that schemas/campaign.json does not allow; `source` names the file."""
    from jsonschema import Draft202012Validator

    schema = campaign_file_schema()
    known = {"": schema["properties"], "tolerances": schema["properties"]["tolerances"]["properties"]}
    for place, names in known.items():
        table = settings.get(place, {}) if place else settings
        for name in table if isinstance(table, dict) else ():
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                advice = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(names)}."
                where = f"{place}." if place else ""
                raise InputError(f"{source}: unknown setting `{where}{shortened(name)}`: {advice}")
    for error in Draft202012Validator(schema).iter_errors(settings):
        # What may stand in options instead is checked where all come together.
        if error.validator != "required":
            place = ".".join(map(str, error.absolute_path))
            raise InputError(f"{source}: {f'`{place}`: ' if place else ''}{said_of(error)}.")

    for name, choices in (("activation", ACTIVATIONS), ("constraint", CONSTRAINTS), ("dynamics", DYNAMICS)):
        if settings.get(name, next(iter(choices))) not in choices:
            raise InputError(f"{source}: `{name}` must be one of {', '.join(choices)}, got {settings[name]!r}.")


def said_of(error: ValidationError) -> str:
    """What a value breaks, with as much of the value as a line holds."""
    return error.message.replace(repr(error.instance), shown(error.instance))


def loaded(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with arrays in the place of the files that they name: T, and Q and R. Raises InputError."""
    settings = dict(settings)
    teacher, initial = settings.pop("teacher", "orthonormal"), settings.pop("initial", None)
    if teacher != "orthonormal":
        settings["T"] = read_teacher(Path(teacher))
    if initial is not None:
        settings["Q"], settings["R"] = read_overlaps(Path(initial), sized(settings))
    return settings


def sized(settings: dict[str, Any]) -> Landscape:
    """A landscape of so many students and teachers as the settings have. Raises InputError where they do not say."""
    _check_sizes(settings)
    return Landscape(settings["students"], settings["teachers"])


def _check_sizes(settings: dict[str, Any]) -> None:
    for name in ("students", "teachers"):
        if name not in settings:
            raise InputError(f"`{name}` is missing: pass --{name}, or put it into the campaign file.")


def request(settings: dict[str, Any]) -> Request:
    """The campaign that the settings of schemas/campaign.json describe, with arrays in the place of files.

    T is (M, M), Q (n, K, K), R (n, K, M). Raises InputError.
    """
    from enumerator.follow import check_solvable

    _check_sizes(settings)
    names = ("students", "teachers", "T", "activation", "activation_slope", "constraint", "second_layer")
    names = (*names, "snap_teachers")
    landscape = Landscape(**{name: settings[name] for name in names if name in settings})
    chosen = {name: settings[name] for name in ("dimension", "scale", "Q", "R") if name in settings}
    law = InitialLaw(**chosen, second_layer=settings.get("second_layer_law", "ones"))
    tolerances = dict(settings.get("tolerances", {}))
    if not settings.get("lingering", True):
        tolerances["linger_below"] = 0.0
    if "precision" in settings:
        tolerances["single_above"] = _single_above(settings["precision"], tolerances.get("single_above"))
    campaign = Campaign(
        landscape=landscape,
        dynamics=Dynamics(settings.get("dynamics", "gradient-flow"), settings.get("step"), settings.get("flow_time")),
        law=law,
        seed=settings.get("seed", 0),
        tolerances=Tolerances(**tolerances),
    )
    check_solvable(campaign)
    starts = settings.get("starts", DEFAULT_STARTS if law.Q is None else len(law.Q))
    wanted = Request(campaign, starts, settings.get("shard_size"))
    if law.Q is not None and starts > len(law.Q):
        raise InputError(f"the table holds {len(law.Q)} initial overlaps, got --starts {starts}: ask for no more.")
    return wanted


def nearly_symmetric(requests: Iterable[Request]) -> list[str]:
    """A line for each T that is symmetric only nearly."""
    landscapes = {wanted.campaign.landscape.T.tobytes(): wanted.campaign.landscape for wanted in requests}
    found = (near_symmetry(landscape.T) for landscape in landscapes.values())
    return ["Note: " + near.text("--snap-teachers") for near in found if near is not None]


def _single_above(precision: str, given: float | None) -> float:
    """The tolerance of this name at the precision asked for; InputError where a given one says otherwise."""
    is_mixed = check_choice("precision", precision, PRECISIONS) == "mixed"
    if given is None:
        return SINGLE_ABOVE if is_mixed else 0.0
    if is_mixed != (given > 0):
        raise InputError(
            f"`precision` {precision} goes with a tolerance single_above {'above 0' if is_mixed else 'of 0'}, "
            f"got {given!r}: leave out one of the two."
        )
    return given


def duration(text: str, option: str) -> float:
    """Seconds, from 90, 90s, 30m, 1.5h or 7d. Raises InputError naming the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None:
        raise InputError(f"`{option}` must be a time such as 90s, 30m, 1.5h or 7d, got {text!r}.")
    return float(match[1]) * _SECONDS[match[2]]


def read_teacher(path: Path) -> NDArray[np.float64]:
    """The matrix in a .npy file; whether it holds teacher overlaps is the landscape's to say."""
    array = load_numpy(path, "teacher overlaps T as a matrix in a .npy file")
    if not isinstance(array, np.ndarray):
        raise InputError(f"expected teacher overlaps T in a .npy file, got an archive of arrays, {path}: save T alone.")
    if array.ndim != 2:
        raise InputError(f"expected teacher overlaps T as a matrix, got an array of shape {array.shape} in {path}.")
    if array.dtype.kind not in "fiu":
        raise InputError(f"expected teacher overlaps T as real numbers, got an array of {array.dtype} in {path}.")
    return array.astype(np.float64)


def read_overlaps(path: Path, landscape: Landscape) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Initial overlaps Q (n, K, K) and R (n, K, M) from a .npz, Arrow IPC (Feather) or Parquet file.

    In Arrow and Parquet, Q and R are list columns, one flat row-major matrix per start.
    """
    if path.suffix in (".arrow", ".feather", ".ipc", ".parquet"):
        columns = _list_columns(path)
    elif path.suffix == ".npz":
        archive = load_numpy(path, "initial overlaps Q and R in a .npz file")
        if isinstance(archive, np.ndarray):
            raise InputError(f"expected Q and R in a .npz file, got one array in {path}: numpy.savez(file, Q=, R=).")
        columns = archived(archive, ("Q", "R"), path)
    else:
        raise InputError(f"expected initial overlaps in a .npz, .arrow or .parquet file, got {path}.")
    return shaped(columns, landscape, f" in {path}")


def shaped(
    columns: dict[str, NDArray[Any]], landscape: Landscape, where: str = ""
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Initial overlaps Q (n, K, K) and R (n, K, M), of which each may have its matrices as flat rows.

    Raises InputError for anything else; `where` follows what came.
    """
    K, M = landscape.students, landscape.teachers
    found = {}
    for name, shape in (("Q", (K, K)), ("R", (K, M))):
        rows = columns[name]
        if rows.dtype.kind not in "fiu":
            raise InputError(f"initial overlaps {name} must be real numbers, got {rows.dtype}{where}.")
        if rows.ndim == 0 or len(rows) == 0 or rows[0].size != shape[0] * shape[1] or rows.ndim not in (2, 3):
            raise InputError(
                f"initial overlaps {name} must have shape (n, {shape[0]}, {shape[1]}) with n >= 1, "
                f"got {rows.shape}{where}."
            )
        found[name] = rows.astype(np.float64).reshape(-1, *shape)
    if len(found["Q"]) != len(found["R"]):
        raise InputError(f"initial overlaps need one Q and R per start, got {len(found['Q'])} and {len(found['R'])}.")
    return found["Q"], found["R"]


def _readable(path: Path, what: str) -> Path:
    with parsing(f"a {what}", path):
        if not path.is_file():
            raise InputError(f"expected a {what}, found no file {path}.")
    return path


def load_numpy(path: Path, what: str) -> Any:
    """numpy.load without pickles: an array for .npy, an archive for .npz."""
    _readable(path, path.suffix + " file" if path.suffix else "file")
    with parsing(what, path, _SAVE):
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":  # an archive, which numpy leaves open where it is broken
                zipfile.ZipFile(stream).close()
        # Mapped at first: the size that a header declares is held against that of the file, before memory is taken.
        content = np.load(path, allow_pickle=False, mmap_mode="r")
        return np.array(content) if isinstance(content, np.ndarray) else content


def archived(archive: Any, names: Sequence[str], path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of these names in a .npz archive. Raises InputError."""
    listed = " and ".join(names)
    if missing := set(names) - set(archive.files):
        found = shortened(", ".join(sorted(archive.files))) or "none"
        raise InputError(f"expected arrays {listed} in {path}, got {found}: {', '.join(sorted(missing))} missing.")
    with parsing(f"arrays {listed} of numbers", path, _SAVE):
        arrays = {name: archive[name] for name in names}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it holds files that are no arrays")
        return arrays


def read_arrow(path: Path) -> pa.Table:
    """The table in an Arrow file, of the file format or the stream format. Raises pyarrow's errors and OSError."""
    with pa.OSFile(str(path)) as source:
        is_file = source.read(len(_ARROW_FILE)) == _ARROW_FILE
        source.seek(0)
        return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source).read_all()


def _list_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Q and R (n, size) from the list columns of an Arrow or Parquet file; rows of unequal length are named."""
    _readable(path, path.suffix + " file")
    with parsing("an Arrow or Parquet file", path):
        table = parquet.read_table(path) if path.suffix == ".parquet" else read_arrow(path)
    columns = {}
    for name in ("Q", "R"):
        if name not in table.column_names:
            raise InputError(f"expected columns Q and R in {path}, got {', '.join(table.column_names)}.")
        with parsing(f"lists of numbers as {name}", path):
            rows = [np.asarray(row.as_py(), dtype=object).ravel() for row in table[name]]
        for index, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise InputError(f"{name} in {path} must have {len(rows[0])} entries in each row, row {index} differs.")
            if None in row:
                raise InputError(f"{name} in {path} must have no nulls, row {index} has one.")
        try:
            columns[name] = np.array(rows, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name} in {path} must hold lists of numbers, got {table[name].type}.") from None
    return columns
