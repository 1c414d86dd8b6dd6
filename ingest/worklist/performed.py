"""What an MPPS message says (PS3.4 F.7.2, PS3.3 C.4.13 to C.4.17): which attributes must be there, and the event that it becomes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from hilum.bus import MAX_EVENT_BYTES
from hilum.dicom import tag_of
from hilum.events import ProcedureStepChanged, encode
from hilum.procedure_events import PerformedOf, PerformedReference, PerformedSeries, PerformedState

Json = Mapping[str, Any]

STATES: Mapping[str, PerformedState] = {"IN PROGRESS": "in-progress", "COMPLETED": "completed", "DISCONTINUED": "discontinued"}
STATUS = tag_of("PerformedProcedureStepStatus")
_SCHEDULED = tag_of("ScheduledStepAttributesSequence")
_SERIES = tag_of("PerformedSeriesSequence")
#: What leaves room in an event for all that is no reference.
_MOST_BYTES = MAX_EVENT_BYTES - 100_000

#: Type 1 at N-CREATE (PS3.4 Table F.7.2-1). What it has as type 2 may be absent, too: some modalities leave it out.
_AT_CREATION = (
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepStatus",
    "Modality",
)
#: Type 1 in the final states. A step that was broken off before its first series has none, and is taken without.
_AT_END = ("PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime")
#: What an N-SET must not have (Table F.7.2-1).
NOT_IN_N_SET = frozenset(
    tag_of(keyword)
    for keyword in (
        "ScheduledStepAttributesSequence",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
        "PatientBirthDate",
        "PatientSex",
        "ReferencedPatientSequence",
        "AdmissionID",
        "IssuerOfAdmissionIDSequence",
        "ServiceEpisodeID",
        "IssuerOfServiceEpisodeIDSequence",
        "ServiceEpisodeDescription",
        "PerformedProcedureStepID",
        "PerformedStationAETitle",
        "PerformedStationName",
        "PerformedLocation",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "Modality",
        "StudyID",
    )
)


class Missing(NamedTuple):
    """An attribute that is not as it must be: absent, or without a value."""

    keyword: str
    absent: bool


def missing_at_creation(attributes: Json) -> Missing | None:
    """The first attribute that an N-CREATE must have and has not."""
    for keyword in _AT_CREATION:
        if (found := _missing(attributes, keyword)) is not None:
            return found
    if (found := _missing(attributes, "ScheduledStepAttributesSequence")) is not None:
        return found
    for item in _items(attributes, _SCHEDULED):
        if (found := _missing(item, "StudyInstanceUID")) is not None:
            return found
    return None


def missing_at_end(attributes: Json, state: PerformedState) -> Missing | None:
    """The first attribute that a step must have in its final state and has not."""
    for keyword in _AT_END:
        if (found := _missing(attributes, keyword)) is not None:
            return found
    if state == "completed" and (found := _missing(attributes, "PerformedSeriesSequence")) is not None:
        return found
    for item in _items(attributes, _SERIES):
        if (found := _missing(item, "SeriesInstanceUID")) is not None:
            return found
    return None


def _missing(attributes: Json, keyword: str) -> Missing | None:
    tag = tag_of(keyword)
    if tag not in attributes:
        return Missing(keyword, absent=True)
    values = attributes[tag].get("Value") or ()
    return None if any(value not in (None, "", {}) for value in values) else Missing(keyword, absent=False)


def event_of(
    sop_instance_uid: str, revision: int, attributes: Json, said: Json, changed_at: datetime, **source: str
) -> ProcedureStepChanged:
    """The event that says all of a step; `said` is the last message, `source` its calling and called AE title, peer and association."""
    reason = next(_items(attributes, tag_of("PerformedProcedureStepDiscontinuationReasonCodeSequence")), {})
    scheduled = tuple(_scheduled(item) for item in _items(attributes, _SCHEDULED))
    series = tuple(_series(item) for item in _items(attributes, _SERIES))
    event = ProcedureStepChanged(
        sop_instance_uid=sop_instance_uid,
        revision=revision,
        state=STATES[_text(attributes, "PerformedProcedureStepStatus")],
        study_instance_uid=next((each.study_instance_uid for each in scheduled if each.study_instance_uid), ""),
        scheduled=scheduled,
        step_id=_text(attributes, "PerformedProcedureStepID"),
        station_aet=_text(attributes, "PerformedStationAETitle"),
        station_name=_text(attributes, "PerformedStationName"),
        location=_text(attributes, "PerformedLocation"),
        modality=_text(attributes, "Modality"),
        description=_text(attributes, "PerformedProcedureStepDescription"),
        start_date=_text(attributes, "PerformedProcedureStepStartDate"),
        start_time=_text(attributes, "PerformedProcedureStepStartTime"),
        end_date=_text(attributes, "PerformedProcedureStepEndDate"),
        end_time=_text(attributes, "PerformedProcedureStepEndTime"),
        reason_code=_text(reason, "CodeValue"),
        reason_scheme=_text(reason, "CodingSchemeDesignator"),
        reason_meaning=_text(reason, "CodeMeaning"),
        patient_id=_text(attributes, "PatientID"),
        issuer_of_patient_id=_text(attributes, "IssuerOfPatientID"),
        patient_name=_text(attributes, "PatientName"),
        patient_birth_date=_text(attributes, "PatientBirthDate"),
        patient_sex=_text(attributes, "PatientSex"),
        series=series,
        objects=sum(len(each.images) + len(each.non_images) for each in series),
        said=dict(said),
        changed_at=changed_at,
    )
    event = replace(event, **source)
    if len(encode(event)) <= _MOST_BYTES:
        return event
    event = replace(event, said={}, said_packed=zlib.compress(msgspec.json.encode(said)))
    if len(encode(event)) <= _MOST_BYTES:
        return event
    event = replace(event, series=tuple(replace(each, images=(), non_images=()) for each in series), references_cut=True)
    if len(encode(event)) <= _MOST_BYTES:
        return event
    return replace(event, said_packed=b"", said_cut=True)


def references(attributes: Json) -> Iterator[str]:
    """SOP instance UIDs of all objects that a step's series refer to."""
    for item in _items(attributes, _SERIES):
        for each in (*_references(item, "ReferencedImageSequence"), *_references(item, "ReferencedNonImageCompositeSOPInstanceSequence")):
            yield each.sop_instance_uid


