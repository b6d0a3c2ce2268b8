"""The page of the HTTP service, from its OpenAPI description."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

from cluster.service.app import create_app
from enumerator.catalogue.catalogue import Catalogue
from scripts.site.text import cell, code, described, table

_HEAD = """\
# HTTP

`enumerator serve atlas` answers these requests; `/openapi.json` describes them for programs.

"""


def _type(schema: dict[str, Any]) -> str:
    kinds = [entry.get("type", "") for entry in schema.get("anyOf", [schema])]
    if "enum" in schema:
        return " or ".join(code(str(value)) for value in schema["enum"])
    return " or ".join(code(kind) for kind in kinds if kind not in ("", "null")) or "any"


def _fields(where: str, operation: dict[str, Any]) -> str:
    rows = [
        (
            code(entry["name"]),
            _type(entry["schema"]),
            cell(described(f"`{entry['name']}` of {where}", entry.get("description"))),
        )
        for entry in operation.get("parameters", [])
    ]
    text = table(("parameter", "type", "meaning"), rows)
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        rows = [
            (code(name), _type(field), cell(described(f"`{name}` of {where}", field.get("description"))))
            for name, field in body["schema"].get("properties", {}).items()
        ]
        text += f"\nBody, `{kind}`:\n\n" + table(("field", "type", "meaning"), rows)
    return text


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    where = f"{method.upper()} {path}"
    text = described(where, operation.get("description") or operation.get("summary"))
    answers = [
        (status, cell(described(f"answer {status} of {where}", answer.get("description"))))
        for status, answer in operation["responses"].items()
    ]
    fields = _fields(where, operation)
    return f"## {where}\n\n{text}\n\n{fields}\n{table(('status', 'when'), answers)}\n"


def page() -> str:
    """One section for each route and method."""
    with TemporaryDirectory() as folder:
        Catalogue(f"{folder}/atlas", create=True)
        description = create_app(f"{folder}/atlas").openapi()
    operations = [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if method in ("get", "post", "put", "delete")
    ]
    return _HEAD + description["info"]["description"] + "\n" + "\n".join(_section(*each) for each in operations)
