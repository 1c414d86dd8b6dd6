"""How a mask for images like a given one begins: what a person then completes, having looked at images of the device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from mmap import mmap

from processors.anonymize.about import COLUMNS, MANUFACTURER, MODEL, ROWS, SOFTWARE, About, about
from processors.anonymize.held import Held
from processors.anonymize.pixels.fitting import regions_of
from processors.anonymize.source import read_source


def mask_for(original: bytes | mmap) -> str:
    """Lines for a policy's file, with which a mask of images like this one begins; empty if it is no image.

    It does not work as it stands where it has no regions: a person has to look, and to write the boxes.
    """
    try:
        seen = about(read_source(original))
        return "\n".join(_lines(seen)) + "\n" if seen.has_pixels else ""
    except Held:
        return ""


def _lines(seen: About) -> Iterator[str]:
    yield "[[masks]]"
    said = (("manufacturer", MANUFACTURER), ("model", MODEL), ("software", SOFTWARE))
    yield from (f"{key} = {_quoted(value)}" for key, tag in said if (value := seen.text(tag)))
    yield f'sop_class = "{seen.source.sop_class_uid}"'
    rows, columns = seen.number(ROWS), seen.number(COLUMNS)
    yield f"rows = {rows}"
    yield f"columns = {columns}"
    try:
        boxes = ", ".join(str([left, top, right - left, bottom - top]) for left, top, right, bottom in regions_of(seen))
        yield f"outside_regions = true  # here they are {boxes}; text within them needs boxes"
    except Held:
        yield f"boxes = []  # [left, top, width, height] of each, as [0, 0, {columns}, {max(1, rows // 16)}] for the upper edge"


def _quoted(value: str) -> str:
    """As a pattern in TOML, for which a character that is not of ASCII may be any, as are `*` and `?` themselves."""
    return json.dumps("".join(each if each.isascii() and each.isprintable() and each != "*" else "?" for each in value))
