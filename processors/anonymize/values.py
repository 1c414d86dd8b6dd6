"""A decision applied to the value of an element, as it stands in the object: what it becomes, or that it goes.

Both engines use this, on the bytes of the value. Equal values under equal decisions become equal ones, whatever object they are in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from processors.anonymize.charsets import CONTROLS, Charset
from processors.anonymize.held import Held, HeldReason, shown
from processors.anonymize.identity import Subject
from processors.anonymize.options import Option
from processors.anonymize.profiles import is_profile
from processors.anonymize.pseudonyms import Pseudonyms, shifted_date, shifted_datetime
from processors.anonymize.rules import ICC_PROFILE, Act, Decision, Rules
from processors.anonymize.table import PRIVATE_CREATORS, SIZES, least_of, longest_of
from processors.anonymize.vrs import FREE, TEXTUAL
from processors.anonymize.words import cleaned

#: What says nothing, by VR; for anything else zeros.
DUMMIES: Mapping[str, bytes] = {
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT", "CS", "AE"), b"REMOVED "),
    "PN": b"REMOVED ",
    "DA": b"19000101",
    "TM": b"000000",
    "DT": b"19000101000000",
    "AS": b"000Y",
    "DS": b"0 ",
    "IS": b"0 ",
    "UR": b"about:blank ",
    "US": b"\0" * 2,
    "SS": b"\0" * 2,
    "US or SS": b"\0" * 2,
    "UL": b"\0" * 4,
    "SL": b"\0" * 4,
    "FL": b"\0" * 4,
    "AT": b"\0" * 4,
    "FD": b"\0" * 8,
    "UV": b"\0" * 8,
    "SV": b"\0" * 8,
    "OV": b"\0" * 8,
    "OD": b"\0" * 8,
    "OF": b"\0" * 4,
    "OL": b"\0" * 4,
}
_OTHER_DUMMY = b"\0\0"
#: Of LongCodeValue, which has more than 16 characters (PS3.3 8.1).
_LONG_CODE, _LONG_DUMMY = 0x00080119, b"REMOVED FROM THIS OBJECT"

#: What a value of a VR looks like, padding and several values included (PS3.5 6.2). Longer numbers than the standard allows are common.
GRAMMAR: Mapping[str, re.Pattern[bytes]] = {
    "CS": re.compile(rb"(?:[A-Z0-9_ ]{0,17}\\)*[A-Z0-9_ ]{0,17}\0?"),
    # Of many a header every other element is one of these. A sign or a space after a digit is no number, nor is what has two points.
    "DS": re.compile(rb"[ +-]*+[0-9]*+\.?+[0-9]*+ *+(?:(?:\\[ +-]*+|[eE][+-]?)[0-9]*+\.?+[0-9]*+ *+)*\0?"),
    "IS": re.compile(rb"[ +-]*+[0-9]*+ *+(?:\\[ +-]*+[0-9]*+ *+)*\0?"),
    "UI": re.compile(rb"(?:(?:[0-9]+(?:\.[0-9]+)*)?\\)*(?:[0-9]+(?:\.[0-9]+)*)?[\0 ]?"),
    "AS": re.compile(rb"(?:[0-9]{3}[DWMY])?[ \0]?"),
}
#: A TM that stays as it is, padding included.
TIME = re.compile(rb"(?:[01][0-9]|2[0-3])(?::?[0-5][0-9](?::?(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?[ \0]*")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z", re.ASCII)
_TM = re.compile(r"([01]\d|2[0-3])(:?[0-5]\d(:?([0-5]\d|60)(\.\d{1,6})?)?)?\Z", re.ASCII)
_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d\Z", re.ASCII)
_OLDEST_YEARS = 89
#: Bytes of text that is cleaned, each word of which is looked at; what is longer goes, as if it could not be.
_MOST_CLEANED = 2**20
_MOST_PSEUDONYM = 16
#: Bytes of dates that are remembered with what became of them.
_LONGEST_REMEMBERED = 64

_DATE_FIX = "Correct the date at the sender, or use a policy without dates."


#: What is done alike for all patients of a project, whatever names their objects have.
_OF_PROJECT = frozenset(
    {Act.REMOVE, Act.EMPTY, Act.DUMMY, Act.UID, Act.ACCESSION, Act.TEXT, Act.AGE, Act.CHECK, Act.KEEP, Act.OVERLAY, Act.HOLD}
)


def is_of_patient(decision: Decision) -> bool:
    """Whether what a value becomes depends on the patient, or on names in the object: coded strings that are none are cleaned."""
    return decision.act not in _OF_PROJECT or (decision.act is Act.CHECK and decision.vr == "CS")


class Values:
    """What values of one object become."""

    __slots__ = ("_creators", "_days", "_full", "_names", "_subject", "_words", "pseudonyms")

    def __init__(self, rules: Rules, pseudonyms: Pseudonyms, subject: Subject, names: frozenset[str]) -> None:
        """`names` are the words of people's names in the object, in lower case."""
        self.pseudonyms = pseudonyms
        self._subject = subject
        self._names = names
        self._words = rules.words
        self._creators = rules.creator_names
        self._full = Option.RETAIN_FULL_DATES in rules.options
        self._days: int | None = None

    def of(self, decision: Decision, raw: bytes, charset: Charset) -> bytes | None:
        """The value instead of `raw`, padded to even length; `raw` itself if it stays; None if the element goes.

        Raises `Held`.
        """
        act = decision.act
        if act is Act.REMOVE:
            return None
        if decision.vr in FREE or decision.vr == "PN":
            charset.text(raw, decision.tag)  # whatever becomes of it: an object that lies about its text is not trusted
        if act is Act.UID:
            return self._uid(decision, raw)
        if act is Act.CLEAN:
            return self._clean(decision, raw, charset)
        if act is Act.EMPTY:
            return b""
        if act is Act.DUMMY:
            return _dummy(decision)
        if act is Act.CHECK:
            return self._checked(decision, raw, charset)
        if act is Act.DATE:
            return self._date(decision, raw)
        if act is Act.AGE:
            return self._age(decision, raw)
        if act is Act.PATIENT_ID:
            return _padded(self.pseudonyms.patient_id(self._subject).encode())
        if act is Act.PATIENT_NAME:
            return _padded(self.pseudonyms.patient_name(self._subject).encode())
        if act is Act.ACCESSION:
            return _padded(self.pseudonyms.accession_number(charset.text(raw, decision.tag)).encode())
        if act is Act.TEXT:
            text = charset.text(raw, decision.tag).strip(" \0")
            return _padded(self.pseudonyms.text(decision.keyword, text, _MOST_PSEUDONYM).encode()) or DUMMIES[decision.vr]
        if act is Act.OVERLAY:
            return self._overlay(decision, raw)
        if act is Act.KEEP:
            return self._sized(decision, raw)
        raise held_by(decision)

    def _uid(self, decision: Decision, raw: bytes) -> bytes:
        text = raw.decode("latin-1").rstrip("\0 ")
        if text in ("", "0"):  # a nought stands for none, and is nobody's
            return raw
        for each in text.split("\\"):
            if each and (len(each) > 64 or not _UID.match(each)):
                raise Held(
                    HeldReason.UID_INVALID,
                    "It is no UID (PS3.5 9.1), and might be anything.",
                    fix="Correct the object at its source and send it again.",
                    place=shown(decision.tag),
                )
        return self.pseudonyms.uid_value(text.encode("latin-1"))

    def _clean(self, decision: Decision, raw: bytes, charset: Charset) -> bytes | None:
        if len(raw) > _MOST_CLEANED:
            return self._otherwise(decision)
        text = charset.text(raw, decision.tag)
        if decision.vr in ("LT", "ST", "UT"):
            new = cleaned(text.rstrip(" \0"), self._words, self._names)
        else:
            new = "\\".join(cleaned(part.strip(" \0"), self._words, self._names) for part in text.split("\\"))
        if not new.replace("\\", "").strip():
            return self._otherwise(decision) if text.strip(" \0\\") else b""
        return raw if new == text.rstrip(" \0") and not len(raw) & 1 else _padded(charset.bytes(new))

    def _checked(self, decision: Decision, raw: bytes, charset: Charset) -> bytes | None:
        vr = decision.vr
        if decision.tag == ICC_PROFILE:
            return raw if is_profile(raw) else self._otherwise(decision)
        if decision.tag in PRIVATE_CREATORS:
            return raw if charset.text(raw, decision.tag).strip(" \0") in self._creators else self._otherwise(decision)
        grammar = GRAMMAR.get(vr)
        if grammar is not None:
            if grammar.fullmatch(raw):
                return raw
            if vr == "CS" and decision.private is None:
                return self._clean_codes(decision, raw)
            trimmed = _trimmed(raw)
            return trimmed if grammar.fullmatch(trimmed) else self._otherwise(decision)
        if vr in TEXTUAL:
            if vr in FREE or vr == "PN":
                odd = bool(CONTROLS.search(charset.text(raw, decision.tag).rstrip("\0")))
            else:
                odd = not raw.isascii() or bool(CONTROLS.search(raw.decode("ascii").rstrip("\0")))
            return self._otherwise(decision) if odd else raw
        return self._sized(decision, raw)

    def _clean_codes(self, decision: Decision, raw: bytes) -> bytes | None:
        """Coded strings that are not (lower case, other characters): those that are plain words stay.

        An attribute that is required keeps as many values as it must have, or is none: ImageType two, Modality one.
        """
        if not raw.isascii():
            return self._otherwise(decision)
        parts = [
            part if GRAMMAR["CS"].fullmatch(part.encode()) else cleaned(part.strip(), self._words, self._names)
            for part in raw.decode("ascii").rstrip(" \0").split("\\")
        ]
        if decision.otherwise is Act.HOLD and not all(parts[: least_of(decision.tag)]):
            return self._otherwise(decision)
        new = "\\".join(parts)
        return _padded(new.encode()) if new.replace("\\", "") else self._otherwise(decision)

    def _sized(self, decision: Decision, raw: bytes) -> bytes | None:
        size = SIZES.get(decision.vr)
        if size is None:
            return raw
        if decision.private is not None:
            if len(raw) % size:
                raise held_by(decision)
            return raw
        if len(raw) % size == 0 and len(raw) <= longest_of(decision.tag):
            return raw
        sentence = f"Its length is none that {decision.vr} can have here (PS3.6), so it may hold something else."
        raise Held(HeldReason.VR_UNEXPECTED, sentence, fix="Correct the object at its source.", place=shown(decision.tag))

    def _date(self, decision: Decision, raw: bytes) -> bytes:
        moved = _moved if len(raw) <= _LONGEST_REMEMBERED else _moved.__wrapped__
        new = moved(decision.vr, raw, self._days_of(decision))
        if new is None:
            raise self._no_date(decision)
        return new

    def _days_of(self, decision: Decision) -> int:
        """By how many days a value of it moves: times of day do not."""
        if self._full or decision.code == "K" or decision.vr not in ("DA", "DT"):
            return 0
        if self._days is None:
            self._days = self.pseudonyms.days(self._subject)
        return self._days

    def _no_date(self, decision: Decision) -> Held:
        sentence = f"It is no value of {decision.vr} (PS3.5 6.2), so it can be neither moved nor kept."
        return Held(HeldReason.DATE_INVALID, sentence, fix=_DATE_FIX, place=shown(decision.tag))

    def _age(self, decision: Decision, raw: bytes) -> bytes | None:
        if not GRAMMAR["AS"].fullmatch(raw):
            return self._otherwise(decision)
        text = raw.decode("ascii").rstrip(" \0")
        return b"090Y" if text.endswith("Y") and int(text[:3]) > _OLDEST_YEARS else raw

    @staticmethod
    def _overlay(decision: Decision, raw: bytes) -> None:
        """An overlay at a bit position above 0 is in the unused bits of the pixels (retired, PS3.3 C.9.2), and would stay there."""
        if raw.strip(b"\0"):
            raise Held(
                HeldReason.OVERLAY,
                "It has an overlay in the unused bits of its pixels, which stay as they are.",
                fix="Have the overlay taken out of the pixels first, or leave such objects out.",
                place=shown(decision.tag),
            )

    def _otherwise(self, decision: Decision) -> bytes | None:
        if decision.otherwise is Act.REMOVE:
            return None
        if decision.otherwise is Act.EMPTY:
            return b""
        if decision.otherwise is Act.DUMMY:
            return _dummy(decision)
        raise held_by(decision)


