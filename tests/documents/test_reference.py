"""The generated pages have all that the code has, found in another way; what nobody described fails the build."""

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from fastapi import APIRouter

import enumerator
from cluster.cli import run_command
from cluster.service.app import create_app
from enumerator import Catalogue, plots, statistics
from scripts.site import commands, http, python, tables, text
from scripts.site.__main__ import write_reference
from tests.support.project import PROJECT

SCHEMAS = PROJECT / "schemas"
TABLES = ["landscapes", "initial_overlaps", "campaigns", "minima", "saddles", "starts"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """The generated pages by name, as they are written."""
    folder = tmp_path_factory.mktemp("reference") / "pages"
    write_reference(folder)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}


def section(page: str, title: str, level: int = 2) -> str:
    """What stands under a heading, up to the next of its level."""
    mark = "#" * level
    found = re.search(
        rf"^{mark} {re.escape(title)}(?: {{ [^\n]* }})?$(.*?)(?=^{mark} |\Z)", page, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no section {title!r}"
    return found[1]


def rows(page: str) -> dict[str, list[str]]:
    """The cells of each row of all tables, by the name in the first; links and marks of code taken off."""
    found = {}
    for line in page.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            name = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cells[0])
            found[re.sub(r"</?code>|`", "", name).replace("&#124;", "|")] = cells[1:]
    return found


def shown(capsys, *arguments: str) -> str:
    assert run_command([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def listed(help_text: str) -> list[str]:
    """The commands that `enumerator --help` lists."""
    return re.findall(r"^  ([a-z][a-z-]*)  ", help_text.partition("Commands:")[2], re.MULTILINE)


def parameters(help_text: str) -> set[str]:
    """The arguments and options in the help of a command, but for --help."""
    arguments = help_text.partition("Arguments:\n")[2].partition("\n\n")[0]
    names = set(re.findall(r"^  \[?([A-Z][A-Za-z.]*)\]? ", arguments, re.MULTILINE))
    lines = re.findall(r"^  (-[^\n]*)", help_text.partition("\nOptions:\n")[2], re.MULTILINE)
    for line in lines:
        names |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.split(r"\s{2,}", line)[0]))
    return names - {"--help"}


