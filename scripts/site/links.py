"""Every link of the built site: to a file that is there, and to a place on its page that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a page may load from elsewhere: nothing. What it may lead to when it is clicked: anything.
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_STAYS = {"canonical", "alternate", "edit"}
# What a style sheet loads: pictures and fonts, and other sheets.
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Page(HTMLParser):
    """The links of a page, what it loads, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.in_style = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        self.in_style = tag == "style"
        self.loads += _IN_STYLE.findall(found.get("style", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in _LOADS and _LOADS[tag] in found and found.get("rel") not in _STAYS:
            self.loads.append(found[_LOADS[tag]])

    def handle_data(self, data):
        if self.in_style:
            self.loads += _IN_STYLE.findall(data)

    def handle_endtag(self, tag):
        self.in_style = False


def _target(page: Path, link: str, site: Path) -> Path:
    path = unquote(urlsplit(link).path)
    found = site / path.lstrip("/") if path.startswith("/") else page.parent / path if path else page
    return (found / "index.html" if found.is_dir() else found).resolve()


def _on_page(page: Path, found: _Page, pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    for link in [*found.links, *found.loads]:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if link in found.loads and parts.scheme != "data":
                yield f"loads {link} from another host"
            continue
        target = _target(page, link, site)
        if not target.is_file():
            yield f"leads to {link}, which is not there"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
            yield f"leads to {link}, but there is no such place on that page"


def broken(site: Path) -> list[str]:
    """One line for each link that leads nowhere, and for what a page loads from another host."""
    site = site.resolve()
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    # A page for any wrong address: its own links are those of the top page, from anywhere.
    pages = {path: page for path, page in pages.items() if path.name != "404.html"}
    lines = []
    for path, page in pages.items():
        lines += [f"{path.relative_to(site)} {line}" for line in _on_page(path, page, pages, site)]
    for path in sorted(site.rglob("*.css")):
        loads = _IN_STYLE.findall(path.read_text(encoding="utf-8"))
        lines += [f"{path.relative_to(site)} loads {load} from another host" for load in loads]
    return lines
