"""The values that identify: of an original, and of a patient as messages know them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeVar

from msgspec import Struct

from hilum.order_events import Patient
from processors.anonymize.verify.elements import Element
from processors.anonymize.verify.files import Data, Unreadable
from processors.anonymize.verify.identifying import (
    CODE_MEANING,
    CODE_VALUE,
    DATE,
    ID,
    MANUFACTURER,
    NAME,
    PATIENT_BIRTH_DATE,
    PERSONS,
    STANDARD_UIDS,
    UID,
    kind_of,
)
from processors.anonymize.verify.passages import MOST_TOGETHER, Passage
from processors.anonymize.verify.reading import Reader
from processors.anonymize.verify.scope import Scope

#: Lanes: values that identify, UIDs, words that are in an output by nature, codes that may be a person's.
_FACT, _UID, _OWN, _CODE = 1, 2, 3, 4
#: As short ones stand for none.
_NO_UID = 3
_UTF_8 = b"ISO_IR 192"
T = TypeVar("T")


class Fact(Struct, frozen=True):
    """An identifying value: its kind, the tag it is from (0: none of the object), its bytes and character set."""

    kind: str
    tag: int
    value: bytes
    charset: bytes = b""


def facts_of(data: Data, scope: Scope) -> tuple[Fact, ...]:
    """What identifies in a Part 10 file, UIDs left out, but what `scope` keeps; nothing if the file cannot be read."""
    try:
        return tuple(identity_of(data, scope).facts)
    except Unreadable:
        return ()


def facts_of_patient(patient: Patient) -> tuple[Fact, ...]:
    """What identifies a patient: names, the birth date, identifiers, those of before included."""

    def found() -> Iterator[Fact]:
        for identifier in (*patient.ids, *patient.former_ids, *patient.linked_ids):
            yield Fact(ID, 0, identifier.value.encode("utf-8", "replace"), _UTF_8)
        if patient.name:
            yield Fact(NAME, 0, patient.name.encode("utf-8", "replace"), _UTF_8)
        if patient.birth_date:
            yield Fact(DATE, PATIENT_BIRTH_DATE, patient.birth_date.encode("utf-8", "replace")[:8])

    return tuple(dict.fromkeys(found()))


class Identity(Struct, frozen=True):
    """What identifies in a file or in a part of it, its UIDs, and what it says of maker and model."""

    facts: frozenset[Fact] = frozenset()
    uids: frozenset[bytes] = frozenset()
    own: frozenset[bytes] = frozenset()


def identity_of(data: Data, scope: Scope) -> Identity:
    """What identifies in a Part 10 file, but what `scope` keeps. Raises `Unreadable`."""
    new, *met = _reader.passages(data)
    return _joined([_identity(new.lanes or [], scope), _of_met(tuple(met), scope)])


@lru_cache(maxsize=MOST_TOGETHER)
def _of_met(passages: tuple[Passage, ...], scope: Scope) -> Identity:
    return _joined([passage.made(scope, lambda lanes: _identity(lanes, scope)) for passage in passages])


def _joined(some: list[Identity]) -> Identity:
    return Identity(_united([each.facts for each in some]), _united([each.uids for each in some]), _united([each.own for each in some]))


def _united(some: list[frozenset[T]]) -> frozenset[T]:
    """All of several sets; the very set if the others are empty, of which the hash is known then."""
    filled = [each for each in some if each]
    if len(filled) < 2:
        return filled[0] if filled else frozenset()
    return filled[0].union(*filled[1:])


def _identity(lanes: list[list[Element]], scope: Scope) -> Identity:
    keep = scope.keep
    found: set[Fact] = set()
    for path, seen, value, charset in lanes[_FACT]:
        if not value or seen.tag in keep or (path and not keep.isdisjoint(path)):
            continue
        kind, kept_with = kind_of(seen.tag, seen.vr)
        if kept_with and getattr(scope, kept_with):
            continue
        if kind == DATE:
            for day in value.split(b"\\"):
                found.add(Fact(kind, seen.tag, day[:10] if day[4:5] == b"." else day[:8]))
        else:
            found.add(Fact(kind, seen.tag, value, b"" if value.isascii() and b"\x1b" not in value else charset))
    for path, seen, value, charset in lanes[_CODE]:
        if not PERSONS.isdisjoint(path):
            found.add(Fact(ID if seen.tag == CODE_VALUE else NAME, 0, value, charset))
    uids: set[bytes] = set()
    if not scope.uids:
        for path, seen, value, _ in lanes[_UID]:
            if seen.tag in keep or (path and not keep.isdisjoint(path)) or (scope.device and kind_of(seen.tag, "UI")[1] == "device"):
                continue
            uids.update([uid for each in value.split(b"\\") if _tells(uid := each.strip(b" \0"))])
    own = frozenset([value.strip(b" \0").lower() for _, _, value, _ in lanes[_OWN]])
    return Identity(frozenset(found), frozenset(uids), own)


def _tells(uid: bytes) -> bool:
    """Whether it is one object's: `0` and the like stand for none, and standard UIDs are everybody's."""
    return len(uid) > _NO_UID and uid not in STANDARD_UIDS


def _plan(tag: int, vr: str) -> tuple[int, str]:
    kind, _ = kind_of(tag, vr)
    if kind == UID:
        return _UID, kind
    if kind:
        return _FACT, kind
    if tag in MANUFACTURER:
        return _OWN, ""
    return (_CODE, "") if tag in (CODE_VALUE, CODE_MEANING) else (0, "")


_reader = Reader(_plan, 5)
