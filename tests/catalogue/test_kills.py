"""A writer killed (kill -9) at each step of a commit: nothing half stored is seen, and a second try completes it."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "JAX_PLATFORMS": "cpu"}

# A child is killed before it puts its k-th file on the disk, before its k-th commit, or right after it, for
# every k. The parent touches no Delta table, so
# that it can fork; a second child looks at what the first has left, and completes it.
KILLED = """
import os, signal, sys
from deltalake import DeltaTable
from enumerator.catalogue.catalogue import Catalogue
from tests.support.stand_ins import make_campaign, make_point, make_result, same_loss

campaign = make_campaign()
points = [make_point(campaign.landscape, 0.1), make_point(campaign.landscape, 0.2, "saddle")]
result = make_result(campaign, 0, 10, points)

def kill_at(step):
    left = [step]
    def count(function, after):
        def counted(*arguments, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            value = function(*arguments, **options)
            if after and left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= after
            return value
        return counted
    os.fsync = count(os.fsync, False)
    DeltaTable.create_write_transaction = count(DeltaTable.create_write_transaction, True)

def write(path, step):
    atlas = Catalogue(path, create=True, matcher=same_loss)
    atlas.register(campaign, 10, "cpu")
    kill_at(step)
    atlas.commit_shard(result, 0, 10)

def look(path, step):
    atlas = Catalogue(path, matcher=same_loss)
    stored = [atlas.minima().num_rows, atlas.saddles().num_rows, atlas.starts().num_rows]
    assert stored in ([0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 10]), stored
    assert not list(atlas.store.check_files())
    atlas.commit_shard(result, 0, 10)
    assert [atlas.minima().num_rows, atlas.saddles().num_rows, atlas.starts().num_rows] == [1, 1, 10]
    assert atlas.minima()["hits"].to_pylist() == atlas.saddles()["hits"].to_pylist() == [5]
    print(*stored, flush=True)

def run(function, *arguments):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]

for step in range(100):
    path = f"{sys.argv[1]}/{step}"
    status = run(write, path, step)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), status
    assert run(look, path, step) == 0, step
    if status == 0:
        break
"""


def test_killed_at_every_step_of_a_commit(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = done.stdout.splitlines()
    assert len(seen) > 12
    # Killed before anything was stored, between the tables, and when all was done.
    assert list(dict.fromkeys(seen)) == ["0 0 0", "1 0 0", "1 1 0", "1 1 10"]
