r"""Formulas between dollars become MathML when the site is built: `$Q = W W^\top$`, or `$$...$$` on lines of their own.

Browsers draw MathML themselves: no script, and nothing to load from anywhere.
"""

from __future__ import annotations

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor


class _Formula(InlineProcessor):
    def __init__(self, pattern: str, md: Markdown, display: str) -> None:
        super().__init__(pattern, md)
        self.display = display

    def handleMatch(self, m, data):  # the name that Markdown calls
        mathml = convert(m.group(1), display=self.display)
        return self.md.htmlStash.store(mathml), m.start(0), m.end(0)


_BLOCK = r"\$\$(.+?)\$\$"
# Nothing between the dollars and the formula: prices, and variables of a shell, stay as they are.
_INLINE = r"(?<![\\$\w])\$([^$\s](?:[^$]*[^$\s])?)\$(?![\w$])"


class Formulas(Extension):
    """The extension of Python-Markdown."""

    def extendMarkdown(self, md: Markdown) -> None:  # the name that Markdown calls
        """Before emphasis and escapes, which would take underscores and backslashes away; after code."""
        md.inlinePatterns.register(_Formula(_BLOCK, md, "block"), "formula-block", 186)
        md.inlinePatterns.register(_Formula(_INLINE, md, "inline"), "formula", 185)


def makeExtension(**settings) -> Formulas:  # the name that Markdown calls
    """The extension by its module's name."""
    return Formulas(**settings)