@lru_cache(maxsize=8192)
def _moved(vr: str, raw: bytes, days: int) -> bytes | None:
    """Dates or times of a VR, moved by whole days, padded; None if one is no value of it. Objects of a series have the same ones."""
    if not raw.isascii():
        return None
    text = raw.decode("ascii").rstrip(" \0")
    if not text.strip():
        return b""
    moved = [_one_moved(vr, part.strip(), days) for part in text.split("\\")]
    if None in moved:
        return None
    new = "\\".join(part or "" for part in moved)
    return raw if new == text and not len(raw) & 1 else _padded(new.encode())


def _one_moved(vr: str, text: str, days: int) -> str | None:
    if not text:
        return ""
    if vr in ("DA", "DT"):
        return (shifted_date if vr == "DA" else shifted_datetime)(text, days)
    return text if (_TM if vr == "TM" else _OFFSET).match(text) else None


def held_by(decision: Decision) -> Held:
    """Why there is no object, by a decision to hold it."""
    place, sentence, fix = shown(decision.tag), decision.why, "Correct the object at its source and send it again."
    if decision.private is not None:
        sentence = f"The element is not what the creator of its block makes it: its value is none of {decision.vr}."
        fix = "Take it out of the policy's private elements, or have the sender corrected."
        return Held(HeldReason.PRIVATE_CREATOR, sentence, fix=fix, place=place)
    if decision.vr == "UI" and decision.act is not Act.HOLD:
        return Held(HeldReason.UID_INVALID, "It is no UID (PS3.5 9.1), and might be anything.", fix=fix, place=place)
    if decision.reason is HeldReason.VALUE_MALFORMED:
        sentence = f"Its value is none of {decision.vr} (PS3.5 6.2), and an object of its class is invalid without one."
    elif decision.reason is HeldReason.POLICY:
        fix = "Take the line out of the policy's attributes, or leave objects of its class out of what goes to this destination."
    return Held(decision.reason, sentence, fix=fix, place=place)


def _trimmed(raw: bytes) -> bytes:
    """Numbers as text without what stands around each and says nothing."""
    value = b"\\".join(each.strip(b" \0\t\r\n") for each in raw.split(b"\\"))
    return value + b" " if len(value) & 1 else value


def _dummy(decision: Decision) -> bytes:
    return _LONG_DUMMY if decision.tag == _LONG_CODE else DUMMIES.get(decision.vr, _OTHER_DUMMY)


def _padded(value: bytes) -> bytes:
    return value + b" " if len(value) & 1 else value
