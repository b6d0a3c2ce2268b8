"""The catalogue on an S3-compatible store, a real one by HTTP, with two drivers at once and failures in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import CatalogueError, InputError
from tests.support.object_store import (
    KEY,
    SECRET,
    assert_one_create_wins,
    client,
    environment,
    failing_proxy,
    object_store,
)
from tests.support.stand_ins import commit, make_campaign, new_catalogue

PROJECT = Path(__file__).parents[2]
ADDRESS = "s3://bucket/atlas"
# Shards of ten starts that each of two drivers commits; both take the same ones, in other orders.
SHARDS = 8

DRIVER = """
import random, sys
from tests.support.stand_ins import commit, make_campaign, new_catalogue
campaign, order = make_campaign(), list(range(int(sys.argv[2])))
random.Random(int(sys.argv[1])).shuffle(order)
atlas = new_catalogue("s3://bucket/atlas")
atlas.register(campaign, 10, "cpu")
for k in order:
    commit(atlas, campaign, 10 * k, 10 * k + 10, [0.1, 0.2 + 0.1 * k])
    print(k, flush=True)
atlas.finish(campaign.id)
"""


@pytest.fixture(scope="module")
def store():
    with object_store() as port:
        yield port


@pytest.fixture
def at_store(monkeypatch):
    def at(port: int) -> None:
        for name, value in environment(port).items():
            monkeypatch.setenv(name, value)

    return at


def test_of_100_racing_conditional_creates_one_wins(store):
    assert_one_create_wins(store, 100)


def test_two_drivers_through_failures_lose_nothing_and_double_nothing(store, at_store):
    with failing_proxy(store, rate=0.08) as proxy:
        path = str(PROJECT)
        settings = {**os.environ, **environment(proxy.port), "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-W", "ignore", "-c", DRIVER]
        drivers = [
            subprocess.Popen([*command, str(seed), str(SHARDS)], env=settings, stdout=-1, stderr=-1, text=True)
            for seed in (1, 2)
        ]
        for driver in drivers:
            out, err = driver.communicate(timeout=240)
            assert driver.returncode == 0, err
            assert sorted(map(int, out.split())) == list(range(SHARDS))
            assert SECRET not in err and KEY not in err
        fates = {name.split()[0] for name in proxy.failures}
        assert fates == {"passed", "busy", "cut", "lost"}
        assert proxy.failures["lost PUT"] > 0
    at_store(store)
    atlas = Catalogue(ADDRESS)
    assert atlas.starts(columns="start_index")["start_index"].to_pylist() == list(range(10 * SHARDS))
    losses = atlas.minima(columns="loss")["loss"].to_pylist()
    assert losses == pytest.approx(sorted({0.1, *(0.2 + 0.1 * k for k in range(SHARDS))}))
    assert sum(atlas.minima(columns="hits")["hits"].to_pylist()) == 10 * SHARDS
    assert atlas.campaigns()["status"].to_pylist() == ["complete"]
    assert not list(atlas.store.check_files())
    # Credentials come from the environment and go nowhere.
    s3 = client(store)
    names = [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]]
    assert len(names) > 20
    for name in names:
        content = s3.get_object(Bucket="bucket", Key=name)["Body"].read()
        assert SECRET.encode() not in content and KEY.encode() not in content
    assert SECRET not in repr(atlas) + str(vars(atlas.store))


def test_what_is_not_there_is_said_in_one_line(store, at_store):
    at_store(store)
    with pytest.raises(InputError, match=r"^not a catalogue: s3://bucket/nothing"):
        Catalogue("s3://bucket/nothing")


def test_lost_end_of_a_log_is_told(store, at_store):
    at_store(store)
    campaign, s3 = make_campaign(), client(store)
    atlas = new_catalogue("s3://bucket/short")
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 10)
    atlas.finish(campaign.id)
    for name, version in (("starts", 1), ("campaigns", 2)):
        key = f"short/{name}/_delta_log/{version:020}.json"
        content = s3.get_object(Bucket="bucket", Key=key)["Body"].read()
        s3.delete_object(Bucket="bucket", Key=key)
        with pytest.raises(CatalogueError, match=f"{name}: its log .* had reached version {version}, and ends at"):
            Catalogue("s3://bucket/short")
        s3.put_object(Bucket="bucket", Key=key, Body=content)
    assert Catalogue("s3://bucket/short").minima()["hits"].to_pylist() == [10]


@pytest.mark.slow
def test_two_commands_on_one_store_find_what_one_finds_on_disk(store, tmp_path):
    """Real campaigns by the command line, both the same, one of them killed and started again."""
    asked = ["--students", "6", "--teachers", "6", "--dimension", "6", "--starts", "600", "--shard-size", "50"]
    command = [sys.executable, "-m", "cluster.cli", "run", *asked, "--workers", "1", "--device", "cpu"]
    command += ["--progress", "none", "--format", "csv", "--catalogue"]
    with failing_proxy(store, rate=0.03) as proxy:
        settings = {**os.environ, **environment(proxy.port)}
        runs = [subprocess.Popen([*command, "s3://bucket/real"], env=settings, stdout=-1, stderr=-1) for _ in "12"]
        try:
            runs[0].wait(25)
        except subprocess.TimeoutExpired:
            runs[0].kill()
        runs[0].communicate()
        runs[0] = subprocess.Popen([*command, "s3://bucket/real"], env=settings, stdout=-1, stderr=-1)
        ends = [run.communicate(timeout=400) for run in runs]
        assert [run.returncode for run in runs] == [0, 0], ends
    subprocess.run([*command, str(tmp_path / "atlas")], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(store).items():
            patch.setenv(name, value)
        found = [_found(Catalogue("s3://bucket/real")), _found(Catalogue(tmp_path / "atlas"))]
    assert found[0] == found[1]


def _found(atlas: Catalogue) -> tuple[list, list]:
    minima = atlas.minima(columns="minimum_id,loss,hits").to_pylist()
    names = {row["minimum_id"]: round(row["loss"], 11) for row in minima}
    starts = atlas.starts(columns="start_index,outcome,minimum_id").to_pylist()
    ends = [(row["start_index"], row["outcome"], names.get(row["minimum_id"])) for row in starts]
    return [(round(row["loss"], 11), row["hits"]) for row in minima], ends
