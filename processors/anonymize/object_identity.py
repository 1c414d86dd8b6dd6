"""What an object is and whose it is, for both engines: its class, its patient, and the UIDs that it gets."""

from __future__ import annotations

from hilum.identity import Authorities
from processors.anonymize.held import AT_ITS_SOURCE, Held, HeldReason, shown
from processors.anonymize.identity import Subject, subject_of, subject_of_study
from processors.anonymize.options import Option
from processors.anonymize.result import Context
from processors.anonymize.rules import Rules
from processors.anonymize.source import Source, unreadable

_OWN = (0x00080018, 0x0020000D, 0x0020000E)


def check_same_class(value: bytes, source: Source) -> None:
    """Raise `Held` if the data set is of another SOP class than its File Meta says: by which rules it goes would be open."""
    if value.rstrip(b"\0 ").decode("latin-1") != source.sop_class_uid:
        raise unreadable("Its data set and its File Meta do not name the same SOP class (PS3.10 7.1).", "(0008,0016)")


def new_uids(rules: Rules, context: Context, *values: bytes) -> list[str]:
    """UIDs of SOP instance, study and series as they are in the new object. Raises `Held` without the first, or if one is a nought."""
    old = [value.rstrip(b"\0 ").decode("latin-1") for value in values]
    if not old[0]:
        raise Held(HeldReason.UID_INVALID, "It has no SOPInstanceUID.", fix=AT_ITS_SOURCE, place=shown(_OWN[0]))
    for tag, uid in zip(_OWN, old, strict=True):
        if uid == "0":  # in references it stands for none; an object that is called so is any
            raise Held(HeldReason.UID_INVALID, "It is 0, which is nobody's UID.", fix=AT_ITS_SOURCE, place=shown(tag))
    return old if Option.RETAIN_UIDS in rules.options else [context.pseudonyms.uid(each) for each in old]


def subject_from(patient_id: str, issuer: str, universal_id: str, study: bytes, context: Context) -> Subject:
    """Whose object it says it is. Raises `Held` if it says nothing."""
    found = _known(patient_id, issuer, universal_id, context) or subject_of_study(study.decode("latin-1"))
    if found is None:
        raise Held(HeldReason.UNREADABLE, "It has neither a PatientID nor a StudyInstanceUID.", fix=AT_ITS_SOURCE)
    return found


_subjects: dict[tuple[str, str, str], tuple[Authorities, Subject | None]] = {}
_MOST_SUBJECTS = 1024


def _known(patient_id: str, issuer: str, universal_id: str, context: Context) -> Subject | None:
    """As `subject_of`; the objects of a study are the same patient's."""
    key = (patient_id, issuer, universal_id)
    authorities, subject = _subjects.get(key, (None, None))
    if authorities is not context.authorities:
        subject = subject_of(patient_id, issuer, universal_id, context.authorities)
        if len(_subjects) >= _MOST_SUBJECTS:
            _subjects.clear()
        _subjects[key] = (context.authorities, subject)
    return subject
