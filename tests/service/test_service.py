"""The service, by real HTTP: the tables of the disk, in every format, from one moment; campaigns; the client."""

import io
import json
import pickle
import re
import time
from urllib.parse import quote

import numpy as np
import polars
import psutil
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

import enumerator as en
from cluster.service.media_types import ARROW, PARQUET, choose_media_type
from enumerator.catalogue.records import software_version
from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.errors import CatalogueError, InputError
from tests.support.serving import serving
from tests.support.stand_ins import commit, make_campaign, new_catalogue

LOSSES = [0.01 * k for k in range(1, 151)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Three campaigns on two landscapes, 150 minima, 900 starts, some unfinished."""
    path = tmp_path_factory.mktemp("service") / "atlas"
    atlas = new_catalogue(path)
    for campaign, losses in (
        (make_campaign(), LOSSES),
        (make_campaign(seed=1), LOSSES[:10]),
        (make_campaign(4), [0.3]),
    ):
        atlas.register(campaign, 300, "cpu")
        commit(atlas, campaign, 0, 300, losses, ended=np.arange(300) % (len(losses) + 1) - 1)
    return path


@pytest.fixture(scope="module")
def service(path):
    with serving(path, "--readers", "2", "--workers", "1") as service:
        yield service


@pytest.fixture(scope="module")
def remote(service):
    return en.connect(service.url)


def same(a: pa.Table, b: pa.Table) -> bool:
    """Equal in columns, types and values; NaN is itself here."""
    return a.schema.equals(b.schema) and str(a.to_pylist()) == str(b.to_pylist())


SELECTIONS = [
    {},
    {"students": 3, "columns": "label,loss,hits,starts,frequency", "sort": "-frequency,label"},
    {"campaign": make_campaign(seed=1).id},
    {"where": "loss > 0.1 and loss < 0.3", "limit": 7, "offset": 3},
    {"dynamics": "newton"},
    {"campaign": "relu.3.2.flow.d10.s1"},
    {"dimension": 10, "scale": 1.0, "seed": 0},
    {"scale": 0.5},
]


@pytest.mark.parametrize("name", ["landscapes", "campaigns", "minima", "saddles", "starts"])
def test_the_client_gives_the_tables_of_the_disk(path, remote, name):
    local = en.Catalogue(path)
    for selection in SELECTIONS:
        chosen = {
            key: value for key, value in selection.items() if key != "where" or name in ("minima", "saddles", "starts")
        }
        chosen = {key: value for key, value in chosen.items() if name == "minima" or key not in ("columns", "sort")}
        assert same(getattr(remote, name)(**chosen), getattr(local, name)(**chosen)), chosen
    assert sum(batch.num_rows for batch in remote.batches("starts", where="outcome = 'unfinished'")) > 0


def test_every_format_holds_the_same(path, service):
    columns = "label,loss,hits,Q"
    expected = en.Catalogue(path).minima(columns=columns, limit=5).to_pylist()
    query = f"/tables/minima?columns={columns}&limit=5"
    assert service.get(query).json == expected
    assert pa.ipc.open_stream(service.get(query, Accept=ARROW).body).read_all().to_pylist() == expected
    assert parquet.read_table(io.BytesIO(service.get(query, Accept=PARQUET).body)).to_pylist() == expected
    text = csv.read_csv(io.BytesIO(service.get(query + "&format=csv").body)).to_pylist()
    assert [row["label"] for row in text] == [row["label"] for row in expected]
    assert [row["Q"] for row in text] == [str(row["Q"]) for row in expected]
    assert polars.read_ipc_stream(service.get(query, Accept=ARROW).body).to_dicts() == expected
    assert service.get(query, Accept="image/png").status == 406


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("application/*;q=0.5, text/csv", "csv"),
        (f"{ARROW};q=0.9, application/json;q=0.1", "arrow"),
        ("application/x-parquet", "parquet"),
        ("application/json;q=0, */*;q=0.1", "arrow"),
        ("text/html", None),
        ("text/csv;q=nonsense", None),
    ],
)
def test_formats_are_negotiated(accept, format):
    assert choose_media_type(accept) == format


def test_pages_come_from_one_moment_while_a_campaign_writes(path, service):
    atlas = new_catalogue(path)
    campaign = make_campaign(seed=7)
    atlas.register(campaign, 10, "cpu")
    rows, target, shard = [], "/tables/starts?columns=campaign_id,start_index&limit=200", 0
    expected = en.Catalogue(path).starts(columns="campaign_id,start_index").to_pylist()
    tokens = set()
    while target:
        reply = service.get(target)
        rows += reply.json
        tokens.add(reply.headers["Enumerator-Snapshot"])
        target = (reply.headers["Link"] or "").partition(">")[0].removeprefix("<")
        commit(atlas, campaign, 10 * shard, 10 * shard + 10)
        shard += 1
    assert rows == expected
    assert len(tokens) == 1
    assert shard > 4
    time.sleep(0.6)
    now = service.get(f"/tables/starts?campaign={campaign.id}&columns=start_index&limit=1000").json
    assert len(now) == 10 * shard
    (row,) = service.get(f"/tables/minima?campaign={campaign.id}&columns=hits,starts").json
    assert row == {"hits": 10 * shard, "starts": 10 * shard}


def test_unchanged_answers_are_not_sent_again(service):
    first = service.get("/tables/minima?limit=3")
    again = service.get("/tables/minima?limit=3", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert service.get("/tables/minima?limit=4", If_None_Match=first.headers["ETag"]).status == 200


def test_old_and_made_up_snapshots(service):
    assert service.get("/tables/minima?snapshot=9.9.9.9.9.999").status == 410
    for token in ("x", "1.2.3", "-1.0.0.0.0.0", "../../etc/passwd", quote("\u0661.\u0660.0.0.0.0"), "1.0.0.0.0.0%0A"):
        reply = service.get(f"/tables/minima?snapshot={token}")
        assert (reply.status, list(reply.json)) == (422, ["error"])


def test_one_minimum_has_its_matrices(path, service, remote):
    row = en.Catalogue(path).minima(limit=1).to_pylist()[0]
    found = remote.minimum(row["label"])
    assert found == service.get(f"/minima/{row['minimum_id']}").json
    assert np.array_equal(np.ravel(found["Q"]), row["Q"]) and np.shape(found["Q"]) == (3, 3)
    assert np.shape(found["R"]) == (3, 2)
    reply = service.get("/minima/relu.9.9.1")
    assert (reply.status, list(reply.json)) == (404, ["error"])
    assert "nearest: relu." in reply.json["error"]
    assert (
        pa.ipc.open_stream(service.get(f"/minima/{row['label']}", Accept=ARROW).body).read_all()["Q"][0].as_py()
        == row["Q"]
    )


@pytest.mark.parametrize(
    ("of", "options"),
    [
        ("frequencies", {"by": "order", "students": 3}),
        ("frequencies", {"campaign": [make_campaign().id, make_campaign(4).id], "confidence": 0.9}),
        ("unseen", {"more": 50}),
        ("accumulation", {"where": "start_index < 100 -- of 300"}),
        # Whole numbers: a mean of others depends in its last digit on the order in which threads add them up.
        ("distributions", {"quantity": "evaluations", "by": "outcome"}),
        ("comparison", {"students": 3}),
        ("comparison", {"campaign": [make_campaign(seed=1).id, make_campaign().id]}),
        ("trend", {"quantity": "order"}),
    ],
)
def test_statistics_are_those_of_the_disk(path, remote, of, options):
    local = dict(options)
    if "quantity" in local:
        local["of"] = local.pop("quantity")
    if of == "comparison":
        local["campaigns"] = local.pop("campaign", None)
    expected = getattr(en.statistics, "compare" if of == "comparison" else of)(en.Catalogue(path), **local)
    assert expected.num_rows > 0
    assert same(remote.statistics(of, **options), expected)


def test_statistics_in_other_formats_and_what_is_no_statistic(path, service, remote):
    asked = "/statistics/frequencies?by=outcome&students=3"
    expected = en.statistics.frequencies(en.Catalogue(path), by="outcome", students=3)
    assert service.get(asked).json == expected.to_pylist()
    assert parquet.read_table(io.BytesIO(service.get(asked, Accept=PARQUET).body)).equals(expected)
    reply = service.get("/statistics/unseen?by=order")
    assert (reply.status, reply.json["error"]) == (422, "`by` goes with frequencies or distributions, got unseen.")
    assert service.get("/statistics/colours").status == 422
    with pytest.raises(InputError, match="no campaign 'c-1' in this catalogue"):
        remote.statistics(campaign="c-1")
    with pytest.raises(InputError, match=r"no landscape 'ls-1' in this catalogue \(nearest: ls-"):
        remote.minima(landscape="ls-1")
    reply = service.get("/tables/starts?landscape=ls-1")
    assert (reply.status, "no landscape 'ls-1' in this catalogue (nearest: ls-" in reply.json["error"]) == (400, True)
    with pytest.raises(InputError, match=r"the statistics of a service are its own, as in `connect\(url\)\.stat"):
        en.statistics.frequencies(remote)


def test_early_stops_are_those_of_the_disk(path, service, remote):
    campaign = make_campaign().id
    expected = en.statistics.early_stops(en.Catalogue(path), campaign, flow_time=1e3)
    assert expected.num_rows > 0
    assert same(remote.early_stops(campaign, flow_time=1e3), expected)
    assert service.get(f"/early-stops/{campaign}?flow_time=1000").json == expected.to_pylist()
    reply = service.get(f"/early-stops/{campaign}?flow_time=7")
    assert (reply.status, reply.json["error"][:22]) == (400, "`flow_time` must be on")
    with pytest.raises(InputError, match="give one of the two"):
        remote.early_stops(campaign)
    assert service.get("/early-stops/c-1?flow_time=1000").status == 404
    with pytest.raises(InputError, match="no campaign 'c-1' in this catalogue"):
        remote.early_stops("c-1", flow_time=1e3)
    for wrong, told in (({"flow_time": [1000]}, "finite number"), ({"gradient_norm": "a"}, "finite number")):
        with pytest.raises(InputError, match=told):
            en.statistics.early_stops(en.Catalogue(path), campaign, **wrong)
    for source in (en.Catalogue(path), remote):
        with pytest.raises(InputError, match="`campaign` must be a string, got None"):
            en.statistics.early_stops(source, None, flow_time=1e3) if source is not remote else remote.early_stops(None)


def test_a_minimum_of_the_disk_and_of_the_service_can_be_sent_to_another_process(path, remote):
    label = en.Catalogue(path).minima()["label"][0].as_py()
    for source in (en.Catalogue(path), remote):
        minimum = source.minimum(label)
        again = pickle.loads(pickle.dumps(minimum))
        assert np.array_equal(again.Q, minimum.Q)
        assert np.array_equal(again.T, minimum.T)


def test_sql_and_what_it_says_about_mistakes(path, service, remote):
    query = "select outcome, count(*) as n from starts group by outcome order by n"
    assert same(remote.sql(query), en.Catalogue(path).sql(query))
    assert service.request("POST", "/sql", {"query": query}).json == en.Catalogue(path).sql(query).to_pylist()
    with pytest.raises(InputError, match=r'Referenced column "nope" not found.*The tables are landscapes'):
        remote.sql("select nope from starts")
    with pytest.raises(InputError, match="names 'nope', which is no column here"):
        remote.minima(columns="nope")


def test_identify_knows_the_global_minimum(path, remote):
    for network in ({"W": np.sqrt(20) * np.eye(2, 20)}, {"W": np.eye(2, 20), "reduced": True, "students": 2}):
        found = remote.identify(**network, teachers=2)
        assert (found["outcome"], found["reached_loss"], found["nearest"]) == ("converged", 0.0, None)
        assert found == vars(en.identify(path, **network, teachers=2))
    with pytest.raises(InputError, match="weights W need teachers"):
        remote.identify(W=[[1.0, 2.0]])
    with pytest.raises(InputError, match="expected Q as a matrix of finite real numbers"):
        remote.identify(Q=[[1.0], [1.0, 2.0]], R=[[1.0]], teachers=1)


@pytest.mark.parametrize("prefix", ["", "/atlas"])
def test_the_front_page_leads_to_the_description_and_the_tables(service, prefix):
    reply = service.get("/", **({"X_Forwarded_Prefix": prefix} if prefix else {}))
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    told = reply.json
    assert (told["name"], told["version"]) == ("enumerator", software_version())
    assert set(told["tables"]) == set(TABLE_NAMES)
    for place in (told["description"], told["columns"], *told["tables"].values()):
        assert place.startswith(prefix + "/")
        assert service.get(place.removeprefix(prefix)).status == 200
    assert service.request("HEAD", "/").status == 200


def test_health_metrics_and_the_description(path, service):
    assert service.get("/health").json["status"] == "ok"
    text = service.get("/metrics").body.decode()
    assert 'enumerator_requests_total{method="GET",route="/health",status="200"}' in text
    assert f"enumerator_catalogue_minima {en.Catalogue(path).minima().num_rows}.0" in text
    described = service.get("/openapi.json").json
    assert {"/tables/{name}", "/sql", "/identify", "/campaigns", "/health", "/metrics"} <= set(described["paths"])
    answer = described["paths"]["/statistics/{of}"]["get"]["responses"]["200"]["content"]
    assert answer["application/json"]["example"][0]["frequency"] and PARQUET in answer
    parameters = described["paths"]["/tables/{name}"]["get"]["parameters"]
    assert any(entry.get("examples") or entry["schema"].get("examples") for entry in parameters)
    assert set(service.get("/tables").json) == set(TABLE_NAMES)
    for reference in re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(described)):
        place = described
        for step in reference.split("/"):
            place = place[step]
    asked = described["paths"]["/campaigns"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert not {"teacher", "initial", "grid"} & set(asked["properties"])


def test_a_campaign_whose_process_is_killed_says_so(service):
    reply = service.request("POST", "/campaigns", {"students": 2, "teachers": 2, "starts": 8, "seed": 91})
    (child,) = (
        process
        for process in psutil.Process(service.process.pid).children()
        if "cluster.service.campaign_child" in process.cmdline()
    )
    child.kill()
    stands = f"/campaigns/{reply.json['campaign_id']}"
    deadline = time.monotonic() + 30
    while (told := service.get(stands).json)["status"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert told["status"] == "failed"
    assert told["error"] == "error: its process ended with code -9, and gave no reason."


def test_a_campaign_is_started_followed_cancelled_and_completed(path, remote, service):
    settings = {"students": 3, "teachers": 3, "dimension": 5, "shard_size": 64}
    stands = remote.start(**settings, starts=1_000_000)
    name = stands["campaign_id"]
    again = service.request("POST", "/campaigns", {**settings, "starts": 1_000_000}, X_Forwarded_Prefix="/atlas")
    assert again.headers["Location"] == f"/atlas/campaigns/{name}", "sent twice it is one campaign"
    busy = service.request("POST", "/campaigns", {**settings, "seed": 1})
    assert (busy.status, busy.json["error"]) == (409, f"{name} is running: wait for its end, or cancel it.")
    until(lambda: remote.status(name)["done"] > 0)
    stands = remote.status(name)
    assert stands["status"] == "running" and stands["asked"] == 1_000_000 and stands["minima"] >= 1
    assert remote.cancel(name)["status"] in ("cancelling", "cancelled")
    until(lambda: remote.status(name)["status"] == "cancelled")
    done = remote.status(name)["done"]
    assert 0 < done < 1_000_000
    assert remote.start(**settings, starts=done)["asked"] == done
    until(lambda: remote.status(name)["status"] == "complete")
    assert remote.starts(campaign=name, columns="start_index")["start_index"].to_pylist() == list(range(done))


def until(condition) -> None:
    """Wait until something holds: on a loaded machine a run takes minutes to start."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"students": 3}, "`teachers` is missing"),
        ({"students": 3, "teachers": 3, "teacher": "/etc/passwd"}, "`teacher` names a file, which a request cannot"),
        ({"students": 3, "teachers": 3, "initial": "../x.npz"}, "`initial` names a file, which a request cannot"),
        ({"students": 3, "teachers": 3, "teacher": "orthonormal"}, "`teacher` names a file"),
        ({"students": 3, "teachers": 3, "grid": {"teacher": ["/etc/T.npy"]}}, "`grid` makes many campaigns of one"),
        ({"students": 3, "teachers": 3, "grid": [{"students": [10**9]}]}, "`grid` makes many campaigns of one"),
        ({"students": 3, "teachers": 3, "tolerances": {"T": "/etc/T.npy"}}, "unknown setting `tolerances.T`"),
        ({"students": 3, "teachers": 3, "tolerances": {"step_error": {"T": "/x.npy"}}}, "is not of type 'number'"),
        ({"students": 10**9, "teachers": 3}, "`students` must be at most 512 here"),
        ({"students": 3, "teachers": 1e9}, "`teachers` must be at most 512 here"),
        ({"students": 3, "teachers": 3, "catalogue": "/tmp/x"}, "unknown setting `catalogue`"),
        ({"students": 2, "teachers": 2, "T": [[1.0, 0.0], [0.0, -1.0]]}, "positive semidefinite"),
        ({"students": 2, "teachers": 2, "T": "x"}, "`T` must hold numbers"),
    ],
)
def test_campaigns_that_cannot_be_are_refused_in_one_line(service, settings, message):
    reply = service.request("POST", "/campaigns", settings)
    assert reply.status == 400
    assert message in reply.json["error"] and "\n" not in reply.json["error"]


def test_the_service_takes_its_processes_with_it(path):
    with serving(path, "--readers", "1", "--workers", "1") as service:
        remote = en.connect(service.url)
        settings = {"students": 3, "teachers": 3, "dimension": 5, "shard_size": 64}  # of programs that are there
        name = remote.start(**settings, starts=1_000_000, seed=1)["campaign_id"]
        until(lambda: remote.status(name)["done"] > 0)  # Ray and its workers are up
        tree = psutil.Process(service.process.pid).children(recursive=True)
        assert len(tree) > 3
        service.process.kill()
        assert not psutil.wait_procs(tree, timeout=30)[1], "a process outlived the service"
        with pytest.raises(CatalogueError, match=r"cannot read from http://127[^<>]*\.$"):
            en.connect(service.url).minima()
