"""The page of the tables and of the campaign file, from schemas/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enumerator.catalogue.schema import TABLE_NAMES
from enumerator.catalogue.selection import output_schema
from scripts.site.text import cell, code, described, prose, table

SCHEMAS = Path(__file__).parents[2] / "schemas"

_HEAD = """\
# Tables and the campaign file

A catalogue holds six tables. Matrices are flat lists, row by row, beside their sizes. Weights, distances and gradients
are in [reduced units](../glossary.md#reduced-units). `enumerator export` writes these descriptions beside the data.
A name in colour leads to the page that explains it.

"""
# The pages that explain what a column or a setting holds, by its name.
EXPLAINED = {
    "Q": "../glossary.md#overlaps",
    "R": "../glossary.md#overlaps",
    "T": "../glossary.md#overlaps",
    "activation": "../glossary.md#activation",
    "anti_aligned": "../glossary.md#order",
    "campaign_id": "../glossary.md#campaign",
    "campaign_name": "../guides/campaigns.md",
    "campaign_names": "../guides/campaigns.md",
    "constraint": "../concepts/constraints.md",
    "distance_error": "../concepts/one-pass-sgd.md",
    "dynamics": "../glossary.md#dynamics",
    "effective_students": "../glossary.md#effective-network",
    "family": "../concepts/overlaps.md",
    "first_campaign_name": "../guides/campaigns.md",
    "flat_dimension": "../concepts/flat-families.md",
    "flow_time": "../glossary.md#flow-time",
    "frequency": "../glossary.md#frequency",
    "grid": "../guides/campaigns.md",
    "hits": "../glossary.md#hit",
    "initial": "../glossary.md#initial-law",
    "isotropy": "../glossary.md#isotropy",
    "label": "../glossary.md#label",
    "landscape_id": "../glossary.md#landscape",
    "lingered": "../concepts/lingering.md",
    "lingered_for": "../concepts/lingering.md",
    "lingered_on": "../concepts/lingering.md",
    "lingering": "../concepts/lingering.md",
    "lingering_time": "../concepts/lingering.md",
    "minimum_id": "../concepts/identity.md",
    "orbit_size_log10": "../glossary.md#orbit",
    "outcome": "../glossary.md#outcome",
    "radius": "../glossary.md#ball",
    "saddle_id": "../glossary.md#saddle",
    "sample": "../glossary.md#sample",
    "second_layer": "../concepts/second-layer.md",
    "second_layer_law": "../concepts/second-layer.md",
    "second_layer_weights": "../glossary.md#normal-form",
    "shard_size": "../glossary.md#shard",
    "start_index": "../glossary.md#start",
    "starts": "../glossary.md#start",
    "stop_anti_aligned": "../glossary.md#early-stop",
    "stop_flow_time": "../glossary.md#early-stop",
    "stop_loss": "../glossary.md#early-stop",
    "tolerances": "../glossary.md#tolerances",
    "verdict": "../glossary.md#verdict",
    "verdict_above": "../glossary.md#verdict",
}
# The pages to read beside a table.
BESIDE = {
    "minima": "[When two minima are one](../concepts/identity.md), [Flat families](../concepts/flat-families.md)",
    "saddles": "[Lingering](../concepts/lingering.md)",
    "starts": "[When a start is done](../concepts/ends.md), [Lingering](../concepts/lingering.md)",
    "campaigns": "[Campaigns and grids](../guides/campaigns.md)",
    "landscapes": "[Overlaps and families](../concepts/overlaps.md)",
    "initial_overlaps": "[Campaigns and grids](../guides/campaigns.md)",
}

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


# What is asked for most stands first.
SHOWN = ("minima", "saddles", "starts", "campaigns", "landscapes", "initial_overlaps")
assert set(SHOWN) == set(TABLE_NAMES)


def _name(key: str) -> str:
    """A name, as a link where a page explains it."""
    return f"[{code(key)}]({EXPLAINED[key]})" if key in EXPLAINED else code(key)


def _type(column: dict[str, Any]) -> str:
    shape = column.get("shape")
    matrix = f" ({', '.join(shape)})" if shape else ""
    return code(column["type"]) + matrix + (" or null" if column["nullable"] else "")


def _section(name: str) -> str:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    stored = {column["name"]: column for column in schema["columns"]}
    rows = [
        (_name(key), _type(column), cell(described(f"column `{key}` of `{name}`", column.get("description"))))
        for key, column in stored.items()
    ]
    added = [
        (
            _name(field.name),
            code(str(field.type)),
            cell(described(f"`{field.name}` of `{name}`", ADDED.get(field.name))),
        )
        for field in output_schema(name)
        if field.name not in stored
    ]
    header = ("column", "type", "meaning")
    text = f"## {name}\n\n{prose(described(f'table `{name}`', schema.get('description')))}\n\n" + table(header, rows)
    text += "\nEvery query adds:\n\n" + table(header, added) if added else ""
    return text + f"\nRead beside it: {described(f'what to read beside `{name}`', BESIDE.get(name))}.\n"


def _allowed(setting: dict[str, Any]) -> str:
    if "enum" in setting:
        return " or ".join(code(str(value)) for value in setting["enum"])
    kinds = [code(entry.get("type", "object")) for entry in setting.get("anyOf", [setting])]
    return " or ".join(kinds)


def _campaign_file() -> str:
    schema = json.loads((SCHEMAS / "campaign.json").read_text())
    rows = [
        (
            _name(key),
            _allowed(setting),
            "required"
            if key in schema["required"]
            else code(json.dumps(setting["default"]))
            if "default" in setting
            else "",
            cell(described(f"`{key}` of a campaign file", setting.get("description"))),
        )
        for key, setting in schema["properties"].items()
    ]
    text = f"## The campaign file\n\n{described('the campaign file', schema.get('description'))}\n\n"
    return text + table(("setting", "type", "default", "meaning"), rows)


def page() -> str:
    """A table of the tables, one section for each, then the settings of a campaign file."""
    rows = []
    for name in SHOWN:
        schema = json.loads((SCHEMAS / f"{name}.json").read_text())
        rows.append((f"[`{name}`](#{name})", cell(schema["description"])))
    rows.append(("[campaign file](#the-campaign-file)", "What `enumerator run` reads: the settings of a campaign."))
    return (
        _HEAD
        + table(("table", "what it holds"), rows)
        + "\n"
        + "\n".join(map(_section, SHOWN))
        + "\n"
        + _campaign_file()
    )