def _scheduled(item: Json) -> PerformedOf:
    return PerformedOf(
        study_instance_uid=_text(item, "StudyInstanceUID"),
        accession_number=_text(item, "AccessionNumber"),
        placer_number=_text(item, "PlacerOrderNumberImagingServiceRequest"),
        filler_number=_text(item, "FillerOrderNumberImagingServiceRequest"),
        procedure_id=_text(item, "RequestedProcedureID"),
        procedure_description=_text(item, "RequestedProcedureDescription"),
        step_id=_text(item, "ScheduledProcedureStepID"),
        step_description=_text(item, "ScheduledProcedureStepDescription"),
    )


def _series(item: Json) -> PerformedSeries:
    operators = item.get(tag_of("OperatorsName"), {}).get("Value") or ()
    return PerformedSeries(
        series_instance_uid=_text(item, "SeriesInstanceUID"),
        protocol_name=_text(item, "ProtocolName"),
        description=_text(item, "SeriesDescription"),
        retrieve_aet=_text(item, "RetrieveAETitle"),
        operators="\\".join(_said(each) for each in operators if each),
        performing_physician=_text(item, "PerformingPhysicianName"),
        images=_references(item, "ReferencedImageSequence"),
        non_images=_references(item, "ReferencedNonImageCompositeSOPInstanceSequence"),
    )


def _references(item: Json, keyword: str) -> tuple[PerformedReference, ...]:
    found = (
        PerformedReference(sop_class_uid=_text(each, "ReferencedSOPClassUID"), sop_instance_uid=_text(each, "ReferencedSOPInstanceUID"))
        for each in _items(item, tag_of(keyword))
    )
    return tuple(each for each in found if each.sop_instance_uid)


def _items(attributes: Json, tag: str) -> Iterator[Json]:
    for item in attributes.get(tag, {}).get("Value") or ():
        if isinstance(item, dict):
            yield item


def _text(attributes: Json, keyword: str) -> str:
    values = attributes.get(tag_of(keyword), {}).get("Value") or ()
    return _said(values[0]) if values and values[0] is not None else ""


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join(value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return str(value)
