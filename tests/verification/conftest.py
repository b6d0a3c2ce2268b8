"""What tests of verification and repair have before them: a computed catalogue, a fresh copy for each test."""

import shutil

import pytest

from tests.support.planting import build, catalogue_at


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("atlas") / "atlas")


@pytest.fixture
def atlas(built, tmp_path):
    shutil.copytree(built, tmp_path / "atlas")
    return catalogue_at(tmp_path / "atlas")
