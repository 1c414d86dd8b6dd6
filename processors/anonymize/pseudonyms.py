"""Pseudonyms: what takes the place of identifiers, the same each time, and nobody without the key can tell whose it is.

Everything is HMAC-SHA-256 (RFC 2104) of a normalised value with a key of the project, which comes from the site's key and the project's
name (`domain`). So for one key and project they are equal across studies, modalities, HL7 and machines, and nothing of one project can be
joined with anything of another. Nothing is remembered, so nothing can be lost, be out of step, or be stolen but the key.

What a pseudonym is made of, and its form, never change: tests hold fixed values.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from datetime import date, timedelta
from functools import lru_cache
from itertools import chain

from msgspec import Struct
from pydicom._uid_dict import UID_dictionary

from hilum.errors import Misconfigured
from processors.anonymize.identity import Subject
from processors.anonymize.keys import Key

#: Characters of a PatientID or an accession number (SH, PS3.5 6.2): 80 bits.
LENGTH = 16
#: RFC 4648 base 32 without what people take for something else (Crockford): no I, L, O, U.
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: SOP classes that are newer than pydicom's list: segmentations as label maps and height maps, presentation states of waveforms.
_NEWER = frozenset(f"1.2.840.10008.5.1.4.1.1.{suffix}" for suffix in ("66.7", "66.8", "9.100.1", "9.100.2"))
#: What PS3.6 registers; any other UID, of the same root too, may be somebody's own.
_STANDARD = _NEWER.union(UID_dictionary)
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_MOST_DAYS = 36_500

_DA = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)\Z", re.ASCII)
_DT = re.compile(
    r"(?P<year>\d{4})((?P<month>\d\d)((?P<day>\d\d)(?P<time>([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?)?)?)?"
    r"(?P<offset>[+-](0\d|1[0-4])[0-5]\d)?\Z",
    re.ASCII,
)


class Shift(Struct, frozen=True):
    """How far dates of a patient may move, in days; both ends may be. Before zero is earlier; no patient's dates stay where they are."""

    #: Ten years back at most: later than now would be a date that receivers refuse.
    earliest: int = -3650
    latest: int = -1

    def __post_init__(self) -> None:
        if not -_MOST_DAYS <= self.earliest <= self.latest <= _MOST_DAYS or self.earliest == self.latest == 0:
            raise ValueError(f"`earliest` and `latest` are days from -{_MOST_DAYS} to {_MOST_DAYS} in order, not both 0")


class Link(Struct, frozen=True):
    """Two pseudonyms of which one patient became one: what left stays as it is, and this says that they belong together."""

    prior: str
    surviving: str


