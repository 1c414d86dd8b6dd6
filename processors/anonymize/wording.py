"""What a preview says of each element, for who knows the standard and not Hilum's code: a privacy officer, say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from processors.anonymize.options import Option
from processors.anonymize.result import Action
from processors.anonymize.table import DEFAULTS, row_of, standard, vr_of

#: PS3.15 Table E.1-1a.
CODES: Mapping[str, str] = {
    "D": "replaced with a value that is not empty, may be a dummy, and is one of its VR",
    "Z": "replaced with an empty value, or with a dummy that is one of its VR",
    "X": "removed",
    "K": "kept: unchanged if it is no sequence, else with cleaned items",
    "C": "cleaned: replaced with values of similar meaning that are known to identify nobody",
    "U": "replaced with a UID that is the same in all objects of the set",
    "Z/D": "Z, unless D is needed for a valid object (type 2 or type 1)",
    "X/Z": "X, unless Z is needed for a valid object (type 3 or type 2)",
    "X/D": "X, unless D is needed for a valid object (type 3 or type 1)",
    "X/Z/D": "X, unless Z or D is needed for a valid object (type 3, type 2 or type 1)",
    "X/Z/U*": "X, unless Z, or new UIDs in its items, are needed for a valid object (type 3, type 2, or type 1 with references)",
}
NOT_IN_TABLE = "not in it"


class Became(StrEnum):
    """What becomes of an element, as a preview counts them."""

    REMOVED = "removed"
    EMPTIED = "emptied"
    REPLACED = "replaced"
    CHANGED = "changed"
    KEPT = "kept"

    @property
    def meaning(self) -> str:
        """In a few words."""
        return _MEANING[self]


_MEANING = {
    Became.REMOVED: "The attribute is not in what leaves.",
    Became.EMPTIED: "The attribute is there, without a value.",
    Became.REPLACED: "Another value stands there: a pseudonym, a new UID, or a dummy.",
    Became.CHANGED: "Part of the value stays: text is cleaned, a date is moved, pixels are painted over.",
    Became.KEPT: "The value leaves as it is; of a sequence, its items are judged one by one.",
}
_REPLACED = {
    "uid": "new UID",
    "patient_id": "pseudonym",
    "patient_name": "pseudonym",
    "accession": "pseudonym",
    "text": "pseudonym",
    "dummy": "dummy value",
}
_CHANGED = {"date": "moved by days", "clean": "cleaned", "age": "90 years or more"}
_KEPT = {
    "uid": "kept: a UID of the standard itself",
    "clean": "kept: nothing in it had to go",
    "descend": "kept: its items are judged one by one",
}
_TAG = re.compile(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)(?:\[\d+\])?$")


def became(action: Action) -> Became:
    """What became of the element."""
    if action.after is None:
        return Became.REMOVED
    if not action.changed:
        return Became.KEPT
    if not action.after:
        return Became.EMPTIED
    return Became.REPLACED if action.act in _REPLACED else Became.CHANGED


def words(action: Action) -> str:
    """The same in words that say more: `kept: its items are judged one by one`."""
    found = became(action)
    if found is Became.KEPT:
        if not action.before and action.act != "descend":
            return "empty already"
        moved = action.act == "date" and Option.RETAIN_MODIFIED_DATES.meaning in action.why
        return "kept: whole days move, and no times" if moved else _KEPT.get(action.act, found)
    if found is Became.CHANGED:
        return _CHANGED.get(action.act, found)
    return _REPLACED[action.act] if found is Became.REPLACED else found


def standing(action: Action) -> str:
    """The action of the Basic Profile in Table E.1-1, or that the attribute is not in it."""
    tag = _tag(action)
    if tag is None:
        return NOT_IN_TABLE
    group, element = tag >> 16, tag & 0xFFFF
    table = standard()
    if group & 1:
        return table.patterns["private"].basic
    row = table.rows.get(tag)
    repeating = f"{group >> 8:02X}xx"
    row = row or table.patterns.get(f"{repeating}{element:04X}") or table.patterns.get(f"{repeating}xxxx")
    return row.basic if row is not None else NOT_IN_TABLE


def is_private(action: Action) -> bool:
    """Whether it is a private element, or the creator of a private block (PS3.5 7.8)."""
    tag = _tag(action)
    return tag is not None and bool(tag >> 16 & 1)


def because(action: Action) -> str:
    """Why: by the table, an option, the policy, or, of what the table does not name, by which rule of Hilum's own."""
    if standing(action) != NOT_IN_TABLE:
        return action.why
    return f"Not in Table E.1-1. {_own_rule(action)}"


def _own_rule(action: Action) -> str:
    tag = _tag(action)
    row = row_of(tag) if tag is not None else None
    if row is None:
        return action.why
    if row.source == "beyond it":
        return action.why.replace("By Hilum's own list.", "It is in Hilum's own list of attributes that were judged one by one.")
    vr = vr_of(tag or 0)
    if action.act == "uid" and became(action) is Became.KEPT:
        return "It names something of the standard itself, as all UIDs registered there (PS3.6 A)."
    if vr in DEFAULTS:
        says = f"Its VR decides: {vr} may hold anything, and goes or is replaced unless an option lets it stay."
    else:
        says = f"Its VR decides: codes, numbers, samples and sequences stay if they have the form of {vr}."
    rule = f"what is done with any {vr}"
    return action.why.replace(f"By {rule}.", says).replace(f"({rule})", f"(what holds for any {vr} that is named nowhere)")


def _tag(action: Action) -> int | None:
    found = _TAG.search(action.path)
    return int(found[1] + found[2], 16) if found else None
