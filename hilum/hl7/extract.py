"""Read the values of a message by the paths of a profile, each as the type that its target has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Any

from msgspec import Struct

from hilum.dicom import uid_is_usable
from hilum.order_events import Identifier, Note

from .fieldmaps import FieldMap, parts_of
from .message import Segment
from .values import (
    DELETE,
    LONGEST_GROUP,
    Repetition,
    code_of,
    component,
    fitting_name,
    identifier_cx,
    identifier_ei,
    moment_of,
    person_name,
    physician_name,
)

#: Longest values of DICOM for what must not be cut (PS3.5 6.2: SH and LO), by target.
LONGEST = {"accession": 16, "procedure_id": 16, "step_id": 16, "placer": 64, "filler": 64, "admission": 64, "patient_id": 64}
KEYWORDS = {
    "accession": "AccessionNumber",
    "procedure_id": "RequestedProcedureID",
    "step_id": "ScheduledProcedureStepID",
    "placer": "PlacerOrderNumberImagingServiceRequest",
    "filler": "FillerOrderNumberImagingServiceRequest",
    "admission": "AdmissionID",
    "patient_id": "PatientID",
}

_GROUP_IDENTIFIERS = ("placer", "filler", "group", "accession")
_PHYSICIANS = ("referring_physician", "requesting_physician", "entered_by", "performing_physician")
_CODES = ("codes", "protocols", "reason_codes")


class Defaults(Struct, frozen=True, kw_only=True):
    """What holds for a sender where its messages do not say."""

    issuer_of_patient_id: str = ""
    issuer_of_accession_number: str = ""
    #: Of placer and filler order numbers.
    issuer_of_orders: str = ""
    zone: tzinfo = UTC


class Extract:
    """Reads values of one message, and notes what cannot be read."""

    def __init__(self, profile: FieldMap, defaults: Defaults) -> None:
        self._profile = profile
        self.defaults = defaults
        self._notes: dict[tuple[str, str], Note] = {}

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was noticed, each once."""
        return tuple(self._notes.values())

    def note(self, code: str, sentence: str) -> None:
        """Notice something."""
        self._notes.setdefault((code, sentence), Note(code=code, sentence=sentence))

    def put(self, facts: dict[str, Any], target: str, paths: Sequence[str], segments: Sequence[Segment]) -> None:
        """Put the value of the first path that has one; None if that is to be deleted."""
        for path in paths:
            repetitions = repetitions_of(segments, path)
            if not repetitions:
                continue
            number = parts_of(path)[2]
            if component(repetitions[0], number or 1) == DELETE:
                facts[target] = None
                return
            value = self._read(target, path, repetitions)
            if value not in (None, "", ()):
                self.check_length(target, path, value)
                facts[target] = value
                return

    def _read(self, target: str, path: str, repetitions: Sequence[Repetition]) -> Any:
        _, _, number, sub = parts_of(path)
        first = repetitions[0]
        if target == "name":
            return self._name(path, person_name([[list(part) for part in each] for each in repetitions]))
        if target in _PHYSICIANS:
            if target == "performing_physician" and path == "OBR-34.1":  # NDL: its first component is a CNN in subcomponents
                return self._name(path, physician_name([[[part] for part in first[0]]]))
            return self._name(path, physician_name([[list(part) for part in each] for each in repetitions]))
        if target in _GROUP_IDENTIFIERS:
            issuer = self.defaults.issuer_of_accession_number if target == "accession" else self.defaults.issuer_of_orders
            return identifier_ei(first, issuer, number or 1)
        if target == "admission":
            return identifier_cx(first)
        if target in _CODES:
            codes = (code_of(each, number or 1) for each in repetitions)
            return tuple(code for code in codes if code is not None)
        if target in ("start", "end", "birth_date"):
            return self._time(target, path, component(first, number or 1, sub or 1))
        if target == "station_ae_titles":
            return self._ae_titles(path, [component(each, number or 1, sub or 1) for each in repetitions])
        text = component(first, number or 1, sub or 1)
        if target == "patient_location" and not number:
            text = " ".join(part for index in range(1, 4) if (part := component(first, index)))
        return self._text(target, path, text)

    def _name(self, path: str, name: str) -> str:
        fitting = fitting_name(name)
        if fitting != name:
            self.note(
                "name-too-long",
                f"{path} has more than the {LONGEST_GROUP} characters that a name may have (PS3.5 6.2): it is shortened from its end.",
            )
        return fitting

    def _text(self, target: str, path: str, text: str) -> str:
        if target == "sex" and text:
            if text.upper() not in self._profile.sex:
                self.note("sex-unknown", f"{path} has a value that the profile does not know: it is left out.")
                return ""
            return self._profile.sex[text.upper()]
        if target == "priority":
            return self._profile.priority.get(text.upper(), "")
        if target == "modality":
            return self._modality(path, text.upper())
        if target == "study_instance_uid" and text and not uid_is_usable(text):
            self.note("study-uid-invalid", f"{path} is no UID (PS3.5 9.1): Hilum makes one.")
            return ""
        return text

    def _modality(self, path: str, text: str) -> str:
        text = self._profile.modality.get(text, text)
        if text and (len(text) > 16 or any(not (c.isascii() and (c.isalnum() or c in " _")) for c in text)):
            self.note("modality-invalid", f"{path} is no code string (PS3.5 6.2): it is left out.")
            return ""
        return text

    def _ae_titles(self, path: str, titles: Sequence[str]) -> tuple[str, ...]:
        good = tuple(dict.fromkeys(title for title in titles if title and len(title) <= 16 and title.isascii() and "\\" not in title))
        if len(good) < len({title for title in titles if title}):
            self.note("ae-title-invalid", f"{path} has what is no AE title (PS3.5 6.2): it is left out.")
        return good

    def _time(self, target: str, path: str, text: str) -> Any:
        if not text:
            return None
        found = moment_of(text, self.defaults.zone)
        if found is None:
            self.note("time-invalid", f"{path} is no time (HL7 2.A.22): it is left out.")
            return None
        if target == "birth_date":
            digits = text[:8]
            return digits if len(digits) == 8 and digits.isdigit() else ""
        if not found.date:
            return None
        return [found.date, found.time, found.at.timestamp() if found.at is not None else None]

    def check_length(self, target: str, path: str, value: Any) -> None:
        """Note a value that DICOM cannot hold and that must not be cut."""
        text = value.value if isinstance(value, Identifier) else value
        longest = LONGEST.get(target)
        if longest is not None and isinstance(text, str) and len(text) > longest:
            self.note(
                f"{target.replace('_', '-')}-too-long",
                f"{path} is longer than the {longest} characters that {KEYWORDS[target]} may have: it is offered to nobody.",
            )


def repetitions_of(segments: Sequence[Segment], path: str) -> list[list[list[str]]]:
    """The repetitions of the first such segment's field that have something."""
    name, number, _, _ = parts_of(path)
    segment = next((each for each in segments if each.name == name), None)
    if segment is None:
        return []
    return [each for each in segment.field(number) if any(part for parts in each for part in parts)]


def value_of(segments: Sequence[Segment], path: str) -> str:
    """The first value at `path`; empty if there is none."""
    found = repetitions_of(segments, path)
    return component(found[0], parts_of(path)[2] or 1) if found else ""
