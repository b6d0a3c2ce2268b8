"""An error as the user is told of it: one line, and the exit code of the process that it ends."""

from __future__ import annotations

from enumerator.errors import CatalogueError, InputError
from enumerator.parsing import shown

# Set to see where an error comes from.
DEBUG = "ENUMERATOR_DEBUG"


def told(error: Exception) -> tuple[str, int]:
    """The line, and the exit code: 2 for what the user has handed in, 1 for anything else."""
    text, code, advice = str(error), 1, ""
    if isinstance(error, InputError):
        code = 2
    elif isinstance(error, OSError) and error.filename is not None:
        text, code = f"cannot use {shown(error.filename)}: {error.strerror}.", 2
    elif not isinstance(error, CatalogueError):
        advice = f" ({type(error).__name__}; {DEBUG}=1 shows where)"
    return f"{on_one_line(text) or type(error).__name__}{advice}", code


def on_one_line(text: str) -> str:
    """A text with blanks in the place of ends of lines."""
    return " ".join(text.split())
