"""The README is one page, and leads to files that stand in the repository, as GitHub and a clone show them."""

import re

import pytest

from tests.support.project import PROJECT

TEXT = (PROJECT / "README.md").read_text(encoding="utf-8")
# What an inline link or a picture names, without the place on its page.
LINKS = sorted({link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", TEXT) if "://" not in link})


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 150


def test_it_leads_to_the_pages():
    assert {"docs/tutorial.md", "docs/glossary.md", "docs/limits.md", "docs/pictures/levels.png"} <= set(LINKS)


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_to_a_file_that_a_clone_has(link):
    """The generated reference is on the site only: `scripts/docs serve` is named instead."""
    assert (PROJECT / link).is_file()
    assert not link.startswith(("docs/reference/", "site/", "/"))
