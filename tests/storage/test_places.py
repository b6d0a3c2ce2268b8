"""Catalogues in places where one may not write, or read: one line with the cause, in words, and what to do."""

import os

import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import CatalogueError
from enumerator.upkeep.compaction import compact
from tests.support.stand_ins import commit, make_campaign, new_catalogue

NOBODY = 65534


@pytest.fixture
def nobody(tmp_path_factory):
    """This process may no more than anybody: root, who may all, is somebody else as long as the test lasts."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def place(tmp_path):
    """A catalogue, which anybody can read but the owner alone can write."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o055 != 0o055:  # those that pytest has made for this user alone
            folder.chmod(0o755)
    campaign = make_campaign()
    atlas = new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 10, [0.1])
    made = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in made:
        folder.chmod(0o555)
    yield tmp_path
    for folder in made:
        folder.chmod(0o755)


def refused(call) -> str:
    with pytest.raises(CatalogueError) as caught:
        call()
    return str(caught.value)


def test_a_catalogue_that_cannot_be_made_says_why(place, nobody):
    said = refused(lambda: Catalogue(place / "new", create=True))
    assert (
        said == f"cannot create {place}/new/landscapes: permission denied: make it writable, or choose another place."
    )


@pytest.fixture
def closed(place):
    """A folder that nobody may enter."""
    place.chmod(0o000)
    return place


def test_a_catalogue_behind_a_folder_that_may_not_be_entered_says_why(closed, nobody):
    said = refused(lambda: Catalogue(closed / "new" / "atlas", create=True))
    assert said == f"cannot create {closed}/new/atlas: permission denied: make it writable, or choose another place."


def test_a_catalogue_that_cannot_be_written_is_read_all_the_same(place, nobody):
    atlas = Catalogue(place / "atlas")
    assert atlas.minima()["hits"].to_pylist() == [10]
    said = refused(lambda: atlas.register(make_campaign(seed=1), 10, "cpu"))
    assert said == (
        f"cannot write {place}/atlas/campaigns: permission denied. What was stored stays: make it writable, and the "
        "same command goes on."
    )
    assert "permission denied" in refused(lambda: compact(atlas))


def test_a_table_that_cannot_be_read_says_why(place, request):
    log = place / "atlas" / "minima" / "_delta_log"
    log.chmod(0)
    request.getfixturevalue("nobody")
    try:
        assert refused(lambda: Catalogue(place / "atlas")) == f"cannot read {place}/atlas/minima: permission denied"
    finally:
        if os.geteuid() == NOBODY:
            os.seteuid(0)
        log.chmod(0o555)
