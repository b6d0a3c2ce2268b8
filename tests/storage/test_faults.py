"""A catalogue on a machine that fails: bytes flipped, files cut short, disks full or read-only, a wrong clock."""

import json
import os
import random
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.cli import run_command
from cluster.inputs import Request
from cluster.runs.driver import run_campaign
from cluster.runs.options import RunOptions
from cluster.runs.session import ray_session
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.errors import CatalogueError
from enumerator.follow import follow_shard
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape
from enumerator.storage.datafiles import DataFile, Folder
from tests.support.stand_ins import make_campaign, make_point, make_result, same_loss

TEN_YEARS = 10 * 365 * 86400


def fill(path: Path, shards: int = 3) -> Catalogue:
    """Two campaigns of ten starts a shard, with a new minimum in each; one is complete, one is stopped."""
    atlas = Catalogue(path, create=True, matcher=same_loss)
    for seed in (0, 1):
        campaign = make_campaign(seed=seed)
        atlas.register(campaign, 10, "cpu")
        for shard in range(shards):
            add(atlas, campaign, shard)
    atlas.finish(make_campaign(seed=0).id)
    atlas.finish(make_campaign(seed=1).id, "stopped")
    return atlas


def add(atlas: Catalogue, campaign: Campaign, shard: int) -> None:
    points = [make_point(campaign.landscape, 0.1 + shard), make_point(campaign.landscape, 0.9, "saddle")]
    ended = [0, 1, -1, -2, 0, 0, 0, 1, 1, 0]
    atlas.commit_shard(make_result(campaign, 10 * shard, 10 * shard + 10, points, ended), 10 * shard, 10 * shard + 10)


def everything(atlas: Catalogue) -> dict[str, str]:
    """All rows of all tables; as text, since NaN is no number that equals itself."""
    return {name: str(atlas.sql(f"select * from {name} order by all").to_pylist()) for name in TABLE_NAMES}


def live_files(atlas: Catalogue) -> list[Path]:
    return [
        Path(atlas.store.address, name, file.path)
        for name in TABLE_NAMES
        for file in atlas.store.files(atlas.store.open(name))
    ]


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    path = tmp_path_factory.mktemp("filled") / "atlas"
    return path, everything(fill(path))


@pytest.fixture
def atlas(filled, tmp_path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(filled[0], tmp_path / "atlas"))


def flipped(content: bytes, position: int, bit: int) -> bytes:
    return content[:position] + bytes([content[position] ^ (1 << bit)]) + content[position + 1 :]


# Damaged files


@pytest.mark.parametrize("name", ["minima", "starts"])
def test_flipped_byte_is_an_error_that_names_the_file(atlas, name):
    path = next(file for file in live_files(Catalogue(atlas)) if file.is_relative_to(atlas / name))
    content = path.read_bytes()
    chance = random.Random(0)
    ends = [*range(8), *range(len(content) - 16, len(content))]  # magic numbers, the length of the footer
    for position in [*ends, *chance.sample(range(len(content)), 120)]:
        path.write_bytes(flipped(content, position, chance.randrange(8)))
        with pytest.raises(CatalogueError, match=rf"cannot read {path}: its content is not what was written\. `enum"):
            Catalogue(atlas).sql(f"select * from {name}")
    damaged = [(name, str(path.relative_to(atlas / name)), "its content is not what was written")]
    assert list(Catalogue(atlas).store.check_files()) == damaged


def test_every_byte_of_a_file_counts(atlas):
    store = Catalogue(atlas).store
    table = store.open("starts")
    file = store.files(table)[0]
    path, folder = atlas / "starts" / file.path, store._folder(table)
    content = path.read_bytes()
    assert folder.problem(file) is None
    for position in range(len(content)):
        path.write_bytes(flipped(content, position, position % 8))
        assert folder.problem(file) == "its content is not what was written"


