"""A built wheel holds everything that is needed: both packages, the schemas, the command."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without a download by the backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def test_wheel_has_every_module_and_schema(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {
        str(path.relative_to(PROJECT))
        for folder in ("enumerator", "cluster")
        for path in (PROJECT / folder).glob("*.py")
    }
    wanted |= {f"enumerator/schemas/{path.name}" for path in (PROJECT / "schemas").glob("*.json")}
    wanted.add("enumerator/CITATION.cff")
    assert len(wanted) > 20
    assert wanted <= names
    assert not [name for name in names if name.startswith(("tests", "scripts"))]


def test_unpacked_wheel_reads_its_own_schemas(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import json, enumerator.catalogue.schema as t; tables = [t.table_schema(n).name for n in t.TABLE_NAMES]; "
        "print(json.dumps([t.__file__, tables, t.campaign_file_schema()['title']]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, tables, title = json.loads(done.stdout)
    assert Path(file).is_relative_to(tmp_path)
    assert tables == ["landscapes", "initial_overlaps", "campaigns", "minima", "saddles", "starts"]
    assert title == "Campaign file"


def test_wheel_has_the_command_and_the_license(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if ".dist-info" in name
        }
    assert "enumerator = cluster.cli:main" in texts["entry_points.txt"]
    assert "Apache License" in texts["LICENSE"]
    assert "Requires-Python: <3.14,>=3.11" in texts["METADATA"]
