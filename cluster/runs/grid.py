"""The campaigns of a grid, run one after the other in one Ray."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa

from cluster.inputs import Request
from cluster.runs.driver import RunSummary, StoppedError, StopSignals, run_campaign
from cluster.runs.grid_display import GridDisplay
from cluster.runs.options import RunOptions
from cluster.runs.session import ray_session
from enumerator.catalogue.campaign_names import name_of
from enumerator.catalogue.catalogue import Catalogue


@dataclass(frozen=True)
class GridSummary:
    """What became of the campaigns: a summary for each that was begun, and why it ended where it was cut short."""

    requests: tuple[Request, ...]
    summaries: tuple[RunSummary, ...]
    seconds: float
    # Whether a signal came, also between two campaigns.
    signalled: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether a signal cut it short."""
        is_cut = len(self.summaries) < len(self.requests) and self.signalled
        return is_cut or any(summary.interrupted for summary in self.summaries)

    @property
    def timed_out(self) -> bool:
        """Whether the time limit did."""
        return any(summary.timed_out for summary in self.summaries) or (
            len(self.summaries) < len(self.requests) and not self.interrupted
        )

    def table(self) -> pa.Table:
        """A row for each campaign: its settings, and how far it is."""
        rows = []
        for position, wanted in enumerate(self.requests):
            tally = self.summaries[position].tally if position < len(self.summaries) else None
            landscape = wanted.campaign.landscape
            rows.append(
                {
                    "students": landscape.students,
                    "teachers": landscape.teachers,
                    "dynamics": wanted.campaign.dynamics.name,
                    "activation": landscape.activation,
                    "seed": wanted.campaign.seed,
                    "asked": wanted.starts,
                    "starts": tally.done if tally else 0,
                    "minima": tally.minima if tally else 0,
                    "unfinished": tally.unfinished if tally else 0,
                    "campaign_name": name_of(wanted.campaign),
                    "campaign_id": wanted.campaign.id,
                }
            )
        return pa.Table.from_pylist(rows)


def run_grid(requests: list[Request], catalogue: Catalogue, options: RunOptions) -> GridSummary:
    """Run campaigns one after the other, as `run_campaign` does; Ray starts once. Ctrl-C and the limit end them all.

    Raises as `run_campaign` does.
    """
    began, summaries = time.monotonic(), list[RunSummary]()
    session = ray_session(options.address, options.workers, options.device, options.says)
    with (
        GridDisplay(options.progress, [(name_of(wanted.campaign), wanted) for wanted in requests]) as shown,
        StopSignals() as stop,
        suppress(StoppedError),
        stop.entering(session),
    ):
        for position, wanted in enumerate(requests):
            left = None if options.time_limit is None else options.time_limit - (time.monotonic() - began)
            if stop.asked or (left is not None and left <= 0):
                break
            summary = run_campaign(wanted, catalogue, replace(options, time_limit=left), shown.display(position))
            shown.finished(position, summary.tally)
            summaries.append(summary)
            if summary.interrupted or summary.timed_out:
                break
    return GridSummary(tuple(requests), tuple(summaries), time.monotonic() - began, stop.asked)
