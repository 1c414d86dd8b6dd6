"""Tags as people write them, `0009,1010` or `0009,xx10`, and where private elements are (PS3.5 7.8.1)."""

from __future__ import annotations

import re
from functools import lru_cache

from hilum.dicom.header import Header

#: A tag in a text: group and element, with a comma between them; `xx` stands for whichever block a private creator has.
NUMBER = r"\(?[0-9A-Fa-f]{4}, ?(?:[0-9A-Fa-f]{2}|xx)[0-9A-Fa-f]{2}\)?"
_PARTS = re.compile(r"\(?([0-9A-Fa-f]{4}), ?([0-9A-Fa-f]{2}|xx)([0-9A-Fa-f]{2})\)?\Z")


def parts_of(number: str) -> tuple[str, str, str] | None:
    """Group, block (`xx` if left open) and element of a tag, in capitals; None if `number` is none."""
    found = _PARTS.match(number)
    if found is None:
        return None
    group, block, element = found.groups()
    return group.upper(), block if block == "xx" else block.upper(), element.upper()


def is_private(group: str) -> bool:
    """Whether a group's elements are private: its number is odd (PS3.5 7.8)."""
    return int(group, 16) % 2 == 1


@lru_cache(maxsize=256)
def tags_numbered(number: str) -> frozenset[str]:
    """Every tag (`GGGGEEEE`) at which the element `number` may be, with those of the private creators that tell where it is."""
    parts = parts_of(number)
    if parts is None:
        return frozenset()
    group, block, element = parts
    if not is_private(group):
        return frozenset({f"{group}{block}{element}"}) if block != "xx" else frozenset()
    blocks = [f"{each:02X}" for each in range(0x10, 0x100)]
    return frozenset(tag for each in blocks for tag in (f"{group}00{each}", f"{group}{each}{element}"))


def tag_numbered(header: Header, number: str, creator: str = "") -> str | None:
    """The tag (`GGGGEEEE`) of the element `number` in `header`: with `creator`, in the block that this creator has reserved.

    None if the creator has reserved none, or if `number` is no tag. Raises `CutValue` if a creator's name was left out.
    """
    parts = parts_of(number)
    if parts is None:
        return None
    group, block, element = parts
    if not creator:
        return f"{group}{block}{element}" if block != "xx" else None
    for tag in header:
        if tag.startswith(f"{group}00") and tag[6:] >= "10" and header.text(tag) == creator:
            return f"{group}{tag[6:]}{element}"
    return None
