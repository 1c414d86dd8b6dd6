"""Which values of an original tell whose it is. Written down by hand for the second look, apart from the engine's table.

Besides these, every name (VR PN), date (DA, DT) and UID (UI) of the original counts, wherever it is.
"""

from __future__ import annotations

from functools import lru_cache

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import tag_for_keyword

#: Words by which a hit says what it is. `SAME` is looked for in its own attribute only: its words are common.
ID, NAME, PHRASE, DATE, UID, SAME = "id", "name", "phrase", "date", "uid", "same"

#: By kind, and by the scope of the policy's options that may leave such values in.
_KEYWORDS: dict[tuple[str, str], str] = {
    (ID, ""): """
        PatientID OtherPatientIDs AccessionNumber StudyID MedicalRecordLocator InsurancePlanIdentification AdmissionID ServiceEpisodeID
        RequestedProcedureID ScheduledProcedureStepID PerformedProcedureStepID PlacerOrderNumberImagingServiceRequest
        FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequestRetired
        FillerOrderNumberImagingServiceRequestRetired ResultsID InterpretationID
        SpecimenAccessionNumber SpecimenIdentifier ContainerIdentifier SlideIdentifier ContainerComponentID
        ClinicalTrialSubjectID ClinicalTrialSubjectReadingID PatientTelephoneNumbers PatientTelecomInformation
        ReferringPhysicianTelephoneNumbers PersonTelephoneNumbers PersonTelecomInformation OrderCallbackPhoneNumber
        OrderCallbackTelecomInformation TelephoneNumberTrial BarcodeValue DeviceAlternateIdentifier
        SecondaryCaptureDeviceID HardcopyCreationDeviceID
    """,
    (ID, "device"): """
        DeviceSerialNumber StationName PerformedStationName ScheduledStationName DetectorID PlateID CassetteID GantryID GeneratorID
        LensSerialNumber UniqueDeviceIdentifier XRaySourceID XRayDetectorID SourceSerialNumber ManufacturerDeviceIdentifier
        ModifyingDeviceID StationAETitle PerformedStationAETitle ScheduledStationAETitle RetrieveAETitle
    """,
    (
        NAME,
        "",
    ): "CameraOwnerName TopicAuthor NametoUse OrderEnteredBy InterpretationRecorder InterpretationTranscriber InterpretationAuthor",
    (PHRASE, ""): """
        PatientAddress ReferringPhysicianAddress PersonAddress AddressTrial DistributionAddress ResponsibleOrganization
        PatientInstitutionResidence CurrentPatientLocation ScheduledPatientInstitutionResidence RequestedProcedureLocation
        OrderEntererLocation
    """,
    (PHRASE, "institution"): "InstitutionName InstitutionAddress ClinicalTrialSiteName ClinicalTrialSiteID",
    (SAME, ""): """
        IssuerOfPatientID MilitaryRank BranchOfService CountryOfResidence RegionOfResidence PatientReligiousPreference RequestingService
        ConfidentialityConstraintOnPatientDataDescription PatientTransportArrangements HumanPerformerOrganization VerifyingOrganization
        IssuerOfAdmissionID IssuerOfServiceEpisodeID StudyIDIssuer PerformedLocation ClinicalTrialSponsorName ClinicalTrialProtocolID
        ClinicalTrialProtocolName ClinicalTrialTimePointID ClinicalTrialSeriesID PatientBirthTime TopicTitle TopicSubject
    """,
    (SAME, "institution"): "InstitutionalDepartmentName",
}
#: UIDs that say what something is, not which one it is.
_MEANINGS = """
    SOPClassUID ReferencedSOPClassUID MediaStorageSOPClassUID ImplementationClassUID TransferSyntaxUID CodingSchemeUID ContextUID
    MappingResourceUID RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID SOPClassesInStudy SOPClassesSupported
    ReferencedRelatedGeneralSOPClassUIDInFile ReferencedSOPClassUIDInFile ReferencedTransferSyntaxUIDInFile PrivateInformationCreatorUID
    MACCalculationTransferSyntaxUID EncryptedContentTransferSyntaxUID AvailableTransferSyntaxUID OffendingElement
    LongCodeValue ContextGroupExtensionCreatorUID
"""
#: What PS3.6 registers, which is nobody's. The root alone says nothing: anybody can write anything behind it.
STANDARD_UIDS = frozenset(uid.encode() for uid in UID_dictionary) | {
    b"1.2.840.10008.5.1.4.1.1." + suffix
    for suffix in (b"66.7", b"66.8", b"9.100.1", b"9.100.2")  # newer than that list
}
#: Dates of what is known to everybody, not of the patient.
_PUBLIC_DATES = "ContextGroupVersion ContextGroupLocalVersion"

#: In an item of these sequences, the code and its meaning are a person's (PS3.3 10.1).
PERSONS = frozenset(
    tag
    for keyword in (
        "PersonIdentificationCodeSequence",
        "OperatorIdentificationSequence",
        "VerifyingObserverIdentificationCodeSequence",
        "VerbalSourceIdentifierCodeSequenceTrial",
        "ContentCreatorIdentificationCodeSequence",
        "HumanPerformerCodeSequence",
    )
    if (tag := tag_for_keyword(keyword)) is not None
)
CODE_VALUE, CODE_MEANING, PATIENT_BIRTH_DATE = 0x00080100, 0x00080104, 0x00100030
DEVICE_UIDS = frozenset({0x00181002, 0x0018100B})
MANUFACTURER = frozenset({0x00080070, 0x00081090})


def _tags(keywords: str) -> frozenset[int]:
    return frozenset(tag for keyword in keywords.split() if (tag := tag_for_keyword(keyword)) is not None)


TAGS: dict[int, tuple[str, str]] = {tag: said for said, keywords in _KEYWORDS.items() for tag in _tags(keywords)}
NO_INSTANCE = _tags(_MEANINGS)
PUBLIC_DATES = _tags(_PUBLIC_DATES)


@lru_cache(maxsize=4096)
def kind_of(tag: int, vr: str) -> tuple[str, str]:
    """What a value of this attribute is (`""`: nothing that tells), and the option that may leave it in."""
    if tag in TAGS:
        return TAGS[tag]
    if vr == "PN":
        return NAME, ""
    if vr in ("DA", "DT") and tag not in PUBLIC_DATES:
        return DATE, ""
    if vr == "UI" and tag not in NO_INSTANCE:
        return UID, "device" if tag in DEVICE_UIDS else ""
    return "", ""
