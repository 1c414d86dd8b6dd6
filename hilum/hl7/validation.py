"""Messages held against the grammar of their version, which is hl7apy's. Site segments (Z…) are allowed anywhere.

hl7apy takes some ten milliseconds for a message, so that this is done in other processes, or after the acknowledgement.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from msgspec import Struct

from .envelope import VERSIONS, Envelope, envelope_of
from .message import Message, NotHl7, parse

#: More findings of one message say nothing more.
MOST = 20
#: Events whose message has the structure of another one (v2.5.1 table 0354, v2.3.1 3.3): for messages that do not say theirs.
_STRUCTURES = {
    **dict.fromkeys(("ADT_A04", "ADT_A08", "ADT_A13"), "ADT_A01"),
    **dict.fromkeys(("ADT_A14", "ADT_A28", "ADT_A31"), "ADT_A05"),
    "ADT_A07": "ADT_A06",
    **dict.fromkeys(("ADT_A10", "ADT_A11", "ADT_A12", "ADT_A25", "ADT_A26", "ADT_A27"), "ADT_A09"),
    **dict.fromkeys(("ADT_A22", "ADT_A23", "ADT_A29", "ADT_A32", "ADT_A33"), "ADT_A21"),
    **dict.fromkeys(("ADT_A34", "ADT_A35", "ADT_A36", "ADT_A46", "ADT_A47", "ADT_A48", "ADT_A49"), "ADT_A30"),
    **dict.fromkeys(("ADT_A40", "ADT_A41", "ADT_A42"), "ADT_A39"),
    "ADT_A44": "ADT_A43",
    "ADT_A51": "ADT_A50",
    "ADT_A53": "ADT_A52",
    **{f"SIU_S{number}": "SIU_S12" for number in (*range(13, 25), 26)},
    **{f"MDM_T{number:02}": "MDM_T01" for number in (3, 5, 7, 9, 11)},
    **{f"MDM_T{number:02}": "MDM_T02" for number in (4, 6, 8, 10)},
}
_MISSING = re.compile(r"Missing required child (\S+)\.(\S+)")
_TOO_MANY = re.compile(r"Child limit exceeded (\S+)\.(\S+)")
_TOO_LONG = re.compile(r"Exceeded max length \((\d+)\) of (\S+)\.(\S+)")
_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})_(\d+)\Z")


class Fault(Struct, frozen=True):
    """What the grammar does not allow: a code of ours, a condition of table 0357, where, and a sentence without values."""

    code: str
    condition: str
    sentence: str
    segment: str = ""
    field: int = 0
    #: Of one that is not `grave`, a message can be used in spite.
    grave: bool = True

    @property
    def path(self) -> str:
        """Such as `PID-3` or `PID`; empty if it is the whole message."""
        return f"{self.segment}-{self.field}" if self.field else self.segment


def validated(text: str) -> list[Fault]:
    """What the grammar of its version does not allow in a message; each once, and `MOST` of them."""
    try:
        message = parse(text)
    except NotHl7 as error:
        return [Fault("unreadable", error.code, str(error), error.segment, error.field)]
    found = list(_envelope(envelope_of(message)))
    if not any(fault.code in ("version-unknown", "message-unknown") for fault in found):
        found += _grammar(message, envelope_of(message))
    return list(dict.fromkeys(found))[:MOST]


def structure_of(version: str, code: str, trigger: str, structure: str) -> str:
    """The name of the message's structure in the grammar of a version; empty if it has none."""
    known = _library(version)["Message"]
    by_event = f"{code}_{trigger}" if trigger else code
    return next((name for name in (structure, by_event, _STRUCTURES.get(by_event, ""), code) if name and name in known), "")


def _envelope(envelope: Envelope) -> Iterator[Fault]:
    """What MSH must say (2.15.9)."""
    if not envelope.code:
        yield Fault("message-type-missing", "101", "MSH-9 does not say which message it is.", "MSH", 9)
    if not envelope.control_id:
        yield Fault("control-id-missing", "101", "MSH-10, the control id, is empty.", "MSH", 10)
    if not envelope.processing_id and envelope.version > "2.1":
        yield Fault("processing-id-missing", "101", "MSH-11, the processing id, is empty.", "MSH", 11)
    if envelope.version not in VERSIONS:
        yield Fault("version-unknown", "203", "MSH-12 names no version for which there is a grammar.", "MSH", 12)
    elif envelope.code and not structure_of(envelope.version, envelope.code, envelope.trigger, envelope.structure):
        codes = {name.partition("_")[0] for name in _library(envelope.version)["Message"]}
        event = envelope.code in codes
        sentence = f"MSH-9 names an {'event' if event else 'message'} that version {envelope.version} does not have."
        yield Fault("message-unknown", "201" if event else "200", sentence, "MSH", 9)


