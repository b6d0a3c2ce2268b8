"""What comes from outside may be anything: whatever a parser makes of it, the user gets one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from enumerator.errors import EnumeratorError, InputError

# Characters of a text from outside that a message repeats, at most.
SHOWN = 200


@contextmanager
def parsing(
    expected: str, source: object, advice: str = "", kind: type[EnumeratorError] = InputError
) -> Iterator[None]:
    """Turn whatever a parser raises in this block into one error of this `kind`; errors of our own pass.

    Nesting ends in a RecursionError, a size that is only declared in a MemoryError or an OverflowError, what is of
    another type in an AttributeError or a TypeError, and each format has errors of its own: no list holds them all.
    """
    try:
        yield
    except EnumeratorError:
        raise
    except Exception as error:
        raise kind(f"expected {expected}, got {source}: {_reason(error)}.{advice and ' ' + advice}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError | OverflowError):
        return "it says that it holds more than fits into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error)
    if "pickle" in text or "Python objects" in text:
        return "it holds pickled objects, or is of another format"
    return shortened(" ".join(text.split()).rstrip(".")) or type(error).__name__


def shortened(text: str) -> str:
    """The beginning of a text that may be of any length."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def shown(value: object) -> str:
    """A value as a message repeats it: `repr`, of which a long one is cut, and one of too many digits left out."""
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):
        return f"one of {type(value).__name__} that is too long to show"