def test_byte_that_flips_under_an_open_catalogue_gives_no_wrong_number(atlas, filled):
    """The file was found sound, and its time has not changed since: now the checksums of the pages stand guard."""
    opened = Catalogue(atlas)
    table = opened.store.open("minima")
    path = atlas / "minima" / opened.store.files(table)[0].path
    content, times = path.read_bytes(), path.stat()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    everything(opened)
    noticed = 0
    for position in random.Random(1).sample(range(4, footer), 60):
        path.write_bytes(flipped(content, position, 0))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        try:
            assert str(opened.sql("select * from minima order by all").to_pylist()) == filled[1]["minima"]
        except CatalogueError as error:
            assert f"cannot read the table minima: {path.name}: its content is not what was written" in str(error)
            noticed += 1
    assert noticed > 40


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "it is missing"),
        (lambda path: path.write_bytes(b""), "it holds 0 of "),
        (lambda path: os.truncate(path, 1000), "it holds 1,000 of "),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "it holds "),
    ],
    ids=["gone", "empty", "cut short", "longer"],
)
@pytest.mark.parametrize("name", ["campaigns", "minima", "starts"])
def test_file_that_is_gone_or_has_another_size_is_named(atlas, name, damage, problem, capsys):
    path = next(file for file in live_files(Catalogue(atlas)) if file.is_relative_to(atlas / name))
    damage(path)
    assert run_command([name, str(atlas)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: cannot read {path}: {problem}")
    assert err.endswith(f"`enumerator verify {atlas}` says more.\n")
    ((table, file, found),) = Catalogue(atlas).store.check_files()
    assert (table, atlas / table / file) == (name, path)
    assert found.startswith(problem)


def test_file_of_other_software_is_not_taken_for_ours(tmp_path):
    folder = Folder(None, tmp_path, set())  # type: ignore[arg-type]
    assert folder.problem(DataFile("part-00000-1234.snappy.parquet", 1, 1)) == "it was not written by this software"


def test_altered_log_gives_an_error_or_the_right_answer(atlas, filled):
    chance = random.Random(2)
    outcomes = set()
    for path in [chance.choice(list((atlas / name / "_delta_log").iterdir())) for name in 2 * TABLE_NAMES]:
        content = path.read_bytes()
        lines = content.splitlines(keepends=True)
        altered = [b"", content[: len(content) // 2], b"".join(lines[:-1]), b"".join(lines[1:])]
        altered += [flipped(content, chance.randrange(len(content)), chance.randrange(8)) for _ in range(3)]
        for new in [*altered, None]:
            path.write_bytes(new) if new is not None else path.unlink()
            try:
                assert everything(Catalogue(atlas)) == filled[1]
                outcomes.add("right")
            except (CatalogueError, ValueError) as error:
                assert path.parts[-3] in str(error)
                outcomes.add("error")
        path.write_bytes(content)
    assert outcomes == {"right", "error"}


# Full disks


@contextmanager
def longest_file(size: int):
    """No file of this process may grow longer than `size` bytes: a disk that is full there."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def small_disk(folder: Path, size: str):
    """A disk of its own in memory; the test is skipped where this user may not mount one."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True).returncode:
        pytest.skip("no right to mount a disk here")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


MAKE_ROOM = "What was stored stays: make room, and the same command goes on."
REAL = Campaign(Landscape(7, 7), Dynamics("newton"), InitialLaw(7))
SHARD, SHARDS = 20, 6
ONE = RunOptions(1, "cpu", progress="none")


@pytest.fixture(scope="module")
def shards():
    return [follow_shard(REAL, first, first + SHARD) for first in range(0, SHARD * SHARDS, SHARD)]


def store_all(atlas: Catalogue, shards, limits: dict[int, int]) -> int:
    """Commit each shard that is missing, the files of the k-th no longer than `limits[k]`; how many failed."""
    failed = 0
    atlas.register(REAL, SHARD, "cpu")
    for k, result in enumerate(shards):
        try:
            with longest_file(limits.get(k, resource.RLIM_INFINITY)):
                atlas.commit_shard(result, SHARD * k, SHARD * (k + 1))
        except CatalogueError as error:
            assert str(error).startswith(f"cannot write {atlas.store.address}/")
            assert str(error).endswith(
                "file too large. What was stored stays: make room, and the same command goes on."
            )
            failed += 1
    return failed


def found_in(atlas: Catalogue) -> tuple[list, list]:
    """Losses, to 12 digits, and hits of the minima, and of every start what became of it."""
    minima = atlas.minima(columns="minimum_id,loss,hits").to_pylist()
    names = {row["minimum_id"]: round(row["loss"], 12) for row in minima}
    starts = atlas.starts(columns="campaign_id,start_index,outcome,minimum_id").to_pylist()
    return sorted((names[row["minimum_id"]], row["hits"]) for row in minima), [
        (row["campaign_id"], row["start_index"], row["outcome"], names.get(row["minimum_id"])) for row in starts
    ]


def test_disk_full_at_twenty_points_of_a_run(tmp_path, shards):
    undisturbed = Catalogue(tmp_path / "undisturbed", create=True)
    assert store_all(undisturbed, shards, {}) == 0
    chance = random.Random(3)
    for point in range(20):
        atlas = Catalogue(tmp_path / str(point), create=True)
        # From no byte at all to most of the longest file: entries of a log take 500 bytes, shards 10,000.
        full = {chance.randrange(SHARDS): int(10 ** chance.uniform(0, 3.8))}
        assert store_all(atlas, shards, full) == 1
        assert not list(atlas.store.check_files())
        assert store_all(Catalogue(tmp_path / str(point)), shards, {}) == 0
        assert found_in(atlas) == found_in(undisturbed)
        assert set(live_files(atlas)) <= set(Path(atlas.store.address).rglob("*.parquet"))


class FullInMidRun(Catalogue):
    """Has no room for the shard after the second."""

    commits = 0

    def commit_shard(self, result, first, last):
        self.commits += 1
        with longest_file(3000 if self.commits == 3 else resource.RLIM_INFINITY):
            return super().commit_shard(result, first, last)


@pytest.fixture(scope="module")
def running():
    """One Ray for all runs of this file."""
    with ray_session(None, 1, "cpu"):
        yield


def test_run_on_a_full_disk_ends_with_an_error_and_goes_on(tmp_path, shards, running):
    undisturbed = Catalogue(tmp_path / "undisturbed", create=True)
    store_all(undisturbed, shards, {})
    atlas = FullInMidRun(tmp_path / "atlas", create=True)
    with pytest.raises(CatalogueError, match=f"file too large. {MAKE_ROOM}"):
        run_campaign(Request(REAL, SHARD * SHARDS, SHARD), atlas, ONE)
    assert sum(last - first for first, last in atlas.done(REAL.id)) == 2 * SHARD
    assert run_campaign(Request(REAL, SHARD * SHARDS, SHARD), atlas, ONE).tally.fresh == 4 * SHARD
    assert found_in(atlas) == found_in(undisturbed)


def test_command_on_a_full_disk_says_so_and_goes_on(tmp_path, shards, running, capsys):
    undisturbed = Catalogue(tmp_path / "undisturbed", create=True)
    store_all(undisturbed, shards, {})
    command = "run --students 7 --teachers 7 --dynamics newton --dimension 7 --workers 1 --device cpu --progress none"
    sizes = ["--starts", str(SHARD * SHARDS), "--shard-size", str(SHARD)]
    with small_disk(tmp_path / "disk", "10m") as remount:
        path = tmp_path / "disk" / "atlas"
        Catalogue(path, create=True).register(REAL, SHARD, "cpu")
        room = os.statvfs(path)
        remount(f"size={room.f_frsize * (room.f_blocks - room.f_bfree) + 50_000}")
        assert run_command([*command.split(), *sizes, "--catalogue", str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines()[-1].startswith(f"error: cannot write {path}/")
        assert err.endswith(f"no space left on device. {MAKE_ROOM}\n")
        assert 0 < Catalogue(path).starts().num_rows < SHARD * SHARDS
        remount("size=10m")
        assert run_command([*command.split(), *sizes, "--catalogue", str(path)]) == 0
        assert found_in(Catalogue(path)) == found_in(undisturbed)


# Places that change under a run


def test_place_that_turns_read_only_is_read_and_not_written(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as remount:
        atlas = fill(tmp_path / "disk" / "atlas")
        before = everything(atlas)
        remount("ro")
        with pytest.raises(
            CatalogueError, match=r"read-only file system\. What was stored stays: make it writable, and"
        ):
            add(atlas, make_campaign(), 3)
        assert everything(Catalogue(tmp_path / "disk" / "atlas")) == before
        remount("rw")
        add(atlas, make_campaign(), 3)
        assert atlas.done(make_campaign().id) == [(0, 40)]


def test_catalogue_that_vanishes_is_missed_and_does_not_come_back_in_parts(atlas):
    opened = Catalogue(atlas, matcher=same_loss)
    shutil.rmtree(atlas)
    with pytest.raises(CatalogueError, match=r"cannot read \S+/campaigns: it is gone\. Put the catalogue back"):
        add(opened, make_campaign(), 3)
    assert not atlas.exists()


def test_clock_set_back_by_ten_years_changes_nothing(atlas, filled, monkeypatch):
    """The same, seen from the other side: all files and entries of the logs are of the future."""
    for path in sorted(atlas.rglob("*")):
        if path.suffix == ".json":
            path.write_text("".join(later(line) + "\n" for line in path.read_text().splitlines()))
        status = path.stat()
        os.utime(path, (status.st_atime + TEN_YEARS, status.st_mtime + TEN_YEARS))
    opened = Catalogue(atlas, matcher=same_loss)
    assert everything(opened) == filled[1]
    monkeypatch.setattr("enumerator.catalogue.store.FILES_TO_JOIN", 4)
    campaign = make_campaign()
    for shard in (3, 4):
        add(opened, campaign, shard)
    assert len([path for path in live_files(opened) if campaign.id in str(path)]) < 4, "the small files were joined"
    opened.finish(campaign.id)
    before = everything(opened)
    for name in TABLE_NAMES:
        table = opened.store.open(name)
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        table.create_checkpoint()
    assert everything(Catalogue(atlas)) == before
    assert not list(opened.store.check_files())
    assert opened.done(campaign.id) == [(0, 50)]


def later(line: str) -> str:
    """An entry of a log, written ten years later."""
    entry = json.loads(line)
    for action in entry.values():
        for key in ("timestamp", "modificationTime", "createdTime", "deletionTimestamp"):
            if action.get(key):
                action[key] += 1000 * TEN_YEARS
    return json.dumps(entry)