def test_every_command_argument_and_option_stands_on_the_page(pages, capsys):
    page = pages["commands"]
    names = listed(shown(capsys))
    assert {"run", "minima", "early-stops", "plot"} <= set(names)
    overview = page.partition("\n## ")[0]
    # In the order of the help, each with a line of its own.
    assert re.findall(r"\[`([a-z-]+)`\]\(#\1\)", overview) == names
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == names
    for name in names:
        wanted = parameters(shown(capsys, name))
        assert wanted, name
        there = " ".join(rows(section(page, name)))
        missing = [each for each in wanted if not re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", there)]
        assert not missing, f"{name}: {missing}"


def test_help_of_several_paragraphs_stays_that_and_defaults_have_a_column(pages, capsys):
    there = section(pages["commands"], "run")
    said = shown(capsys, "run").partition("Arguments:")[0].split("\n\n", 1)[1].strip().split("\n\n")
    assert len(said) > 2
    on_page = there.partition("```text")[0].strip().split("\n\n")
    plain = [re.sub(r"[\\`]", "", paragraph).split() for paragraph in on_page]
    assert plain == [paragraph.replace("`", "").split() for paragraph in said]
    cells = {name.split()[0]: row for name, row in rows(there).items()}
    assert cells["--starts"][0] == "`1000`"
    assert cells["--step"][0] == ""
    read = {name.split()[0]: row for name, row in rows(section(pages["commands"], "minima")).items()}
    assert read["CATALOGUE"][0] == "required"


@pytest.mark.parametrize("name", TABLES)
def test_every_column_that_is_stored_or_answered_stands_on_the_page(name, pages, tmp_path):
    there = rows(section(pages["tables"], name))
    stored = [column["name"] for column in json.loads((SCHEMAS / f"{name}.json").read_text())["columns"]]
    atlas = Catalogue(tmp_path / "atlas", create=True)
    # Given starts are asked for over HTTP only.
    answered = [] if name == "initial_overlaps" else getattr(atlas, name)().schema.names
    assert len(stored) > 4
    assert not {*stored, *answered} - set(there)


def test_every_setting_of_a_campaign_file_stands_on_the_page(pages):
    there = rows(section(pages["tables"], "The campaign file"))
    settings = json.loads((SCHEMAS / "campaign.json").read_text())["properties"]
    assert set(settings) <= set(there)


def test_every_route_and_parameter_stands_on_the_page(pages, tmp_path):
    Catalogue(tmp_path / "atlas", create=True)
    described = create_app(str(tmp_path / "atlas")).openapi()
    # What answers, as the service's own files have it.
    answering = {
        (method.upper(), path)
        for file in (PROJECT / "cluster" / "service").glob("*.py")
        for method, path in re.findall(r'@router\.(get|post|put|delete)\(\s*"([^"]*)"', file.read_text())
    }
    assert ("GET", "/tables/{name}") in answering
    assert ("POST", "/identify") in answering
    for method, path in answering:
        there = rows(section(pages["http"], f"{method} {path}", level=3).partition("\n## ")[0])
        operation = described["paths"][path][method.lower()]
        wanted = {entry["name"] for entry in operation.get("parameters", [])} | set(re.findall(r"{(\w+)}", path))
        for body in operation.get("requestBody", {}).get("content", {}).values():
            wanted |= set(body["schema"].get("properties", {}))
        assert wanted <= set(there), f"{method} {path}: {wanted - set(there)}"
        statuses = set(operation["responses"])
        errors = set(re.findall(r"\[(\d+)\]\(#errors\)", section(pages["http"], f"{method} {path}", level=3)))
        assert statuses <= set(there) | errors


def test_every_public_name_stands_on_the_page(pages):
    for module, prefix in ((enumerator, "en"), (statistics, "en.statistics"), (plots, "en.plots")):
        names = set(module.__all__) - {"statistics", "plots"}
        assert names
        for name in names:
            assert f"heading: {prefix}.{name}\n" in pages["python"], name
            assert f"[`{prefix}.{name}`]" in pages["python"], name


@pytest.mark.parametrize("nothing", [None, "", "  \n"])
def test_what_has_no_description_is_named(nothing):
    with pytest.raises(ValueError, match="column `x` has no description"):
        text.described("column `x`", nothing)
    assert text.described("column `x`", " What it is.\n") == "What it is."


def planted(help: str | None, option: str | None, epilog: str | None) -> typer.Typer:
    """The commands, and one more: `planted`."""
    app = typer.Typer()
    app.registered_commands = [*commands.app.registered_commands]

    @app.command("planted", help=help, epilog=epilog)
    def command(size: int = typer.Option(1, help=option)) -> None:
        pass

    return app


@pytest.mark.parametrize(
    ("help", "option", "epilog", "what"),
    [
        (None, "Its size.", "Example: enumerator planted", "`enumerator planted` has no description"),
        ("Does it.", None, "Example: enumerator planted", "size of `enumerator planted` has no description"),
        ("Does it.", "Its size.", None, "the example of `enumerator planted` has no description"),
    ],
)
def test_a_command_that_nobody_described_fails_the_build(help, option, epilog, what, monkeypatch):
    monkeypatch.setitem(commands.GROUPS["Enumerate"], "planted", commands.GROUPS["Enumerate"]["run"])
    monkeypatch.setattr(commands, "app", planted(help, option, epilog))
    with pytest.raises(ValueError, match=what):
        commands.page()


def test_a_command_without_a_group_fails_the_build_and_so_does_one_that_is_gone(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(commands, "app", planted("Does it.", "Its size.", "Example: enumerator planted"))
        with pytest.raises(ValueError, match="`enumerator planted` belongs to no group"):
            commands.page()
    monkeypatch.setitem(commands.GROUPS["Enumerate"], "gone", commands.GROUPS["Enumerate"]["run"])
    with pytest.raises(ValueError, match=r"no such commands, but named in GROUPS.*: gone"):
        commands.page()


@pytest.mark.parametrize("name", ["minima", "campaign"])
def test_a_column_or_setting_that_nobody_described_fails_the_build(name, tmp_path, monkeypatch):
    schemas = Path(shutil.copytree(SCHEMAS, tmp_path / "schemas"))
    changed = json.loads((schemas / f"{name}.json").read_text())
    if name == "minima":
        changed["columns"].append({"name": "planted", "type": "double", "nullable": True})
    else:
        changed["properties"]["planted"] = {"type": "integer"}
    (schemas / f"{name}.json").write_text(json.dumps(changed))
    monkeypatch.setattr(tables, "SCHEMAS", schemas)
    with pytest.raises(ValueError, match=r"`planted` of .* has no description"):
        tables.page()


def test_a_column_that_a_query_adds_undescribed_fails_the_build(monkeypatch):
    monkeypatch.delitem(tables.ADDED, "hits")
    with pytest.raises(ValueError, match="`hits` of `minima` has no description"):
        tables.page()


@pytest.mark.parametrize(
    ("tags", "what"), [(["tables"], "`size` of GET /planted has no description"), ([], "GET /planted has no tag")]
)
def test_a_parameter_or_route_that_nobody_described_fails_the_build(tags, what, monkeypatch):
    router = APIRouter()

    @router.get("/planted", tags=tags)
    def planted(size: int = 1) -> int:
        """What was planted."""
        return size

    def with_route(address: str):
        app = create_app(address)
        app.include_router(router)
        return app

    monkeypatch.setattr(http, "create_app", with_route)
    with pytest.raises(ValueError, match=what):
        http.page()


def test_a_public_name_without_a_docstring_fails_the_build(monkeypatch):
    def planted():
        pass

    monkeypatch.setattr(statistics, "planted", planted, raising=False)
    monkeypatch.setattr(statistics, "__all__", [*statistics.__all__, "planted"])
    with pytest.raises(ValueError, match=r"`en.statistics.planted` has no description"):
        python.page()


def test_nothing_in_a_cell_ends_it_or_reads_as_markup():
    assert text.cell("a|b *c* d_e [f] $g$ <h>\n i") == r"a\|b \*c\* d\_e \[f] \$g\$ &lt;h> i"
    assert text.cell("as `a_b|c` says") == "as <code>a_b&#124;c</code> says"
    assert text.prose("With --two-words, -o FILE and `--kept`; not a--b.\n\nNext.") == (
        "With `--two-words`, `-o` FILE and `--kept`; not a--b.\n\nNext."
    )
