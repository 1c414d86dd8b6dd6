"""Where an object goes in a folder or bucket: a template such as `{StudyDate}/{StudyInstanceUID}/{SOPInstanceUID}.dcm`.

Whatever an object's values are, the path is relative, stays inside, and is one that file systems and tools take.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta

from hilum.dicom.dataset import read_header
from hilum.dicom.header import tag_of
from hilum.part10 import Part10, data_set_offset
from hilum.sink import Delivery

#: What a template may name beside keywords and tags of DICOM.
_OWN = ("sha256", "destination", "received_date")
#: One of these must be in a template, lest two objects have one path.
_UNIQUE = ("SOPInstanceUID", "sha256")
Template = Annotated[str, Meta(min_length=1, max_length=500, description="a path with DICOM keywords in braces, such as {SOPInstanceUID}")]
BY_UIDS = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"

_MAX_VALUE_BYTES = 64
#: Where headers that are wanted for a path are looked for in a large object.
_HEAD_BYTES = 2**20
_UNSAFE = re.compile(r"[^A-Za-z0-9._^=+@ -]+")
#: Names that Windows keeps for itself: shares are often its own.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?\Z", re.IGNORECASE)


class Layout:
    """A template that was understood. Raises `ValueError`, in words for the settings, if it cannot be."""

    def __init__(self, template: str) -> None:
        self._parts: list[tuple[str, str]] = []
        try:
            parsed = list(string.Formatter().parse(template))
        except ValueError:
            raise ValueError("the template's braces do not match") from None
        for text, name, form, conversion in parsed:
            if form or conversion:
                raise ValueError(f"the template has more than a name in {{{name}}}")
            self._parts.append((text, name or ""))
        names = [name for _, name in self._parts if name]
        for name in names:
            if name not in _OWN:
                try:
                    tag_of(name)
                except KeyError:
                    raise ValueError(f"{{{name}}} is no DICOM keyword, and none of {', '.join(_OWN)}") from None
        if not set(_UNIQUE) & set(names):
            raise ValueError("the template names neither {SOPInstanceUID} nor {sha256}, so objects would overwrite each other")
        if template.startswith("/") or "\\" in template or any(part in ("", ".", "..") for part in template.split("/")):
            raise ValueError("the template is no relative path with names between single slashes")
        #: Whether another object always has another path.
        self.names_digest = "sha256" in names
        #: Keywords whose values are in the header only.
        self._of_header = [name for name in names if name not in _OWN and name not in _FROM_LEDGER]

    def path(self, delivery: Delivery, part10: Part10) -> str:
        """The relative path of an object. Reads its beginning only if the template needs that. Raises what `Part10.head` raises."""
        values = {name: getter(delivery) for name, getter in _FROM_LEDGER.items()}
        values |= {"sha256": part10.sha256, "destination": delivery.destination}
        values["received_date"] = f"{delivery.received_at:%Y%m%d}" if delivery.received_at else ""
        if self._of_header:
            head = part10.head(_HEAD_BYTES)
            header = read_header(head, delivery.transfer_syntax_uid, start=data_set_offset(head)).json
            values |= {name: _value(header.get(tag_of(name), {})) for name in self._of_header}
        made = "".join(text + (_safe(values[name]) if name else "") for text, name in self._parts)
        return "/".join(_component(part) for part in made.split("/"))


_FROM_LEDGER: dict[str, Callable[[Delivery], str]] = {
    "StudyInstanceUID": lambda delivery: delivery.study_instance_uid,
    "SeriesInstanceUID": lambda delivery: delivery.series_instance_uid,
    "SOPInstanceUID": lambda delivery: delivery.sop_instance_uid,
    "SOPClassUID": lambda delivery: delivery.sop_class_uid,
}


def _value(attribute: dict[str, object]) -> str:
    values = attribute.get("Value")
    first = values[0] if isinstance(values, list) and values else ""
    if isinstance(first, dict):
        first = first.get("Alphabetic", "")
    return str(first) if isinstance(first, str | int | float) else ""


def _safe(value: str) -> str:
    """A value with nothing in it that means something in a path."""
    return _UNSAFE.sub("_", value.strip(" \0"))[:_MAX_VALUE_BYTES] or "none"


def _component(name: str) -> str:
    name = name.strip(" ").rstrip(".")  # Windows takes neither at the end
    if not name.strip("."):
        return "_"
    return f"_{name}" if _RESERVED.match(name) else name
