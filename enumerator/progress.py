"""How far an enumeration in this process is: one line on stderr, for whoever watches."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TextIO

# Seconds between two drawings: as smooth as one can read, and no cost.
_INTERVAL = 0.1
# Characters of the bar.
_BAR = 24
# Time after the first results, in units of what those took, from which on the others tell how fast a run is.
SETTLED = 0.5


class Pace:
    """Rate and time left of a run.

    Both leave out what comes first, while programs are compiled, and are unknown until so much time has passed since
    then that the other results of that moment do not decide.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first: tuple[float, int] | None = None

    def measure(self, fresh: int, left: int) -> tuple[float, float | None, float | None]:
        """Seconds since the beginning, starts per second, and seconds left; the last two None as long as unknown.

        `fresh` starts were done since then, and `left` are to be done.
        """
        now = time.monotonic()
        if not fresh:
            return now - self.began, None, None
        since, before = self.first = self.first or (now, fresh)
        if fresh == before or now - since < (since - self.began) * SETTLED:
            return now - self.began, None, None
        rate = (fresh - before) / max(now - since, 1e-3)
        return now - self.began, rate, max(left, 0) / rate

    def words(self, fresh: int, left: int) -> str:
        """The same in words."""
        seconds, rate, remaining = self.measure(fresh, left)
        if rate is None or remaining is None:
            return f"{duration_text(seconds)}, {'time left not known yet' if fresh else 'no results yet'}"
        return f"{rate:.3g}/s, {duration_text(remaining)} left"


def shown(
    progress: bool | Callable[[int], None] | None, total: int
) -> AbstractContextManager[Callable[[int], None] | None]:
    """What is to be told of starts as they retire: a line on stderr, a function of the user, or nothing."""
    if callable(progress):
        return nullcontext(progress)
    if progress or (progress is None and _is_watched()):
        return ProgressLine(total, sys.stderr)
    return nullcontext(None)


def _is_watched() -> bool:
    """Whether stderr is a terminal, or a cell of a notebook."""
    # What IPython defines where it runs, once it is loaded; its notebooks have a kernel.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None or (sys.stderr is not None and sys.stderr.isatty())


class ProgressLine:
    """A bar, the starts that retired, their rate and the time left, on one line that is erased at the end."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.total, self.done, self.stream = total, 0, stream
        self.pace = Pace()
        self._drawn = self.pace.began
        self._length = 0
        self._marks = _marks(stream)

    def __enter__(self) -> ProgressLine:
        self._draw(self.text())
        return self

    def __call__(self, retired: int) -> None:
        """Count starts that retired; draw if it is time."""
        self.done += retired
        now = time.monotonic()
        self.pace.measure(self.done, self.total - self.done)  # the first results end the beginning
        if now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._draw(self.text())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._draw("")

    def text(self) -> str:
        """The bar and the words behind it."""
        full, empty = self._marks
        length = _BAR * self.done // self.total
        bar = full * length + empty * (_BAR - length)
        return f"{bar} {self.done:,} of {self.total:,} starts, {self.pace.words(self.done, self.total - self.done)}"

    def _draw(self, text: str) -> None:
        """Put a line in the place of the last one; blanks hide what is left of that."""
        text = text[: shutil.get_terminal_size().columns - 1]
        self.stream.write("\r" + text.ljust(self._length) + ("" if text else "\r"))
        self.stream.flush()
        self._length = len(text)


def _marks(stream: TextIO) -> tuple[str, str]:
    """The characters of the bar that a stream can show."""
    try:
        "━─".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#", "."
    return "━", "─"


def duration_text(seconds: float) -> str:
    """1:02:03, 2:03 or 3 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
