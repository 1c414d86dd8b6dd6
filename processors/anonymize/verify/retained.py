"""What may be within a UID that a policy keeps: systems make UIDs of a root, the patient's number and a date.

Of the original's values that tell, only those count that a UID by chance does not have: the patient's identifiers and accession numbers of
five digits or more, and the birth date. Days and times of the study are in most UIDs, and are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from functools import lru_cache

from msgspec import Struct
from pydicom.datadict import tag_for_keyword

from processors.anonymize.verify.dates import day_of
from processors.anonymize.verify.facts import Fact
from processors.anonymize.verify.identifying import DATE, ID

#: 0: what the caller knows of the patient.
_TAGS = frozenset({0, *map(tag_for_keyword, ("PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID"))})
#: A number of so many digits counts as a whole component, at its beginning or end, and anywhere in it: components have up to 39 digits.
_WHOLE, _EDGE, _ANYWHERE = 5, 6, 8
_LONGEST = 64
_NO_DIGITS = re.compile(rb"[^0-9]+")


class Within(Struct, frozen=True):
    """A value as it may stand in a UID."""

    kind: str
    #: One of these is in UIDs that the pattern is in.
    hints: tuple[bytes, ...]
    pattern: bytes


def within_uids(facts: Iterable[Fact], birth: Set[bytes], other_days: Set[bytes]) -> tuple[Within, ...]:
    """What is to be looked for, of an original's values; days are written as a DA. Whoever is born on the day of the study hides none."""
    numbers = {number for fact in facts if fact.kind == ID and fact.tag in _TAGS for number in _numbers(fact.value)}
    numbers -= birth | other_days
    return (*map(_number, sorted(numbers)), *map(_birth_date, sorted(birth - other_days)))


def _numbers(value: bytes) -> Iterator[bytes]:
    for each in value.split(b"\\"):
        digits = _NO_DIGITS.sub(b"", each.split(b"^")[0]).lstrip(b"0")
        if _WHOLE <= len(digits) <= _LONGEST and len(set(digits)) > 1 and (len(digits) > _WHOLE or digits[-2:] != b"00"):
            yield digits


def _number(digits: bytes) -> Within:
    if len(digits) >= _ANYWHERE:
        pattern = digits
    elif len(digits) >= _EDGE:
        pattern = b"(?<![0-9])%b|%b(?![0-9])" % (digits, digits)
    else:
        pattern = b"(?<![0-9])%b(?![0-9])" % digits
    return Within(ID, (digits,), pattern)


def _birth_date(written: bytes) -> Within:
    born = day_of(written)
    assert born is not None
    year, month, day = written[:4], written[4:6], written[6:]
    compact = (written, day + month + year, month + day + year)
    apart = [b"%d.%d.%d" % each for each in ((born.year, born.month, born.day), (born.day, born.month, born.year))]
    patterns = [*compact, *(b"(?<![0-9])%b(?![0-9])" % each.replace(b".", rb"\.") for each in apart)]
    return Within(DATE, (*compact, *apart), b"|".join(patterns))


def kinds_within(uids: bytes, looked_for: tuple[Within, ...]) -> Iterator[str]:
    """The kinds of what is in UIDs, which stand apart by anything but digits and dots."""
    for each in looked_for:
        if any(hint in uids for hint in each.hints) and _compiled(each.pattern).search(uids) is not None:
            yield each.kind


_compiled = lru_cache(maxsize=512)(re.compile)
