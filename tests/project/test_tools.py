"""What the tools of the tests look at, and what they leave alone."""

import ctypes
import tomllib
from pathlib import Path

import pytest

from tests.support.project import PROJECT

RUFF = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["ruff"]
SCRIPTS = [
    path.relative_to(PROJECT).as_posix()
    for path in (PROJECT / "scripts").iterdir()
    if path.is_file() and not path.suffix and "python" in path.read_text(encoding="utf-8").partition("\n")[0]
]
# The functions of OpenBLAS that tell its threads, as NumPy and SciPy have built it.
TELLING = ("scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads")


def test_every_script_is_linted():
    assert set(RUFF["extend-include"]) == set(SCRIPTS)


def test_linear_algebra_has_one_thread_in_a_test_process():
    """Read when NumPy loads: nothing, such as a plugin, may load it before tests/conftest.py has said so."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("there is no /proc to find the libraries in")
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if "openblas" in line}
    libraries = [ctypes.CDLL(path) for path in paths]
    told = [getattr(library, name)() for library in libraries for name in TELLING if hasattr(library, name)]
    assert told and set(told) == {1}
