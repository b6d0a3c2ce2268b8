"""The files of the project, and what they import."""

import ast
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


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
