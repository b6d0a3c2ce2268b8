"""Jobs and the files for real clusters: they fit the schemas of those who read them, and carry no secrets."""

import json
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import ray
import yaml

from cluster.campaign_grid import expand
from cluster.cli import run_command
from cluster.inputs import loaded, read_campaign_file, request
from cluster.runs import jobs
from enumerator.errors import InputError

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "cluster" / "deploy"

# What KubeRay's definition of a RayJob (ray.io/v1) asks for, as far as our manifest goes.
CONTAINERS = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers"],
            "properties": {
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "object", "required": ["name", "image"]},
                }
            },
        }
    },
}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
RAYJOB = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": {"type": "string"},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer"},
                "rayClusterSpec": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["headGroupSpec"],
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "headGroupSpec": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["rayStartParams", "template"],
                            "properties": {"rayStartParams": STRINGS, "template": CONTAINERS},
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["groupName", "rayStartParams", "template"],
                                "properties": {
                                    "groupName": {"type": "string"},
                                    **{
                                        name: {"type": "integer"} for name in ("replicas", "minReplicas", "maxReplicas")
                                    },
                                    "rayStartParams": STRINGS,
                                    "template": CONTAINERS,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def _pins() -> dict[str, str]:
    return dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().split())


def test_the_cluster_file_is_one_of_the_cluster_launcher():
    content = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(content, schema)
    assert content["head_node_type"] in content["available_node_types"]


def test_the_cluster_installs_this_clone_at_the_pinned_versions():
    content = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    image = f"rayproject/ray:{_pins()['ray']}-py311"
    assert content["docker"]["image"] == image
    folder = "~/enumerator"
    mounted = {Path(target).relative_to(folder): source for target, source in content["file_mounts"].items()}
    assert content["setup_commands"] == [
        f"python -m pip install --quiet --constraint {folder}/constraints.txt {folder}"
    ]
    # All that the wheel is made of goes to the nodes, under its own name; paths are those of a clone.
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wheel = build["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        *wheel["packages"],
        *wheel["force-include"],
        *build["project"]["license-files"],
        build["project"]["readme"],
    }
    assert {str(path) for path in mounted} == {*needed, "pyproject.toml", "constraints.txt"}
    assert all(str(target) == source and (PROJECT / source).exists() for target, source in mounted.items())
    # The image for KubeRay is made of the same.
    copied = (DEPLOY / "Dockerfile").read_text()
    assert f"FROM {image}\n" in copied
    assert all(f" {name} " in copied for name in mounted.values())


def test_the_manifest_is_a_rayjob_of_the_ray_that_is_pinned():
    content = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())
    jsonschema.validate(content, RAYJOB)
    assert content["spec"]["rayClusterSpec"]["rayVersion"] == _pins()["ray"]
    command = content["spec"]["entrypoint"].split()
    assert command[:2] == ["enumerator", "run"]
    # Every option of the entry point is one of the command.
    help_text = subprocess.run(
        [sys.executable, "-m", "cluster.cli", "run", "--help"], cwd=PROJECT, capture_output=True, text=True
    )
    assert all(option in help_text.stdout for option in command if option.startswith("--"))


def test_a_job_is_named_by_its_campaign_and_catalogue(tmp_path):
    def job(catalogue="s3://bucket/atlas", **settings):
        return jobs.job_id(jobs.asked_of({"students": 3, "teachers": 3, **settings}, tmp_path), catalogue)

    name = job()
    assert name == job(starts=10**6, seed=0)
    grids = [job(grid={"students": sizes}) for sizes in ([3, 4], [3, 5])]
    assert len({name, job(seed=1), job("s3://bucket/other"), *grids}) == 5
    assert name.startswith("enumerator-")


