"""Objects that have whatever their IOD requires, made of the types of its attributes (PS3.3)."""

from __future__ import annotations

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from processors.anonymize.types import types
from tests.processors.anonymize.objects import Raw, a_file

#: Valid values by VR; of any other, four bytes of zeros.
VALUES = {
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), b"Chest"),
    **dict.fromkeys(("US", "SS"), b"\1\0"),
    **dict.fromkeys(("FD", "UV", "SV", "OV", "OD"), b"\0" * 8),
    "AE": b"AE1",
    "AS": b"045Y",
    "CS": b"A",
    "DA": b"20240102",
    "DS": b"1",
    "DT": b"20240102101112",
    "IS": b"1",
    "PN": b"Doe^Jane",
    "TM": b"101112",
    "UI": b"1.2.3.4",
    "UR": b"http://x/y",
    "AT": b"\x08\0\x20\0",
}
#: TimezoneOffsetFromUTC, which is no free text.
_OWN = {0x00080201: b"+0100"}
_DEEPEST = 3
#: What `a_file` adds, and documents and samples, in which nothing is required.
_LEFT_OUT = frozenset({0x00080005, 0x00080016, 0x00080018, 0x00420011, 0x7FE00008, 0x7FE00009, 0x7FE00010})


def _required(place: int, depth: int = 0) -> list[Raw]:
    found: list[Raw] = []
    for tag, (kind, inside) in sorted(types().nodes[place].items()):
        if kind == "3" or tag in _LEFT_OUT or tag >> 16 < 8 or not dictionary_has_tag(tag):
            continue
        vr = dictionary_VR(tag).partition(" ")[0]
        if vr != "SQ":
            found.append((tag, vr, _OWN.get(tag) or VALUES.get(vr, b"\0" * 4)))
        elif depth < _DEEPEST:
            found.append((tag, "SQ", [_required(inside, depth + 1)]))
    return found


def complete(sop_class: str) -> bytes:
    """A file with every attribute of type 1, 1C, 2 and 2C, three sequences deep."""
    return a_file(_required(types().classes[sop_class]), sop_class=sop_class)
