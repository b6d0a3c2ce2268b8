"""The workers of a run with their calls: hands out shards, takes in results, replaces workers that die."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from cluster.runs.plan import Range
from cluster.runs.session import quiet
from cluster.runs.worker import start_worker
from enumerator.errors import EnumeratorError, SolverError
from enumerator.problem import Campaign
from enumerator.starts import ShardResult

# One call runs and one waits at each worker: it never idles while the driver commits, and a worker
# that falls behind holds no more than one shard back.
CALLS_IN_FLIGHT = 2
# A shard that ends its worker so often is given up: it is not chance, such as a worker that is killed.
MOST_CRASHES = 3
# A shard of more starts than this is not given up but cut into pieces: on a large cluster chance alone kills some
# worker three times over one shard.
FEWEST_CUT = 64
PIECES = 4
# An elastic pool has so many workers for each for which there is room, and one at least. Those that wait are what a
# cluster that grows by demand sees: it doubles, as far as it may; they go with the driver, so nothing is asked for
# when that has died. On a cluster that does not grow they cost nothing.
AHEAD = 2
# Seconds between two looks at what the cluster has room for.
LOOK_SECONDS = 2.0
# Seconds in which the calls to a dead worker fail, generously.
LAST_WORDS = 30.0

# The worker died, or what it had to say was lost with its machine.
_LOST = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError, GetTimeoutError)


@dataclass(eq=False)
class _Worker:
    """An actor and the shards it was handed, in the order in which it takes them up."""

    actor: Any  # an ActorProxy[Solver], which Ray's own functions do not take by that type
    # An ObjectRef, done when there was room for the actor, and it is up; None from then on.
    starting: Any = None
    calls: dict[ray.ObjectRef, Range] = field(default_factory=dict)


class Pool:
    """Workers that solve shards, two at a time handed to each. A worker that dies is replaced, its shards solved again.

    Ray could do that by itself, but would go on for ever with a shard that ends every worker it meets. A worker gets
    shards when it is up, so that one for which there is no room, or none any more, holds nothing back. `elastic` pools
    follow the cluster: there are `workers` at first, then AHEAD times as many as it has room for, as far as there are
    shards to solve.
    """

    def __init__(
        self, campaign: Campaign, device: str, workers: int, shards: list[Range], elastic: bool = False
    ) -> None:
        self._elastic, self._looked = elastic, time.monotonic()
        self._campaign_id, self._device = campaign.id, device
        self._campaign = ray.put(campaign)
        self._waiting = deque(shards)
        self._crashes = Counter[Range]()
        self._crashes_in_a_row = 0
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        actor: Any = start_worker(self._device)
        return _Worker(actor, actor.__ray_ready__.remote())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers, whatever they are at: what they have not handed in is left for another run."""
        with quiet():
            for worker in self._workers:
                ray.kill(worker.actor)

    @property
    def busy(self) -> bool:
        """Whether a shard is still out, or waits."""
        return bool(self._waiting) or any(worker.calls for worker in self._workers)

    def _hand_out(self) -> None:
        """Fill the workers up, in turn."""
        for count in range(1, CALLS_IN_FLIGHT + 1):
            for worker in self._workers:
                if self._waiting and worker.starting is None and len(worker.calls) < count:
                    shard = self._waiting.popleft()
                    worker.calls[worker.actor.solve.remote(self._campaign, *shard)] = shard

    def finished(self, patience: float) -> Iterator[tuple[Range, ShardResult]]:
        """The shards that are solved, after waiting at most `patience` seconds for one.

        Raises SolverError, or the error of the worker, naming the starts.
        """
        self._follow_cluster()
        calls = [call for worker in self._workers for call in worker.calls]
        calls += [worker.starting for worker in self._workers if worker.starting is not None]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        if not ready:
            ready, _ = ray.wait(calls, num_returns=1, timeout=patience)
        for worker in list(self._workers):
            if worker.starting in ready:
                yield from self._started(worker)
            for call in [call for call in worker.calls if call in ready]:
                shard = worker.calls[call]
                try:
                    result = _result(call, shard)
                except _LOST:
                    yield from self._replace(worker)
                    break
                del worker.calls[call]
                self._crashes_in_a_row = 0
                self._hand_out()
                yield shard, result

    def _started(self, worker: _Worker) -> Iterator[tuple[Range, ShardResult]]:
        """A worker that is up, or did not come up."""
        try:
            ray.get([worker.starting] if worker.starting is not None else [])
        except _LOST:
            yield from self._replace(worker)
        except RayError as error:
            raise SolverError(f"a worker could not be started: {_first_line(error)}") from error
        else:
            worker.starting = None
            self._hand_out()

    def _follow_cluster(self) -> None:
        """Workers where nodes have joined or may join, as far as there is work; none that wait for more."""
        if not self._elastic or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        most = max(1, AHEAD * room_for_workers(self._device))
        wanted = min(most, len(self._waiting) + sum(len(worker.calls) for worker in self._workers))
        self._workers += [self._start() for _ in range(wanted - len(self._workers))]
        # The last to come are the first to go: those before them may be starting.
        waiting = [worker for worker in reversed(self._workers) if worker.starting is not None]
        for worker in waiting[: max(0, len(self._workers) - wanted)]:
            with quiet():
                ray.kill(worker.actor)
            self._workers.remove(worker)

    def _replace(self, worker: _Worker) -> Iterator[tuple[Range, ShardResult]]:
        """Put a new worker in the place of one that died; what it had handed in before is yielded."""
        with quiet():
            ray.kill(worker.actor)  # in case that it is only out of reach
        if worker.calls:
            ray.wait(list(worker.calls), num_returns=len(worker.calls), timeout=LAST_WORDS)
        lost = []
        for call, shard in worker.calls.items():
            try:
                result = _result(call, shard, timeout=0)
            except _LOST:
                lost.append(shard)
            else:
                yield shard, result
        # It takes its shards up in order, so it died of the first, if of any. That one goes to the end of the
        # queue: all others are solved before it can end the run.
        pieces = self._crashed(lost[0]) if lost else self._crashed_idle()
        self._waiting.extendleft(reversed(lost[1:]))
        self._waiting.extend(pieces)
        self._workers[self._workers.index(worker)] = self._start()
        self._hand_out()

    def _crashed_idle(self) -> list[Range]:
        """Count the end of a worker that had no shard. Raises SolverError if none comes up any more."""
        self._crashes_in_a_row += 1
        if self._crashes_in_a_row >= MOST_CRASHES * len(self._workers):
            raise SolverError(
                f"worker processes died {self._crashes_in_a_row} times in a row, the last with nothing to do: "
                "does `enumerator` run on every machine of the cluster?"
            )
        return []

    def _crashed(self, shard: Range) -> list[Range]:
        """Count a crash; what is to be solved in place of the shard. Raises SolverError if it is one too many."""
        self._crashes[shard] += 1
        self._crashes_in_a_row += 1
        first, last = shard
        if self._crashes[shard] == MOST_CRASHES and last - first > FEWEST_CUT:
            step = -(-(last - first) // PIECES)
            return [(begin, min(begin + step, last)) for begin in range(first, last, step)]
        advice = "If memory is short (`dmesg` tells), use fewer --workers; if not, please report it."
        if self._crashes[shard] >= MOST_CRASHES:
            raise SolverError(
                f"starts {shard[0]} to {shard[1] - 1} of {self._campaign_id}: the worker process died on them "
                f"{self._crashes[shard]} times. What was solved is stored. {advice}"
            )
        if self._crashes_in_a_row >= MOST_CRASHES * len(self._workers):
            raise SolverError(
                f"worker processes died {self._crashes_in_a_row} times in a row, the last at starts {shard[0]} to "
                f"{shard[1] - 1} of {self._campaign_id}. {advice}"
            )
        return [shard]


def room_for_workers(device: str) -> int:
    """How many workers the nodes that are there have room for, if nobody else takes any."""
    return int(ray.cluster_resources().get("GPU" if device == "gpu" else "CPU", 0))


def _result(call: ray.ObjectRef, shard: Range, timeout: float | None = None) -> ShardResult:
    """The result of a call; an error in the worker becomes one that names the shard, a lost worker stays itself."""
    where = f"starts {shard[0]} to {shard[1] - 1}"
    try:
        return ray.get(call, timeout=timeout)
    except RayTaskError as error:
        if isinstance(error.cause, EnumeratorError):
            raise type(error.cause)(f"{where}: {error.cause}") from error
        raise SolverError(f"{where}: {type(error.cause).__name__}: {error.cause}") from error
    except _LOST:
        raise
    except RayError as error:
        raise SolverError(f"{where}: no worker could take them: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
