"""What a run would take: measured on a few starts in this process, which writes nothing."""

from __future__ import annotations

import io
import math
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from cluster.inputs import Request
from cluster.runs.machine import available_cores, available_gpus, compilation_cache
from cluster.runs.options import RunOptions
from cluster.runs.plan import LARGEST_SHARD, default_shard_size, missing_shards, quick
from enumerator.catalogue.campaign_names import name_of
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.store import FILES_TO_JOIN, JOINED_BYTES
from enumerator.enumeration import tabulate
from enumerator.follow import follow_shard
from enumerator.problem import Campaign
from enumerator.progress import duration_text
from enumerator.starts import ShardResult

# Measured on 2 cores of an EPYC server: seconds from the start of Ray until its workers have imported everything,
# and what Ray's own processes hold.
RAY_SECONDS = 8.0
RAY_BYTES = 380 * 2**20
# Seconds that the driver takes for a shard, one after the other.
COMMIT_SECONDS = 0.06
# The empty tables, and the entry of each commit in their logs.
EMPTY_BYTES = 64 * 2**10
ENTRY_BYTES = 1500
# Starts measured at first: one full batch on a CPU.
FEW = 64
# Seconds that a measurement of a shard, or the first part of a large one, may take; it is nearer to the run than one of
# a few starts.
LONG = 20.0


@dataclass(frozen=True)
class Estimate:
    """What a run would take. Of `asked` starts `done` are stored; `measured` were solved to tell the rest.

    `startup_seconds` is part of `seconds`, `bytes_compacted` what `enumerator compact` leaves of `disk_bytes`;
    `device_bytes` is None without a GPU.
    """

    campaign_id: str
    campaign_name: str
    asked: int
    done: int
    shards: int
    shard_size: int
    workers: int
    device: str
    starts_per_second: float
    startup_seconds: float
    seconds: float
    memory_bytes: int
    device_bytes: int | None
    disk_bytes: int
    bytes_compacted: int
    measured: int

    def table(self) -> pa.Table:
        """One row, a column for each field."""
        return pa.table({name: [value] for name, value in vars(self).items()})

    def text(self) -> str:
        """The same in words."""
        stored = f", {self.done:,} of them stored" if self.done else ""
        if not self.shards:
            return f"Nothing is missing: all {self.asked:,} starts of {self.campaign_name} are stored."
        workers = f"{self.workers} {'worker' if self.workers == 1 else 'workers'} on {self.device}"
        device = "" if self.device_bytes is None else f", {_bytes_text(self.device_bytes)} on each GPU"
        return "\n".join(
            [
                f"{self.campaign_name}: {self.asked:,} starts{stored}.",
                f"  shards  {self.shards:,} of {self.shard_size:,} starts",
                f"  time    about {duration_text(self.seconds)}: {duration_text(self.startup_seconds)} to start and "
                f"compile, then {self.starts_per_second:.3g} starts/s, {workers}",
                f"  memory  about {_bytes_text(self.memory_bytes)} in all processes{device}",
                f"  disk    about {_bytes_text(self.disk_bytes)}, {_bytes_text(self.bytes_compacted)} when compacted",
                f"Measured on {self.measured:,} starts here and now. Nothing was written.",
            ]
        )


class _Speed(NamedTuple):
    """Starts per second of one worker, seconds to compile, the last result measured, and starts measured in all."""

    rate: float
    compiling: float
    result: ShardResult
    measured: int


def estimate(wanted: Request, catalogue: Catalogue | None, options: RunOptions) -> Estimate:
    """What `run_campaign` with the same arguments would take; `catalogue` is None where there is none yet."""
    campaign, starts, size, device = wanted.campaign, wanted.starts, wanted.shard_size, options.device
    workers = options.workers or (available_gpus() if device == "gpu" else available_cores())
    done = catalogue.done(campaign.id) if catalogue else []
    registered = catalogue.campaigns(campaign=campaign.id, columns="shard_size") if done and catalogue else None
    if registered is not None:
        size = registered["shard_size"][0].as_py()
    size = size or default_shard_size(starts, workers, device == "gpu", quick(campaign))
    shards = missing_shards(starts, size, done)
    count = sum(last - first for first, last in shards)
    if not shards:
        names = campaign.id, name_of(campaign)
        return Estimate(*names, starts, starts, 0, size, workers, device, 0, 0, 0, 0, None, 0, 0, 0)
    workers = min(workers, len(shards))
    _become_a_worker(device)
    speed = _measure(campaign, shards[0][0], starts, size, device)
    # A worker that has nothing left to do waits for the last one. The driver commits on the same cores.
    solving, committing = math.ceil(len(shards) / workers) * min(size, count) / speed.rate, len(shards) * COMMIT_SECONDS
    seconds = max(solving + committing / workers, committing)
    startup = RAY_SECONDS + speed.compiling
    disk, compacted = _disk(speed.result, size, len(shards), count)
    return Estimate(
        campaign_id=campaign.id,
        campaign_name=name_of(campaign),
        asked=starts,
        done=starts - count,
        shards=len(shards),
        shard_size=size,
        workers=workers,
        device=device,
        starts_per_second=count / seconds,
        startup_seconds=startup,
        seconds=startup + seconds,
        memory_bytes=_memory(workers),
        device_bytes=_device_memory(),
        disk_bytes=disk,
        bytes_compacted=compacted,
        measured=speed.measured,
    )


