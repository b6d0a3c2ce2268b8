"""A catalogue of schema version 1, kept as a file, brought to the version of today: whole, half, twice at once."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from enumerator.catalogue import schema, store
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.store import Store
from enumerator.errors import CatalogueError, InputError
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.upkeep import migration
from enumerator.upkeep.migration import add_columns, migrate
from enumerator.verification.verify import verify
from tests.support.stand_ins import make_campaign

# Made by the first commit: K = M = 7, fifty random starts and five given ones, with the file that these came from.
ARCHIVE = Path(__file__).parents[1] / "reference" / "catalogue_version_1.zip"


@pytest.fixture
def old(tmp_path) -> Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "atlas"


def given_campaign(old: Path) -> Campaign:
    overlaps = np.load(old.parent / "table.npz")
    return Campaign(Landscape(7, 7), law=InitialLaw(Q=overlaps["Q"], R=overlaps["R"]))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("create", [False, True])
def test_older_catalogue_is_refused_with_the_command_to_type_and_left_alone(old, create):
    before = contents(old)
    with pytest.raises(InputError, match=rf"schema version 1 .* type `enumerator migrate {old}`, once"):
        Catalogue(old, create=create)
    assert contents(old) == before


def test_migrated_catalogue_has_every_row_and_goes_on(old):
    rows = {name: pa.table(DeltaTable(old / name).to_pyarrow_dataset().to_table()) for name in ("minima", "starts")}
    assert migrate(old) == 1
    atlas = Catalogue(old)
    for name, key in (("minima", "minimum_id"), ("starts", "start_index")):
        found = getattr(atlas, name)().select(rows[name].column_names)
        order = [(key, "ascending"), ("loss", "ascending")]
        assert found.sort_by(order).to_pylist() == rows[name].cast(found.schema).sort_by(order).to_pylist()
    assert atlas.minima(columns="label,hits").to_pylist() == [
        {"label": "relu.7.7.0", "hits": 54},
        {"label": "relu.7.7.0232027", "hits": 1},
    ]
    assert list(atlas.store.check_files()) == []
    assert atlas.register(make_campaign(), 10, "cpu").starts == 0
    assert migrate(old) == 3


def test_given_overlaps_that_version_1_did_not_keep_come_with_the_next_run(old):
    campaign = given_campaign(old)
    migrate(old)
    atlas = Catalogue(old)
    with pytest.raises(CatalogueError, match="version 1 did not keep them"):
        atlas.campaign(campaign.id)
    assert atlas.register(campaign, 32, "cpu").starts == 5
    found = atlas.campaign(campaign.id)
    assert found.id == campaign.id
    assert np.array_equal(found.law.Q, campaign.law.Q)
    assert np.array_equal(found.law.R, campaign.law.R)
    atlas.finish(campaign.id)
    assert verify(atlas, sample=2).num_rows == 0


KILLED = """
import os, sys
from deltalake import DeltaTable
from enumerator.upkeep.migration import migrate
from enumerator.catalogue.store import Store
left = int(sys.argv[2])
def counted(method):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return method(*arguments, **options)
    return call
Store.create = counted(Store.create)
Store._replace = counted(Store._replace)
Store.open = counted(Store.open)
migrate(sys.argv[1])
"""


@pytest.mark.parametrize("steps", [6, 10, 16, 22])
def test_migration_that_was_killed_says_so_and_is_finished_by_the_next(old, steps):
    command = [sys.executable, "-c", KILLED, str(old), str(steps)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    with pytest.raises(InputError, match="its migration was interrupted"):
        Catalogue(old)
    assert migrate(old) == 1
    atlas = Catalogue(old)
    assert atlas.minima(columns="hits")["hits"].to_pylist() == [54, 1]
    assert list(atlas.store.check_files()) == []


def test_two_migrations_at_once_do_the_work_of_one(old):
    code = "import sys; from enumerator.upkeep.migration import migrate; sys.stdin.read(1); migrate(sys.argv[1])"
    command = [sys.executable, "-W", "ignore", "-c", code, str(old)]
    project = Path(__file__).parents[2]
    both = [
        subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("!")
        process.stdin.flush()
    for process in both:
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 0, messages
    assert Catalogue(old).minima(columns="hits")["hits"].to_pylist() == [54, 1]


def test_newer_catalogue_is_not_migrated(old):
    migrate(old)
    DeltaTable(old / "starts").alter.set_table_properties({store.VERSION_PROPERTY: "4"}, raise_if_not_exists=False)
    with pytest.raises(InputError, match="schema version 4, this software reads up to 3"):
        migrate(old)


def test_a_version_to_come_adds_nullable_columns_in_a_line(old, monkeypatch):
    """A schema version 4 with one more column of `starts`, read from a copy of the schemas."""
    folder = old.parent / "schemas"
    shutil.copytree(Path(schema.__file__).parent.parent.parent / "schemas", folder)
    for file in folder.glob("*.json"):
        text = file.read_text().replace('"version": 3', '"version": 4')
        if file.stem == "starts":
            column = '{"name": "extra", "type": "double", "nullable": true, "description": "More."}'
            text = text.replace("\n  ]\n}", f",\n    {column}\n  ]\n}}")
        file.write_text(text)
    migrate(old)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "resource", lambda name: folder.parent / name)
        patch.setattr(schema, "SCHEMA_VERSION", 4)
        patch.setattr(store, "SCHEMA_VERSION", 4)
        patch.setattr(migration, "SCHEMA_VERSION", 4)
        patch.setitem(migration.STEPS, 4, lambda catalogue: add_columns(catalogue, "starts", "extra"))
        schema.table_schema.cache_clear()
        assert migrate(old) == 3
        found = Catalogue(old).starts(columns="extra,outcome")
        assert found["extra"].null_count == found.num_rows == 55
        assert Store(old, False, None).open("starts").version() > 0
    schema.table_schema.cache_clear()
