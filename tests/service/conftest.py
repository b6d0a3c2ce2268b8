"""What most tests of the service have before them: a small catalogue."""

import numpy as np
import pytest

from tests.support.stand_ins import commit, make_campaign, new_catalogue


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """500 starts of one campaign: a quarter unfinished, the others in three minima."""
    path = tmp_path_factory.mktemp("service") / "atlas"
    atlas, campaign = new_catalogue(path), make_campaign()
    atlas.register(campaign, 500, "cpu")
    commit(atlas, campaign, 0, 500, [0.1, 0.2, 0.3], ended=np.arange(500) % 4 - 1)
    return path
