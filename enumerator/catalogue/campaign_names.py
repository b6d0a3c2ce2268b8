"""Names of campaigns, and what tells them apart in words: all of it follows from their stored settings alone.

A name such as `relu.17.17.flow.d1000.s0` says what differs from the defaults: activation and slope, K, M, constraint,
second layer, teachers, dynamics with its settings, tolerances, initial law, and the seed at the end. Numbers stand in
full, with `p` for the point; what has no short form (T, a table of initial overlaps, tolerances) by eight hex digits of
its hash. What comes before the seed names the sample: campaigns whose starts may be counted together.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from enumerator.errors import InputError
from enumerator.problem import SINGLE_ABOVE, Campaign, Tolerances, digest
from enumerator.storage.sql import nearest

# `settings_text` where nothing differs from the defaults.
PLAIN = "default"
# How names call the dynamics; others are called by their own name.
_SHORT = {"gradient-flow": "flow", "gradient-descent": "descent", "one-pass-sgd": "sgd"}
# Hex digits of a hash in a name, and of what tells two samples apart that have one name otherwise.
DIGITS = 8
# Letters of a name: it stands in a shell, an address and a path as it is.
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# What a query of `campaigns` adds to the stored columns.
FACTS = pa.schema(
    [
        ("campaign_name", pa.string()),
        ("sample", pa.string()),
        ("students", pa.int32()),
        ("teachers", pa.int32()),
        ("activation", pa.string()),
        ("dynamics", pa.string()),
        ("step", pa.float64()),
        ("flow_time", pa.float64()),
        ("dimension", pa.int64()),
        ("scale", pa.float64()),
        ("seed", pa.int64()),
        ("settings", pa.string()),
    ]
)
# What reading settings that were altered can raise.
_ALTERED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def campaign_name(settings: Mapping[str, Any]) -> str:
    """The name of a campaign with these settings (`Campaign.to_dict`), wherever no other sample has its letters."""
    return f"{_stem(settings)}.s{settings['seed']}"


def name_of(campaign: Campaign) -> str:
    """The name of a campaign, as `campaign_name`."""
    return campaign_name(campaign.to_dict())


def with_names(campaigns: pa.Table) -> pa.Table:
    """The rows of table `campaigns` with the columns FACTS behind them.

    Two samples whose names would be the same have digits of the hash of their settings in it. A campaign whose settings
    cannot be read is called by its id, and tells nothing else.
    """
    ids = campaigns["campaign_id"].to_pylist()
    texts = zip(ids, campaigns["landscape_id"].to_pylist(), campaigns["campaign"].to_pylist(), strict=True)
    facts = [_facts(*entry) for entry in texts]
    # Equal settings, the seed apart, are one sample; equal letters are not.
    called: dict[str, set[str]] = {}
    for entry in facts:
        called.setdefault(entry["sample"], set()).add(entry["key"])
    for entry in facts:
        if len(called[entry["sample"]]) > 1:
            entry["sample"] += f".{digest({'sample': entry['key']})}"
            entry["campaign_name"] = f"{entry['sample']}.s{entry['seed']}"
    added = pa.Table.from_pylist(facts, schema=FACTS)
    for field in FACTS:
        campaigns = campaigns.append_column(field, added[field.name])
    return campaigns


def _facts(campaign_id: str, landscape_id: str, text: str) -> dict[str, Any]:
    """The columns FACTS of a campaign, and `key`, which is the same for all that may be counted together."""
    try:
        settings = json.loads(text)
        name = campaign_name(settings)
        if not _NAME.fullmatch(name):
            raise ValueError(name)
        landscape, dynamics, law, seed = (settings[part] for part in ("landscape", "dynamics", "law", "seed"))
        return {
            "campaign_name": name,
            "sample": name.removesuffix(f".s{seed}"),
            "key": _sample_key(landscape_id, settings),
            "students": _whole(landscape["students"], 31),
            "teachers": _whole(landscape["teachers"], 31),
            "activation": str(landscape.get("activation", "relu")),
            "dynamics": str(dynamics["name"]),
            "step": _real(dynamics.get("step")),
            "flow_time": _real(dynamics.get("flow_time")),
            "dimension": _whole(law.get("dimension"), 63),
            "scale": _real(law.get("scale")),
            "seed": _whole(seed, 63),
            "settings": settings_text(landscape, settings["tolerances"], law.get("second_layer")),
        }
    except _ALTERED:
        return {"campaign_name": campaign_id, "sample": campaign_id, "key": campaign_id}


def _whole(value: Any, bits: int) -> int | None:
    return None if value is None or abs(value) >= 2**bits else int(value)


def _real(value: Any) -> float | None:
    return None if value is None else float(value)


def _sample_key(landscape_id: str, settings: Mapping[str, Any]) -> str:
    """What campaigns have in common whose starts may be counted together: all but the seed."""
    kept = {name: value for name, value in settings.items() if name not in ("landscape", "seed")}
    # Those of an older release lack the tolerances that came later, which were what are the defaults now.
    return json.dumps([landscape_id, kept | {"tolerances": _changed(settings["tolerances"])}], sort_keys=True)


def campaign_id_of(wanted: str, names: Mapping[str, str]) -> str:
    """The id of the campaign `wanted`, an id or a name; `names` holds the name of each id. Raises InputError."""
    if not isinstance(wanted, str):
        raise InputError(f"`campaign` must be the name or the id of a campaign, got {wanted!r}.")
    if wanted in names:
        return wanted
    found = [campaign_id for campaign_id, name in names.items() if name == wanted]
    if not found:
        known = list(names) if wanted.startswith("c-") else list(names.values())
        raise InputError(f"no campaign {wanted!r} in this catalogue ({nearest(wanted, known)}).")
    if len(found) > 1:
        raise InputError(f"{len(found)} campaigns are called {wanted!r}: give the id, one of {', '.join(found)}.")
    return found[0]


def _stem(settings: Mapping[str, Any]) -> str:
    """The name without the seed."""
    landscape, dynamics, law = (settings[part] for part in ("landscape", "dynamics", "law"))
    slope = landscape.get("activation_slope")
    parts: list[str] = [
        landscape.get("activation", "relu") + ("" if slope is None else f"-{_number(slope)}"),
        f"{landscape['students']}.{landscape['teachers']}",
        *(landscape[name] for name in ("constraint", "second_layer") if name in landscape),
    ]
    if "T" in landscape:
        parts.append("T" + _teachers(landscape))
    called = _SHORT.get(dynamics["name"]) or dynamics["name"]
    parts.append("-".join([called, *(_number(dynamics[name]) for name in ("step", "flow_time") if name in dynamics)]))
    parts += _tolerances(settings["tolerances"])
    if "table" in law:
        parts.append("table" + law["table"][:DIGITS])
    else:
        parts.append(f"d{law['dimension']}")
        parts += [] if law["scale"] == 1 else ["scale" + _number(law["scale"])]
    return ".".join([*parts, *([law["second_layer"]] if "second_layer" in law else [])])


def _tolerances(tolerances: Mapping[str, float]) -> list[str]:
    """The parts of a name for tolerances that are not the defaults."""
    changed = _changed(tolerances)
    parts = []
    for name, value, called in (("single_above", SINGLE_ABOVE, "mixed"), ("linger_below", 0, "no-lingering")):
        if changed.get(name) == value:
            del changed[name]
            parts.append(called)
    return [*parts, *([f"tol{digest(changed)[:DIGITS]}"] if changed else [])]


def _changed(tolerances: Mapping[str, float]) -> dict[str, Any]:
    usual = dataclasses.asdict(Tolerances())
    names = [*(name for name in usual if name in tolerances), *sorted(tolerances.keys() - usual.keys())]
    return {name: tolerances[name] for name in names if tolerances[name] != usual.get(name)}


def _number(value: float) -> str:
    """0.1 -> "0p1"; 2.0 -> "2"; 1e-05 -> "1e-05": every number has its own."""
    return repr(float(value)).removesuffix(".0").replace(".", "p").replace("+", "")


def _teachers(landscape: Mapping[str, Any]) -> str:
    return digest({"T": landscape["T"]})[:DIGITS]


def dynamics_text(dynamics: Mapping[str, Any]) -> str:
    """gradient-descent step=0.1"""
    return " ".join([dynamics["name"], *(f"{key}={value:g}" for key, value in dynamics.items() if key != "name")])


def law_text(law: Mapping[str, Any]) -> str:
    """d=1000 scale=1"""
    second = [f"second-layer={law['second_layer']}"] if "second_layer" in law else []
    first = (
        [f"table={law['table'][:DIGITS]}"] if "table" in law else [f"d={law['dimension']}", f"scale={law['scale']:g}"]
    )
    return " ".join([*first, *second])


def settings_text(
    landscape: Mapping[str, Any], tolerances: Mapping[str, float], second_layer_law: str | None = None
) -> str:
    """activation_slope=0.2 constraint=normalized second_layer=trained T=0f3a91bc linger_below=0 precision=mixed

    The law of the second layer is named where it is not told beside, by `law_text`.
    """
    named = {name: landscape[name] for name in ("activation_slope", "constraint", "second_layer") if name in landscape}
    if second_layer_law is not None:
        named["second_layer_law"] = second_layer_law
    if "T" in landscape:
        named["T"] = _teachers(landscape)
    named |= _changed(tolerances)
    if named.get("single_above") == SINGLE_ABOVE:
        del named["single_above"]
        named["precision"] = "mixed"
    shown = (f"{name}={value if isinstance(value, str) else format(value, 'g')}" for name, value in named.items())
    return " ".join(shown) or PLAIN
