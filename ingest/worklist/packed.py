"""Worklist items as the receiver keeps them: values alone, by tag. As DICOM JSON ten thousand of them would take three times the memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from .attributes import Table

#: Values by tag; of a sequence, its items. A name is its component groups joined by `=`. What has no value is not there.
Item = Mapping[str, tuple[Any, ...]]

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def pack(attributes: Mapping[str, Any]) -> bytes:
    """DICOM JSON (PS3.18 F.2) as it goes into the file of steps."""
    return msgspec.json.encode(_packed(attributes))


def unpack(body: bytes) -> Item:
    """What `pack` made. Equal texts of all items are one text in memory."""
    return _tight(msgspec.json.decode(body))


def said(item: Item, table: Table) -> dict[str, Any]:
    """The whole item as DICOM JSON."""
    return {tag: as_json(table[tag], values) for tag, values in item.items() if tag in table}


def as_json(kind: str | Table, values: tuple[Any, ...]) -> dict[str, Any]:
    """One attribute as DICOM JSON; `kind` is its VR, or the attributes of its items."""
    if not isinstance(kind, str):
        return {"vr": "SQ", "Value": [said(value, kind) for value in values]}
    if kind == "PN":
        return {"vr": "PN", "Value": [_groups(value) for value in values]}
    return {"vr": kind, "Value": values}


def _groups(name: str) -> dict[str, str]:
    return {label: group for label, group in zip(_GROUPS, name.split("="), strict=False) if group}


def _packed(attributes: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        tag: [_value(element["vr"], value) for value in element["Value"]] for tag, element in attributes.items() if element.get("Value")
    }


def _value(vr: str, value: Any) -> Any:
    if vr == "SQ":
        return _packed(value)
    if vr == "PN":
        return "=".join((value or {}).get(label, "") for label in _GROUPS).rstrip("=")
    return "" if value is None else value


def _tight(raw: Mapping[str, list[Any]]) -> Item:
    return {sys.intern(tag): tuple(_tight_value(value) for value in values) for tag, values in raw.items()}


def _tight_value(value: Any) -> Any:
    if isinstance(value, str):
        return sys.intern(value)
    return _tight(value) if isinstance(value, dict) else value
