"""Bundles whose checksums are right and whose rows are not: refused in one line, before anything is written."""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cluster.cli import run_command
from enumerator.catalogue.campaign_table import DELETING, STATUSES
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.records import OUTCOMES
from enumerator.catalogue.row_checks import MetStarts, check_rows
from enumerator.catalogue.schema import TABLE_NAMES, table_schema
from enumerator.errors import CatalogueError, InputError
from enumerator.points import FLAT_MINIMUM, MINIMUM, SADDLE, UNDECIDED
from enumerator.storage.archive import Archive
from enumerator.upkeep.bundle import export, import_bundle, opened
from enumerator.upkeep.merge import merge
from tests.support.forging import forge, with_value
from tests.support.stand_ins import fill, given, make_campaign, make_point, make_result, new_catalogue, same_loss

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Two landscapes, three campaigns, one of which starts from given overlaps."""
    folder = tmp_path_factory.mktemp("bundle")
    atlas = new_catalogue(folder / "atlas")
    fill(atlas, make_campaign(), (0, 14))
    fill(atlas, make_campaign(students=2), (0, 7))
    fill(atlas, given(), (0, 4))
    export(atlas, folder / "b.tar")
    return folder / "b.tar"


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys) -> Callable[[Path], str]:
    """Imports a file through the command; its one line of error, once nothing is seen to be left behind."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def check(file: Path) -> str:
        assert run_command(["import", str(tmp_path / "new"), str(file)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1
        assert len(err) < 1000 and err.strip().isprintable()
        assert not (tmp_path / "new").exists() and not list((tmp_path / "temporary").iterdir())
        return err

    return check


def test_bundle_comes_in_without_a_copy_of_it_anywhere(bundle, tmp_path, monkeypatch):
    """So nothing can be left behind, even by a process that is killed; and the tables can be read in any order."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    parts = []
    with opened(bundle, lambda *part: parts.append(list((tmp_path / "temporary").iterdir()))) as tables:
        assert {name: table.count_rows() for name, table in tables.items()}["starts"] == 25
        assert tables["landscapes"].to_table()["students"].to_pylist().count(2) == 1
        assert not list((tmp_path / "temporary").iterdir())
    assert parts and not any(parts)


def extended(column: str, kind: pa.DataType, value) -> Change:
    return lambda table: table.append_column(column, pa.array([value] * table.num_rows, kind))


def settings(change: Callable[[dict], object]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content, sort_keys=True)

    return changed


def doubled(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(1, 1)])


def in_microseconds(table: pa.Table) -> pa.Table:
    """With a first time in the year 290000."""
    field = table.schema.field("created_at")
    times = table["created_at"].cast(pa.int64()).to_pylist()
    times = pa.array([9 * 10**18, *times[1:]], pa.int64()).cast(field.type)
    return table.set_column(table.schema.get_field_index("created_at"), field, times)


def of_another_landscape(table: pa.Table) -> pa.Table:
    """With the first row on the landscape of the last."""
    homes = table["landscape_id"].to_pylist()
    other = next(home for home in homes if home != homes[0])
    return with_value("landscape_id", other)(table)


def first(outcome: str, column: str, value) -> Change:
    """Changes the first start of an outcome."""

    def change(table: pa.Table) -> pa.Table:
        return with_value(column, value, table["outcome"].to_pylist().index(outcome))(table)

    return change


FORGED: dict[str, tuple[str, Change, str]] = {
    "loss NaN": ("minima", with_value("loss", float("nan")), "loss must be finite, got nan"),
    "loss infinite": ("starts", with_value("loss", float("inf")), "loss must be finite, got inf"),
    "eigenvalue NaN": ("minima", with_value("hessian_spectrum", [0.1, float("nan")]), "hessian_spectrum must be fin"),
    "eigenvalue missing": ("saddles", with_value("hessian_spectrum", [0.1, None]), "must be without gaps"),
    "index huge": ("starts", with_value("start_index", 2**62), "start_index must be at most 9007199254740991, got 46"),
    "index negative": ("starts", with_value("start_index", -5), "start_index must be at least 0, got -5"),
    "text without end": (
        "minima",
        with_value("software", "x" * (2**16 + 1)),
        "software must be at most 65,536 bytes, got 'xxxx",
    ),
    "settings without end": ("campaigns", with_value("campaign", "{" + " " * 2**25), "at most 33,554,432 bytes, got"),
    "id without end": ("starts", lambda table: with_value("lingered_on", ["s" * 2**17])(table), "65,536 bytes"),
    "index twice": ("starts", doubled, "start_index must be there once, got 1"),
    "evaluations negative": ("starts", with_value("evaluations", -1), "evaluations must be at least 0"),
    "outcome": ("starts", with_value("outcome", "hacked"), "outcome must be one of converged, saddle, unfinished, d"),
    "verdict": ("minima", with_value("verdict", "saddle"), "verdict must be one of minimum, flat-minimum, undecided"),
    "status": ("campaigns", with_value("status", "odd"), "status must be one of running, "),
    "label": ("minima", with_value("label", "\x1b]0;owned\x07x"), r"label must be plain text, got '\x1b]0;owned"),
    "label with a line": ("minima", with_value("label", "a\nb"), "label must be of the form"),
    "text turned around": (
        "minima",
        with_value("isotropy", "S\u202e2"),
        r"isotropy must be plain text, got 'S\u",
    ),
    "device": ("campaigns", with_value("device", "cpu\x9b2J"), r"device must be plain text, got 'cpu\x9b2J'"),
    "id": ("minima", with_value("minimum_id", "m-../../x"), "minimum_id must be of the form m-[0-9a-f]{16}"),
    "minimum that is not there": (
        "starts",
        first("converged", "minimum_id", "m-0123456789abcdef"),
        "minimum_id must be the minimum_id of a row of minima",
    ),
    "minimum elsewhere": ("minima", of_another_landscape, "must be"),
    "saddle lingered on": (
        "starts",
        lambda table: with_value("lingered_on", ["s-0123456789abcdef"])(table),
        "lingered_on must be the minimum_id of a row of saddles",
    ),
    "lingering without numbers": (
        "starts",
        lambda table: with_value("lingered_for", [1.0])(table),
        "lingered_for must be a list as long as lingered_on",
    ),
    "start on another landscape": ("starts", of_another_landscape, "must be"),
    "start of no campaign": ("starts", with_value("campaign_id", "c-0123456789abcdef"), "of a row of campaigns"),
    "converged nowhere": ("starts", first("converged", "minimum_id", None), "given where the outcome is converged"),
    "Q of a start": ("starts", first("unfinished", "Q", [1.0]), "Q must be a list of students x students numbers"),
    "Q of a minimum": ("minima", with_value("Q", [1.0]), "a list of effective_students x effective_students numbers"),
    "T": ("landscapes", with_value("T", lambda T: [T[0], *T[2:]]), "T must be a list of teachers x teachers numbers"),
    "T asymmetric": ("landscapes", with_value("T", lambda T: [T[0], 0.5, *T[2:]]), "symmetric"),
    "activation": ("landscapes", with_value("activation", "tanh"), "`activation` must be one of"),
    "rank": ("landscapes", with_value("teacher_rank", 1), "its teacher_rank is not that of T"),
    "landscape id": ("landscapes", with_value("landscape_id", "ls-0123456789abcdef"), "reads back as"),
    "students of a minimum": ("minima", with_value("students", 9), "students must be that of the landscape, got 9"),
    "time": ("minima", in_microseconds, "created_at must be a time in the years 1 to 9999, got 9000000000000000000"),
    "settings nested": ("campaigns", with_value("campaign", "[" * 200_000), "(RecursionError)"),
    "settings a list": ("campaigns", with_value("campaign", "[]"), "(TypeError)"),
    "settings without law": ("campaigns", with_value("campaign", settings(lambda c: c.pop("law"))), "(KeyError)"),
    "settings of a matrix that no memory holds": (
        "campaigns",
        with_value("campaign", settings(lambda c: c["landscape"].update(teachers=300_000))),
        "they are on another landscape",
    ),
    "settings of another id": (
        "campaigns",
        with_value("campaign", settings(lambda c: c.update(seed=99))),
        "reads back as",
    ),
    "settings with more": (
        "campaigns",
        with_value("campaign", settings(lambda c: c.update(more="\x1b[2J"))),
        "something else is in them",
    ),
    "overlaps": ("initial_overlaps", with_value("Q", lambda Q: [Q[0] + 1, *Q[1:]]), "initial overlaps were altered"),
    "column missing": ("starts", lambda table: table.drop_columns(["loss"]), "the column 'loss' of tables/starts"),
    "column of another type": (
        "starts",
        lambda table: table.set_column(5, "loss", pc.cast(table["loss"], pa.string())),
        "the column 'loss' of tables/starts.parquet is not that of its schema",
    ),
    "column more": ("minima", extended("\x1b[31m", pa.int32(), 1), r"the column '\x1b[31m' of tables/minima.parquet"),
    "columns in another order": (
        "minima",
        lambda table: table.select(table.column_names[::-1]),
        "the order of columns of tables/minima.parquet",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_row_that_the_schemas_do_not_allow_is_refused(bundle, tmp_path, refused, name):
    table, change, expected = FORGED[name]
    assert expected in refused(forge(bundle, tmp_path / "forged.tar", {table: change}))


def test_starts_that_were_met_are_told_from_new_ones_in_little_memory():
    """Shards of any order, and starts one by one, against a set; a million in a row are one run."""
    rng = np.random.default_rng(0)
    for trial in range(200):
        met, seen, again = MetStarts(), set(), None
        for _ in range(20):
            first, step = int(rng.integers(200 + 50 * trial)), int(rng.integers(1, 3))
            batch = [(int(rng.integers(2)), k) for k in range(first, first + 5 * step, step)]
            again = again or next((start for start in batch if start in seen), None)
            seen.update(batch)
            met.add(*(pa.chunked_array([column]) for column in zip(*batch, strict=True)))
        found = met.twice()
        assert (found is None) == (again is None) and (found is None or found in seen)
    met = MetStarts()
    for first in rng.permutation(250) * 4096:
        met.add(pa.chunked_array([np.zeros(4096, np.int64)]), pa.chunked_array([np.arange(first, first + 4096)]))
    assert met.twice() is None
    assert met._runs.tolist() == [[0, 0, 250 * 4096 - 1]]


def test_text_that_is_no_text_is_refused(bundle, tmp_path, refused):
    def change(table: pa.Table) -> pa.Table:
        field = table.schema.field("software")
        raw = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
        return table.set_column(table.schema.get_field_index("software"), field, raw)

    assert "everything must be readable" in refused(forge(bundle, tmp_path / "forged.tar", {"minima": change}))


MANIFESTS = {
    "nested": b"[" * 60_000,
    "too large": b'{"x": "' + b"x" * 70_000 + b'"}',
    "a list of checksums": lambda manifest: manifest | {"sha256": list(manifest["sha256"])},
    "a version of another kind": lambda manifest: manifest | {"format_version": "\x1b[2J" * 1000},
    "no object": lambda manifest: 7,
    "another member": lambda manifest: manifest | {"sha256": manifest["sha256"] | {"\x1b[2J": ""}},
    "checksum of another kind": lambda manifest: manifest | {"sha256": dict.fromkeys(manifest["sha256"], 7)},
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_of_another_kind_is_refused(bundle, tmp_path, refused, name):
    new = MANIFESTS[name]
    refused(forge(bundle, tmp_path / "forged.tar", manifest=new if callable(new) else lambda manifest: new))


def test_sparse_member_is_refused_before_anything_is_read(bundle, tmp_path, refused):
    """Of a file of 20 kB that declares 6 GiB: in the form of GNU tar, and in the one that POSIX tars have."""
    header = tarfile.TarInfo("tables/starts.parquet")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (6 * 2**30 - 512, 512)  # where its only bytes lie, and how many
    block[483:495] = b"%011o\0" % (6 * 2**30)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 8 * 32)
    (tmp_path / "gnu.tar").write_bytes(bytes(block) + bytes(512 + 1024))
    posix = tarfile.TarInfo("tables/starts.parquet")
    posix.pax_headers = {"GNU.sparse.size": str(6 * 2**30), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,512"}
    posix.size = 512
    with tarfile.open(tmp_path / "posix.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(posix, io.BytesIO(bytes(512)))
    for name in ("gnu.tar", "posix.tar"):
        assert "an entry declares more bytes than it has" in refused(tmp_path / name)


def test_archive_of_many_members_or_of_none_is_refused(tmp_path, refused):
    with tarfile.open(tmp_path / "many.tar", "w") as archive:
        for number in range(101):
            archive.addfile(tarfile.TarInfo(str(number)))
    assert "it has more than 100 entries" in refused(tmp_path / "many.tar")
    (tmp_path / "longer.tar").write_bytes(tarfile.TarInfo("a").tobuf() + b"\1" * 5000)
    (tmp_path / "zeros.tar").write_bytes(bytes(10_240))
    for name in ("longer.tar", "zeros.tar"):
        assert "expected a bundle made by `enumerator export`" in refused(tmp_path / name)


def test_members_are_read_at_their_own_pace(bundle):
    with Archive(bundle) as archive:
        one, other = archive.open("README.txt"), archive.open("CITATION.cff")
        begun = one.read(10)
        assert other.readall().startswith(b"cff-version") or other.seek(0) == 0
        assert begun + one.readall() == archive.open("README.txt").readall()
        assert one.seek(-3, io.SEEK_END) == archive.size("README.txt") - 3 and len(one.read()) == 3


def test_rows_of_another_catalogue_are_checked_before_a_merge(tmp_path):
    """What comes in a bundle may come in a directory as well."""
    ours, theirs = new_catalogue(tmp_path / "ours"), new_catalogue(tmp_path / "theirs")
    fill(theirs, make_campaign(), (0, 7))
    rows = theirs.minima()["label"].to_pylist()
    table = theirs.store.open("minima")
    changed = with_value("label", "\x1b[2J")(theirs.store.dataset(table).to_table())
    theirs.store.rewrite(table, changed, None)
    with pytest.raises(CatalogueError, match=r"cannot merge .*: minima, .*: label must be") as error:
        merge(ours, Catalogue(tmp_path / "theirs"))
    assert str(error.value).isprintable() and len(rows) == 3
    assert [ours.store.open(name).version() for name in TABLE_NAMES] == [0] * len(TABLE_NAMES)


def test_campaign_that_is_deleted_under_a_merge_is_left_out(tmp_path, monkeypatch):
    """Its starts were opened while it was there: that is no fault of the catalogue."""
    from enumerator.upkeep.compaction import delete

    ours, theirs = new_catalogue(tmp_path / "ours"), new_catalogue(tmp_path / "theirs")
    fill(theirs, make_campaign(), (0, 7))
    fill(theirs, make_campaign(seed=1), (0, 7))
    look = theirs.store.open

    def open_slowly(name, **options):
        table = look(name, **options)
        if name == "starts":
            monkeypatch.undo()
            delete(Catalogue(tmp_path / "theirs"), make_campaign().id)
        return table

    monkeypatch.setattr(theirs.store, "open", open_slowly)
    assert merge(ours, theirs).starts == 7
    assert ours.campaigns()["campaign_id"].to_pylist() == [make_campaign(seed=1).id]


def test_everything_that_is_stored_passes(tmp_path, bundle):
    """Diverged starts, whose overlaps are not finite, and lingering ones, beside those of every other kind."""
    campaign, atlas = make_campaign(), new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 5, "cpu")
    points = [make_point(campaign.landscape, 0.5), make_point(campaign.landscape, 0.3, "saddle")]
    result = make_result(campaign, 0, 8, points, [0, 1, -1, -2, 0, 0, 1, -2])
    result.starts.Q[3], result.starts.R[3] = np.nan, np.inf
    atlas.commit_shard(result, 0, 8)
    assert list(check_rows(atlas.snapshot())) == []
    export(atlas, tmp_path / "b.tar")
    target = Catalogue(tmp_path / "target", create=True, matcher=same_loss)
    assert import_bundle(target, tmp_path / "b.tar").starts == 8
    assert import_bundle(target, forge(bundle, tmp_path / "same.tar")).starts == 25 - 8


def test_schemas_know_every_word_that_the_code_writes():
    words = {
        ("campaigns", "status"): {*STATUSES, DELETING},
        ("starts", "outcome"): set(OUTCOMES),
        ("minima", "verdict"): {MINIMUM, FLAT_MINIMUM, UNDECIDED},
        ("saddles", "verdict"): {SADDLE},
        ("minima", "verdict_above"): {MINIMUM, FLAT_MINIMUM, UNDECIDED, SADDLE},
        ("saddles", "verdict_above"): {MINIMUM, FLAT_MINIMUM, UNDECIDED, SADDLE},
    }
    for (name, column), written in words.items():
        (rule,) = [rule for rule in table_schema(name).columns if rule.name == column]
        assert set(rule.values or ()) == written


def test_a_far_index_does_not_make_an_export_long(tmp_path):
    campaign, atlas = make_campaign(), new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 5, "cpu")
    for first_index in (0, 2**50):
        index = np.arange(first_index, first_index + 3)
        atlas.commit_shard(make_result(campaign, index[0], index[-1] + 1, index=index), index[0], index[-1] + 1)
    assert export(atlas, tmp_path / "b.tar")["starts"] == 6
    with tarfile.open(tmp_path / "b.tar") as archive:
        file = archive.extractfile("tables/starts.parquet")
        assert pq.read_table(io.BytesIO(file.read()))["start_index"].to_pylist() == [0, 1, 2, *(2**50 + np.arange(3))]


def test_error_names_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        import_bundle(new_catalogue(tmp_path / "atlas"), tmp_path / "none.tar")
    assert os.listdir(tmp_path) == ["atlas"]
