"""The errors that users see: one root, few leaves, each message says the way out."""


class EnumeratorError(Exception):
    """Root of every error raised on purpose by this project."""


class InputError(EnumeratorError, ValueError):
    """Bad input: the message says what was expected, what came, and what to do (exit code 2)."""


class CatalogueError(EnumeratorError):
    """A catalogue cannot be read or written: missing, damaged, or of a newer schema."""


class SolverError(EnumeratorError):
    """A computation broke one of its own guarantees; a defect worth reporting."""
