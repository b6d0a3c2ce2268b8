"""The end of a table's log is gone: nobody takes what is left for the whole, and nobody errs while others write."""

import os
import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from deltalake.exceptions import DeltaError

from cluster.cli import run_command
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.errors import CatalogueError
from enumerator.storage.failures import to_restore
from enumerator.storage.versions import FOLDER, Versions
from enumerator.upkeep.compaction import compact, delete
from tests.support.stand_ins import commit, fill, given, make_campaign, new_catalogue


def entries(atlas: Path, name: str) -> list[Path]:
    return sorted((atlas / name / "_delta_log").glob("*.json"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A complete campaign of 300 starts, as a run leaves it, and one from given overlaps."""
    path = tmp_path_factory.mktemp("filled") / "atlas"
    atlas = new_catalogue(path)
    fill(atlas, given(), (0, 4))
    fill(atlas, make_campaign(), (0, 256), (256, 300))
    atlas.finish(make_campaign().id)
    return path


@pytest.fixture
def path(filled, tmp_path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "atlas"))


def lived(path: Path, how: str) -> Path:
    """The catalogue after something that commits in another way."""
    atlas = Catalogue(path)
    if how == "deleted":
        delete(atlas, given().id)
    if how in ("compacted", "compacted at once"):
        compact(atlas, timedelta(0) if how.endswith("once") else timedelta(days=7))
    if how == "reopened":
        fill(new_catalogue(path), make_campaign(seed=1), (0, 5))
    return path


@pytest.mark.parametrize("how", ["as it was", "deleted", "compacted", "compacted at once", "reopened"])
def test_lost_end_of_any_table_is_told(path, how, capsys):
    lived(path, how)
    assert Catalogue(path).minima().num_rows == 3
    for name in TABLE_NAMES:
        last = entries(path, name)[-1]
        checkpoint = last.with_name(f"{last.stem}.checkpoint.parquet")
        content = {file: file.read_bytes() for file in (last, checkpoint) if file.exists()}
        for file in content:
            file.unlink()
        assert run_command(["minima", str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert f"cannot read the log of {path}/{name}" in err or f"{path}/{name}: its log (_delta_log) has lost" in err
        for file, what in content.items():
            file.write_bytes(what)
    assert Catalogue(path).minima().num_rows == 3


def zeros_for_paths(content: bytes) -> bytes:
    """A checkpoint without the paths of the data files, which nobody reads on opening the table."""
    group = pq.read_metadata(pa.BufferReader(content)).row_group(0)
    columns = map(group.column, range(group.num_columns))
    (chunk,) = [column for column in columns if column.path_in_schema == "add.path"]
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    return content[:first] + bytes(chunk.total_compressed_size) + content[first + chunk.total_compressed_size :]


DAMAGES = {
    "no footer": lambda content: content[:-8] + bytes(8),
    "cut short": lambda content: content[: len(content) // 2],
    "nothing": lambda content: b"",
    "no paths of files": zeros_for_paths,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_checkpoint_is_one_line_with_the_way_out_and_can_be_removed(path, damage, capsys):
    lived(path, "compacted")
    log = path / "starts" / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    for command in (["verify"], ["verify", "--repair"], ["minima"], ["starts"], ["compact"]):
        assert run_command([command[0], str(path), *command[1:]]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert err.startswith(f"error: cannot read the log of {path}/starts: ")
        assert err.endswith(". Restore it (_delta_log) from a copy.\n")
    checkpoint.unlink()
    (log / "_last_checkpoint").unlink()
    assert Catalogue(path).starts().num_rows == 304


def test_what_is_out_of_reach_is_not_called_damaged():
    told = to_restore(DeltaError("Kernel error: Error interacting with object store: Generic S3 error: timed out"))
    assert told == "Error interacting with object store: Generic S3 error: timed out"
    assert to_restore(PermissionError(13, "Permission denied")) == "permission denied"


def test_reader_that_is_open_notices_too(path):
    atlas = Catalogue(path)
    last = entries(path, "starts")[-1]
    number = int(last.stem)
    last.unlink()
    with pytest.raises(CatalogueError, match=rf"had reached version {number}, and ends at {number - 1}\. Restore it"):
        atlas.minima()
    with pytest.raises(CatalogueError, match="has lost its end"):
        commit(atlas, make_campaign(), 300, 310)


def test_table_that_is_gone_is_not_made_anew(path):
    shutil.rmtree(path / "saddles")
    with pytest.raises(CatalogueError, match=r"cannot read .*/saddles: it is gone\. Put the catalogue back"):
        Catalogue(path, create=True)
    assert not (path / "saddles").exists()


def test_what_is_left_can_be_gone_on_with(path):
    """The way out that the message names: what hung on the lost rows is repaired, and a run goes on from there."""
    entries(path, "starts")[-1].unlink()
    with pytest.raises(CatalogueError) as error:
        Catalogue(path)
    name = str(error.value).partition("remove ")[2].partition(",")[0]
    Path(name).unlink()
    atlas = new_catalogue(path)
    assert atlas.done(make_campaign().id) == [(0, 256)]
    fill(atlas, make_campaign(), (256, 300))
    assert new_catalogue(path).done(make_campaign().id) == [(0, 300)]
    entries(path, "starts")[-1].unlink()
    with pytest.raises(CatalogueError, match="has lost its end"):
        Catalogue(path)


def test_catalogue_of_an_older_release_is_read_and_from_its_next_commit_on_it_knows(path):
    shutil.rmtree(path / FOLDER)
    for name in ("starts", "saddles"):
        assert Catalogue(path).minima().num_rows == 3
        assert not (path / FOLDER).exists(), name
    fill(new_catalogue(path), make_campaign(), (300, 301))
    for name in TABLE_NAMES:
        last = entries(path, name)[-1]
        content = last.read_bytes()
        last.unlink()
        with pytest.raises(CatalogueError, match=f"{name}: its log"):
            Catalogue(path)
        last.write_bytes(content)


def test_a_version_that_is_known_is_one_that_was_committed(path):
    known = Versions(pafs.SubTreeFileSystem(str(path), pafs.LocalFileSystem())).reached()
    assert known == {name: Catalogue(path).store.open(name).version() for name in TABLE_NAMES}
    assert len(list((path / FOLDER).iterdir())) == len(TABLE_NAMES)


def test_versions_come_in_any_order_and_the_highest_stays(tmp_path):
    versions = Versions(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()))
    assert versions.reached() == {}
    threads = [
        threading.Thread(target=lambda first=first: [versions.enter("starts", k) for k in range(first, 200, 4)])
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions.reached() == {"starts": 199}
    versions.enter("starts", 12)
    versions.enter("minima", 0)
    assert versions.reached() == {"starts": 199, "minima": 0}
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


def test_readers_are_not_alarmed_while_others_write(tmp_path):
    """Two writers, one of which joins files and cleans up, and a reader who opens everything again and again."""
    path = tmp_path / "atlas"
    new_catalogue(path).register(make_campaign(), 5, "cpu")
    failures: list[BaseException] = []
    stop = threading.Event()

    def write(first: int) -> None:
        try:
            writer = new_catalogue(path)
            for k in range(first, 24, 2):
                commit(writer, make_campaign(), 5 * k, 5 * k + 5, [0.1, 0.2 + k])
                if first and k % 10 == 1:
                    compact(writer)
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        try:
            while not stop.is_set():
                Catalogue(path).minima()
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert not failures
    assert Catalogue(path).done(make_campaign().id) == [(0, 120)]


def test_a_name_that_is_no_text_is_told(path):
    Path(os.fsdecode(os.fsencode(path / FOLDER) + b"/\xff")).touch()
    with pytest.raises(CatalogueError, match=r"cannot read .*: 'utf-8' codec"):
        Catalogue(path)
