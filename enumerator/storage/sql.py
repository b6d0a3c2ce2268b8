"""Read-only SQL over Arrow data sets: DuckDB with every door shut."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from enumerator.errors import CatalogueError, EnumeratorError, InputError
from enumerator.storage.datafiles import damaged_file

# Set in this order, the last ones shut the door on the others. Nothing is spilled to disk; DuckDB's own
# limit holds, 80% of the memory of the machine or container for all queries of a process together.
_LOCKS = (
    "temp_directory=''",
    "TimeZone='UTC'",
    "python_enable_replacements=false",
    "autoinstall_known_extensions=false",
    "autoload_known_extensions=false",
    "allow_community_extensions=false",
    "enable_external_access=false",
    "lock_configuration=true",
)
# Table functions that compute from their arguments or describe the tables. All others are refused:
# some take memory addresses (arrow_scan), some run SQL from a string, behind the back of the check.
_TABLE_FUNCTIONS = {
    *("range", "generate_series", "unnest", "repeat", "repeat_row"),
    *("json_each", "json_tree", "histogram", "histogram_values", "summary"),
    *("duckdb_columns", "duckdb_tables", "duckdb_views", "duckdb_functions", "duckdb_types", "pragma_table_info"),
}
# Functions that tell or change how the process is set up, write a log, or do nothing for a while; or work out a
# part of a statement in a string, where the check does not see it.
_REFUSED_FUNCTIONS = {
    "json_serialize_plan",
    *("current_setting", "getvariable", "current_query", "current_query_id", "write_log", "sleep_ms", "pg_sleep"),
    *("nextval", "currval", "setval", "parse_duckdb_log_message", "get_block_size"),
}
# Types whose values would arrive as others: negative, without the time zone, as the bytes of DuckDB itself.
_ALTERED = ("uhugeint", "time with time zone", "bit", "bignum")
# What a user can get wrong in a statement; other errors of DuckDB are not the user's.
_USER_ERRORS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.PermissionException,
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.SyntaxException,
    duckdb.TypeMismatchException,
    duckdb.NotImplementedException,
    duckdb.ConstraintException,
)
# Those of them that a row can bring about, as their messages begin.
_USER_TITLES = ("Invalid Input Error", "Conversion Error", "Out of Range Error")
# DuckDB reports a file that Arrow cannot read as invalid input, and passes on nothing but a message with
# these words (2.0, and before).
_UNREADABLE = ("reading the stream registered as", "get_next failed")
# So, too, it passes on that the process was to stop while it read a table.
_INTERRUPTED = ("the object registered as", "failed: KeyboardInterrupt")
# Rows of a batch where a result comes in batches, at most.
BATCH_ROWS = 10_000
# What this process allows its queries, as settings of DuckDB; the queries that are at work.
_allowed: list[str] = []
_at_work: set[duckdb.DuckDBPyConnection] = set()


def allow(memory_bytes: int, threads: int) -> None:
    """Bound the memory of all queries of this process together, and their threads; before the first query."""
    _allowed[:] = [f"memory_limit='{memory_bytes}B'", f"threads={threads}"]


def interrupt() -> None:
    """Stop the queries that are at work in this process: they raise InputError. For another thread."""
    for cursor in list(_at_work):
        cursor.interrupt()


@cache
def _database(process: int) -> duckdb.DuckDBPyConnection:
    """The locked in-memory database of this process; a forked child makes its own."""
    database = duckdb.connect(":memory:")
    for lock in (*_allowed, *_LOCKS):
        database.execute(f"set global {lock}")
    return database


Datasets = Mapping[str, ds.Dataset | pa.Table]


def run(query: str, datasets: Datasets, hint: str = "") -> pa.Table:
    """The result of one SELECT statement over `datasets` by name. Reads nothing else, writes nothing.

    Raises InputError for any other statement and for errors in it, with `hint` behind the message;
    CatalogueError where the data cannot be read.
    """
    with _answering(query, datasets, hint) as cursor:
        return _answer(query, cursor).to_arrow_table()


@contextmanager
def reading(query: str, datasets: Datasets, hint: str = "") -> Iterator[pa.RecordBatchReader]:
    """The result in batches, as they are asked for, as long as the block lasts. Raises as `run`, there too."""
    with _answering(query, datasets, hint) as cursor:
        yield _answer(query, cursor).to_arrow_reader(BATCH_ROWS)


@contextmanager
def _answering(query: str, datasets: Datasets, hint: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor that knows the data and has checked the statement; its errors become ours."""
    with closing(_database(os.getpid()).cursor()) as cursor:
        _at_work.add(cursor)
        try:
            _check(query, cursor)
            for name, dataset in datasets.items():
                cursor.register(name, dataset)
            yield cursor
        except (duckdb.Error, OSError, MemoryError) as error:
            if all(words in str(error) for words in _INTERRUPTED):
                raise KeyboardInterrupt from error
            raise _ours(error, datasets, hint) from error
        finally:
            _at_work.discard(cursor)


