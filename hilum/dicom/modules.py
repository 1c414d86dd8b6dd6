"""Attributes that a header keeps whatever its size: those of the patient, study, series, equipment and SOP Common modules.

PS3.3 C.7.1.1 Patient, C.7.2.1 General Study, C.7.2.2 Patient Study, C.7.3.1 General Series, C.7.5.1 General Equipment,
C.12.1 SOP Common. Top-level attributes only; their sequences are kept whole.
"""

from __future__ import annotations

from pydicom.datadict import keyword_dict

PATIENT = """
    PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID PatientBirthDate
    PatientBirthTime PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar
    PatientSex QualityControlSubject ReferencedPatientSequence OtherPatientIDs OtherPatientIDsSequence OtherPatientNames
    EthnicGroup EthnicGroupCodeSequence PatientComments PatientSpeciesDescription PatientSpeciesCodeSequence
    PatientBreedDescription PatientBreedCodeSequence BreedRegistrationSequence StrainDescription StrainNomenclature
    StrainCodeSequence StrainAdditionalInformation StrainStockSequence GeneticModificationsSequence ResponsiblePerson
    ResponsiblePersonRole ResponsibleOrganization PatientIdentityRemoved DeidentificationMethod
    DeidentificationMethodCodeSequence SourcePatientGroupIdentificationSequence GroupOfPatientsIdentificationSequence
    ReferencedPatientPhotoSequence
"""
STUDY = """
    StudyInstanceUID StudyDate StudyTime ReferringPhysicianName ReferringPhysicianIdentificationSequence
    ConsultingPhysicianName ConsultingPhysicianIdentificationSequence StudyID AccessionNumber
    IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
    NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence RequestingServiceCodeSequence
    ReferencedStudySequence ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence
    AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientWeight PatientBodyMassIndex
    MeasuredAPDimension MeasuredLateralDimension PatientSizeCodeSequence MedicalAlerts Allergies SmokingStatus
    PregnancyStatus LastMenstrualDate PatientState Occupation AdditionalPatientHistory AdmissionID
    IssuerOfAdmissionIDSequence ServiceEpisodeID IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription
    PatientSexNeutered ReasonForVisit ReasonForVisitCodeSequence RequestedProcedureDescription
    RequestedProcedureCodeSequence ModalitiesInStudy
"""
SERIES = """
    Modality SeriesInstanceUID SeriesNumber Laterality SeriesDate SeriesTime PerformingPhysicianName
    PerformingPhysicianIdentificationSequence ProtocolName SeriesDescription SeriesDescriptionCodeSequence OperatorsName
    OperatorIdentificationSequence ReferencedPerformedProcedureStepSequence RelatedSeriesSequence BodyPartExamined
    PatientPosition SmallestPixelValueInSeries LargestPixelValueInSeries RequestAttributesSequence
    PerformedProcedureStepID PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepEndDate
    PerformedProcedureStepEndTime PerformedProcedureStepDescription PerformedProtocolCodeSequence
    CommentsOnThePerformedProcedureStep AnatomicalOrientationType TreatmentSessionUID
"""
EQUIPMENT = """
    Manufacturer InstitutionName InstitutionAddress StationName InstitutionalDepartmentName
    InstitutionalDepartmentTypeCodeSequence ManufacturerModelName ManufacturerDeviceClassUID DeviceSerialNumber
    SoftwareVersions GantryID UDISequence DeviceUID SpatialResolution DateOfManufacture DateOfInstallation
    DateOfLastCalibration TimeOfLastCalibration PixelPaddingValue
"""
SOP_COMMON = """
    SOPClassUID SOPInstanceUID SpecificCharacterSet InstanceCreationDate InstanceCreationTime InstanceCoercionDateTime
    InstanceCreatorUID RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID CodingSchemeIdentificationSequence
    ContextGroupIdentificationSequence MappingResourceIdentificationSequence TimezoneOffsetFromUTC
    ContributingEquipmentSequence InstanceNumber SOPInstanceStatus SOPAuthorizationDateTime SOPAuthorizationComment
    AuthorizationEquipmentCertificationNumber LongitudinalTemporalInformationModified QueryRetrieveView
    ConversionSourceAttributesSequence ContentQualification PrivateDataElementCharacteristicsSequence
    InstanceOriginStatus BarcodeValue ReferencedDefinedProtocolSequence ReferencedPerformedProtocolSequence
"""

#: Their tags, `GGGGEEEE`.
KEPT_TAGS = frozenset(
    f"{keyword_dict[keyword]:08X}" for module in (PATIENT, STUDY, SERIES, EQUIPMENT, SOP_COMMON) for keyword in module.split()
)
