"""How far the campaigns of a grid are: one table on a terminal, lines elsewhere, JSON for machines. On stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.inputs import Request
from cluster.runs.progress import LINE_INTERVAL, Display, JsonLines, Silent, Tally
from enumerator.progress import Pace


class GridDisplay:
    """The display of all campaigns, with one for each of them (`display`)."""

    def __init__(self, name: str, campaigns: list[tuple[str, Request]]) -> None:
        if name == "auto":
            name = "bar" if sys.stderr.isatty() else "lines"
        self.name, self.campaigns = name, campaigns
        self.tallies: dict[int, Tally] = {}
        self.paces: dict[int, Pace] = {}
        self.done: set[int] = set()
        self._live: Live | None = None
        self._lines: dict[int, JsonLines] = {}

    def __enter__(self) -> GridDisplay:
        if self.name == "bar":
            self._live = Live(self.table(), console=Console(file=sys.stderr), transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def display(self, position: int) -> Display:
        """What shows the campaign at this position; its run calls it."""
        self.paces[position] = Pace()
        if self.name == "json":
            self._lines[position] = JsonLines(sys.stderr, self.campaigns[position][1].campaign)
            return self._lines[position]
        return {"bar": _Row, "lines": _Line}[self.name](self, position) if self.name != "none" else Silent()

    def update(self, position: int, tally: Tally) -> None:
        """Take in how far a campaign is."""
        self.tallies[position] = tally
        if self._live is not None:
            self._live.update(self.table(), refresh=True)

    def finished(self, position: int, tally: Tally) -> None:
        """A campaign is over, also one of which nothing was missing."""
        self.done.add(position)
        self.update(position, tally)
        if self.name == "json":
            self._lines[position].close(tally)
        if self.name == "lines":
            print(f"{self.where(position)}: {tally.text()}", file=sys.stderr, flush=True)

    def where(self, position: int) -> str:
        """2/11 relu.7.7.flow.d1000.s0"""
        return f"{position + 1}/{len(self.campaigns)} {self.campaigns[position][0]}"

    def table(self) -> Table:
        """A row for each campaign."""
        table = Table(box=None, pad_edge=False)
        for heading in ("campaign", "starts", "minima", "unfinished", ""):
            table.add_column(heading, justify="left" if heading in ("campaign", "") else "right")
        for position, (title, wanted) in enumerate(self.campaigns):
            tally = self.tallies.get(position)
            if tally is None:
                table.add_row(title, f"0 of {wanted.starts:,}", "", "", "waiting", style="dim")
                continue
            _, rate, left = self.paces[position].measure(*tally.work)
            pace = "starting" if rate is None or left is None else f"{rate:.3g}/s, {left:.0f} s left"
            state = "done" if position in self.done else pace
            counts = f"{tally.done:,} of {tally.asked:,}", str(tally.minima), str(tally.unfinished)
            table.add_row(title, *counts, state, style="" if position in self.done else "bold")
        return table


class _Row:
    """The row of a campaign in the table."""

    def __init__(self, grid: GridDisplay, position: int) -> None:
        self.grid, self.position = grid, position
        grid.update(position, Tally(grid.campaigns[position][1].starts))

    def show(self, tally: Tally) -> None:
        """Redraw."""
        self.grid.update(self.position, tally)

    def close(self, tally: Tally) -> None:
        """Show where it ended."""
        self.grid.update(self.position, tally)


class _Line:
    """A line on a campaign every LINE_INTERVAL seconds."""

    def __init__(self, grid: GridDisplay, position: int) -> None:
        self.grid, self.position = grid, position
        self.printed = time.monotonic()

    def show(self, tally: Tally) -> None:
        """Print if it is time."""
        now = time.monotonic()
        if now - self.printed >= LINE_INTERVAL:
            self.printed = now
            pace = tally.text(self.grid.paces[self.position])
            print(f"{self.grid.where(self.position)}: {pace}", file=sys.stderr, flush=True)

    def close(self, tally: Tally) -> None:
        """Nothing is pending."""
