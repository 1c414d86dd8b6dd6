"""What a STOW-RS response says of each instance (PS3.18 10.5.3 and I.2)."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from msgspec import Struct, field

_FAILED, _REFERENCED, _OTHERS = "00081198", "00081199", "0008119A"
_INSTANCE, _FAILURE, _WARNING = "00081155", "00081197", "00081196"

#: FailureReason: the service has the instance (PS3.18 I.2.2).
DUPLICATE = 0x0111


class Said(Struct, frozen=True, kw_only=True):
    """What the body of a response says."""

    #: Warning reason by SOP instance UID of what is stored; 0 without one.
    stored: dict[str, int] = field(default_factory=dict)
    #: Failure reason by SOP instance UID; 0 if the item names none.
    failed: dict[str, int] = field(default_factory=dict)
    #: Failure reasons of parts that have no UID.
    others: tuple[int, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether it tells of no instance."""
        return not (self.stored or self.failed or self.others)


def read(body: bytes) -> Said:
    """Read a response in DICOM JSON; nothing is said by any other."""
    found: Any = None
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        found = msgspec.json.decode(body)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        return Said()
    stored = {uid: _number(item, _WARNING) for item in _items(found, _REFERENCED) if (uid := _uid(item))}
    failed = {uid: _number(item, _FAILURE) for item in _items(found, _FAILED) if (uid := _uid(item))}
    return Said(stored=stored, failed=failed, others=tuple(_number(item, _FAILURE) for item in _items(found, _OTHERS)))


def _items(found: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    attribute = found.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _first(item: dict[str, Any], tag: str) -> Any:
    attribute = item.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _uid(item: dict[str, Any]) -> str:
    found = _first(item, _INSTANCE)
    return found.strip(" \0") if isinstance(found, str) else ""


def _number(item: dict[str, Any], tag: str) -> int:
    found = _first(item, tag)
    if isinstance(found, str) and found.isdecimal():
        return int(found)
    return found if isinstance(found, int) and 0 <= found <= 0xFFFF else 0
