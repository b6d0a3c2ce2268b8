"""The prose of the documents: short sentences, and none of the phrases that readers stumbled over."""

import re

import pytest

from tests.support.project import PROJECT

DOCS = PROJECT / "docs"
# The reference is generated from the code, and is not held here.
FILES = [PROJECT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if DOCS / "reference" not in page.parents)]
PAGES = [file.relative_to(PROJECT).as_posix() for file in FILES]
# Words in a sentence: the style asks for 15 on average and 35 at most, and a formula may count for one more.
MEAN, MOST = 16, 36
STUMBLED = ("are at it", "else round", "what a query can break")
# A line that is no prose: of a table, a heading, a picture, a rule, an admonition, or a fold.
_NO_PROSE = re.compile(r"(\||#|!\[|!!!|\?\?\?|===|---|:::|<)")
_ITEM = re.compile(r"([-*]|\d+\.) ")


def paragraphs(text: str) -> list[str]:
    """The paragraphs and items of lists of a page, each on one line, without blocks of code, tables and headings."""
    text = re.sub(r"^( *)(```|~~~).*?^\1\2 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.+?\$\$", "X", text, flags=re.DOTALL)
    found: list[list[str]] = [[]]
    for line in map(str.strip, text.splitlines()):
        if not line or _NO_PROSE.match(line):
            found.append([])
        elif _ITEM.match(line):
            found.append([_ITEM.sub("", line, count=1)])
        else:
            found[-1].append(line.removeprefix("> "))
    return [" ".join(lines) for lines in found if lines]


def sentences(text: str) -> list[str]:
    """The sentences of a page. A formula and a piece of code count as one word, a link as its text."""
    found = []
    for paragraph in paragraphs(text):
        paragraph = re.sub(r"\$[^$]+\$", "X", re.sub(r"`[^`]*`", "C", paragraph))
        paragraph = re.sub(r"\[([^]]*)\](\([^)]*\)|\[[^]]*\])", r"\1", paragraph)
        paragraph = re.sub(r"<[^>]+>|[*_]{1,2}", "", paragraph)
        # A colon ends a sentence where another one begins behind it.
        parts = re.split(r"(?<=[.!?:])[)\"']?\s+(?=[A-Z(\"0-9])", paragraph)
        found += [part for part in parts if re.search(r"\w", part)]
    return found


def words(sentence: str) -> int:
    return len(sentence.split())


def read(page: str) -> str:
    return (PROJECT / page).read_text(encoding="utf-8")


def test_sentences_are_told_from_the_rest():
    page = """# A heading. It has two sentences

A [link that is
long](somewhere/far away.md#place) and $a + b$ end here. `a b c` follows:

- an item
- another, *too*.

| a | table. |
|---|---|

```sh
some code. More code
```
"""
    assert sentences(page) == ["A link that is long and X end here.", "C follows:", "an item", "another, too."]


def test_the_pages_are_there():
    assert {"README.md", "docs/tutorial.md", "docs/concepts/ends.md", "docs/evidence/paper.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page):
    found = sentences(read(page))
    assert found
    assert not [sentence for sentence in found if words(sentence) > MOST]
    assert sum(map(words, found)) <= MEAN * len(found)


@pytest.mark.parametrize("page", PAGES)
def test_no_phrase_that_readers_stumbled_over(page):
    text = " ".join(read(page).lower().split())
    assert not [phrase for phrase in STUMBLED if phrase in text]
