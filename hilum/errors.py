"""What can stop an event, a command or a delivery: the type of the error decides what happens next.

`Quarantine` sets one thing aside for a person, `TryAgain` waits for something that is down, `Misconfigured` stops with
the fix in words. Their texts may name UIDs and settings, never a patient: they reach logs and screens.
"""

from __future__ import annotations

import copyreg
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why an instance waits in quarantine. The value is the code that events, tables and commands show."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    IDENTIFIER_MISSING = "identifier-missing"
    UID_INVALID = "uid-invalid"
    SOP_CLASS_MISMATCH = "sop-class-mismatch"
    SOP_INSTANCE_MISMATCH = "sop-instance-mismatch"
    INSTANCE_CONFLICT = "instance-conflict"
    INSTANCE_CORRECTED = "instance-corrected"
    INSTANCE_ELSEWHERE = "instance-elsewhere"
    PATIENT_DIFFERS = "patient-differs"
    STUDY_DIFFERS = "study-differs"
    FINDING_REFUSED = "finding-refused"
    RULE_FAILED = "rule-failed"
    PROCESSING_FAILED = "processing-failed"

    @property
    def meaning(self) -> str:
        """One sentence for the reference page."""
        return _MEANING[self][0]

    @property
    def fix(self) -> str:
        """What a person usually does about it."""
        return _MEANING[self][1]


_MEANING: dict[Reason, tuple[str, str]] = {
    Reason.UNREADABLE: (
        "The data set cannot be parsed as DICOM (PS3.5 7).",
        "Send the object again from its source; if it fails again, ask the sender's vendor with the stored object at hand.",
    ),
    Reason.TRUNCATED: (
        "The data set ends before an element that it announces is complete.",
        "Send the object again from its source.",
    ),
    Reason.IDENTIFIER_MISSING: (
        "StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID is absent or empty (PS3.3 C.7.2.1, C.7.3.1, C.12.1).",
        "Correct the object at its source and send it again.",
    ),
    Reason.UID_INVALID: (
        "A UID is longer than 64 characters or holds other characters than digits and single dots (PS3.5 9.1).",
        "Correct the object at its source and send it again.",
    ),
    Reason.SOP_CLASS_MISMATCH: (
        "The SOP class in the C-STORE command or in File Meta differs from SOPClassUID (0008,0016) in the data set (PS3.4 B.2.3).",
        "Have the sender's configuration checked: it announces one kind of object and sends another.",
    ),
    Reason.SOP_INSTANCE_MISMATCH: (
        "The SOP instance in the C-STORE command or in File Meta differs from SOPInstanceUID (0008,0018) in the data set.",
        "Have the sender's configuration checked: it announces one object and sends another.",
    ),
    Reason.INSTANCE_CONFLICT: (
        "Another object with the same SOPInstanceUID and other content is already here (PS3.5 9).",
        "Compare the two digests; keep the first, or have the source send the second under a UID of its own.",
    ),
    Reason.INSTANCE_CORRECTED: (
        "An object with the same SOPInstanceUID and the same pixels is already here, and its header says something else.",
        "Compare the two; set `corrections` of the sender to `take` or `ignore` if this is how it corrects.",
    ),
    Reason.INSTANCE_ELSEWHERE: (
        "Another object with the same SOPInstanceUID is already here in another study or series (PS3.5 9).",
        "Find out which study it belongs to; have the source send it under a UID of its own.",
    ),
    Reason.PATIENT_DIFFERS: (
        "The study has objects of another patient: PatientID or IssuerOfPatientID differ from its first object's.",
        "Have the wrong one corrected at its source; if both are right, set `studies.other_patient` to `note`.",
    ),
    Reason.STUDY_DIFFERS: (
        "Attributes of the study (PS3.3 C.7.2.1) differ from those of its first object.",
        "Have the wrong one corrected at its source, or set `studies.differs` to `note`.",
    ),
    Reason.FINDING_REFUSED: (
        "The object has a finding that its sender's settings refuse.",
        "Correct the object at its source, or take the finding out of `refuse` in the sender's settings.",
    ),
    Reason.RULE_FAILED: (
        "A routing rule could not be evaluated on this object; releases before 0.2 set the object aside for it.",
        "Correct the rule that the sentence names, and apply it.",
    ),
    Reason.PROCESSING_FAILED: (
        "A stage failed on this event in a way nobody foresaw; other events are not affected.",
        "Report it with the event's id; the event is kept whole.",
    ),
}


class HilumError(Exception):
    """Every error of Hilum's own: a sentence that says what is wrong with which value, and what to do.

    `sentence` and `fix` are shown to people and logged: no patient identifier may be in them.
    """

    def __init__(self, sentence: str, *, fix: str = "") -> None:
        super().__init__(f"{sentence} {fix}".rstrip())
        self.sentence = sentence
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, so that it can pass from one process to another."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # what pickle itself uses


class Quarantine(HilumError):
    """This event alone cannot go on: it waits in quarantine for a person, the others pass.

    `found` and `expected` may hold values of the object and are kept with the quarantined event only (PHI class `full`);
    they never enter the exception's text.
    """

    def __init__(self, reason: Reason, sentence: str, *, fix: str = "", found: str = "", expected: str = "") -> None:
        super().__init__(sentence, fix=fix or reason.fix)
        self.reason = reason
        self.found = found
        self.expected = expected


class TryAgain(HilumError):
    """Something that Hilum needs is down or not yet there: nothing is set aside, the same work is tried again."""

    def __init__(self, sentence: str, *, fix: str = "", after_s: float = 1.0) -> None:
        super().__init__(sentence, fix=fix)
        self.after_s = after_s


class Misconfigured(HilumError):
    """A setting or the environment is wrong; only a person can change that. `reason` is a short code for machines."""

    def __init__(self, reason: str, sentence: str, *, fix: str) -> None:
        super().__init__(sentence, fix=fix)
        self.reason = reason


class NotFound(HilumError):
    """What the command names is not there (exit code 3)."""


class Refused(HilumError):
    """What the command asks for would leave something behind, and nobody said that it may (exit code 4)."""


class Stopped(HilumError):
    """A role cannot go on safely and ends with these words, for its supervisor to start it anew."""
