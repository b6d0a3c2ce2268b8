"""Signals that end a command. All do what Ctrl-C does, so that nothing is left behind; the end of a terminal is one."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from typing import NoReturn

# Ctrl-C; what `kill` and schedulers send; the end of a terminal or of a connection.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stopping() -> list[signal.Signals]:
    """Those that stop this process: not the end of a terminal where it was told to outlive that, as by nohup."""
    outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in STOPPING if number != signal.SIGHUP or not outlives]


def stop_as_interrupt_does() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does; for the main thread of a command."""
    for number in stopping():
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    leave_terminal(number)
    # Not by way of `sys.stderr`, which may be in the midst of a line.
    os.write(2, f"Stopped by {signal.Signals(number).name}.\n".encode())
    raise KeyboardInterrupt


def leave_terminal(number: int) -> None:
    """After SIGHUP no terminal is written to: it is gone, and each try would be an error. Files and pipes stay."""
    if number != signal.SIGHUP:
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):  # closed from the beginning
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextlib.contextmanager
def hang_up_withheld() -> Iterator[None]:
    """Processes that are started in the block never get SIGHUP; this one gets it after the block.

    The end of a terminal sends it to all of its processes at once; those of Ray would be gone before a run can stop.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
