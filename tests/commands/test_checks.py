"""The commands verify, replay and identify: what they print, and one clear line for bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.cli import run_command
from enumerator.catalogue.campaign_names import name_of
from tests.support.planting import FLOW, NEWTON, build, catalogue_at, change, point


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("atlas") / "atlas")


@pytest.fixture
def atlas(built, tmp_path, monkeypatch):
    shutil.copytree(built, tmp_path / "atlas")
    monkeypatch.chdir(tmp_path)
    return catalogue_at(tmp_path / "atlas")


@pytest.fixture
def enumerator(atlas, capsys):
    """Runs a command line beside the catalogue `atlas`: exit code, stdout, stderr."""

    def run(*arguments):
        code = run_command(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


def test_a_clean_catalogue_is_verified_in_one_line(enumerator):
    code, out, err = enumerator("verify", "atlas", "--sample", 3)
    assert (code, out) == (0, "")
    assert err.startswith("3 minima, 2 saddles, 3 campaigns, 243 starts: no disagreement, in ")
    assert enumerator("verify", "atlas", "--sample", 0, "--format", "json")[:2] == (0, "[]\n")


def test_a_disagreement_is_printed_and_repaired(enumerator, atlas):
    row = point(atlas)
    planted = {"verdict": "undecided", "label": "relu.7.7.0232028"}
    change(atlas, "minima", lambda rows: [r | (planted if r["label"] == row["label"] else {}) for r in rows])
    command = [Path(sys.executable).with_name("enumerator"), "verify", "atlas", "--sample", "0", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert {entry["column"] for entry in found} == {"verdict", "radius", "label"}
    assert {(entry["table"], entry["id"]) for entry in found} == {("minima", row["minimum_id"])}
    assert "3 disagreements" in done.stderr
    assert "verify atlas --repair" in done.stderr
    # A label never changes, and nothing that contradicts it is accepted.
    repair = ("verify", "atlas", "--sample", 0, "--repair", "--format", "json")
    code, _, err = enumerator(*repair)
    assert (code, "3 disagreements, 3 left" in err) == (1, True)
    change(atlas, "minima", lambda rows: [r | {"label": r["label"].replace("0232028", "0232027")} for r in rows])
    code, out, err = enumerator(*repair)
    assert (code, "2 disagreements, 0 left" in err) == (0, True)
    assert all(entry["repaired"] for entry in json.loads(out))
    assert enumerator("verify", "atlas", "--sample", 0)[:2] == (0, "")


def test_a_repair_says_which_campaigns_to_run_again(enumerator, atlas):
    change(atlas, "starts", lambda rows: rows[1:], NEWTON)
    code, out, err = enumerator("verify", "atlas", "--sample", 0, "--repair")
    assert code == 0
    assert "repaired" in out.splitlines()[0]
    assert f"Not complete: {name_of(NEWTON)}." in err


def test_a_replay_is_a_table_of_its_steps(enumerator):
    code, out, err = enumerator("replay", "atlas", FLOW.id, 2)
    assert code == 0
    assert out.split("\n")[0].split() == ["evaluations", "flow_time", "loss", "gradient_norm"]
    assert err.startswith("Stored for this start: ")
    assert enumerator("replay", "atlas", FLOW.id, 2, "-o", "walk.parquet")[0] == 0
    walk = pq.read_table("walk.parquet")
    assert walk.num_rows == len(out.splitlines()) - 1
    assert len(walk["Q"][0]) == 16
    assert "not stored yet" in enumerator("replay", "atlas", FLOW.id, 1000)[2]


def identified(enumerator, *arguments):
    code, out, err = enumerator("identify", "atlas", *arguments, "--format", "json")
    assert code == 0, err
    (row,) = json.loads(out)
    return row, err


def test_weights_in_a_file_are_identified(enumerator, atlas):
    row = point(atlas)
    R = row["R"].reshape(7, 7)
    W, V = np.sqrt(30) * np.pad(R, ((0, 0), (0, 23))), np.sqrt(30) * np.eye(7, 30)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    np.save("weights.npy", W[::-1] + 1e-3)
    np.savez("turned.npz", W=W @ turn, V=V @ turn)
    np.savez("overlaps.npz", Q=row["Q"].reshape(7, 7), R=R)
    for arguments in (("weights.npy",), ("turned.npz",), ("overlaps.npz",), ("overlaps.npz", "--teachers", 7)):
        found, err = identified(enumerator, *arguments)
        assert (found["nearest"], found["reached"], found["outcome"]) == (row["label"], row["label"], "converged")
        assert found["inside"]
        assert f"ends in {row['label']}." in err
        # 210 entries off by 1e-3/sqrt 30, or nothing but rounding.
        expected = 1e-3 * np.sqrt(7) if "weights.npy" in arguments else 0.0
        assert found["distance"] == pytest.approx(expected, rel=1e-2, abs=1e-7)


def test_a_landscape_that_the_catalogue_lacks_has_no_nearest_minimum(enumerator):
    np.save("weights.npy", np.random.default_rng(0).normal(size=(2, 9)))
    found, err = identified(enumerator, "weights.npy", "--teachers", 2)
    assert (found["nearest"], found["outcome"], found["reached"]) == (None, "converged", None)
    assert "not in the catalogue" in err


WRONG = {
    "no file": (("identify", "atlas", "none.npy"), "found no file none.npy"),
    "two landscapes of that size, or none": (("identify", "atlas", "narrow.npy"), "--landscape ID"),
    "fewer dimensions than teachers": (("identify", "atlas", "narrow.npy", "--teachers", 4), "need 4 dimensions"),
    "another size": (("identify", "atlas", "weights.npy", "--teachers", 6), r"shapes (6, 6)"),
    "an unknown landscape": (("identify", "atlas", "weights.npy", "--landscape", "ls-0"), "no landscape 'ls-0'"),
    "both": (("identify", "atlas", "weights.npy", "--landscape", "ls-0", "--teachers", 7), "not both"),
    "students alone": (("identify", "atlas", "weights.npy", "--students", 7), "goes with `teachers`"),
    "no weights in it": (("identify", "atlas", "other.npz"), "got a in other.npz"),
    "not finite": (("identify", "atlas", "nan.npy"), "finite real numbers"),
    "overlaps that no weights have": (("identify", "atlas", "infeasible.npz"), "feasible"),
    "other teachers": (("identify", "atlas", "scaled.npz", "--teachers", 7), "are not those of the landscape"),
    "an unknown campaign": (("replay", "atlas", "c-0", 1), "no campaign 'c-0'"),
    "a negative index": (("replay", "atlas", NEWTON.id, "--", -1), "0 or more"),
    "a negative sample": (("verify", "atlas", "--sample", -1), "0 or more"),
    "no catalogue": (("verify", "elsewhere"), "not a catalogue"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_bad_input_gets_one_line_and_exit_code_2(enumerator, arguments, message):
    rng = np.random.default_rng(0)
    np.save("weights.npy", rng.normal(size=(7, 9)))
    np.save("narrow.npy", rng.normal(size=(3, 3)))
    np.save("nan.npy", np.full((7, 9), np.nan))
    np.savez("other.npz", a=np.eye(3))
    np.savez("infeasible.npz", Q=np.eye(7), R=2 * np.eye(7))
    np.savez("scaled.npz", W=rng.normal(size=(7, 9)), V=6 * np.eye(7, 9))
    code, out, err = enumerator(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
