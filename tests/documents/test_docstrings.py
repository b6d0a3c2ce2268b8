"""Docstrings of what users call: there for every name, a word for every parameter, examples that give what they say."""

import ast
import dataclasses
import doctest
import inspect
import re
from collections.abc import Iterator
from typing import Any, is_typeddict

import numpy as np
import pytest

import enumerator as en
from cluster.commands.options import _SELECTION
from enumerator import plots, statistics
from enumerator.catalogue.minimum import Student
from enumerator.catalogue.selection import MEANINGS, Selection
from enumerator.client import RemoteCatalogue
from enumerator.identification.identify import Identification
from enumerator.statistics import missing, trends

# Public names, and the classes of what they return.
NAMED = {
    **{f"en.{name}": getattr(en, name) for name in en.__all__},
    **{f"statistics.{name}": getattr(statistics, name) for name in statistics.__all__},
    **{f"plots.{name}": getattr(plots, name) for name in plots.__all__},
    **{kind.__name__: kind for kind in (RemoteCatalogue, Student, Identification, trends.Curve)},
    **{kind.__name__: kind for kind in (missing.MissingMass, missing.NewMinima, missing.Richness)},
}
# Those that a user meets first.
EXAMPLES = (
    *("en.Landscape", "en.enumerate_minima", "en.Enumeration", "en.Catalogue", "en.Catalogue.minima"),
    *("en.Catalogue.sql", "en.Minimum", "en.identify", "en.population_loss", "statistics.frequencies"),
)


def described() -> Iterator[tuple[str, Any]]:
    """Every public name but plain values, and the public methods and properties of every class, with their names."""
    for name, found in NAMED.items():
        if inspect.ismodule(found) or inspect.isclass(found) or callable(found):
            yield name, found
        if inspect.isclass(found) and not issubclass(found, Exception):
            for member, value in vars(found).items():
                is_public = not member.startswith("_") or member == "__call__"
                value = value.__func__ if isinstance(value, classmethod) else value
                value = value.func if hasattr(value, "func") else value  # a cached property
                is_ours = isinstance(value, property) or getattr(value, "__module__", "").startswith("enumerator")
                if is_public and is_ours and (inspect.isfunction(value) or isinstance(value, property)):
                    yield f"{name}.{member}", value


DESCRIBED = dict(described())


def doc_of(found: Any) -> str:
    """The docstring, which must be its own: a dataclass without one has its signature in that place."""
    doc = inspect.cleandoc(found.__doc__ or "")
    is_made_up = dataclasses.is_dataclass(found) and doc.startswith(f"{found.__name__}(")
    return "" if is_made_up else doc


def parameters_of(found: Any) -> list[str]:
    """What a caller may give."""
    if found is en.Catalogue.minima:  # every keyword in the place of `selection`
        return list(Selection.__annotations__)
    is_error = inspect.isclass(found) and issubclass(found, Exception)
    if is_typeddict(found) and found is not Selection:  # which is explained at `Catalogue.minima`
        return list(found.__annotations__)
    if is_error or is_typeddict(found) or not callable(found):
        return []
    return [name for name in inspect.signature(found).parameters if name not in ("self", "cls")]


def unnamed(doc: str, parameters: list[str]) -> list[str]:
    """The parameters without an entry in a section; of a docstring of one line, those that are not in backticks."""
    if "\n" not in doc:
        return [name for name in parameters if f"`{name}`" not in doc]
    return [name for name in parameters if not re.search(rf"^    \*{{0,2}}{name}( \([^)]*\))?: \S", doc, re.MULTILINE)]


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_name_says_what_it_is(name):
    first = doc_of(DESCRIBED[name]).partition("\n")[0]
    assert len(first) > 10 and first.endswith((".", ":")), f"{name}: {first!r}"


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_parameter_has_its_words(name):
    found = DESCRIBED[name]
    assert not unnamed(doc_of(found), parameters_of(found))


def test_a_parameter_without_words_is_found():
    def one_line(first: int, second: int) -> None:
        """Something of `first`."""

    def sections(first: int, *, second: int, **more: int) -> None:
        """Something.

        And `second`, which has no entry.

        Args:
            first: It.
            **more: Others.
        """

    for function in (one_line, sections):
        assert unnamed(doc_of(function), parameters_of(function)) == ["second"]
    assert unnamed(doc_of(dataclasses.make_dataclass("Bare", ["field"])), ["field"]) == ["field"]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A folder with the catalogue `atlas` of the examples: 64 starts of K = M = 7."""
    found = en.enumerate_minima(en.Landscape(students=7, teachers=7), starts=64, seed=0)
    folder, campaign = tmp_path_factory.mktemp("examples"), found.result.campaign
    atlas = en.Catalogue(folder / "atlas", create=True)
    atlas.register(campaign, 64, "cpu")
    atlas.commit_shard(found.result, 0, 64)
    atlas.finish(campaign.id)
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_what_they_say(name, catalogue, monkeypatch):
    monkeypatch.chdir(catalogue)
    doc, globs = inspect.getdoc(DESCRIBED[name]), {"en": en, "np": np}
    test = doctest.DocTestParser().get_doctest(doc, globs, name, name, 0)
    assert test.examples
    told: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert result.failed == 0, "".join(told)


def test_no_example_is_left_out():
    assert {name for name, found in DESCRIBED.items() if ">>>" in doc_of(found)} == set(EXAMPLES)


def told_of_minima() -> str:
    """What `help(en.Catalogue.minima)` says."""
    return inspect.getdoc(en.Catalogue.minima)


def test_help_explains_every_keyword_of_a_selection():
    assert unnamed(told_of_minima(), list(Selection.__annotations__)) == []


@pytest.mark.parametrize("keyword", ["where", "sort", "columns"])
def test_the_values_that_help_suggests_can_be_given(keyword, catalogue):
    (entry,) = re.findall(rf"^    {keyword} \(.*?(?=^    \w|\n\n)", told_of_minima(), re.MULTILINE | re.DOTALL)
    suggested = [ast.literal_eval(value) for value in re.findall(r"`([\"\[][^`]*)`", entry)]
    assert len(suggested) >= 2
    for value in suggested:
        en.Catalogue(catalogue / "atlas").minima(**{keyword: value})


def test_the_command_line_and_help_use_the_same_words():
    """Of a keyword that is explained anew, the other place is found here."""
    text = " ".join(told_of_minima().split())
    for keyword, words in MEANINGS.items():
        assert re.search(rf"{keyword} \(\w+\): {re.escape(words.rstrip('.'))}", text), keyword
        if keyword != "campaign":  # of which some commands take several
            assert _SELECTION[keyword].__metadata__[0].help == words
    assert _SELECTION.keys() == MEANINGS.keys()
