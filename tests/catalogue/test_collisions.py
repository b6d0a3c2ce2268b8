"""Two processes find the same new minimum from the same snapshot, again and again: it is stored once each time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enumerator.catalogue.catalogue import Catalogue
from tests.support.stand_ins import make_campaign

SHARD = 4
# Less than what `same_loss` takes for the same; enough for ids and labels that differ.
ROUNDING = 3e-12
PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu"}

# Reads the version that its commit is conditional on, says so, and goes on when it is told: by then
# the other has read the same version. So one of the two commits must fail, and be tried again.
WRITER = """
import sys
from tests.support.stand_ins import make_campaign, make_point, make_result, same_loss
from enumerator.catalogue.catalogue import Catalogue

number, rounding, shard = int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
atlas, campaign = Catalogue(sys.argv[1], matcher=same_loss), make_campaign()
append, waiting = atlas.store.append, False

def wait_and_append(table, rows):
    global waiting
    if waiting and table.metadata().name == "minima":
        waiting = False
        print("ready", table.version(), flush=True)
        sys.stdin.readline()
    append(table, rows)

atlas.store.append = wait_and_append
for line in sys.stdin:
    k, waiting = int(line), True
    point = make_point(campaign.landscape, 0.1 + k + number * rounding)
    first = shard * (2 * k + number)
    summary = atlas.commit_shard(make_result(campaign, first, first + shard, [point]), first, first + shard)
    print("done", summary.new_minima, *summary.point_ids, flush=True)
"""

READER = """
import sys, time
from enumerator.catalogue.catalogue import Catalogue

atlas = Catalogue(sys.argv[1])
query = "select count(*) as n, count(*) filter (m.minimum_id is null) as orphans from starts left join minima m "
print("ready", flush=True)
seen, last = 0, -1
while True:
    (row,) = atlas.sql(query + "using (minimum_id)").to_pylist()
    assert row["orphans"] == 0 and row["n"] >= last, (row, last)
    seen, last = seen + (row["n"] > last), row["n"]
    if last == int(sys.argv[2]):
        break
    time.sleep(0.02)  # the writers need the cores too
print(seen, flush=True)
"""


class Process:
    """A Python process that answers lines on its standard output."""

    def __init__(self, code, *arguments):
        command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes)

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> list[str]:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return line.split()

    def end(self):
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture
def start():
    started: list[Process] = []

    def start(*arguments) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield start
    for process in started:
        process.end()


def test_same_new_minimum_from_one_snapshot_is_stored_once_each_time(tmp_path, start):
    rounds = 40
    path, campaign = tmp_path / "atlas", make_campaign()
    Catalogue(path, create=True).register(campaign, SHARD, "cpu")
    writers = [start(WRITER, path, number, ROUNDING, SHARD) for number in (0, 1)]
    reader = start(READER, path, 2 * SHARD * rounds)
    assert reader.hear() == ["ready"]
    for k in range(rounds):
        for writer in writers:
            writer.tell(k)
        one, other = (writer.hear() for writer in writers)
        assert one == other and one[0] == "ready", "both are about to write on top of the same version"
        for writer in writers if k % 2 else reversed(writers):
            writer.tell("go")
        (_, new, one), (_, other_new, other) = (writer.hear() for writer in writers)
        assert {new, other_new} == {"0", "1"}
        assert one == other
    (changes,) = map(int, reader.hear())
    assert changes > rounds / 5, "the reader looked all the while"
    atlas = Catalogue(path)
    minima = atlas.minima().to_pylist()
    assert len({row["minimum_id"] for row in minima}) == len({row["label"] for row in minima}) == len(minima) == rounds
    assert [row["hits"] for row in minima] == [2 * SHARD] * rounds
    assert atlas.done(campaign.id) == [(0, 2 * SHARD * rounds)]
