"""For every test: float64, no silent promotion of types, and the shapes in the types enforced at run time."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before JAX is imported: the tests must pass on a machine with a GPU too, and there they compare with the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Before NumPy and XLA make their threads, here and in every process that a test starts: matrices are small, and threads
# that wait for each other's halves of them keep busy the cores that the other files are tested on.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "NPROC": "1"}
# Before a test imports Ray, which looks then: it listens on loopback alone.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import jax
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# The one profile of all properties, which each may go beyond: on a loaded machine any example takes its time, the first
# of them compiles, and making one up can be slow too.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Before anything of the package is imported: the modules that state shapes. It has no effect on the workers, which are
# other processes.
PACKAGE = Path(__file__).parent.parent / "enumerator"
TYPED = [path for path in PACKAGE.rglob("*.py") if "from jaxtyping import" in path.read_text()]
install_import_hook(
    [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in TYPED], "beartype.beartype"
)

# After the hook, which must see every import.
from cluster.runs.machine import available_cores, compilation_cache  # noqa: E402

# Programs that were compiled once are not compiled again, by the next file, process or run: here as in the workers.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compilation_cache()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs", float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
)

# A process that runs test files reaches 2.8 GiB by the programs it has compiled, and the Ray that it starts 1 more.
PROCESS_BYTES = 4 * 2**30


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes for `-n auto`: one a core as far as memory goes, four at most, since the longest file takes minutes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(4, available_cores(), memory // PROCESS_BYTES))


# The files that take longest, which begin first: a long one at the end would run beside nothing.
LONGEST = (
    *("driver", "pages", "ends", "hanging", "second_layer", "faults", "precision", "teachers", "service"),
    *("service_safety", "object_store", "crashes", "kills", "replay", "signals", "collisions", "readme", "store_model"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others in their order."""
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


# Every compiled program maps memory, and Linux allows a process 65,530 maps: past them XLA dies by a signal.
MANY_MAPS = 30_000


@pytest.fixture(autouse=True, scope="module")
def _programs_fit_into_the_maps_of_a_process() -> Iterator[None]:
    """Let go of all programs when there are many; the next file then makes its own again."""
    yield
    if len(Path("/proc/self/maps").read_bytes().splitlines()) > MANY_MAPS:
        jax.clear_caches()
