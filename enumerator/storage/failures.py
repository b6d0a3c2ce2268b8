"""What lies behind a failure of Delta Lake or of the file system, in words of the operating system, on one line."""

from __future__ import annotations

import errno
import os
import re

# Failures that last until somebody does something about them, and what.
_LASTING = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "make room",
    (errno.EROFS, errno.EACCES, errno.EPERM): "make it writable",
}
# How Rust prints an error of the operating system: to its users, and to its developers.
_NUMBER = re.compile(r'\(os error (\d+)\)|Os \{ code: (\d+), kind: \w+, message: "[^"]*" \}')
# Colours, and the arrows that they are for.
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|↳")


def lasting(error: BaseException) -> tuple[str, str] | None:
    """The cause of a failure that no second try mends, and what the user has to do; None for all others."""
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    if not number and (found := _NUMBER.search(str(error))):
        number = int(found[1] or found[2])
    for numbers, advice in _LASTING.items():
        if number in numbers:
            return os.strerror(number).lower(), advice
    return None


def one_line(error: BaseException) -> str:
    """The cause of a failure, without a full stop."""
    if found := lasting(error):
        return found[0]
    text = _DECORATION.sub("", str(error)).partition(" 0: <unknown>")[0]  # behind it stands where in Rust it arose
    return " ".join(_NUMBER.sub(lambda match: os.strerror(int(match[1] or match[2])), text).split())


def to_restore(error: BaseException) -> str:
    """Why the log of a table could not be read, and what to do where it is damaged."""
    text = one_line(error).partition(": ParsedLogPath {")[0].removeprefix("Kernel error: ").rstrip(".")
    is_out_of_reach = lasting(error) or isinstance(error, OSError) or "object store" in text
    return text if is_out_of_reach else f"{text}. Restore it (_delta_log) from a copy."


def to_begin(error: BaseException) -> str:
    """Why a catalogue could not be made, and what to do."""
    found = lasting(error)
    return f"{found[0]}: {found[1]}, or choose another place." if found else one_line(error)


def to_go_on(error: BaseException) -> str:
    """Why a commit failed, and what to do."""
    found = lasting(error)
    return f"{found[0]}. What was stored stays: {found[1]}, and the same command goes on." if found else one_line(error)
