"""The page of the tables and of the campaign file, from schemas/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.catalogue.selection import output_schema
from scripts.site.text import cell, code, described, table

SCHEMAS = Path(__file__).parents[2] / "schemas"

_HEAD = """\
# Tables and the campaign file

A catalogue holds six tables. Matrices are flat lists, row by row, beside their sizes. Weights, distances and gradients
are in [reduced units](../glossary.md#reduced-units). `enumerator export` writes these descriptions beside the data.

"""

# What a query adds to the stored columns.
ADDED = {
    "hits": "Starts that ended in this point, in the campaigns selected.",
    "starts": "All starts of the campaigns selected on the landscape of the row, whatever became of them.",
    "frequency": "hits/starts; null where campaigns are selected that differ in more than the seed.",
    "campaign_names": "The campaigns that were counted.",
    "first_campaign_name": "The campaign that found the point first.",
    "lingered": "Starts that lingered on this saddle before they left.",
    "lingering_time": "Median flow time for which they lingered; null where frequency is.",
    "end_loss": "Loss of the minimum or saddle in which the start ended.",
    "teacher": "What T is: orthonormal, equicorrelated 0.3, or given and eight digits of the landscape's id.",
    "campaign_name": "Name of the campaign: what differs from the defaults.",
    "flow_time": "Flow time for which one-pass SGD runs.",
    "students": "Number K of hidden units of the student.",
    "teachers": "Number M of hidden units of the teacher.",
    "activation": "Name of the activation function.",
    "constraint": "Constraint on the student weights.",
    "second_layer": "Second layer of the student: fixed or trained.",
    "dynamics": "How the landscape is descended.",
    "step": "Step of the dynamics that go in steps.",
    "dimension": "Input dimension d of the initial weights.",
    "scale": "Standard deviation of the initial weights.",
    "seed": "Seed of the initial overlaps.",
    "settings": "The settings that differ from the defaults, beside those with a column of their own.",
    "sample": "The same for campaigns that differ in the seed alone.",
    "source": "Software that computed the point.",
}


def _type(column: dict[str, Any]) -> str:
    shape = column.get("shape")
    matrix = f" ({', '.join(shape)})" if shape else ""
    return code(column["type"]) + matrix + (" or null" if column["nullable"] else "")


def _section(name: str) -> str:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    stored = {column["name"]: column for column in schema["columns"]}
    rows = [
        (code(key), _type(column), cell(described(f"column `{key}` of `{name}`", column.get("description"))))
        for key, column in stored.items()
    ]
    added = [
        (code(field.name), code(str(field.type)), cell(described(f"`{field.name}` of `{name}`", ADDED.get(field.name))))
        for field in output_schema(name)
        if field.name not in stored
    ]
    text = f"## {name}\n\n{described(f'table `{name}`', schema.get('description'))}\n\n"
    text += table(("column", "type", "meaning"), rows)
    return text + ("\nEvery query adds:\n\n" + table(("column", "type", "meaning"), added) if added else "") + "\n"


def _allowed(setting: dict[str, Any]) -> str:
    if "enum" in setting:
        return " or ".join(code(str(value)) for value in setting["enum"])
    return code(str(setting.get("type", "any")))


def _campaign_file() -> str:
    schema = json.loads((SCHEMAS / "campaign.json").read_text())
    rows = [
        (
            code(key),
            _allowed(setting),
            code(json.dumps(setting["default"])) if "default" in setting else "",
            cell(described(f"`{key}` of a campaign file", setting.get("description"))),
        )
        for key, setting in schema["properties"].items()
    ]
    text = f"## The campaign file\n\n{described('the campaign file', schema.get('description'))}\n\n"
    return text + table(("setting", "type", "default", "meaning"), rows)


def page() -> str:
    """One section for each table, then the settings of a campaign file."""
    return _HEAD + "\n".join(_section(name) for name in TABLE_NAMES) + _campaign_file()
