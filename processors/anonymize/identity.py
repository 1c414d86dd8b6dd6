"""Whose object it is: a patient's identifier with who assigned it, as one value that DICOM and HL7 agree on (`hilum.identity`)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from hilum.identity import Authorities, is_nobodys, tidy, value_of
from hilum.order_events import Identifier, Patient

_SEPARATOR = "\x1f"  # is in no part, since control characters go


class Subject(Struct, frozen=True):
    """Whose object it is, after edits and merges. Its text form shows nothing, so that no log can."""

    #: Normalised and issuer-qualified; the same for all objects of a patient. Never logged.
    patient: str

    def __repr__(self) -> str:
        return "Subject(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


_ANY = Authorities()


def subject_of(value: str, issuer: str = "", universal_id: str = "", authorities: Authorities = _ANY) -> Subject | None:
    """The patient with this PatientID (0010,0020), or CX.1; None if it is empty, or nobody's.

    `issuer` is IssuerOfPatientID (0010,0021) or CX.4.1, `universal_id` is UniversalEntityID (0040,0032) of the item in
    IssuerOfPatientIDQualifiersSequence (0010,0024), or CX.4.2.
    """
    return subject_of_identifier(Identifier(value=value, issuer=issuer, universal_id=universal_id), authorities)


def subject_of_identifier(identifier: Identifier, authorities: Authorities = _ANY) -> Subject | None:
    """The patient with an identifier of a message or of an issuer's macro (PS3.3 10.14); None if it is empty, or nobody's (`UNKNOWN`)."""
    if is_nobodys(identifier):
        return None
    return Subject(_SEPARATOR.join(("id", authorities.of(identifier), value_of(identifier))))


def subject_of_patient(patient: Patient, authorities: Authorities = _ANY) -> Subject | None:
    """A patient as messages know them: by the first identifier, which is the one that survived merges. None if there is none."""
    return subject_of_identifier(patient.ids[0], authorities) if patient.ids else None


def subject_of_study(study_instance_uid: str) -> Subject | None:
    """Whoever a study is of that has no PatientID (a type 2 attribute), or nobody's: a patient of its own. None without a UID.

    Neither a name nor a birth date takes the identifier's place: two people may share them.
    """
    uid = tidy(study_instance_uid)
    return Subject(_SEPARATOR.join(("study", uid))) if uid else None
