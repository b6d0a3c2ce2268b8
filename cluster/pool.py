"""The workers of a run with their calls: hands out shards, takes in results, replaces workers that die."""

from __future__ import annotations

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

from cluster.plan import Range
from cluster.session import quiet
from cluster.worker import start_worker
from enumerator.errors import EnumeratorError, SolverError
from enumerator.problem import Campaign
from enumerator.starts import ShardResult

# One call runs and one waits at each worker: it never idles while the driver commits, and a worker
# that falls behind holds no more than one shard back.
CALLS_IN_FLIGHT = 2
# A shard that ends its worker so often is given up: it is not chance, such as a worker that is killed.
MOST_CRASHES = 3
# Seconds in which the calls to a dead worker fail, generously.
LAST_WORDS = 30.0

# The worker died, or what it had to say was lost with its machine.
_LOST = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError, GetTimeoutError)


@dataclass(eq=False)
class _Worker:
    """An actor and the shards it was handed, in the order in which it takes them up."""

    actor: Any  # an ActorProxy[Solver], which Ray's own functions do not take by that type
    calls: dict[ray.ObjectRef, Range] = field(default_factory=dict)


class Pool:
    """Workers that solve shards, two at a time handed to each. A worker that dies is replaced, its shards solved again.

    Ray could do that by itself, but would go on for ever with a shard that ends every worker it meets.
    """

    def __init__(self, campaign: Campaign, device: str, workers: int, shards: list[Range]) -> None:
        self._campaign_id, self._device = campaign.id, device
        self._campaign = ray.put(campaign)
        self._waiting = deque(shards)
        self._crashes = Counter[Range]()
        self._crashes_in_a_row = 0
        self._workers = [_Worker(start_worker(device)) for _ in range(workers)]
        self._hand_out()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers, whatever they are at: what they have not handed in is left for another run."""
        with quiet():
            for worker in self._workers:
                ray.kill(worker.actor)

    @property
    def busy(self) -> bool:
        """Whether a shard is still out."""
        return any(worker.calls for worker in self._workers)

    def _hand_out(self) -> None:
        """Fill the workers up, in turn."""
        for count in range(1, CALLS_IN_FLIGHT + 1):
            for worker in self._workers:
                if self._waiting and len(worker.calls) < count:
                    shard = self._waiting.popleft()
                    worker.calls[worker.actor.solve.remote(self._campaign, *shard)] = shard

    def finished(self, patience: float) -> Iterator[tuple[Range, ShardResult]]:
        """The shards that are solved, after waiting at most `patience` seconds for one.

        Raises SolverError, or the error of the worker, naming the starts.
        """
        calls = [call for worker in self._workers for call in worker.calls]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        if not ready:
            ready, _ = ray.wait(calls, num_returns=1, timeout=patience)
        for worker in list(self._workers):
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

    def _replace(self, worker: _Worker) -> Iterator[tuple[Range, ShardResult]]:
        """Put a new worker in the place of one that died; what it had handed in before is yielded."""
        with quiet():
            ray.kill(worker.actor)  # in case that it is only out of reach
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
        self._crashed(lost[0])
        self._waiting.extendleft(reversed(lost[1:]))
        self._waiting.append(lost[0])
        self._workers[self._workers.index(worker)] = _Worker(start_worker(self._device))
        self._hand_out()

    def _crashed(self, shard: Range) -> None:
        """Count a crash. Raises SolverError if it is the last one to bear."""
        self._crashes[shard] += 1
        self._crashes_in_a_row += 1
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