def _grammar(message: Message, envelope: Envelope) -> Iterator[Fault]:
    structure = structure_of(envelope.version, envelope.code, envelope.trigger, envelope.structure)
    if not structure:
        return
    segments, allowed = _library(envelope.version)["Segment"], _segments_of(envelope.version, structure)
    for segment in message.all:
        if segment.name not in segments and segment.name[0] != "Z":
            yield Fault("segment-unknown", "100", f"Version {envelope.version} has no segment {segment.name}.", segment.name)
        elif segment.name not in allowed and segment.name[0] != "Z":
            yield Fault("segment-not-allowed", "100", f"{segment.name} is no segment of {structure}.", segment.name)
    for line in _report(message, envelope, structure):
        if fault := _fault(line, envelope.version):
            yield fault


def _report(message: Message, envelope: Envelope, structure: str) -> list[str]:
    """The lines of hl7apy's report on a message."""
    from hl7apy.consts import VALIDATION_LEVEL  # with its tables, which not every process needs
    from hl7apy.exceptions import HL7apyException
    from hl7apy.parser import parse_message
    from hl7apy.validation import Validator

    delimiters = message.delimiters
    header = message.all[0].raws()
    header += [""] * (10 - len(header))
    header[9] = delimiters.component.join([envelope.code, envelope.trigger, structure])
    lines = [delimiters.field.join([header[0], *header[2:]]), *(each.text.replace("\n", " ") for each in message.all[1:])]
    with _file() as path:
        try:
            read: Any = parse_message("\r".join(lines), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True)
            Validator.validate(read, report_file=path)
        except HL7apyException:
            pass  # the first of those that are in the file
        except Exception as error:  # its parser meets what nobody foresaw; that must not stop a message
            return [f"Error: unreadable ({type(error).__name__})"]
        with open(path, encoding="utf-8", errors="replace") as report:  # noqa: PTH123  # a path of the system's
            return report.read().splitlines()


def _fault(line: str, version: str) -> Fault | None:
    """What one line of the report says, without the values in it."""
    if found := _MISSING.search(line):
        return None if _is_choice(found[1], version) else _of_child(found[2], "missing", "101", "is missing")
    if found := _TOO_MANY.search(line):
        return None if _is_twice(found[1], found[2], version) else _of_child(found[2], "repeated", "198", "comes more often than it may")
    if found := _TOO_LONG.search(line):
        return _of_child(
            found[3] if _PLACE.match(found[3]) else found[2], "long", "104", f"is longer than {found[1]} characters", grave=False
        )
    if line.startswith("Error: Invalid children"):
        return Fault("not-allowed", "100", "Something is where the grammar does not allow it.")
    if line.startswith("Error: Datatype"):
        return Fault("data-type", "102", "A value has another data type than the grammar says.")
    if line.startswith("Error: "):
        return Fault("grammar", "199", "The message does not have the form that its version says.")
    return None  # a value that is not in HL7's tables: sites have their own


def _of_child(child: str, code: str, condition: str, says: str, *, grave: bool = True) -> Fault:
    place = _PLACE.match(child)
    if place is not None:
        return Fault(f"field-{code}", condition, f"{place[1]}-{place[2]} {says}.", place[1], int(place[2]), grave)
    if len(child) == 3:
        return Fault(f"segment-{code}", "100" if code == "missing" else condition, f"The segment {child} {says}.", child, grave=grave)
    return Fault(f"part-{code}", condition, f"{child} {says}.", grave=grave)


def _is_choice(name: str, version: str) -> bool:
    """Whether one of a group's children is enough: hl7apy asks for all of them."""
    group = _library(version)["Group"].get(name)
    return group is not None and group[0] == "choice"


def _is_twice(parent: str, child: str, version: str) -> bool:
    """Whether a structure has a segment in two places, such as PID in ADT_A24: hl7apy counts them as one."""
    library = _library(version)
    structure = library["Message"].get(parent) or library["Group"].get(parent)
    return structure is not None and sum(each[0] == child for each in structure[1]) > 1


@lru_cache(maxsize=256)
def _segments_of(version: str, structure: str) -> frozenset[str]:
    """Names of all segments of a structure, also within groups."""
    found: set[str] = set()

    def walk(reference: Any) -> None:
        for child in reference[1]:
            if child[3] == "SEG":
                found.add(child[0])
            elif child[3] == "GRP":
                walk(child[1])

    walk(_library(version)["Message"][structure])
    return frozenset(found | {"MSH", "SFT", "UAC", "DSC"})


@lru_cache(maxsize=16)
def _library(version: str) -> dict[str, Any]:
    import hl7apy

    found: dict[str, Any] = hl7apy.load_library(version).ELEMENTS
    return found


@contextmanager
def _file() -> Iterator[str]:
    """A file in memory: hl7apy's report has values in it, which must not reach a disk."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("report")
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
        return
    with tempfile.NamedTemporaryFile() as file:
        yield file.name
