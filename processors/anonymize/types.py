"""Types of attributes (PS3.5 7.4) at their place in the IOD of a storage SOP class (PS3.3), from `data/types.json`.

They decide what a compound action of Table E.1-1 comes to: what may be absent is removed, what may be empty is emptied, what must have a
value gets another one. A conditional attribute (1C, 2C) that is there is taken as required, so that the object stays valid.
"""

from __future__ import annotations

import importlib.resources
import json
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec import Struct

#: The number of the place of which nothing is known.
UNKNOWN = 0


class Types(Struct, frozen=True):
    """Places as numbers: each knows the types of its attributes, and the places in its sequences."""

    nodes: tuple[Mapping[int, tuple[str, int]], ...]
    classes: Mapping[str, int]

    def type_of(self, place: int, tag: int) -> str:
        """`1`, `1C`, `2`, `2C`, or `3`, also for an attribute that does not belong there."""
        return self.nodes[place].get(tag, ("3", UNKNOWN))[0]

    def inside(self, place: int, tag: int) -> int:
        """The place in the items of a sequence."""
        return self.nodes[place].get(tag, ("3", UNKNOWN))[1]


@cache
def types() -> Types:
    """All of the file."""
    text = (importlib.resources.files("processors.anonymize.data") / "types.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    tags: dict[str, int] = {}
    pairs: dict[tuple[str, int], tuple[str, int]] = {}  # each tag and pair once: there are 24,000 entries

    def pair(entry: list[Any]) -> tuple[str, int]:
        found = (sys.intern(entry[0]), entry[1] if len(entry) > 1 else UNKNOWN)
        return pairs.setdefault(found, found)

    nodes = tuple({tags.setdefault(tag, int(tag, 16)): pair(entry) for tag, entry in node.items()} for node in read["nodes"])
    return Types(nodes, read["classes"])


def is_standard(sop_class_uid: str) -> bool:
    """Whether it is a storage SOP class of the standard, retired ones included; private ones are de-identified by nobody's table."""
    return sop_class_uid in types().classes
