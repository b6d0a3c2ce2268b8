"""Read-only SQL over Arrow data sets: DuckDB with every door shut."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from enumerator.datafiles import damaged_file
from enumerator.errors import CatalogueError, InputError

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
# DuckDB reports a file that Arrow cannot read as invalid input, and passes on nothing but a message with
# these words (2.0, and before).
_UNREADABLE = ("reading the stream registered as", "get_next failed")


@cache
def _database(process: int) -> duckdb.DuckDBPyConnection:
    """The locked in-memory database of this process; a forked child makes its own."""
    database = duckdb.connect(":memory:")
    for lock in _LOCKS:
        database.execute(f"set global {lock}")
    return database


def run(query: str, datasets: Mapping[str, ds.Dataset], hint: str = "") -> pa.Table:
    """The result of one SELECT statement over `datasets` by name. Reads nothing else, writes nothing.

    Raises InputError for any other statement and for errors in it, with `hint` behind the message;
    CatalogueError where the data cannot be read.
    """
    with closing(_database(os.getpid()).cursor()) as cursor:
        try:
            _check(query, cursor)
            for name, dataset in datasets.items():
                cursor.register(name, dataset)
            return cursor.sql(query).to_arrow_table()
        except _USER_ERRORS as error:
            if any(words in str(error) for words in _UNREADABLE):
                raise _unreadable(datasets, error) from error
            raise InputError(f"{_first_line(error)}{hint and '. ' + hint}") from error
        except duckdb.OutOfMemoryException as error:
            raise InputError("the query needs more memory than there is: select fewer rows or columns.") from error
        except (duckdb.Error, OSError) as error:
            raise _unreadable(datasets, error) from error


def _unreadable(datasets: Mapping[str, ds.Dataset], error: BaseException) -> CatalogueError:
    """An error that names the damaged file, if that is why; DuckDB does not know it."""
    for name, dataset in datasets.items():
        if problem := damaged_file(dataset):
            return CatalogueError(f"cannot read the table {name}: {problem}. `enumerator verify` says more.")
    return CatalogueError(f"cannot read the catalogue: {_first_line(error)}")


def _check(query: str, cursor: duckdb.DuckDBPyConnection) -> None:
    """Raise InputError unless `query` is one SELECT statement with harmless table functions only."""
    statements = cursor.extract_statements(query)
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        got = " and ".join(kinds) or "nothing"
        raise InputError(f"the catalogue is read-only: expected one SELECT statement, got {got}.")
    ((serialised,),) = cursor.execute("select json_serialize_sql(?::varchar)", [query]).fetchall()
    tree = json.loads(serialised)
    if tree["error"]:
        raise InputError(f"expected one SELECT statement, got one that cannot be checked: {tree.get('error_message')}.")
    for name in _table_functions(tree):
        if name not in _TABLE_FUNCTIONS:
            raise InputError(f"the catalogue is read-only: the table function {name} is not available.")


def _table_functions(tree: Any) -> Iterator[str]:
    """The names of the table functions in a syntax tree as DuckDB writes it."""
    if isinstance(tree, dict):
        if tree.get("type") == "TABLE_FUNCTION":
            yield str(tree["function"].get("function_name", "?")).lower()
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _table_functions(branch)


def _first_line(error: BaseException) -> str:
    """The message without the excerpt of the statement that DuckDB puts under it, on one line."""
    message = str(error).partition("\nLINE ")[0]
    return " ".join(message.split()).rstrip(".")


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
