"""How the house is built: imports run one way, and the numerical core needs only a handful of packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
# What a borrowed GPU machine has; jaxtyping is a few files of pure Python that flax's users have anyway.
CORE_MAY_IMPORT = {"jax", "flax", "numpy", "scipy", "pyarrow", "jaxtyping", "enumerator"}
# The modules that read and write tables, and those for people: not part of the numerical core.
NOT_CORE = {
    "bundle",
    "campaign_names",
    "campaign_table",
    "catalogue",
    "causes",
    "claims",
    "client",
    "datafiles",
    "destination",
    "enumeration",
    "identification",
    "merging",
    "migration",
    "minimum",
}
NOT_CORE |= {
    "objects",
    "orbits",
    "plots",
    "point_checks",
    "point_table",
    "query",
    "recomputation",
    "recomputation_flat",
    "recomputation_smooth",
    "recomputation_manifold",
    "records",
    "repair",
    "selection",
}
NOT_CORE |= {
    "delta_errors",
    "early_stops",
    "row_checks",
    "snapshot",
    "start_checks",
    "start_table",
    "statistics",
    "store",
    "tables",
    "upkeep",
    "verification",
    "versions",
}


def imports_of(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def packages_of(path: Path) -> set[str]:
    """Top-level packages that a file imports, the standard library left out."""
    return {name.partition(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)


def modules(folder: str) -> list[Path]:
    return sorted((PROJECT / folder).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_there_are_modules_to_look_at():
    assert len(modules("enumerator")) > 10
    assert len(modules("cluster")) > 4


@pytest.mark.parametrize("path", modules("enumerator"), ids=named)
def test_the_library_knows_neither_ray_nor_the_cluster(path):
    assert not packages_of(path) & {"ray", "cluster", "scripts", "typer", "rich", "tests"}


@pytest.mark.parametrize("path", modules("cluster"), ids=named)
def test_the_cluster_does_not_import_scripts_or_tests(path):
    assert not packages_of(path) & {"scripts", "tests"}


def core_modules() -> list[Path]:
    left_out = {*NOT_CORE, "__init__"}
    return [path for path in modules("enumerator") if not {path.stem, path.parent.name} & left_out]


@pytest.mark.parametrize("path", core_modules(), ids=named)
def test_the_numerical_core_needs_few_packages_and_not_the_store(path):
    assert packages_of(path) <= CORE_MAY_IMPORT
    assert not imports_of(path) & {f"enumerator.{name}" for name in NOT_CORE}


def test_the_numerical_core_loads_where_there_is_nothing_else():
    code = f"""
import importlib, sys
for name in ("cluster", "deltalake", "duckdb", "jsonschema", "ray", "typer"):
    sys.modules[name] = None  # importing it fails now
for name in {[".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in core_modules()]}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [*modules("enumerator"), *modules("cluster"), *modules("scripts")], ids=named)
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_constraints_are_pins_and_nothing_else():
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert all(line.count("==") == 1 and not set(line) & set(" @/;:") for line in lines)
    assert names == sorted(set(names), key=str.lower)
