"""Text of the code as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

_ESCAPED = str.maketrans({"\\": "\\\\", "|": "\\|", "*": "\\*", "_": "\\_", "[": "\\[", "$": "\\$", "<": "&lt;"})
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+|-o)(?![\w-])")


def prose(text: str) -> str:
    """Text in which nothing reads as markup but code between backticks; names of options become code.

    Paragraphs stay paragraphs. A line with a backspace alone, which tells the help of a command to keep the lines as
    they are, is dropped.
    """
    pieces = text.replace("\b\n", "").split("`")
    for position, piece in enumerate(pieces):
        if position % 2:
            pieces[position] = code(piece)
        else:
            pieces[position] = _OPTION.sub(r"`\1`", piece.translate(_ESCAPED))
    return "".join(pieces)


def cell(text: str) -> str:
    """One cell of a table: on one line, and nothing in it ends the cell or reads as markup."""
    return " ".join(prose(text).split())


def code(text: str) -> str:
    """A name or a value, as code, in a cell of a table too; a bar between backticks would end the cell."""
    if "|" in text:
        return f"<code>{escape(text).replace('|', '&#124;')}</code>"
    return f"`{text}`" if text else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; nothing where there are no rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *lines]) + "\n" if lines else ""


def first_sentence(text: str) -> str:
    """The first sentence of a description, without what follows a colon or semicolon in a long one."""
    paragraph = " ".join(text.split("\n\n", 1)[0].split())
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0]


def described(what: str, text: str | None) -> str:
    """`text`, or a ValueError that says what has none."""
    if not text or not text.strip():
        raise ValueError(f"{what} has no description: write one where it is defined.")
    return text.strip()
