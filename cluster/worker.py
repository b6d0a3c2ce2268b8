"""The Ray actor that solves shards: one for each CPU core, or one for each GPU."""

from __future__ import annotations

import os

import ray
from ray.actor import ActorProxy

from cluster.machine import compilation_cache
from enumerator.problem import Campaign
from enumerator.solve import solve_shard
from enumerator.starts import ShardResult


class Solver:
    """Solves shards, one after the other. It holds nothing between them, so that a new one may take its place."""

    @ray.method
    def solve(self, campaign: Campaign, first: int, last: int) -> ShardResult:
        """Starts [first, last) of the campaign."""
        return solve_shard(campaign, first, last)


def worker_environment(device: str) -> dict[str, str]:
    """Environment variables of a worker on `cpu` or `gpu`."""
    environment = {
        "JAX_ENABLE_X64": "1",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(compilation_cache())),
        # Everything is worth keeping: a worker compiles a dozen programs, of which most take under a second.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if device == "gpu":
        # Memory is taken as it is needed: the first batches tell how many lanes fit.
        return environment | {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # XLA takes its number of threads from NPROC, not from OMP_NUM_THREADS.
    return environment | {"JAX_PLATFORMS": "cpu", "NPROC": "1"}


def start_worker(device: str) -> ActorProxy[Solver]:
    """A Solver on `cpu` or `gpu`. If it dies it stays dead: the pool counts, and starts another."""
    # An actor on a GPU must ask for no core, or it waits for one that nobody promised.
    resources = {"num_cpus": 0, "num_gpus": 1} if device == "gpu" else {"num_cpus": 1}
    actor = ray.remote(Solver).options(
        **resources,
        max_restarts=0,
        max_task_retries=0,
        runtime_env={"env_vars": worker_environment(device)},
    )
    return actor.remote()
