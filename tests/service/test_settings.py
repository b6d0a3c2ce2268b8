"""Bodies that describe campaigns: matrices in them are what files are to the command, to the last digit."""

import json

import numpy as np
import pytest

from cluster.inputs import loaded, request
from cluster.service.settings import read_request
from enumerator.errors import InputError

SIZES = {"students": 2, "teachers": 3, "starts": 3}
T = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, 0.5], [0.0, 0.5, 1.5]])
WEIGHTS = np.random.default_rng(1).standard_normal((4, 2, 3))
R = WEIGHTS @ np.linalg.cholesky(T).T
Q = WEIGHTS @ WEIGHTS.transpose(0, 2, 1)


def body(**settings) -> bytes:
    return json.dumps(SIZES | {name: np.asarray(value).tolist() for name, value in settings.items()}).encode()


@pytest.mark.parametrize("rows", [Q, Q.reshape(4, 4)], ids=["matrices", "flat rows"])
def test_matrices_give_the_campaign_that_files_give(tmp_path, rows):
    np.save(tmp_path / "T.npy", T)
    np.savez(tmp_path / "starts.npz", Q=Q, R=R)
    files = {"teacher": str(tmp_path / "T.npy"), "initial": str(tmp_path / "starts.npz")}
    sent, read = read_request(body(T=T, Q=rows, R=R)), request(loaded(SIZES | files))
    assert sent.campaign.id == read.campaign.id
    assert (sent.starts, sent.shard_size) == (read.starts, read.shard_size) == (3, None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"Q": Q}, "given starts need both Q and R."),
        ({"Q": Q[:, :1], "R": R}, "initial overlaps Q must have shape (n, 2, 2) with n >= 1, got (4, 1, 2)."),
        ({"Q": [], "R": []}, "initial overlaps Q must have shape (n, 2, 2) with n >= 1, got (0,)."),
        ({"T": T, "Q": Q[:2], "R": R[:2]}, "the table holds 2 initial overlaps, got --starts 3: ask for no more."),
        ({"T": np.ones(3)}, "`T` must have shape (M, M) = (3, 3), got (3,): pass one row and one column per teacher."),
        ({"T": np.full((3, 3), 10**400)}, "`T` must hold numbers, in lists of one length."),
    ],
)
def test_matrices_that_cannot_be_are_refused_by_their_names(settings, said):
    with pytest.raises(InputError) as error:
        read_request(body(**settings))
    assert str(error.value) == said
