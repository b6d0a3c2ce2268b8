"""How far a run is: a bar on a terminal, a plain line now and then elsewhere, JSON for machines. On stderr, always."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from enumerator.catalogue.campaign_names import name_of
from enumerator.problem import Campaign
from enumerator.progress import Pace, duration_text

DISPLAYS = ("auto", "bar", "lines", "json", "none")
# Seconds between two lines in a log: often enough to see that it lives, seldom enough to read.
LINE_INTERVAL = 10.0
# Seconds between two lines for machines: what watches many runs looks about so often.
JSON_INTERVAL = 1.0


@dataclass(frozen=True)
class Tally:
    """Where a campaign stands: of `asked` starts `done` are committed, `fresh` of them by this run.

    So are `beyond` more than asked for; `minima` and `unfinished` count these too.
    """

    asked: int
    done: int = 0
    fresh: int = 0
    minima: int = 0
    unfinished: int = 0
    beyond: int = 0

    def text(self, pace: Pace | None = None) -> str:
        """Starts, with rate and time left if there is a pace, distinct minima, unfinished."""
        words = [] if pace is None else [pace.words(*self.work)]
        return ", ".join([self.starts(), *words, *self.found()])

    @property
    def work(self) -> tuple[int, int]:
        """Starts that this run has done, and those that are left: what a `Pace` measures."""
        return self.fresh, self.asked - self.done

    def starts(self) -> str:
        """How many of how many."""
        beyond = f" ({self.done + self.beyond:,} are stored)" if self.beyond else ""
        return f"{self.done:,} of {self.asked:,} starts{beyond}"

    def found(self) -> list[str]:
        """Distinct minima, and unfinished starts if there are any."""
        minima = f"{self.minima} distinct {'minimum' if self.minima == 1 else 'minima'}"
        return [minima, f"{self.unfinished} unfinished"] if self.unfinished else [minima]


class Display(Protocol):
    """Shows the tally of a run, again and again."""

    def show(self, tally: Tally) -> None:
        """Bring the display up to date."""
        ...

    def close(self, tally: Tally) -> None:
        """Show no more: this is where the run ended."""
        ...


class Bar:
    """A bar that redraws itself."""

    def __init__(self, stream: TextIO) -> None:
        self.pace = Pace()
        columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=Console(file=stream), transient=True)
        self.task = self.progress.add_task("starting the workers", total=None)
        self.progress.start()

    def show(self, tally: Tally) -> None:
        """Redraw."""
        self.progress.update(self.task, total=tally.asked, completed=tally.done, description=tally.text(self.pace))

    def close(self, tally: Tally) -> None:
        """Take the bar away: what was done is told at the end."""
        self.progress.stop()


class Lines:
    """A line every LINE_INTERVAL seconds, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.pace = Pace()
        self.printed = time.monotonic()

    def show(self, tally: Tally) -> None:
        """Print if it is time."""
        text = tally.text(self.pace)
        now = time.monotonic()
        if now - self.printed >= LINE_INTERVAL:
            self.printed = now
            print(text, file=self.stream, flush=True)

    def close(self, tally: Tally) -> None:
        """Nothing is pending."""


class JsonLines:
    """For machines: a JSON object on a line when the first shards are out, when something was committed, at the end.

    At most one every JSON_INTERVAL seconds, the last apart. The keys: campaign_id and campaign_name; done and asked,
    starts; rate, starts per second, and seconds_left, both null until some time after the first commit; minima,
    distinct ones; unfinished, starts.
    """

    def __init__(self, stream: TextIO, campaign: Campaign) -> None:
        self.stream, self.names = stream, {"campaign_id": campaign.id, "campaign_name": name_of(campaign)}
        self.pace = Pace()
        self.printed: tuple[float, Tally] | None = None

    def show(self, tally: Tally) -> None:
        """Print if there is news, and it is time."""
        _, rate, left = self.pace.measure(*tally.work)
        if self.printed is None or (tally != self.printed[1] and time.monotonic() - self.printed[0] >= JSON_INTERVAL):
            self._print(tally, rate, left)

    def close(self, tally: Tally) -> None:
        """Print where the run ended."""
        if self.printed is None or tally != self.printed[1]:
            self._print(tally, *self.pace.measure(*tally.work)[1:])

    def _print(self, tally: Tally, rate: float | None, left: float | None) -> None:
        self.printed = (time.monotonic(), tally)
        line = {
            **self.names,
            "done": tally.done,
            "asked": tally.asked,
            "rate": None if rate is None else float(f"{rate:.4g}"),
            "seconds_left": None if left is None else round(left, 1),
            "minima": tally.minima,
            "unfinished": tally.unfinished,
        }
        print(json.dumps(line), file=self.stream, flush=True)


class Silent:
    """Shows nothing."""

    def show(self, tally: Tally) -> None:
        """Show nothing."""

    def close(self, tally: Tally) -> None:
        """Nothing is pending."""


class Parts:
    """Which part of a job is at work, how fast, and how long it will take: a bar on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self.part, self.began, self.printed = "", 0.0, time.monotonic()
        self.bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self.task = self.bar.add_task("opening the catalogue", total=None)
            self.bar.start()

    def __call__(self, part: str, done: int, total: int) -> None:
        """Show that of a part `done` of `total` are done."""
        now = time.monotonic()
        if part != self.part:
            self.part, self.began = part, now
        text = f"{part}: {done:,} of {total:,}"
        if done:
            rate = done / max(now - self.began, 1e-3)
            text += f", {rate:.3g}/s, {duration_text((total - done) / rate)} left"
        if self.bar is not None:
            self.bar.update(self.task, total=total, completed=done, description=text)
        elif now - self.printed >= LINE_INTERVAL:
            self.printed = now
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()


def display(name: str, campaign: Campaign) -> Display:
    """The display of this name on stderr; `auto` is a bar on a terminal, lines elsewhere."""
    if name == "auto":
        name = "bar" if sys.stderr.isatty() else "lines"
    if name == "json":
        return JsonLines(sys.stderr, campaign)
    return {"bar": Bar, "lines": Lines}[name](sys.stderr) if name != "none" else Silent()
