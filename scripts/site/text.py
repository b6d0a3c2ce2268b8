"""Text of the code as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """One cell of a table: on one line, and nothing in it ends the cell or reads as markup."""
    plain = " ".join(text.split())
    for mark in ("\\", "|", "*", "<", "[", "_", "$"):
        plain = plain.replace(mark, "\\" + mark) if mark != "<" else plain.replace(mark, "&lt;")
    return plain


def code(text: str) -> str:
    """A name or a value, as code, in a cell of a table too."""
    return f"`{text.replace('|', chr(92) + '|')}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; nothing where there are no rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *lines]) + "\n" if lines else ""


def described(what: str, text: str | None) -> str:
    """`text`, or a ValueError that says what has none."""
    if not text or not text.strip():
        raise ValueError(f"{what} has no description: write one where it is defined.")
    return text.strip()
