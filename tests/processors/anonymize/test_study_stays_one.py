"""A study stays one: references between images, reports, segmentations and plans, intervals between dates, one pseudonym a patient."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from processors.anonymize.engine import anonymize
from processors.anonymize.identity import subject_of
from processors.anonymize.options import Option
from processors.anonymize.pseudonyms import Pseudonyms
from tests.processors.anonymize.objects import KEY, a_context, a_policy, an_object, deidentified, out_of, part10

SR = "1.2.840.10008.5.1.4.1.1.88.33"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
STRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMAGE = "1.2.3.4.5.6"


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def reference() -> Dataset:
    return item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=IMAGE)


def image() -> Dataset:
    return an_object(FrameOfReferenceUID="1.2.3.4.9", SOPInstanceUID=IMAGE)


def report() -> Dataset:
    named = item(ReferencedSOPSequence=[reference()], RelationshipType="CONTAINS", ValueType="IMAGE")
    evidence = item(
        StudyInstanceUID="1.2.3.4.1", ReferencedSeriesSequence=[item(SeriesInstanceUID="1.2.3.4.2", ReferencedSOPSequence=[reference()])]
    )
    return an_object(
        SOPClassUID=SR,
        SOPInstanceUID="1.2.3.4.7",
        ContentSequence=[named],
        CurrentRequestedProcedureEvidenceSequence=[evidence],
        ValueType="CONTAINER",
    )


def segmentation() -> Dataset:
    derived = item(DerivationImageSequence=[item(SourceImageSequence=[reference()])])
    return an_object(
        SOPClassUID=SEG,
        SOPInstanceUID="1.2.3.4.8",
        FrameOfReferenceUID="1.2.3.4.9",
        PerFrameFunctionalGroupsSequence=[derived],
        ReferencedSeriesSequence=[item(SeriesInstanceUID="1.2.3.4.2", ReferencedInstanceSequence=[reference()])],
    )


def structures() -> Dataset:
    contour = item(ContourImageSequence=[reference()])
    series = item(SeriesInstanceUID="1.2.3.4.2", ContourImageSequence=[reference()])
    study = item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID="1.2.3.4.1", RTReferencedSeriesSequence=[series])
    frame = item(FrameOfReferenceUID="1.2.3.4.9", RTReferencedStudySequence=[study])
    return an_object(
        SOPClassUID=STRUCT,
        SOPInstanceUID="1.2.3.4.10",
        ReferencedFrameOfReferenceSequence=[frame],
        ROIContourSequence=[item(ContourSequence=[contour], ReferencedROINumber=1)],
    )


def uids(ds: Dataset, *keywords: str) -> set[str]:
    return {str(each.value) for each in ds.iterall() if each.keyword in keywords}


@pytest.mark.parametrize("policy", ["basic", "research"])
@pytest.mark.parametrize("of", [report, segmentation, structures])
def test_references_to_an_image_lead_to_the_new_one(policy: str, of: Any) -> None:
    new = deidentified(image(), policy)
    other = deidentified(of(), policy)

    instances = uids(other, "ReferencedSOPInstanceUID") - {new.StudyInstanceUID}
    assert instances == {new.SOPInstanceUID}
    assert uids(other, "SeriesInstanceUID") == {new.SeriesInstanceUID}
    assert uids(other, "StudyInstanceUID") == {new.StudyInstanceUID}
    assert uids(other, "FrameOfReferenceUID") <= {new.FrameOfReferenceUID}
    assert uids(other, "ReferencedSOPClassUID") == {CT}
    assert "1.2.3.4" not in str(uids(other, "SOPInstanceUID", "ReferencedSOPInstanceUID"))


def test_the_result_names_the_new_uids() -> None:
    made = anonymize(part10(image()), a_context("basic"))
    new = deidentified(image())

    assert (made.sop_instance_uid, made.study_instance_uid, made.series_instance_uid) == (
        new.SOPInstanceUID,
        new.StudyInstanceUID,
        new.SeriesInstanceUID,
    )
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
    assert new.SOPInstanceUID.startswith("2.25.")


def test_intervals_stay_across_all_objects_of_a_patient() -> None:
    first = deidentified(an_object(StudyDate="20240229", SeriesDate="20240301"), "research")
    later = deidentified(an_object(StudyDate="20240310", SOPInstanceUID="1.2.9", StudyInstanceUID="1.2.8"), "research")

    days = [(date.fromisoformat(each) - date(2024, 2, 29)).days for each in (first.StudyDate, first.SeriesDate, later.StudyDate)]
    assert [day - days[0] for day in days] == [0, 1, 10]
    assert days[0] != 0
    assert first.StudyTime == "101112"


def test_two_patients_are_moved_apart() -> None:
    moved = {deidentified(an_object(PatientID=f"P{n}"), "research").StudyDate for n in range(6)}

    assert len(moved) > 3


def test_a_patient_has_one_pseudonym_whatever_the_name_and_whoever_asks() -> None:
    first = deidentified(an_object(PatientName="Doe^Jane"))
    second = deidentified(an_object(PatientName="Roe^Jane", SOPInstanceUID="1.2.9"))
    of_message = subject_of("P1")
    assert of_message is not None

    assert first.PatientID == second.PatientID == Pseudonyms(KEY, "basic").patient_id(of_message)
    assert first.PatientName == second.PatientName
    assert "P1" not in str(first)


def test_equal_identifiers_of_two_issuers_are_two_patients() -> None:
    assert deidentified(an_object(IssuerOfPatientID="NORTH")).PatientID != deidentified(an_object(IssuerOfPatientID="SOUTH")).PatientID


def test_the_issuers_universal_id_counts_where_it_has_no_name() -> None:
    qualified = an_object(IssuerOfPatientIDQualifiersSequence=Sequence([item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")]))

    for trace in (False, True):
        made = deidentified(qualified, trace=trace)
        expected = subject_of("P1", "", "1.2.3")
        assert expected is not None
        assert made.PatientID == Pseudonyms(KEY, "basic").patient_id(expected)
        assert "IssuerOfPatientIDQualifiersSequence" not in made


def test_who_survived_a_merge_wins_over_what_the_object_says() -> None:
    survivor = subject_of("P2", "NORTH")
    assert survivor is not None
    made = anonymize(part10(an_object()), a_context("basic", subject=survivor))
    del made

    assert deidentified(an_object(PatientID="P2", IssuerOfPatientID="NORTH")).PatientID.encode() in out_of(
        part10(an_object()), a_context("basic", subject=survivor)
    )


def test_accession_numbers_are_the_same_wherever_they_stand_and_fit() -> None:
    made = deidentified(an_object(RequestAttributesSequence=[item(AccessionNumber="A123")]), a_policy("clean-descriptors", name="basic"))

    assert made.AccessionNumber == made.RequestAttributesSequence[0].AccessionNumber
    assert len(made.AccessionNumber) == 16


def test_the_same_object_is_the_same_bytes_each_time() -> None:
    assert out_of(part10(report()), a_context("research")) == out_of(part10(report()), a_context("research"))


def test_who_is_over_89_is_90() -> None:
    ages = [deidentified(an_object(PatientAge=age), "research").PatientAge for age in ("089Y", "090Y", "091Y", "098Y", "104Y", "012M")]

    assert ages == ["089Y", "090Y", "090Y", "090Y", "090Y", "012M"]


def test_an_object_says_what_was_done_to_it() -> None:
    made = deidentified(an_object(PatientIdentityRemoved="NO", DeidentificationMethod="by Dr. Doe"), "research")

    assert made.PatientIdentityRemoved == "YES"
    assert made.LongitudinalTemporalInformationModified == "MODIFIED"
    assert a_context("research").policy.version in str(made.DeidentificationMethod)
    assert KEY.id in str(made.DeidentificationMethod)
    codes = [each.CodeValue for each in made.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113104", "113105", "113107", "113108", "113109", "113111"]
    assert "Doe" not in str(made)


def test_pixels_are_said_to_be_clean_only_by_who_cleaned_them() -> None:
    policy = a_policy("clean-pixel-data")
    dirty = deidentified(an_object(BurnedInAnnotation="YES"), policy)
    clean = deidentified(an_object(BurnedInAnnotation="YES"), policy, cleaned=frozenset({Option.CLEAN_PIXEL_DATA}))

    twice = out_of(part10(an_object(BurnedInAnnotation="YES")), a_context(policy), cleaned=frozenset({Option.CLEAN_PIXEL_DATA}))
    assert twice.count(b"\x28\x00\x01\x03CS") == 1
    assert (dirty.BurnedInAnnotation, "113101" in str(dirty)) == ("YES", False)
    assert (clean.BurnedInAnnotation, "113101" in str(clean)) == ("NO", True)


def test_a_policy_may_be_stricter_at_a_place() -> None:
    policy = a_policy("clean-structured-content", more='[attributes]\nManufacturer = "remove"\n"ContentSequence/TextValue" = "replace"')
    made = deidentified(
        an_object(SOPClassUID=SR, Manufacturer="ACME", TextValue="chest", ContentSequence=[item(TextValue="chest")]), policy
    )

    assert made.Manufacturer == ""  # of type 2: without it the object would not be one of its class
    assert (made.TextValue, made.ContentSequence[0].TextValue) == ("chest", "REMOVED")


def test_a_preview_tells_each_element_with_its_action_and_reason() -> None:
    original = part10(an_object(StationName="CT1", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jane"))
    actions = {each.keyword: each for each in anonymize(original, a_context("basic"), trace=True).actions}

    assert (actions["PatientName"].before, actions["PatientName"].code) == ("Müller^Jane", "Z")
    assert (actions["StationName"].after, actions["StationName"].code) == (None, "X/Z/D: X")
    assert "Table E.1-1" in actions["StationName"].why
