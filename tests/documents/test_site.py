"""The site is built from the pages without a warning; its links lead somewhere, and no page asks another host."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.site.__main__ import write_reference
from scripts.site.links import broken
from tests.support.pages import pages
from tests.support.project import PROJECT

# What the pages name: modules for the reference, and the extension for formulas.
NAMED = ("enumerator", "cluster", "scripts", "schemas")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a folder, warnings as errors."""
    environment = dict(os.environ, PYTHONPATH=str(PROJECT), JAX_PLATFORMS="cpu", NO_COLOR="1")
    return subprocess.run(
        [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as scripts/docs does, of a copy of the pages."""
    folder = tmp_path_factory.mktemp("documents")
    shutil.copytree(PROJECT / "docs", folder / "docs", ignore=shutil.ignore_patterns("reference"))
    shutil.copy(PROJECT / "mkdocs.yml", folder)
    for name in NAMED:
        (folder / name).symlink_to(PROJECT / name)
    write_reference(folder / "docs" / "reference")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def small(folder: Path, text: str) -> Path:
    """A project of one page."""
    (folder / "docs").mkdir()
    (folder / "docs" / "index.md").write_text(f"# Page\n\n{text}\n")
    (folder / "mkdocs.yml").write_text("site_name: small\ndocs_dir: docs\nsite_dir: site\ntheme: {font: false}\n")
    return folder


@pytest.mark.parametrize(
    "text",
    ["[another](another.md)", "[there](#there)", "![a picture](pictures/none.png)"],
    ids=["page", "place", "picture"],
)
def test_what_a_page_names_and_is_not_there_fails_the_build(text, tmp_path):
    small(tmp_path, text)
    done = build(tmp_path)
    lines = broken(tmp_path / "site") if done.returncode == 0 else []
    assert done.returncode != 0 or lines, done.stdout


def test_a_page_without_mistakes_builds(tmp_path):
    small(tmp_path, "[here](#page)")
    done = build(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert broken(tmp_path / "site") == []


def test_every_page_is_in_the_site_and_every_link_leads_somewhere(site):
    for path in pages():
        if path.parent.name != PROJECT.name and path.is_relative_to(PROJECT / "docs"):
            name = path.relative_to(PROJECT / "docs").with_suffix("")
            built = site / ("index.html" if name.name == "index" else f"{name}/index.html")
            assert built.is_file(), name
    assert broken(site) == []


PLANTED = {
    '<a href="../none/">x</a>': "leads to ../none/, which is not there",
    '<a href="#none">x</a>': "leads to #none, but there is no such place on that page",
    '<a href="../#none">x</a>': "leads to ../#none, but there is no such place on that page",
    '<img src="../pictures/none.png">': "leads to ../pictures/none.png, which is not there",
    '<script src="https://elsewhere.example/x.js"></script>': "loads https://elsewhere.example/x.js from another host",
    '<link rel="stylesheet" href="//elsewhere.example/x.css">': "loads //elsewhere.example/x.css from another host",
    '<img src="https://elsewhere.example/x.png">': "loads https://elsewhere.example/x.png from another host",
    '<style>@import url("https://elsewhere.example/x.css");</style>': (
        "loads https://elsewhere.example/x.css from another host"
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_the_check_of_links_finds_what_is_planted(planted, site, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    page = copy / "limits" / "index.html"
    page.write_text(page.read_text().replace("</body>", f"{planted}</body>"))
    assert broken(copy) == [f"limits/index.html {PLANTED[planted]}"]


def test_a_style_sheet_that_loads_from_another_host_is_found(site, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    with (copy / "site.css").open("a") as sheet:
        sheet.write("@font-face { src: url(https://elsewhere.example/x.woff2); }\n")
    assert broken(copy) == ["site.css loads https://elsewhere.example/x.woff2 from another host"]


def test_formulas_are_drawn_by_the_browser(site):
    text = (site / "evidence" / "one-pass-sgd" / "index.html").read_text()
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in text
    assert "$$" not in re.sub(r"<(script|code|pre)\b.*?</\1>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("flat minimum", "concepts/flat-families/"),
        ("resume", "guides/campaigns/#resume-a-stopped-run"),
        ("early-stops", "reference/commands/#early-stops"),
    ],
)
def test_the_search_leads_to_the_page_that_explains(asked, expected, site):
    # A page whose title has all the words comes first; others have them somewhere in their text.
    items = json.loads((site / "search.json").read_text())["items"]
    titled = {item["location"] for item in items if all(word in item["title"].lower() for word in asked.split())}
    assert expected in titled