def _answer(query: str, cursor: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """What a statement gives, not yet computed. Raises InputError for a column that Arrow gets otherwise than it is."""
    answer = cursor.sql(query)
    for name, kind in zip(answer.columns, answer.types, strict=True):
        if altered := next((part for part in _kinds(kind) if part in _ALTERED), None):
            raise InputError(
                f"the column {name!r} holds {altered.upper()}, which has no exact form here: cast it to varchar."
            )
    return answer


def _kinds(kind: Any) -> Iterator[str]:
    """The names of a type, and of all types in it."""
    yield kind.id
    if kind.id in ("list", "array", "struct", "map", "union"):
        for _, part in kind.children:
            if not isinstance(part, int):  # the size of an array
                yield from _kinds(part)


def _ours(error: BaseException, datasets: Datasets, hint: str) -> EnumeratorError:
    """The error to raise for one of DuckDB's."""
    # Between batches DuckDB's errors pass through Arrow, which keeps no more of them than their text.
    title = str(error).partition(":")[0] if isinstance(error, OSError) else ""
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError) or title == "Out of Memory Error":
        return InputError("the query needs more memory than there is: select fewer rows or columns.")
    if isinstance(error, duckdb.InterruptException) or title == "INTERRUPT Error":
        return InputError("the query was stopped: it took longer than is allowed.")
    is_unreadable = any(words in str(error) for words in _UNREADABLE)
    if (isinstance(error, _USER_ERRORS) or title in _USER_TITLES) and not is_unreadable:
        return InputError(f"{_first_line(error)}{hint and '. ' + hint}")
    return _unreadable(datasets, error)


def _unreadable(datasets: Datasets, error: BaseException) -> CatalogueError:
    """An error that names the damaged file, if that is why; DuckDB does not know it."""
    for name, dataset in datasets.items():
        if isinstance(dataset, ds.Dataset) and (problem := damaged_file(dataset)):
            return CatalogueError(f"cannot read the table {name}: {problem}. `enumerator verify` says more.")
    return CatalogueError(f"cannot read the catalogue: {_first_line(error)}")


def _check(query: str, cursor: duckdb.DuckDBPyConnection) -> None:
    """Raise InputError unless `query` is one SELECT statement with harmless table functions only."""
    if not isinstance(query, str):
        raise InputError(f"expected one SELECT statement, got {query!r}.")
    statements = cursor.extract_statements(query)
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        got = " and ".join(kinds) or "nothing"
        raise InputError(f"the catalogue is read-only: expected one SELECT statement, got {got}.")
    ((serialised,),) = cursor.execute("select json_serialize_sql(?::varchar)", [query]).fetchall()
    tree = json.loads(serialised)
    if tree["error"]:
        raise InputError(f"expected one SELECT statement, got one that cannot be checked: {tree.get('error_message')}.")
    for kind, name in _names(tree):
        if (
            (kind == "table function" and name not in _TABLE_FUNCTIONS)
            or (kind == "function" and name in _REFUSED_FUNCTIONS)
            or (kind == "view" and name in _refused_views(os.getpid()))
        ):
            raise InputError(f"the catalogue is read-only: the {kind} {name} is not available.")


@cache
def _refused_views(process: int) -> frozenset[str]:
    """The views that DuckDB brings along, but for those that describe the tables.

    Not even as the name of a part of the statement: whether that is meant would depend on where it stands.
    """
    query = "select view_name from duckdb_views() where internal and schema_name <> 'information_schema'"
    names = {name.lower() for (name,) in _database(process).cursor().execute(query).fetchall()}
    return frozenset(names - _TABLE_FUNCTIONS)


def _names(tree: Any) -> Iterator[tuple[str, str]]:
    """What a syntax tree names as DuckDB writes it: table functions, functions, and tables or views."""
    if isinstance(tree, dict):
        if tree.get("type") == "TABLE_FUNCTION":
            yield "table function", str(tree["function"].get("function_name", "?")).lower()
        elif tree.get("type") == "BASE_TABLE":
            yield "view", str(tree.get("table_name", "?")).lower()
        elif "function_name" in tree:
            yield "function", str(tree["function_name"]).lower()
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _names(branch)


def _first_line(error: BaseException) -> str:
    """The message without the excerpt of the statement that DuckDB puts under it, on one line."""
    message = str(error).partition("\nLINE ")[0]
    return " ".join(message.split()).rstrip(".!")


def quoted(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """An SQL condition: `column` has one of these strings. As literals, so that whole files can be passed over."""
    literals = ", ".join(quoted(value) for value in values)
    return f"{column} in ({literals})" if literals else "false"


def nearest(name: str, names: Sequence[str]) -> str:
    """The part of a message that says which of `names` are most like `name`."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    return f"nearest: {', '.join(close)}" if close else "it has none yet"
