"""What this machine offers to workers: its cores and GPUs, and a place for compiled programs. Without Ray."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import subprocess
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enumerator.errors import InputError
from enumerator.validation import check_choice

DEVICES = ("auto", "cpu", "gpu")
# How JAX warns of a compiled program that it cannot read.
_UNREADABLE_PROGRAM = "reading persistent compilation cache entry"
# How files begin that were compressed by Zstandard.
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except OSError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def available_gpus() -> int:
    """NVIDIA GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all that the driver lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines()) if listing.returncode == 0 else 0


def jax_has_cuda() -> bool:
    """Whether the CUDA half of JAX is installed."""
    return any(importlib.util.find_spec(f"jax_cuda{version}_plugin") is not None for version in (12, 13))


def choose_device(device: str) -> str:
    """`cpu` or `gpu` for `device`, where `auto` takes the GPU if there is one that JAX can use.

    Raises InputError for an unknown device, and for `gpu` where there is none.
    """
    if check_choice("device", device, DEVICES) == "cpu":
        return "cpu"
    gpus, cuda = available_gpus(), jax_has_cuda()
    if device == "auto":
        return "gpu" if gpus and cuda else "cpu"
    if not gpus:
        raise InputError("`device` gpu needs an NVIDIA GPU, found none: use cpu, or check `nvidia-smi -L`.")
    if not cuda:
        raise InputError(
            "`device` gpu needs JAX with CUDA, found JAX without: in your clone, type "
            ".venv/bin/python -m pip install -c constraints.txt -e '.[gpu]'."
        )
    return "gpu"


def compilation_cache() -> Path:
    """Folder for compiled programs, one for each kind of processor: code for another one may not run."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    kind = hashlib.sha256(f"{platform.machine()} {processor}".encode()).hexdigest()[:12]
    return root / "enumerator" / "compiled" / kind


@contextmanager
def dropping_damaged_programs(folder: Path) -> Iterator[None]:
    """If JAX comes across a compiled program in `folder` that it cannot read, remove all such programs.

    JAX compiles it anew, but leaves the file, and would do so again in every process to come.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
    finally:
        damage = [entry for entry in caught if _UNREADABLE_PROGRAM in str(entry.message)]
        for entry in caught:
            if entry not in damage:
                warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
        if damage:
            _drop_damaged_programs(folder)


def _drop_damaged_programs(folder: Path) -> None:
    for file in folder.glob("*-cache"):
        content = file.read_bytes()
        try:
            if not content.startswith(_ZSTANDARD):  # which JAX takes where it is installed
                zlib.decompress(content)
        except zlib.error:
            file.unlink(missing_ok=True)


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
