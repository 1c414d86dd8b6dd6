"""What is known of an element by the first bytes of its head, at its place: what the walk does when it meets them again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from processors.anonymize.held import shown
from processors.anonymize.rules import Act, Decision, Level
from processors.anonymize.source import truncated, unreadable
from processors.anonymize.table import PRIVATE_CREATORS, SIZES, longest_of
from processors.anonymize.values import GRAMMAR, TIME
from processors.anonymize.vrs import FREE, TEXTUAL

#: Explicit VRs by their bytes, and whether their length has 32 bits (PS3.5 7.1.2).
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM"} | {
    b"UI",
    b"UL",
    b"US",
}
VRS = {code: code.decode() for code in LONG | SHORT}
#: Text that reads the same in every character set, and is nothing but text.
PLAIN = re.compile(rb"[\x20-\x7e\r\n\t\f]*\0*")

#: What is done in the walk with an element whose head was met before.
KEEP, MATCH, LATER, GO, CARE, PRIVATE = range(6)
#: Asked for after the walk, of the top level.
PATIENT_ID, ISSUER, QUALIFIERS, STUDY, SERIES, SOP_INSTANCE, SOP_CLASS = (
    0x00100020,
    0x00100021,
    0x00100024,
    0x0020000D,
    0x0020000E,
    0x00080018,
    0x00080016,
)
WANTED = frozenset({PATIENT_ID, ISSUER, QUALIFIERS, STUDY, SERIES, SOP_INSTANCE, SOP_CLASS})


class Entry(NamedTuple):
    """What is known of an element by the first bytes of its head, at a place."""

    how: int
    tag: int
    decision: Decision
    #: Where its value begins after its head.
    value_at: int
    match: Callable[[Any, int, int], object] | None
    #: Its VR as it is to be written, `b""` in implicit VR.
    vr: bytes


def entry_of(head: bytes, level: Level, *, explicit: bool) -> Entry:
    """Look up what becomes of an element with this head. Raises `Held` if the head is none."""
    if len(head) < 4:
        raise truncated()
    tag = int.from_bytes(head[0:2], "little") << 16 | int.from_bytes(head[2:4], "little")
    if tag >> 16 == 0xFFFE:
        return Entry(CARE, tag, level.decide(tag, ""), 8, None, b"")
    vr, value_at = "", 8
    if explicit:
        code = head[4:6]
        vr = VRS.get(code, "")
        if not vr:
            raise unreadable("It has no VR that is known, so its length is not known either.", shown(tag))
        value_at = 12 if code in LONG else 8
    if tag >> 16 & 1:
        decision = level.decide(tag, "")
        return Entry(PRIVATE if level.rules.private else GO, tag, decision, value_at, None, vr.encode())
    decision = level.decide(tag, vr)
    how, match = _how(decision)
    if tag == QUALIFIERS or (vr == "SQ" and how != GO):
        how = CARE
    elif how != CARE and ((not level.depth and tag in WANTED) or decision.vr == "PN"):
        how = LATER
    return Entry(how, tag, decision, value_at, match, _written(vr, decision) if explicit else b"")


def _how(decision: Decision) -> tuple[int, Callable[[Any, int, int], object] | None]:
    """What the walk does with elements of this decision."""
    act, vr = decision.act, decision.vr
    if act is Act.REMOVE:
        return GO, None
    if vr == "SQ" or act in (Act.HOLD, Act.CHARACTER_SET):
        return CARE, None
    if act is Act.CHECK and decision.tag not in PRIVATE_CREATORS:
        grammar = GRAMMAR.get(vr)
        if grammar is not None:
            return MATCH, grammar.fullmatch
        return (MATCH, PLAIN.fullmatch) if vr in TEXTUAL else (LATER, None)
    if act is Act.KEEP:
        return (MATCH, _numbers(SIZES[vr], longest_of(decision.tag))) if vr in SIZES else (KEEP, None)
    if act is Act.DATE and vr == "TM":
        return MATCH, _is_time  # times of day are not moved, and differ in each object of a series
    return LATER, None


def _is_time(data: Any, start: int, stop: int) -> bool:
    return not (stop - start) & 1 and TIME.fullmatch(data, start, stop) is not None


def _numbers(size: int, longest: int) -> Callable[[Any, int, int], object]:
    return lambda _, start, stop: (stop - start) % size == 0 and stop - start <= longest


def _written(vr: str, decision: Decision) -> bytes:
    """The VR under which a new value is written: the element's own, unless that says nothing or cannot hold it."""
    standard = decision.vr.partition(" ")[0]
    textual = vr in FREE or vr == decision.vr
    return (vr if textual or not standard else standard).encode() if vr else b""