class Pseudonyms:
    """The pseudonyms of one project under one key. Raises `Misconfigured` if `domain` is no name."""

    def __init__(self, key: Key, domain: str, shift: Shift = Shift()) -> None:  # noqa: B008  # frozen
        if not _DOMAIN.match(domain):
            raise Misconfigured(
                "project-malformed",
                "A project's name is 1 to 64 letters, digits, dots, underscores and hyphens, and begins with a letter or digit.",
                fix="Correct `project` in the policy.",
            )
        self.key_id = key.id
        self.domain = domain
        #: Keyed once: to copy it takes a third of the time of keying another one.
        self._keyed = hmac.new(hmac.digest(key.secret, b"hilum pseudonyms 1\0" + domain.encode(), "sha256"), digestmod="sha256")
        self._shift = shift
        #: An object asks for the same ones several times, and so do the other objects of its study.
        self.uid = lru_cache(maxsize=8192)(self._uid)
        self.text = lru_cache(maxsize=4096)(self._text)
        self.patient_id = lru_cache(maxsize=1024)(self._patient_id)
        self.days = lru_cache(maxsize=1024)(self._days)

    def __repr__(self) -> str:
        return f"Pseudonyms({self.key_id}, {self.domain})"

    def _patient_id(self, subject: Subject) -> str:
        """PatientID: 16 digits and capital letters, at which no two patients meet (80 bits)."""
        return self._characters("patient", subject.patient, LENGTH)

    def patient_name(self, subject: Subject) -> str:
        """PatientName as PN: the PatientID's pseudonym as family name. Never of the name, which people misspell and change."""
        return f"{self.patient_id(subject)}^PSEUDONYM"

    def accession_number(self, value: str, issuer: str = "") -> str:
        """AccessionNumber: 16 digits and capital letters (SH, PS3.5 6.2); `""` for an empty one.

        Such numbers are unique within their issuer only. Give `issuer` everywhere or nowhere: in DICOM and in HL7.
        """
        number = _tidy(value)
        return self._characters("accession", f"{_tidy(issuer).casefold()}\x1f{number}", LENGTH) if number else ""

    def _uid(self, uid: str) -> str:
        """`2.25.` and a UUID of version 8 (RFC 9562 5.8) as a number (PS3.5 B.2), at most 44 characters; standard UIDs as they are.

        UIDs that PS3.6 registers mean the same to everybody and are never mapped; others that only begin like them are. `""` for an empty
        one. The UUID's 128 bits are of the HMAC but for the six that say what it is: PS3.5 B.2 asks for a UUID, and receivers take any
        number of 128 bits.
        Whatever is not a UID is mapped as text: whether it may leave is for the policy to say.
        """
        value = uid.strip(" \0\t\r\n")
        if not value or value in _STANDARD:
            return value
        number = int.from_bytes(self._digest("uid", value)[:16], "big")
        number = number & ~(0xF << 76) | 8 << 76
        number = number & ~(0x3 << 62) | 2 << 62
        return f"2.25.{number}"

    def uid_value(self, raw: bytes) -> bytes:
        """The value of an element of VR UI, of one or more UIDs, encoded with its padding (PS3.5 9.1), with each as `uid` gives it."""
        text = raw.decode("latin-1")
        value = "\\".join([self.uid(each) for each in text.split("\\")]) if "\\" in text else self.uid(text)
        return value.encode("latin-1") + b"\0" * (len(value) & 1)

    def _text(self, kind: str, value: str, length: int = LENGTH) -> str:
        """Of any other identifier, such as a serial number: `length` digits and capital letters, 51 at most; `""` for an empty one.

        `kind` keeps equal values of different meaning apart, such as the attribute's keyword.
        """
        tidy = _tidy(value)
        return self._characters(f"text\x1f{kind}", tidy, length) if tidy else ""

    def _days(self, subject: Subject) -> int:
        """How many days all dates of the patient move: the same for each of them, so that intervals stay. Never 0."""
        first, last = self._shift.earliest, self._shift.latest
        among = last - first + 1 - (first <= 0 <= last)
        days = first + int.from_bytes(self._digest("days", subject.patient)[:16], "big") % among
        return days + 1 if first <= 0 <= days else days

    def date(self, subject: Subject, value: str) -> str | None:
        """A DA of the patient, moved; see `shifted_date`."""
        return shifted_date(value, self.days(subject))

    def datetime(self, subject: Subject, value: str) -> str | None:
        """A DT, or a time of HL7, of the patient, moved; see `shifted_datetime`."""
        return shifted_datetime(value, self.days(subject))

    def link(self, prior: Subject, surviving: Subject) -> Link:
        """What a merge after the fact says to those who have objects of both: nothing that left is rewritten."""
        return Link(self.patient_id(prior), self.patient_id(surviving))

    def _digest(self, kind: str, value: str) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(f"{kind}\x1f{value}".encode("utf-8", "surrogatepass"))
        return keyed.digest()

    def _characters(self, kind: str, value: str, length: int) -> str:
        if not 1 <= length <= 51:
            raise ValueError("a pseudonym has 1 to 51 characters")
        number = int.from_bytes(self._digest(kind, value), "big") >> 1  # 255 bits: 51 characters of 5
        return "".join([_DIGITS[number >> at & 31] for at in range(250, 250 - 5 * length, -5)])


def shifted_date(value: str, days: int) -> str | None:
    """A DA (PS3.5 6.2) moved by whole days; None if it is no date, or would leave the years 1 to 9999. `""` for an empty one.

    The form of ACR-NEMA, with dots, is taken and given back without.
    """
    text = value.strip(" \0")
    if not text:
        return ""
    found = _DA.match(text)
    moved = _moved(found[1], found[3], found[4], days) if found else None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}" if moved else None


def shifted_datetime(value: str, days: int) -> str | None:
    """A DT (PS3.5 6.2), or a TS or DTM of HL7 (v2.5.1 2.A.77, 2.A.22), moved by whole days; else as `shifted_date`.

    The time of day and the offset from UTC stay as they are, so that intervals are kept to the second, even across the days on which clocks
    are changed. Of a value without day, or without month, the first is taken, and the same precision given back.
    """
    text = value.strip(" \0")
    if not text:
        return ""
    found = _DT.match(text)
    moved = _moved(found["year"], found["month"] or "01", found["day"] or "01", days) if found else None
    if found is None or moved is None:
        return None
    parts = ((f"{moved.year:04d}", True), (f"{moved.month:02d}", found["month"]), (f"{moved.day:02d}", found["day"]))
    return "".join(chain((part for part, there in parts if there), (found["time"] or "", found["offset"] or "")))


def _moved(year: str, month: str, day: str, days: int) -> date | None:
    try:
        return date(int(year), int(month), int(day)) + timedelta(days)
    except (ValueError, OverflowError):
        return None


def _tidy(text: str) -> str:
    """Padding and spaces around mean nothing, nor does how letters are composed; all else does."""
    return unicodedata.normalize("NFC", text).strip(" \0\t\r\n")
