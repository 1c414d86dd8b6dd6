"""What an order looks like to a modality: its scheduled steps as worklist items, DICOM JSON (PS3.18 F.2, PS3.3 C.4.10 to C.4.13)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Any, NamedTuple

from hilum.dicom import tag_of
from hilum.order_events import Code, Identifier, Order, Patient, RequestedProcedure, ScheduledStep

from .attributes import ISSUER, STEP, WORKLIST, Table

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
#: Longest values of VRs, in characters (PS3.5 6.2). Only what describes is cut; an identifier that is too long never gets here.
_LONGEST = {"SH": 16, "LO": 64, "LT": 10_240}
_STATUS = {"scheduled": "SCHEDULED", "arrived": "ARRIVED", "ready": "READY"}


class Place(NamedTuple):
    """Which step of an order: the procedure's number and the step's, from 0."""

    procedure: int
    step: int


def items_of(order: Order) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Each step of an order with all that a modality may be told of it."""
    common = _of_order(order) | _of_patient(order.patient)
    for number, procedure in enumerate(order.procedures):
        of_procedure = common | _of_procedure(procedure)
        for place, step in enumerate(procedure.steps):
            of_step = _of_step(step)
            yield Place(number, place), of_procedure | {tag_of("ScheduledProcedureStepSequence"): {"vr": "SQ", "Value": [of_step]}}


def _of_step(step: ScheduledStep) -> dict[str, Any]:
    return _elements(
        STEP,
        ScheduledStationAETitle=list(step.station_ae_titles),
        ScheduledStationName=step.station_name,
        ScheduledProcedureStepLocation=step.location,
        ScheduledProcedureStepStartDate=step.start_date,
        ScheduledProcedureStepStartTime=step.start_time,
        ScheduledProcedureStepEndDate=step.end_date,
        ScheduledProcedureStepEndTime=step.end_time,
        ScheduledPerformingPhysicianName=step.performing_physician,
        ScheduledProcedureStepDescription=step.description,
        ScheduledProtocolCodeSequence=_codes(step.protocols),
        ScheduledProcedureStepID=step.step_id,
        ScheduledProcedureStepStatus=_STATUS.get(step.status, ""),
        CommentsOnTheScheduledProcedureStep=step.comments,
        Modality=step.modality,
        RequestedContrastAgent=step.contrast,
        PreMedication=step.premedication,
    )


def _of_procedure(procedure: RequestedProcedure) -> dict[str, Any]:
    return _elements(
        WORKLIST,
        RequestedProcedureID=procedure.procedure_id,
        RequestedProcedureDescription=procedure.description or next((code.meaning for code in procedure.codes if code.meaning), ""),
        RequestedProcedureCodeSequence=_codes(procedure.codes)[:1],  # a single item (PS3.4 Table K.6-1)
        StudyInstanceUID=procedure.study_instance_uid,
        RequestedProcedurePriority=procedure.priority,
        PatientTransportArrangements=procedure.transport,
        ReasonForTheRequestedProcedure=procedure.reason,
        ReasonForRequestedProcedureCodeSequence=_codes(procedure.reason_codes),
        RequestedProcedureComments=procedure.comments,
    )


def _of_order(order: Order) -> dict[str, Any]:
    return _elements(
        WORKLIST,
        AccessionNumber=_value(order.accession),
        IssuerOfAccessionNumberSequence=_issuer(order.accession),
        RequestingPhysician=order.requesting_physician,
        RequestingService=order.requesting_service,
        ReferringPhysicianName=order.referring_physician,
        PlacerOrderNumberImagingServiceRequest=_value(order.placer),
        FillerOrderNumberImagingServiceRequest=_value(order.filler),
        OrderPlacerIdentifierSequence=_issuer(order.placer),
        OrderFillerIdentifierSequence=_issuer(order.filler),
        ImagingServiceRequestComments=order.comments,
        AdmissionID=_value(order.admission),
        IssuerOfAdmissionIDSequence=_issuer(order.admission),
        CurrentPatientLocation=order.patient_location,
        InstitutionName=order.institution,
        AdditionalPatientHistory=order.clinical_information,
        # By IHE it is an alert (RAD TF-2x, appendix B); those that are known of the patient take its place.
        MedicalAlerts=wrap(order.clinical_information, _LONGEST["LO"]),
    )


def _of_patient(patient: Patient) -> dict[str, Any]:
    first, *others = patient.ids or (Identifier(value=""),)
    qualifiers = [{"UniversalEntityID": first.universal_id, "UniversalEntityIDType": first.universal_id_type}] if first.universal_id else []
    of_ids = WORKLIST[tag_of("OtherPatientIDsSequence")]
    of_qualifiers = WORKLIST[tag_of("IssuerOfPatientIDQualifiersSequence")]
    notes = {keyword: text for keyword, text in patient.notes.items() if isinstance(WORKLIST.get(_tag(keyword)), str)}
    return _elements(
        WORKLIST,
        **notes
        | {
            "PatientName": patient.name,
            "PatientID": first.value,
            "IssuerOfPatientID": first.issuer,
            "IssuerOfPatientIDQualifiersSequence": [_elements(of_qualifiers, **each) for each in qualifiers],
            "OtherPatientIDsSequence": [
                _elements(of_ids, PatientID=each.value, IssuerOfPatientID=each.issuer, TypeOfPatientID="TEXT") for each in others
            ],
            "PatientBirthDate": patient.birth_date,
            "PatientSex": patient.sex,
            "PatientWeight": patient.weight_kg,
            "PatientSize": patient.size_m,
        },
    )


def _tag(keyword: str) -> str:
    try:
        return tag_of(keyword)
    except KeyError:
        return ""


def _value(identifier: Identifier | None) -> str:
    return identifier.value if identifier is not None else ""


def _issuer(identifier: Identifier | None) -> list[dict[str, Any]]:
    if identifier is None or not (identifier.issuer or identifier.universal_id):
        return []
    return [
        _elements(
            ISSUER,
            LocalNamespaceEntityID=identifier.issuer,
            UniversalEntityID=identifier.universal_id,
            UniversalEntityIDType=identifier.universal_id_type,
        )
    ]


def _codes(codes: Iterable[Code]) -> list[dict[str, Any]]:
    of_code = WORKLIST[tag_of("RequestedProcedureCodeSequence")]
    return [
        _elements(of_code, CodeValue=code.value, CodingSchemeDesignator=code.scheme or "L", CodeMeaning=code.meaning or code.value)
        for code in codes
        if code.value
    ]


def _elements(table: Table, **values: Any) -> dict[str, Any]:
    """The attributes that have a value, by tag."""
    found = {}
    for keyword, value in values.items():
        tag = tag_of(keyword)
        vr = table[tag]
        if isinstance(vr, str):
            value = [_said(vr, each) for each in (value if isinstance(value, list) else [value]) if each]
        if value:
            found[tag] = {"vr": vr if isinstance(vr, str) else "SQ", "Value": value}
    return found


def _said(vr: str, value: str) -> Any:
    if vr == "PN":
        return {label: group for label, group in zip(_GROUPS, value.split("=", 2), strict=False) if group}
    if vr in ("SH", "LO", "CS", "AE"):
        value = " ".join(value.replace("\\", "/").split())  # a backslash would make two values of it
    return value[: _LONGEST.get(vr, len(value))].strip() if vr in ("SH", "LO") else value[: _LONGEST.get(vr, len(value))]
