"""How the house is built: its rooms, on floors; imports lead down, and each room needs what it says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import PROJECT, imports_of, modules, named, packages_of

# From the ground up: what stands in a line imports from the lines above it alone, and from its own room. A room is a
# package, or a file beside the packages.
FLOORS = """
errors constraints stop_levels notebook progress
activations parsing process_checks symmetry
storage validation
initial_law loss tolerances
problem
dynamics points
minima starts
catalogue lanes
sgd upkeep
follow replay
enumeration identification verification
statistics
client plots
cluster.failure cluster.signals cluster.terminal
cluster.encoding
cluster.usage
cluster.inputs
cluster.campaign_grid
cluster.runs
cluster.service
cluster.commands
cluster.cli
"""
FLOOR = {
    room if room.startswith("cluster.") else f"enumerator.{room}": number
    for number, line in enumerate(FLOORS.split("\n"))
    for room in line.split()
}
# The rooms of the mathematics: with these packages alone they load on a borrowed machine with a GPU.
MATHEMATICS = (
    *(
        "errors",
        "constraints",
        "stop_levels",
        "notebook",
        "activations",
        "parsing",
        "process_checks",
        "symmetry",
        "validation",
        "loss",
        "initial_law",
        "tolerances",
    ),
    *("problem", "dynamics", "points", "minima", "starts", "lanes", "sgd", "follow", "replay"),
)
MATHEMATICS_MAY_IMPORT = {"jax", "flax", "numpy", "scipy", "pyarrow", "jaxtyping", "enumerator"}


def room_of(name: str) -> str:
    """The room of a module, by its dotted name."""
    return ".".join(name.split(".")[:2])


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


# The face of the library, and the command as a module, lead everywhere.
FACES = ("enumerator", "enumerator.__main__", "cluster")
ALL = [path for folder in ("enumerator", "cluster") for path in modules(folder) if dotted(path) not in FACES]


def in_mathematics(path: Path) -> bool:
    return room_of(dotted(path)).removeprefix("enumerator.") in MATHEMATICS


def test_every_room_has_its_floor():
    assert {room_of(dotted(path)) for path in ALL} == FLOOR.keys()


@pytest.mark.parametrize("path", ALL, ids=named)
def test_imports_lead_down(path):
    here = room_of(dotted(path))
    known = {dotted(module) for module in ALL}
    for name in imports_of(path):
        if name in known and room_of(name) != here:
            assert FLOOR[room_of(name)] < FLOOR[here], f"{here} imports {name}"


def test_files_of_a_room_go_in_no_circle():
    ways = {dotted(path): {name for name in imports_of(path)} for path in ALL}
    left = {name: {other for other in others if other in ways and other != name} for name, others in ways.items()}
    while ready := [name for name, others in left.items() if not others & left.keys()]:
        for name in ready:
            del left[name]
    assert not left, "these import each other: " + ", ".join(sorted(left))


@pytest.mark.parametrize("path", modules("enumerator"), ids=named)
def test_the_library_knows_neither_ray_nor_the_cluster(path):
    assert not packages_of(path) & {"ray", "cluster", "scripts", "typer", "rich", "tests"}


@pytest.mark.parametrize("path", modules("cluster"), ids=named)
def test_the_cluster_does_not_import_scripts_or_tests(path):
    assert not packages_of(path) & {"scripts", "tests"}


@pytest.mark.parametrize("path", [path for path in ALL if in_mathematics(path)], ids=named)
def test_the_mathematics_needs_few_packages(path):
    assert packages_of(path) <= MATHEMATICS_MAY_IMPORT


def test_the_mathematics_loads_where_there_is_nothing_else():
    code = f"""
import importlib, sys
for name in ("cluster", "deltalake", "duckdb", "jsonschema", "ray", "typer"):
    sys.modules[name] = None  # importing it fails now
for name in {[dotted(path) for path in ALL if in_mathematics(path)]}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_entering_a_room_of_mathematics_loads_nothing():
    rooms = sorted({room_of(dotted(path)) for path in ALL if in_mathematics(path) and path.name == "__init__.py"})
    code = f"""
import importlib, sys
import enumerator.errors
for name in {rooms}:
    importlib.import_module(name)
print([name for name in sys.modules if name in ("jax", "scipy", "flax", "pyarrow")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_the_top_of_the_library_is_short():
    assert len(list((PROJECT / "enumerator").glob("*.py"))) <= 20


@pytest.mark.parametrize("path", [*modules("enumerator"), *modules("cluster"), *modules("scripts")], ids=named)
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", [*modules("enumerator"), *modules("cluster")], ids=named)
def test_bodies_of_functions_stay_short(path):
    """Signature and docstring apart."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            assert not body or node.end_lineno - body[0].lineno < 40, f"{node.name} in {path}"


def test_no_test_imports_another():
    for path in modules("tests"):
        assert not [name for name in imports_of(path) if "test_" in name], path


def test_constraints_are_pins_and_nothing_else():
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert all(line.count("==") == 1 and not set(line) & set(" @/;:") for line in lines)
    assert names == sorted(set(names), key=str.lower)