def _become_a_worker(device: str) -> None:
    """Compute as a worker does: on one core, or on the GPU; compiled programs are read, but none are kept."""
    os.environ["NPROC"] = "1"
    if device == "gpu":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        jax.config.update("jax_platforms", "cuda")
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(compilation_cache()))
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)


def _measure(campaign: Campaign, first: int, starts: int, size: int, device: str) -> _Speed:
    """Solve a few missing starts, others again now that all is compiled, and up to a whole shard if quick."""

    def timed(count: int) -> tuple[float, ShardResult]:
        nonlocal position, measured
        # Round and round where there are few: a table of given overlaps ends.
        position = position if position + count <= starts else starts - count
        began = time.perf_counter()
        result = follow_shard(campaign, position, position + count)
        position, measured = position + count, measured + count
        return time.perf_counter() - began, result

    position, measured = first, 0
    few = min(FEW, size, starts - first)
    cold, _ = timed(few)
    seconds, result = timed(few)
    compiling = max(cold - seconds, 0.0)
    # On a CPU a larger shard is no faster than the first part of it.
    whole = min(size if device == "gpu" else min(size, LARGEST_SHARD), starts - first)
    if whole > few and (device == "gpu" or seconds / few * whole < LONG):
        seconds, result = timed(whole)
    return _Speed(len(result.starts) / seconds, compiling, result, measured)


def _memory(workers: int) -> int:
    """Bytes of all processes: this one has done what a worker does, and the driver is like it.

    What is mapped from files, such as libraries, they share.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return RAY_BYTES + (workers + 1) * peak
    shared = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssFile:"))
    return RAY_BYTES + shared + (workers + 1) * (peak - shared)


def _device_memory() -> int | None:
    """Most bytes in use on the GPU so far; None on a CPU, which keeps no count."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _disk(result: ShardResult, size: int, shards: int, count: int) -> tuple[int, int]:
    """Bytes of the catalogue's growth, before and after the small files that were joined are removed."""
    tables = tabulate(result)

    def rows(wanted: int) -> int:
        """Bytes of a file of so many starts like those measured."""
        return _file_bytes(tables.starts.take(np.resize(np.arange(len(result.starts)), wanted)))

    points = _file_bytes(tables.minima) + _file_bytes(tables.saddles)
    small = shards * (rows(min(size, count)) + ENTRY_BYTES)
    # From 10,000 on a start takes the same room in whatever file.
    joined = rows(min(count, 10_000)) * max(1.0, count / 10_000)
    fixed = EMPTY_BYTES + 2 * points
    return int(fixed + small + _rewritten(shards, joined / shards)), int(fixed + joined)


def _rewritten(shards: int, each: float) -> float:
    """Bytes of all the files into which shards of `each` bytes are joined, again and again, until these are large."""
    total, gathered = 0.0, 0.0
    for _ in range(shards // (FILES_TO_JOIN - 1)):
        gathered += (FILES_TO_JOIN - 1) * each
        total += gathered
        gathered = 0.0 if gathered >= JOINED_BYTES else gathered
    return total


def _file_bytes(table: pa.Table) -> int:
    buffer = io.BytesIO()
    # As Delta Lake writes.
    parquet.write_table(table, buffer, compression="snappy")
    return buffer.tell()


def _bytes_text(count: float) -> str:
    """1.2 GiB, 340 MiB, 12 KiB."""
    power = 1 if count < 1000 * 2**10 else 2 if count < 1000 * 2**20 else 3
    size = count / 1024**power
    return f"{size:.1f} {'KMG'[power - 1]}iB" if size < 10 else f"{size:.0f} {'KMG'[power - 1]}iB"
