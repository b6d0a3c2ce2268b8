"""A run: workers on Ray solve the missing shards of a campaign, and the driver alone commits them."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from cluster.inputs import Request
from cluster.runs.options import RunOptions
from cluster.runs.plan import default_shard_size, missing_shards, quick
from cluster.runs.pool import Pool, room_for_workers
from cluster.runs.progress import Display, Tally, display
from cluster.runs.session import ray_session
from cluster.signals import leave_terminal, stopping
from enumerator.catalogue.catalogue import Catalogue, CommitSummary
from enumerator.errors import EnumeratorError, InputError
from enumerator.problem import Campaign
from enumerator.starts import Outcome, ShardResult

# Seconds after which the driver looks up from waiting: how long a stop signal waits for an answer.
PATIENCE = 0.3


@dataclass(frozen=True)
class RunSummary:
    """What a run left behind, in how many seconds, and whether a signal or its time limit cut it short."""

    campaign_id: str
    tally: Tally
    seconds: float
    interrupted: bool = False
    timed_out: bool = False


def run_campaign(
    wanted: Request, catalogue: Catalogue, options: RunOptions | None = None, shown: Display | None = None
) -> RunSummary:
    """Solve the starts of a request that the catalogue lacks, and commit them shard by shard.

    Starts Ray on this machine by itself, for itself alone, unless Ray runs in this process already or an address names
    a cluster; it shuts down only what it started. Workers wait as long as a cluster has no nodes for them. `shown`
    stands for the display that the options name. Ctrl-C, SIGTERM and SIGHUP (`interrupted`), or the time limit
    (`timed_out`), end the run after the shard that is being committed; the same call goes on from there. Raises
    InputError where there is no room for the workers, SolverError if a worker fails or a shard ends its worker again
    and again.
    """
    options = options or RunOptions()
    campaign, starts, device = wanted.campaign, wanted.starts, options.device
    began = time.monotonic()
    count = _Count(catalogue, campaign, starts)
    interrupted = timed_out = False
    if missing_shards(starts, starts, catalogue.done(campaign.id)):
        shown = shown or display(options.progress, campaign)
        deadline = math.inf if options.time_limit is None else began + options.time_limit
        try:
            with (
                StopSignals() as stop,
                stop.entering(ray_session(options.address, options.workers, device, options.says)),
            ):
                workers = _workers(options)
                size = wanted.shard_size or default_shard_size(starts, workers, device == "gpu", quick(campaign))
                size = catalogue.register(campaign, size, device).shard_size
                with _stopped_by_errors(catalogue, campaign.id):
                    shards = missing_shards(starts, size, catalogue.done(campaign.id))
                    with Pool(campaign, device, min(workers, len(shards)), shards, options.is_elastic) as pool:
                        interrupted, timed_out = _solve(pool, catalogue, count, shown, stop, deadline)
                    if interrupted or timed_out:
                        catalogue.finish(campaign.id, "stopped")
        except StoppedError:
            interrupted = True
        finally:
            shown.close(count.tally)
    elif options.progress == "json":
        (shown or display("json", campaign)).close(count.tally)
    if not (interrupted or timed_out):
        _finish(catalogue, campaign)
    return RunSummary(campaign.id, count.tally, time.monotonic() - began, interrupted, timed_out)


def _solve(
    pool: Pool, catalogue: Catalogue, count: _Count, shown: Display, stop: StopSignals, deadline: float
) -> tuple[bool, bool]:
    """Commit what the pool solves, until nothing is left; whether a signal, or the deadline, cut that short."""
    timed_out = False
    while pool.busy and not (stop.asked or timed_out):
        for shard, result in pool.finished(PATIENCE):
            count.add(result, catalogue.commit_shard(result, *shard))
        shown.show(count.tally)
        timed_out = time.monotonic() >= deadline
    interrupted = pool.busy and stop.asked
    return interrupted, pool.busy and timed_out and not interrupted


@contextmanager
def _stopped_by_errors(catalogue: Catalogue, campaign_id: str) -> Iterator[None]:
    """A campaign whose run ends by an error in the block is stopped then."""
    try:
        yield
    except BaseException:
        with suppress(EnumeratorError):  # what ended the block tells more
            catalogue.finish(campaign_id, "stopped")
        raise


class _Count:
    """Counts what a campaign has found, from what is stored already and what is committed now."""

    def __init__(self, catalogue: Catalogue, campaign: Campaign, starts: int) -> None:
        self.minima: set[str] = set()
        self.tally = Tally(asked=starts)
        ranges = catalogue.done(campaign.id)
        if ranges:
            self.minima.update(catalogue.minima(campaign=campaign.id, columns="minimum_id")["minimum_id"].to_pylist())
            done = sum(min(last, starts) - min(first, starts) for first, last in ranges)
            self.tally = Tally(
                asked=starts,
                done=done,
                beyond=sum(last - first for first, last in ranges) - done,
                minima=len(self.minima),
                unfinished=catalogue.starts(campaign=campaign.id, where="outcome = 'unfinished'").num_rows,
            )

    def add(self, result: ShardResult, commit: CommitSummary) -> None:
        """A shard that was committed."""
        points = zip(result.points, commit.point_ids, strict=False)
        self.minima.update(name for point, name in points if point.verdict != "saddle")
        unfinished = int((result.starts.outcome == Outcome.UNFINISHED).sum())
        self.tally = replace(
            self.tally,
            done=self.tally.done + len(result.starts),
            fresh=self.tally.fresh + commit.starts,
            minima=len(self.minima),
            unfinished=self.tally.unfinished + unfinished,
        )


def _finish(catalogue: Catalogue, campaign: Campaign) -> None:
    """Mark the campaign as complete, unless it is: a rerun that had nothing to do changes nothing."""
    if catalogue.campaigns(campaign=campaign.id, columns="status")["status"].to_pylist() != ["complete"]:
        catalogue.finish(campaign.id, "complete")


def _workers(options: RunOptions) -> int:
    """How many workers: those wanted, or one per core, or per GPU. Raises InputError if there is no room for them.

    On a cluster at an address they wait for room: its nodes may join later, or only when somebody waits for them.
    """
    room = room_for_workers(options.device)
    if options.address is not None:
        return options.workers or max(room, 1)
    least = options.workers or 1
    if room < least:
        raise InputError(
            f"`workers` must be at most {room} on this Ray cluster, got {least}: one per {options.device}."
        )
    return options.workers or room


class StoppedError(Exception):
    """A signal came before there was anything to stop."""


class StopSignals:
    """Ctrl-C, SIGTERM and SIGHUP ask the run to stop while the block lasts; a second one interrupts it on the spot."""

    def __init__(self) -> None:
        self.asked = self._at_once = False
        self._before: dict[int, Any] = {}

    def _ask(self, number: int, frame: object) -> None:
        leave_terminal(number)
        if self.asked or self._at_once:
            self.asked = True
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def entering(self, session: AbstractContextManager[None]) -> Iterator[None]:
        """The block in a session of Ray. A signal while that starts ends it on the spot: StoppedError."""
        with ExitStack() as stack:
            self._at_once = True
            try:
                stack.enter_context(session)
            except (KeyboardInterrupt, SystemExit) as error:  # the second is how Ray, which takes SIGTERM, ends
                self.asked = True
                raise StoppedError from error
            finally:
                self._at_once = False
                self.arm()
            yield

    def arm(self) -> None:
        """Take the signals, again if someone else took them; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in stopping():
                before = signal.signal(number, self._ask)
                self._before.setdefault(number, before)

    def __enter__(self) -> StopSignals:
        self.arm()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
