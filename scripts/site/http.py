"""The page of the HTTP service, from its OpenAPI description."""

from __future__ import annotations

import json
import re
from collections import Counter
from tempfile import TemporaryDirectory
from typing import Any

from cluster.service.app import create_app
from enumerator.catalogue.catalogue import Catalogue
from scripts.site.text import cell, code, described, first_sentence, prose, table

_HEAD = """\
# HTTP

`enumerator serve atlas` answers these requests. [The service](../guides/service.md) shows how to use them, and
[`enumerator serve`](commands.md#serve) has the settings. `/openapi.json` describes all of this for programs.

"""
_ERRORS = """\
## Errors

Each section below names the statuses that its request may be answered with. These mean the same everywhere:

"""
# What the routes of a tag are for, in the order in which they stand here.
GROUPS = {"tables": "Read", "campaigns": "Campaigns", "service": "The service itself"}


def _type(schema: dict[str, Any]) -> str:
    entries = schema.get("anyOf", [schema])
    values = [value for entry in entries for value in entry.get("enum", [])]
    if values:
        return ", ".join(code(str(value)) for value in values)
    kinds = [entry.get("type", "") for entry in entries]
    return " or ".join(code(kind) for kind in kinds if kind not in ("", "null")) or "any"


def _default(schema: dict[str, Any], is_required: bool) -> str:
    if is_required:
        return "required"
    default = schema.get("default")
    return "" if default is None else code(json.dumps(default))


def _fields(where: str, operation: dict[str, Any]) -> str:
    header = ("name", "type", "default", "meaning")
    text = ""
    for place, title in (("path", "In the path"), ("query", "After the question mark"), ("header", "In the head")):
        rows = [
            (
                code(entry["name"]),
                _type(entry["schema"]),
                _default(entry["schema"], entry["required"] and place != "path"),
                cell(described(f"`{entry['name']}` of {where}", entry.get("description"))),
            )
            for entry in operation.get("parameters", [])
            if entry["in"] == place
        ]
        text += f"**{title}**\n\n" + table(header, rows) + "\n" if rows else ""
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        needed = body["schema"].get("required", [])
        rows = [
            (
                code(name),
                _type(field),
                _default(field, name in needed),
                cell(described(f"`{name}` of {where}", field.get("description"))),
            )
            for name, field in body["schema"].get("properties", {}).items()
        ]
        text += f"**In the body**, `{kind}`\n\n" + table(header, rows) + "\n"
    return text


def _example(operation: dict[str, Any]) -> str:
    """What an answer looks like, where the description has one."""
    answers = [entry.get("content", {}) for status, entry in operation["responses"].items() if status.startswith("2")]
    found = [
        content["application/json"]["example"]
        for content in answers
        if "example" in content.get("application/json", {})
    ]
    return "".join(f"An answer, in JSON:\n\n```json\n{json.dumps(each, indent=2)}\n```\n\n" for each in found)


def _answers(where: str, operation: dict[str, Any], common: dict[str, str]) -> str:
    own, shared = [], []
    for status, answer in operation["responses"].items():
        text = described(f"answer {status} of {where}", answer.get("description"))
        text = "The answer." if text == "Successful Response" else text  # what FastAPI says where nobody does
        if common.get(status) == text:
            shared.append(f"[{status}](#errors)")
        else:
            own.append((code(status), cell(text)))
    text = "**Answers**\n\n" + table(("status", "when"), own)
    return text + ("\nErrors: " + ", ".join(sorted(shared)) + ".\n" if shared else "")


def _place(path: str, method: str) -> str:
    """The place of a request on its page, as links name it."""
    words = re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")
    return f"{method}-{words}" if words else method


def _section(path: str, method: str, operation: dict[str, Any], common: dict[str, str]) -> str:
    where = f"{method.upper()} {path}"
    text = prose(described(where, operation.get("description")))
    return (
        f"### {where} {{ #{_place(path, method)} }}\n\n{text}\n\n"
        f"{_fields(where, operation)}{_example(operation)}{_answers(where, operation, common)}"
    )


def _common(operations: list[tuple[str, str, dict[str, Any]]]) -> dict[str, str]:
    """The errors that mean the same wherever they come: each status with its only text."""
    texts: dict[str, Counter[str]] = {}
    for _, _, operation in operations:
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                texts.setdefault(status, Counter())[answer.get("description", "")] += 1
    return {status: next(iter(found)) for status, found in sorted(texts.items()) if len(found) == 1}


def _grouped(operations: list[tuple[str, str, dict[str, Any]]]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {title: [] for title in GROUPS.values()}
    for path, method, operation in operations:
        tags = [tag for tag in operation.get("tags", []) if tag in GROUPS]
        if not tags:
            raise ValueError(f"{method.upper()} {path} has no tag of those in GROUPS of scripts/site/http.py.")
        groups[GROUPS[tags[0]]].append((path, method, operation))
    return groups


def page() -> str:
    """A table of all requests, then their sections, group by group."""
    with TemporaryDirectory() as folder:
        Catalogue(f"{folder}/atlas", create=True)
        description = create_app(f"{folder}/atlas").openapi()
    operations = [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]
    common, groups = _common(operations), _grouped(operations)
    rows, text = [], ""
    for title, members in groups.items():
        text += f"\n## {title}\n\n" + "\n".join(_section(*each, common) for each in members)
        rows.append((f"**{title}**", ""))
        for path, method, operation in members:
            what = cell(first_sentence(described(f"{method.upper()} {path}", operation.get("description"))))
            link = f"[`{method.upper()} {path}`](#{_place(path, method)})"
            rows.append((link, what))
    overview = table(("request", "what it answers"), rows)
    errors = _ERRORS + table(("status", "when"), [(code(status), cell(text)) for status, text in common.items()])
    return _HEAD + prose(description["info"]["description"].strip()) + f"\n\n{overview}\n{errors}{text}"
