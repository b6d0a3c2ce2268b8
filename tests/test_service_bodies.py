"""Bodies of requests: nothing in them holds up other requests, and what is wrong in them is said in one line."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from serving import serving
from stand_ins import commit, make_campaign, new_catalogue


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bodies") / "atlas"
    atlas, campaign = new_catalogue(path), make_campaign()
    atlas.register(campaign, 500, "cpu")
    commit(atlas, campaign, 0, 500, [0.1, 0.2, 0.3], ended=np.arange(500) % 4 - 1)
    return path


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
