"""Values of HL7 data types as DICOM writes them: names, identifiers, codes, times (HL7 v2.5.1 chapter 2.A; PS3.5 6.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple

from hilum.order_events import Code, Identifier

from .message import Field

#: A repetition: components, each a list of subcomponents.
Repetition = Sequence[Sequence[str]]

#: What means: delete the value (2.5.3). An empty field means: no change.
DELETE = '""'

#: Characters of a component group of a PN (PS3.5 6.2).
LONGEST_GROUP = 64

_TIME = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)?(?P<day>\d\d)?(?P<hour>\d\d)?(?P<minute>\d\d)?(?P<second>\d\d)?(\.(?P<fraction>\d{1,6})\d*)?"
    r"(?P<offset>[+-]\d{4})?\s*\Z"
)


class Moment(NamedTuple):
    """A time of HL7 as DICOM's DA and TM by the clocks of a place, and as a moment; None if the day is not known."""

    date: str
    time: str
    at: datetime | None


def component(repetition: Repetition, number: int, subcomponent: int = 1) -> str:
    """A component's value, counted from 1; empty if it is not there."""
    if number > len(repetition) or subcomponent > len(repetition[number - 1]):
        return ""
    return repetition[number - 1][subcomponent - 1].strip()


def person_name(field: Field) -> str:
    """A name of type XPN as PN (2.A.88; PS3.5 6.2.1). Ideographic and phonetic names are those with that representation code.

    HL7 has suffix before prefix, DICOM prefix before suffix. The legal name goes before others, such as a maiden name.
    """
    return _in_groups(field, first=1)


def physician_name(field: Field) -> str:
    """A name of type XCN as PN (2.A.86); its identifier is left out, unless there is nothing else: many senders write a name there."""
    return _in_groups(field, first=2) or (pn_safe(component(field[0], 1)) if field and not component(field[0], 1).isdigit() else "")


def fitting_name(name: str) -> str:
    """A PN of which each component group has at most 64 characters (PS3.5 6.2): suffix and prefix are left out, then given names.

    What is left is what it was, so that images with it are of the same name; a family name that is longer by itself is cut.
    """
    return "=".join(map(_fitting_group, name.split("="))) if len(name) > LONGEST_GROUP else name


def _fitting_group(group: str) -> str:
    parts = [*group.split("^"), "", "", "", ""][:5]
    for part in (4, 3, 2, 1):
        while len("^".join(parts).rstrip("^")) > LONGEST_GROUP and parts[part]:
            parts[part] = parts[part].rpartition(" ")[0] if part in (1, 2) else ""
    return "^".join(parts).rstrip("^")[:LONGEST_GROUP].rstrip(" ^")


def identifier_cx(repetition: Repetition, issuer: str = "") -> Identifier | None:
    """An identifier of type CX (2.A.14). `issuer` is whose it is if it does not say. None without a value."""
    value = component(repetition, 1)
    if not value or value == DELETE:
        return None
    namespace, universal, kind = (component(repetition, 4, number) for number in (1, 2, 3))
    return Identifier(
        value=value,
        issuer=namespace or ("" if universal else issuer),
        universal_id=universal,
        universal_id_type=kind,
        type=component(repetition, 5),
    )


def identifier_ei(repetition: Repetition, issuer: str = "", start: int = 1) -> Identifier | None:
    """An identifier of type EI (2.A.28) that begins at component `start`. As `identifier_cx`."""
    value, namespace, universal, kind = (component(repetition, number) for number in range(start, start + 4))
    if not value or value == DELETE:
        return None
    return Identifier(value=value, issuer=namespace or ("" if universal else issuer), universal_id=universal, universal_id_type=kind)


def code_of(repetition: Repetition, start: int = 1) -> Code | None:
    """A coded entry of type CE or CWE (2.A.13) of which the triplet begins at component `start`: 1, or 4 for the alternate one."""
    value, meaning, scheme = (component(repetition, number) for number in range(start, start + 3))
    if DELETE in (value, meaning) or not (value or meaning):
        return None
    return Code(value=value, meaning=meaning, scheme=scheme)


def moment_of(text: str, zone: tzinfo) -> Moment | None:
    """A time of type TS or DTM (2.A.77, 2.A.22): by the clocks of `zone` unless it has an offset. None if it is no time.

    DA and TM are by the clocks of `zone` in either case. Of two equal times when clocks are put back, the first is meant.
    """
    found = _TIME.match(text.strip())
    if found is None:
        return None
    if found["day"] is None:
        return Moment("", "", None)
    try:
        at = datetime(
            int(found["year"]),
            int(found["month"]),
            int(found["day"]),
            int(found["hour"] or 0),
            int(found["minute"] or 0),
            min(int(found["second"] or 0), 59),  # a leap second
            int((found["fraction"] or "").ljust(6, "0")),
            tzinfo=_offset(found["offset"]) or zone,
        )
        local = at.astimezone(zone)
        moment = at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    if found["hour"] is None:
        return Moment(f"{found['year']}{found['month']}{found['day']}", "", moment)
    return Moment(f"{local:%Y%m%d}", f"{local:%H%M%S}", moment)


def pn_safe(text: str) -> str:
    """`text` as part of a PN: without what separates there (PS3.5 6.2) and without control characters."""
    return " ".join("".join(" " if c in "^=\\" or ord(c) < 0x20 else c for c in text).split())


def _offset(text: str | None) -> timezone | None:
    if text is None:
        return None
    span = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(-span if text[0] == "-" else span)


def _in_groups(field: Field, first: int) -> str:
    """The component groups of a name; `first` is the component of the family name."""
    groups = {"A": "", "I": "", "P": ""}
    kinds = [(repetition, component(repetition, first + (6 if first == 1 else 8))) for repetition in field]
    legal = any(kind == "L" for _, kind in kinds)
    representation = 8 if first == 1 else 15
    for repetition, kind in kinds:
        if legal and kind not in ("L", ""):
            continue
        group = component(repetition, representation).upper()
        group = group if group in groups else "A"
        if not groups[group]:
            groups[group] = _group(repetition, first)
    return "=".join((groups["A"], groups["I"], groups["P"])).rstrip("=")


def _group(repetition: Repetition, first: int) -> str:
    family, given, middle, suffix, prefix = (
        "" if (value := component(repetition, number)) == DELETE else pn_safe(value) for number in range(first, first + 5)
    )
    return "^".join((family, given, middle, prefix, suffix)).rstrip("^")
