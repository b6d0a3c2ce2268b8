"""HTML for notebooks: facts, tables and matrices in the colours of the page. Every text is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def block(title: str, *parts: str) -> str:
    """What a notebook shows of one object: a title above some parts, which are HTML."""
    return f"<div><p><strong>{escape(title)}</strong></p>{''.join(parts)}</div>"


def note(text: str) -> str:
    """A line of text."""
    return f"<p>{escape(text)}</p>"


def facts(entries: Mapping[str, Any]) -> str:
    """Names with their values, one a row; those without a value (None) are left out."""
    rows = [f"<tr>{_head(name, 'row')}{_cell(value)}</tr>" for name, value in entries.items() if value is not None]
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with the names of its columns above."""
    head = "".join(_head(name, "col") for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def matrix(name: str, values: Sequence[Sequence[float]], most: int = 20) -> str:
    """A matrix of numbers with its name and shape; the shape alone beyond `most` rows or columns."""
    shape = (len(values), len(values[0]) if len(values) else 0)
    caption = f"{name} {shape}"
    if max(shape) > most or min(shape) == 0:
        return note(caption)
    rows = "".join(f"<tr>{''.join(_cell(f'{value:.3g}') for value in row)}</tr>" for row in values)
    return f"<table><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>"


def _head(text: str, scope: str) -> str:
    return f'<th scope="{scope}">{escape(text)}</th>'


def _cell(value: Any) -> str:
    """Whole numbers with commas, other numbers with nine digits, nothing for None."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    elif isinstance(value, float):
        value = f"{value:.9g}"
    return f"<td>{'' if value is None else escape(str(value))}</td>"
