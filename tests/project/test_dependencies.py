"""What the first command installs is all that the library, its command and the pages of the README use."""

import ast
import re
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.support.pages import blocks, pages
from tests.support.project import PROJECT, modules, named, packages_of

PINNED = {line.partition("==")[0].lower() for line in (PROJECT / "constraints.txt").read_text().splitlines()}
DEPENDENCIES = [
    Requirement(entry) for entry in tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
]
INSTALLED = {requirement.name.replace("_", "-").lower() for requirement in DEPENDENCIES}
# Packages that come with one of the dependencies for good: it is made of them.
WITHIN = {
    "starlette": "fastapi",
    "pydantic": "fastapi",
    "pydantic_core": "fastapi",
    "packaging": "ray",
    "jaxlib": "jax",
}


BROUGHT = packages_distributions()


def lacking(packages: set[str]) -> set[str]:
    """Those of some top-level packages that no dependency brings; they are the project's own or the library's."""
    found = set()
    for package in packages - {"enumerator", "cluster"}:
        names = {WITHIN.get(name.lower(), name.replace("_", "-").lower()) for name in BROUGHT.get(package, [package])}
        if not names & INSTALLED:
            found.add(package)
    return found


@pytest.mark.parametrize("path", [*modules("enumerator"), *modules("cluster")], ids=named)
def test_a_module_imports_only_what_is_installed_with_it(path):
    assert not lacking(packages_of(path))


def test_the_examples_of_the_pages_use_only_what_is_installed():
    texts = [block.text for page in pages() for block in blocks(page) if block.language == "python"]
    assert len(texts) >= 3
    used = {"pandas" for text in texts if ".to_pandas()" in text}
    for node in ast.walk(ast.parse("\n".join(texts))):
        if isinstance(node, ast.Import):
            used |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used.add(str(node.module).partition(".")[0])
    # A page that shows how another reader goes on says that it has to be installed.
    assert "pandas" in used and lacking(used - sys.stdlib_module_names) <= {"polars"}


def test_no_text_names_an_extra_that_is_not_there():
    extras = set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    texts = [*modules("enumerator"), *modules("cluster"), *modules("scripts"), *pages(), *deployed()]
    for path in texts:
        assert set(re.findall(r"enumerator\[(\w+)\]", path.read_text(encoding="utf-8"))) <= extras, path


def deployed() -> list[Path]:
    return [path for path in (PROJECT / "cluster" / "deploy").iterdir() if path.is_file()]


def test_constraints_pin_every_dependency_and_what_it_needs():
    waiting, seen = list(DEPENDENCIES), set[tuple[str, str]]()
    while waiting:
        requirement = waiting.pop()
        assert requirement.name.lower().replace("-", "_") in {name.replace("-", "_") for name in PINNED}
        for extra in {"", *requirement.extras}:
            if (requirement.name, extra) in seen:
                continue
            seen.add((requirement.name, extra))
            further = map(Requirement, requires(requirement.name) or ())
            waiting += [one for one in further if one.marker is None or one.marker.evaluate({"extra": extra})]
    assert len(seen) > 50


def test_what_is_pinned_installs_on_every_python_that_the_project_takes():
    """The first release of each: systems stay at theirs for years."""
    promised = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    pythons = [f"3.{minor}.0" for minor in range(8, 20) if f"3.{minor}.0" in SpecifierSet(promised)]
    assert pythons[0] == "3.11.0"
    known = {found.metadata["Name"].lower(): found.metadata.get("Requires-Python") for found in distributions()}
    taken = {name: SpecifierSet(known.get(name) or "") for name in PINNED}
    assert len(PINNED & known.keys()) > 100
    assert not [(name, python) for name in taken for python in pythons if python not in taken[name]]
