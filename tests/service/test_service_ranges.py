"""Tables of the service read as files are: by polars, pandas, pyarrow and DuckDB, which ask for ranges of bytes."""

import datetime
import io
import time
from urllib.parse import quote

import duckdb
import fsspec
import numpy as np
import pandas
import polars
import pytest
from fsspec.implementations.http import HTTPFileSystem
from pyarrow import parquet

import enumerator as en
from tests.support.serving import serving
from tests.support.stand_ins import commit, make_campaign, new_catalogue

CAMPAIGN = make_campaign()
LOSSES = [0.01 * k for k in range(1, 151)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranges") / "atlas"
    atlas = new_catalogue(path)
    atlas.register(CAMPAIGN, 1200, "cpu")
    commit(atlas, CAMPAIGN, 0, 1200, LOSSES, ended=np.arange(1200) % (len(LOSSES) + 1) - 1)
    return path


@pytest.fixture(scope="module")
def service(path):
    with serving(path, limits={"readers": 2, "kept_seconds": 1}) as service:
        yield service


@pytest.fixture
def tables(service):
    return service.url + "/tables"


def test_polars_reads_tables_by_their_addresses(path, tables):
    expected = polars.from_arrow(en.Catalogue(path).starts(columns="start_index,loss,outcome"))
    columns = "&columns=start_index,loss,outcome"
    assert polars.read_parquet(f"{tables}/starts?format=parquet{columns}").equals(expected)
    assert polars.scan_parquet(f"{tables}/starts?format=parquet").select(expected.columns).collect().equals(expected)
    assert polars.read_csv(f"{tables}/starts?format=csv{columns}").equals(expected)
    assert polars.scan_csv(f"{tables}/starts?format=csv").select(expected.columns).collect().equals(expected)
    few = polars.scan_parquet(f"{tables}/starts?format=parquet&limit=7&where={quote('loss > 0.5')}").collect()
    assert few.height == 7 and few["loss"].min() > 0.5


def test_pandas_and_pyarrow_read_tables_by_their_addresses(path, tables):
    expected = en.Catalogue(path).starts(columns="start_index,loss")
    read = pandas.read_csv(f"{tables}/starts?format=csv&columns=start_index,loss")
    assert read["loss"].tolist() == expected["loss"].to_pylist()
    with fsspec.open(f"{tables}/starts?format=parquet", block_size=2**14) as file:  # by ranges of 16 kB
        assert parquet.read_table(file, columns=["start_index", "loss"]).equals(expected)


def test_duckdb_reads_tables_by_their_addresses(path, tables):
    """By ranges as with its own extension for HTTP, which wants a download."""

    class Http(HTTPFileSystem):
        def modified(self, path):  # which DuckDB asks for
            return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    connection = duckdb.connect()
    connection.register_filesystem(Http(skip_instance_cache=True))
    query = "select count(*), sum(evaluations), max(loss) from "
    expected = en.Catalogue(path).sql(query + "starts").to_pylist()[0]
    found = connection.sql(f"{query} read_parquet('{tables}/starts?format=parquet')").fetchall()
    assert found == [tuple(expected.values())]
    assert connection.sql(f"select count(*) from read_csv('{tables}/minima?format=csv')").fetchall() == [(150,)]


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-99", 0, 100),
    ("bytes=100-", 100, None),
    ("bytes=-100", -100, None),
    ("bytes=-100000000", 0, None),
    ("bytes=50-100000000", 50, None),
]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_parts_are_those_of_the_whole(service, kind):
    target = f"/tables/starts?format={kind}"
    whole = service.get(target)
    assert whole.headers["Accept-Ranges"] == "bytes"
    for asked, first, last in RANGES:
        part = service.get(target, Range=asked)
        assert (part.status, part.body) == (206, whole.body[first:last]), asked
        begin = first % len(whole.body)
        end = begin + len(part.body) - 1
        assert part.headers["Content-Range"] == f"bytes {begin}-{end}/{len(whole.body)}"
        assert part.headers["ETag"] == whole.headers["ETag"]
    for beyond in (f"bytes={len(whole.body)}-", "bytes=-0"):
        reply = service.get(target, Range=beyond)
        assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{len(whole.body)}")
    for ignored in ("bytes=0-1,5-6", "bytes=9-2", "bytes=x-1", "rows=0-1", "bytes=-", "bytes"):
        reply = service.get(target, Range=ignored)
        assert (reply.status, reply.body) == (200, whole.body), ignored
    tag = whole.headers["ETag"]
    assert service.get(target, Range="bytes=0-9", If_Range=tag).status == 206
    assert service.get(target, Range="bytes=0-9", If_Range='"other"').body == whole.body
    assert service.get(target, Range="bytes=0-9", If_Match=tag).status == 206
    assert service.get(target, Range="bytes=0-9", If_Match=f'"other", {tag}').status == 206
    assert service.get(target, Range="bytes=0-9", If_Match='"other"').status == 412
    assert service.get(target, Range="bytes=0-9", If_Match=f'"other", W/{tag}').status == 412


