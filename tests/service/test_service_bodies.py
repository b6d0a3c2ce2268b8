"""Bodies of requests: nothing in them holds up other requests, and what is wrong in them is said in one line."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from tests.support.serving import serving


@pytest.fixture(scope="module")
def service(path):
    with serving(path, "--readers", "2", "--workers", "1") as service:
        service.get("/metrics")
        yield service


@contextmanager
def processor_of_the_service(service):
    """The processor time that the process with the event loop takes within the block, and by how much it grows."""
    process, spent = psutil.Process(service.process.pid), {}
    before, size = process.cpu_times(), process.memory_info().rss
    yield spent
    after = process.cpu_times()
    spent["seconds"] = after.user + after.system - before.user - before.system
    spent["bytes"] = process.memory_info().rss - size


PARAMETERS = {
    "/sql?query=select+1": "snapshot, format, query",
    "/minima/relu.3.3.0?format=json": "snapshot, format",
    "/early-stops/relu.3.3?flow_time=1e3": "snapshot, format, gradient_norm, flow_time",
}


@pytest.mark.parametrize(("target", "known"), PARAMETERS.items())
def test_an_unknown_query_parameter_is_told_the_known_ones(service, target, known):
    reply = service.get(f"{target}&colour=red")
    assert (reply.status, reply.json) == (422, {"error": f"`colour` is not known here: known are {known}."})


def test_what_a_known_parameter_may_be_is_told_as_before(service):
    reply = service.get("/tables/minima?students=many")
    assert (reply.status, reply.json["error"].partition(":")[0]) == (422, "`students`")


TEXTS = ["x"] * 300_000
LARGE = {
    "texts": ("/identify", {"Q": [TEXTS], "R": [[1.0]], "teachers": 1}),
    "rows of texts": ("/identify", {"W": [["x"]] * 300_000, "teachers": 1}),
    "names": ("/identify", {f"name-{k}": 1 for k in range(300_000)}),
    "numbers": ("/identify", {"W": [[0.25] * 1_000_000], "V": [["x"]]}),
    "a campaign of texts": ("/campaigns", {"students": TEXTS, "teachers": 2}),
    "a campaign of names": ("/campaigns", {f"name-{k}": 1 for k in range(300_000)}),
    "a campaign of rows": ("/campaigns", {"students": 1, "teachers": 1, "T": [[1.0, "x"]] * 300_000}),
    "statements": ("/sql", {"query": TEXTS}),
    "names around a statement": ("/sql", {f"{k:x}": 1 for k in range(12_000)}),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_wrong_in_a_large_body_costs_the_service_nothing_and_is_said_in_one_line(service, name):
    target, body = LARGE[name]
    content = json.dumps(body).encode()
    with processor_of_the_service(service) as spent:
        reply = service.request("POST", target, content)
    assert reply.status in (400, 413, 422), reply.body[:1000]
    assert list(reply.json) == ["error"] and len(reply.body) < 3000 and "\n" not in reply.json["error"]
    # Taking the body in and passing it on costs some hundredths; reading it in Python took seconds, and 600 MB.
    assert spent["seconds"] < 0.6, spent
    assert spent["bytes"] < 64 * 2**20, spent


def test_a_large_network_that_is_identified_holds_up_no_small_one(service):
    K = 400
    large = {"Q": np.eye(K).round(1).tolist(), "R": np.full((K, 1), 0.5).tolist(), "teachers": 1}
    address = service.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=200)
    connection.request("POST", "/identify", json.dumps(large), {"Content-Type": "application/json"})
    thread = threading.Thread(target=lambda: connection.getresponse().read(), daemon=True)
    thread.start()
    began = time.monotonic()
    reply = service.request("POST", "/identify", {"Q": [[1.0]], "R": [[1.0]], "teachers": 1})
    assert reply.status == 200 and reply.json["outcome"] == "converged", reply
    assert time.monotonic() - began < 60
    connection.close()


def readers_of(service) -> set[int]:
    """The processes that answer, once all of them are there."""
    deadline, found = time.monotonic() + 60, set[int]()
    while len(found) < 5:
        assert time.monotonic() < deadline, found
        found = {grand.pid for child in psutil.Process(service.process.pid).children() for grand in child.children()}
    return found


VALUES = {
    "timestamptz 'infinity'": "infinity",
    "timestamp '290000-01-01'": "+290000-01-01T00:00:00",
    "'12:34:56.123456789'::time_ns": "12:34:56.123456789",
    "date '-290000-01-01'": "-290000-01-01",
    "[map {'a': {'b': date 'infinity'}}]": [[["a", {"b": "infinity"}]]],
    "interval '5 days'": "P0M5DT0S",
    "sum(7)": 7,
    "2.5": 2.5,
    "union_value(k := 1.0)": 1,
    "'\\xAA'::blob": "aa",
    "'nan'::float": None,
}


@pytest.mark.parametrize("format", ["json", "csv", "arrow", "parquet"])
def test_no_value_ends_a_reader_whatever_the_format(service, format):
    before = readers_of(service)
    for expression, expected in VALUES.items():
        reply = service.request("POST", "/sql", {"query": f"select {expression} as x", "format": format})
        if format == "json":
            assert (reply.status, reply.json) == (200, [{"x": expected}]), expression
        else:
            assert reply.status == 200 or list(reply.json) == ["error"], (expression, reply)
            assert reply.status in (200, 400) and b"memory" not in reply.body, (expression, reply)
    assert readers_of(service) == before


def test_sums_are_numbers_and_no_column_is_lost(service):
    (row,) = service.get("/sql?query=select%20sum(evaluations)%20as%20n%20from%20starts").json
    assert type(row["n"]) is int
    reply = service.get("/sql?query=select%201%20as%20a,%202%20as%20a")
    assert (reply.status, reply.json["error"][:32]) == (400, "two columns have the name 'a', i")
    assert service.get("/sql?format=csv&query=select%201%20as%20a,%202%20as%20a").body == b'"a","a"\n1,2\n'


def test_what_is_no_text_or_no_number_is_refused(service):
    for target, content in (
        ("/campaigns", rb'{"\ud800": 1}'),
        ("/campaigns", rb'{"students": 2, "teachers": 2, "activation": "\udfff"}'),
        ("/sql", rb'{"query": "select \ud800"}'),
        ("/identify", rb'{"\ud800": [[1.0]]}'),
        ("/identify", b'{"Q": [[NaN]], "R": [[1.0]], "teachers": 1}'),
        ("/identify", b'{"Q": [[1e400]], "R": [[1.0]], "teachers": 1}'),
    ):
        reply = service.request("POST", target, content)
        assert (reply.status in (400, 422), list(reply.json)) == (True, ["error"]), (content, reply)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"T": [[1e308, 0], [0, 1e308]]}, "`T` must have its largest entry between 1e-100 and 1e+100, got 1e+308"),
        ({"T": [[1e308, 1e308], [1e308, 1e308]]}, "`T` must have its largest entry"),
        ({"T": [[1e-200, 0], [0, 1e-200]]}, "`T` must have its largest entry"),
        ({"starts": 10**30}, "is greater than the maximum of 1000000000"),
        ({"starts": 2.0}, "`starts` must be a whole number"),
        ({"shard_size": 10**30}, "is greater than the maximum"),
        ({"dimension": 10**30}, "is greater than the maximum"),
        ({"tolerances": {"max_evaluations": 10**30}}, "is greater than the maximum"),
        ({"dynamics": "one-pass-sgd", "step": 1e-320, "flow_time": 1e308}, "must be below 2^32 updates, got inf"),
    ],
)
def test_campaigns_beyond_all_numbers_are_refused(service, settings, message):
    reply = service.request("POST", "/campaigns", {"students": 2, "teachers": 2, **settings})
    assert (reply.status, message in reply.json["error"]) == (400, True), reply


def test_a_body_in_chunks_is_refused_as_any_other_that_is_too_large(service):
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
    chunks = (b"x" * 2**20 for _ in range(9))
    connection.request("POST", "/identify", chunks, {"Content-Type": "application/json"}, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)) == (413, {"error": "a request may have 8,388,608 bytes at most."})
    connection.close()
