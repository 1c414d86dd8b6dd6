"""The attributes of the Modality Worklist information model that Hilum supports, as matching and as return keys (PS3.4 Table K.6-1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hilum.dicom import tag_of

#: VR by tag; of a sequence, the attributes of its items.
Table = Mapping[str, Any]


def _table(**attributes: Any) -> dict[str, Any]:
    return {tag_of(keyword): vr for keyword, vr in attributes.items()}


CODE = _table(CodeValue="SH", CodingSchemeDesignator="SH", CodingSchemeVersion="SH", CodeMeaning="LO")
REFERENCE = _table(ReferencedSOPClassUID="UI", ReferencedSOPInstanceUID="UI")
ISSUER = _table(LocalNamespaceEntityID="UT", UniversalEntityID="UT", UniversalEntityIDType="CS")

STEP = _table(
    ScheduledStationAETitle="AE",
    ScheduledStationName="SH",
    ScheduledProcedureStepLocation="SH",
    ScheduledProcedureStepStartDate="DA",
    ScheduledProcedureStepStartTime="TM",
    ScheduledProcedureStepEndDate="DA",
    ScheduledProcedureStepEndTime="TM",
    ScheduledPerformingPhysicianName="PN",
    ScheduledProcedureStepDescription="LO",
    ScheduledProtocolCodeSequence=CODE,
    ScheduledProcedureStepID="SH",
    ScheduledProcedureStepStatus="CS",
    CommentsOnTheScheduledProcedureStep="LT",
    Modality="CS",
    RequestedContrastAgent="LO",
    PreMedication="LO",
)

WORKLIST = _table(
    ScheduledProcedureStepSequence=STEP,
    # Requested Procedure
    RequestedProcedureID="SH",
    RequestedProcedureDescription="LO",
    RequestedProcedureCodeSequence=CODE,
    StudyInstanceUID="UI",
    ReferencedStudySequence=REFERENCE,
    RequestedProcedurePriority="SH",
    PatientTransportArrangements="LO",
    ReasonForTheRequestedProcedure="LO",
    ReasonForRequestedProcedureCodeSequence=CODE,
    RequestedProcedureComments="LT",
    RequestedProcedureLocation="LO",
    NamesOfIntendedRecipientsOfResults="PN",
    # Imaging Service Request
    AccessionNumber="SH",
    IssuerOfAccessionNumberSequence=ISSUER,
    RequestingPhysician="PN",
    RequestingService="LO",
    ReferringPhysicianName="PN",
    PlacerOrderNumberImagingServiceRequest="LO",
    FillerOrderNumberImagingServiceRequest="LO",
    OrderPlacerIdentifierSequence=ISSUER,
    OrderFillerIdentifierSequence=ISSUER,
    ImagingServiceRequestComments="LT",
    # Visit
    AdmissionID="LO",
    IssuerOfAdmissionIDSequence=ISSUER,
    CurrentPatientLocation="LO",
    InstitutionName="LO",
    # Patient
    PatientName="PN",
    PatientID="LO",
    IssuerOfPatientID="LO",
    IssuerOfPatientIDQualifiersSequence=_table(UniversalEntityID="UT", UniversalEntityIDType="CS"),
    OtherPatientIDsSequence=_table(PatientID="LO", IssuerOfPatientID="LO", TypeOfPatientID="CS"),
    ReferencedPatientSequence=REFERENCE,
    PatientBirthDate="DA",
    PatientSex="CS",
    PatientSize="DS",
    PatientWeight="DS",
    EthnicGroup="SH",
    PatientComments="LT",
    AdditionalPatientHistory="LT",
    PatientState="LO",
    PregnancyStatus="US",
    MedicalAlerts="LO",
    Allergies="LO",
    SpecialNeeds="LO",
    ConfidentialityConstraintOnPatientDataDescription="LO",
)

STEPS = tag_of("ScheduledProcedureStepSequence")
START_DATE, START_TIME = tag_of("ScheduledProcedureStepStartDate"), tag_of("ScheduledProcedureStepStartTime")
STATION, MODALITY = tag_of("ScheduledStationAETitle"), tag_of("Modality")
PATIENT_NAME = tag_of("PatientName")
