"""Ray, for as long as a run lasts: started on this machine alone, in a folder of its own that goes with it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import ray
import ray.util

from cluster.runs.machine import available_cores, available_gpus
from cluster.runs.ray_start import StartError, end_processes, free_ports, load_text, watched_start
from cluster.signals import hang_up_withheld

# Results pass through here on their way to the driver; a shard of 256 starts at K = M = 100 takes 41 MB.
OBJECT_STORE_BYTES = 512 * 2**20
# So often Ray is started before it is given up: where others take all cores one of its processes may die, or miss
# its time.
TRIES = 3
# Folders of runs are called so, and each holds a file that its run keeps locked: the lock goes with the process,
# however it ends, and is seen from other containers on the same folder, where a process id says nothing.
FOLDER_PREFIX = "enumerator-"
OWNER = "owner"

# Ray's own settings, each left to the user who has set it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray is about to stop hiding the GPUs from workers that ask for none; it warns until this is set.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default Ray makes its workers 15 nicer than the run, so that anything else on the machine starves them: beside
    # one busy process they get a thirtieth of a core. Added to the niceness of the run: `nice enumerator run` holds.
    "RAY_worker_niceness": "0",
    # Seconds in which the agents of a node come up, which takes a minute where others take all cores.
    "RAY_raylet_start_wait_time_s": "300",
}


@contextlib.contextmanager
def ray_session(address: str | None, workers: int | None, device: str, says: bool = False) -> Iterator[None]:
    """Ray, for as long as the block lasts: the one that runs in this process, the one at `address`, or a local one.

    `says` lets lines on stderr tell of a start that takes long. Raises StartError where none comes up or answers.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # Ray prints to stdout when it restarts a worker, where only results may stand.
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        if address is None:
            _warn_of_visitors()
            cores = (workers or available_cores()) if device == "cpu" else 1
            stack.enter_context(_own_ray(cores, available_gpus() if device == "gpu" else 0, says))
        else:
            stack.callback(_shut_down)
            with watched_start(says):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        yield


@contextlib.contextmanager
def _own_ray(cores: int, gpus: int, says: bool) -> Iterator[None]:
    """A Ray on this machine, as long as the block lasts; nothing of one that does not come up stays behind.

    Raises StartError where none comes up.
    """
    with contextlib.ExitStack() as stack:
        for tried in range(TRIES):
            with contextlib.ExitStack() as attempt:
                folder = attempt.enter_context(own_folder())
                # Before Ray starts, which may be cut short, and before the folder goes.
                attempt.callback(end_processes, folder)
                attempt.callback(_shut_down)
                try:
                    with watched_start(says, tried):
                        _start(folder, cores, gpus)
                except Exception as error:  # of no class of its own where Ray misses its time
                    if tried == TRIES - 1:
                        raise StartError(_why_not(error)) from error
                    continue
                stack.push(attempt.pop_all())
                break
        yield


def _start(folder: str, cores: int, gpus: int) -> None:
    with free_ports(), hang_up_withheld(), warnings.catch_warnings():
        # Ray forks to start its processes, which execute another program at once: no lock of JAX is ever taken there.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        ray.init(
            address="local",
            num_cpus=cores,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            # Ray opens its folder to every user: that of the run, around it, stays closed.
            _temp_dir=os.path.join(folder, "ray"),
        )


def _why_not(error: Exception) -> str:
    """Why Ray did not start, and what to do, on one line."""
    cause = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    is_busy = os.getloadavg()[0] > available_cores()
    advice = load_text().capitalize()
    advice += ": try again when others need less of them." if is_busy else ", so that is not why."
    return f"Ray did not start on this machine in {TRIES} tries ({cause}). {advice}"


def _shut_down() -> None:
    with quiet():
        ray.shutdown()


def quiet() -> contextlib.AbstractContextManager[object]:
    """Keeps back what Ray has to say about workers that are stopped on purpose."""
    return contextlib.redirect_stdout(io.StringIO())


def _warn_of_visitors() -> None:
    """Warn if Ray will listen on the network although nobody asked for it: it was imported before this package."""
    asked = os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "1"
    if not asked and not ray.util.get_node_ip_address().startswith("127."):
        warnings.warn(
            "Ray was imported before `cluster`, and listens on the network: others can reach its workers. "
            "Import `cluster` first, or set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 (1 if that is wanted).",
            RuntimeWarning,
            stacklevel=2,
        )


@contextlib.contextmanager
def own_folder(parent: str | None = None) -> Iterator[str]:
    """A new folder that nobody takes for left over as long as the block lasts; those that are left over go first.

    Not Ray's usual one: that belongs to whoever used Ray first on this machine. Ray puts sockets into it, whose paths
    must stay below about 100 characters.
    """
    parent = parent or ("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir())
    remove_stale_folders(parent)
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent)
    try:
        # Locked before it gets its name: under that name nobody ever sees it unlocked while its owner lives.
        unnamed = Path(folder, f".{OWNER}")
        with unnamed.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unnamed.rename(Path(folder, OWNER))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders(parent: str) -> None:
    """Remove the folders in `parent` whose runs were killed before they could; those of others are left alone."""
    for owner in Path(parent).glob(f"{FOLDER_PREFIX}*/{OWNER}"):
        try:
            with owner.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(owner.parent)
        except OSError:  # locked: its run lives; or it belongs to another user, or has just gone
            continue


def _remove(folder: Path) -> None:
    """Remove a folder, the file of its owner last: what cannot go now is still known as left over the next time."""
    for entry in folder.iterdir():
        if entry.name != OWNER:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    if {entry.name for entry in folder.iterdir()} == {OWNER}:
        shutil.rmtree(folder, ignore_errors=True)