def test_a_table_is_the_same_to_the_byte_whenever_it_is_asked_for(service):
    asked = ("sort=outcome&columns=outcome,start_index,loss", "where=hits>3", "sort=-frequency&limit=40", "offset=17")
    for name, selection in zip(("starts", "minima", "minima", "starts"), asked, strict=True):
        target = f"/tables/{name}?format=parquet&{selection}"
        wholes = [service.get(target) for _ in range(4)]
        assert len({reply.body for reply in wholes}) == len({reply.headers["ETag"] for reply in wholes}) == 1
        half = service.get(target, Range=f"bytes=0-{len(wholes[0].body) // 2}").body
        time.sleep(1.5)  # what was kept is forgotten
        half += service.get(target, Range=f"bytes={len(half)}-").body
        assert half == wholes[0].body


def test_who_reads_by_ranges_stays_at_one_moment_while_a_campaign_writes(path, service):
    atlas = new_catalogue(path)
    campaign = make_campaign(seed=7)
    atlas.register(campaign, 10, "cpu")
    target = "/tables/starts?format=parquet&columns=campaign_id,start_index"

    def read(pause: float) -> tuple[int, set[str]]:
        """The rows, read in five parts, and the moments of these."""
        parts = [service.request("HEAD", target)]
        size, body = int(parts[0].headers["Content-Length"]), b""
        for first in range(0, size, size // 5 + 1):
            commit(atlas, campaign, shard[0], shard[0] + 10)
            shard[0] += 10
            time.sleep(pause)
            parts.append(service.get(target, Range=f"bytes={first}-{first + size // 5}"))
            body += parts[-1].body
        return parquet.read_table(io.BytesIO(body)).num_rows, {part.headers["ETag"] for part in parts}

    shard = [0]
    rows, tags = read(0.6)  # longer than an answer may be older than the catalogue
    assert (rows, len(tags)) == (1200, 1)
    time.sleep(1.1)
    assert read(0.0)[0] == 1200 + 50, "the next reader has a moment of its own"


def test_what_cannot_be_read_is_told_before_any_part(service):
    for headers in ({}, {"Range": "bytes=0-9"}):
        assert "no column here" in service.get("/tables/minima?format=parquet&columns=nope", **headers).json["error"]
    assert service.request("HEAD", "/tables/minima?format=parquet&columns=nope").status == 400


@pytest.mark.parametrize(
    "target", ["/sql?format=csv&query=select+random()", "/tables/starts?format=arrow", "/tables/starts"]
)
def test_what_is_not_the_same_to_the_byte_has_no_parts(service, target):
    """Statements may tell something else each time; in Arrow the bytes that hold no value are any."""
    reply = service.get(target, Range="bytes=0-0")
    assert (reply.status, reply.headers["Accept-Ranges"], reply.headers["ETag"][:3]) == (200, None, 'W/"')
    assert len(reply.body) > 1