def test_grids_of_the_same_campaigns_are_one_job_and_another_teacher_is_another(tmp_path):
    def job(text):
        (tmp_path / "grid.toml").write_text("students = 2\nteachers = 2\n" + text)
        return jobs.job_id(jobs.asked_of(read_campaign_file(tmp_path / "grid.toml"), tmp_path), "s3://b/a")

    assert job("[grid]\nseed = [0, 1]") == job("starts = 7\n[[grid]]\nseed = [1]\n[[grid]]\nseed = [0, 1]")
    found = []
    for second in (2.0, 3.0):
        np.save(tmp_path / "T.npy", np.diag([1.0, second]))
        found.append(job('[grid]\nteacher = ["orthonormal", "T.npy"]'))
    assert len({*found, job("[grid]\nseed = [0]")}) == 3


def test_a_packed_grid_has_its_files(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "packed"
    (source / "data").mkdir(parents=True)
    folder.mkdir()
    for name, second in (("T.npy", 2.0), ("data/T.npy", 3.0)):
        np.save(source / name, np.diag([1.0, second]))
    file = source / "mine.toml"
    file.write_text(
        """
        students = 2
        teachers = 2
        teacher = 'T.npy'
        tolerances = {max_flow_time = 1e5}
        [[grid]]
        teacher = ["orthonormal", '''data/T.npy''', "T.npy"]
        [[grid]]
        students = ["teachers", "teachers + 1", 2]
        scale = [1e-3]
        """
    )
    settings = read_campaign_file(file)
    jobs.pack(file, settings, folder)
    shutil.rmtree(source)
    packed = read_campaign_file(folder / "campaign.toml")
    assert packed["grid"][0]["teacher"] == ["orthonormal", "file-1.npy", "file-0.npy"]
    assert packed["tolerances"] == {"max_flow_time": 1e5}
    assert len(expand(packed, folder, {})) == 5


def test_a_packed_job_runs_by_itself_and_carries_no_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-to-be-packed")
    source, folder = tmp_path / "source", tmp_path / "packed"
    (source / "data").mkdir(parents=True)
    folder.mkdir()
    np.save(source / "data" / "T.npy", np.diag([1.0, 2.0]))
    file = source / "mine.toml"
    file.write_text('students = 2\nteachers = 2\nteacher = "data/T.npy"\n')
    settings = read_campaign_file(file)
    jobs.pack(file, settings, folder)
    assert {entry.name for entry in folder.iterdir()} == {
        *("campaign.toml", "file-0.npy", "enumerator", "cluster", "schemas", "CITATION.cff")
    }
    assert tomllib.loads((folder / "campaign.toml").read_text())["teacher"] == "file-0.npy"
    packed = request(loaded(read_campaign_file(folder / "campaign.toml"))).campaign
    assert packed.id == request(loaded(settings)).campaign.id
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"never-to-be-packed" not in content
    assert len(content) < 4 * 2**20
    code = "import cluster.cli, enumerator.catalogue.schema as t; print(t.__file__, t.campaign_file_schema()['title'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.split()[0].startswith(str(folder)), done.stderr
    assert {entry.split("==")[0] for entry in jobs.requirements()} >= {"jax", "flax", "deltalake", "duckdb", "typer"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--catalogue", "atlas"], "`--catalogue` must be a place that the cluster reaches"),
        (["--catalogue", "s3://b/a", "--address", "head:8265"], "`--address` must be that of the head's dashboard"),
    ],
)
def test_what_cannot_be_submitted_is_said_in_one_line(tmp_path, capsys, arguments, message):
    file = tmp_path / "campaign.toml"
    file.write_text("students = 3\nteachers = 3\n")
    assert run_command(["submit", str(file), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def test_a_cluster_that_is_not_there_is_said_in_one_line(capsys):
    assert run_command(["status", "--address", "http://127.0.0.1:9"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: cannot reach the Ray cluster at http://127.0.0.1:9: ")


def test_a_cluster_that_wants_a_token_is_said_in_one_line(capsys):
    class Head(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # named so by http.server
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"Unauthorized: Missing authentication token")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Head) as head:
        threading.Thread(target=head.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{head.server_address[1]}"
        assert run_command(["status", "--address", address]) == 1
        head.shutdown()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: the Ray cluster at {address} wants its token: set RAY_AUTH_MODE=token")
    assert err.count("\n") == 1


def test_progress_is_found_in_the_logs():
    logs = "warming up\n"
    for name, done, rate in (("c-1", 1, None), ("c-1", 10, 5.0), ("c-2", 0, None), ("c-2", 4, 2.0)):
        line = {
            "campaign_id": name,
            "campaign_name": f"{name}.s0",
            "done": done,
            "asked": 10,
            "rate": rate,
            "seconds_left": None,
        }
        logs += json.dumps(line | {"minima": 2, "unfinished": done // 4}) + "\nx\n"
    assert jobs._progress(logs, 30) == {
        **{"campaign_id": "c-2", "campaign_name": "c-2.s0", "done": 14, "asked": 30, "rate": 2.0, "seconds_left": 8.0},
        **{"minima": 4, "unfinished": 3},
    }
    assert jobs._progress(logs.partition("c-2")[0].rpartition("\n")[0], 10)["done"] == 10
    assert jobs._progress("nothing yet", 9) == {}
    with pytest.raises(InputError, match="no job 'x' on this cluster"):
        raise jobs._unknown("x")


@pytest.mark.slow
def test_submitted_twice_followed_cancelled_and_completed(tmp_path):
    """A real cluster with its head: the job is one, stops when it is cancelled, and goes on when it is sent again."""
    code = f"""
import subprocess, sys, time
import numpy as np
sys.path[:0] = ["{PROJECT}/scripts", "{PROJECT}"]
from small_cluster import SmallCluster
from cluster.runs import jobs
from pathlib import Path
from enumerator import Catalogue
file, atlas = Path("{tmp_path}/campaign.toml"), "{tmp_path}/atlas"
def write(starts):
    file.write_text(f"students = 6\\nteachers = 6\\ndimension = 6\\nshard_size = 50\\nstarts = {{starts}}\\n")
def wait(condition):
    deadline = time.monotonic() + 300
    while True:
        (row,) = jobs.status(cluster.url, job).to_pylist()
        if condition(row):
            return row
        assert time.monotonic() < deadline, (row, jobs.logs(cluster.url, job))
        time.sleep(1)
with SmallCluster(0, jobs=True) as cluster:
    write(1_000_000)
    first = jobs.submit(file, cluster.url, atlas, patience=120)
    job = first.job
    again = jobs.submit(file, cluster.url, atlas)
    assert (first.existed, again.existed, again.job) == (False, True, job)
    row = wait(lambda row: (row["done"] or 0) > 0)
    assert row["status"] == "running" and row["asked"] == 1_000_000 and row["minima"] >= 1, row
    assert jobs.cancel(cluster.url, job)
    wait(lambda row: row["status"] == "stopped")
    done = Catalogue(atlas).starts(columns="start_index").num_rows
    assert 0 < done < 1_000_000
    write(done + 50)
    assert jobs.submit(file, cluster.url, atlas).job == job
    row = wait(lambda row: row["status"] in ("succeeded", "failed"))
    assert row["status"] == "succeeded", jobs.logs(cluster.url, job)
    assert Catalogue(atlas).starts(columns="start_index")["start_index"].to_pylist() == list(range(done + 50))
    # A grid with a file of its own is one job; what is there of it already counts.
    np.save("{tmp_path}/T.npy", np.diag([1.0, 2.0]))
    file.write_text(
        "students = 2\\nteachers = 2\\nshard_size = 50\\nstarts = 50\\n[grid]\\nteacher = ['orthonormal', 'T.npy']"
    )
    job = jobs.submit(file, cluster.url, atlas).job
    row = wait(lambda row: row["status"] in ("succeeded", "failed"))
    assert (row["status"], row["done"], row["asked"]) == ("succeeded", 100, 100), jobs.logs(cluster.url, job)
    file.write_text(file.read_text().replace("starts = 50", "starts = 60"))
    assert jobs.submit(file, cluster.url, atlas) == jobs.Submission(job, existed=False)
    row = wait(lambda row: row["status"] in ("succeeded", "failed"))
    assert (row["status"], row["done"], row["asked"]) == ("succeeded", 120, 120), jobs.logs(cluster.url, job)
    print("well")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=900)
    assert done.stdout.splitlines()[-1:] == ["well"], done.stdout + done.stderr
