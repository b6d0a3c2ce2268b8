"""The Ray actor that solves shards: one for each CPU core, or one for each GPU."""

from __future__ import annotations

import os
from pathlib import Path

import ray
from ray.actor import ActorProxy

from cluster.runs.machine import compilation_cache, dropping_damaged_programs, worker_environment
from enumerator.follow import follow_shard
from enumerator.problem import Campaign
from enumerator.starts import ShardResult


class Solver:
    """Solves shards, one after the other. It holds nothing between them, so that a new one may take its place."""

    @ray.method
    def solve(self, campaign: Campaign, first: int, last: int) -> ShardResult:
        """Starts [first, last) of the campaign."""
        with dropping_damaged_programs(Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", compilation_cache()))):
            return follow_shard(campaign, first, last)


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
