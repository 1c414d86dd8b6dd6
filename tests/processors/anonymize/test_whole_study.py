"""A whole study of two images, a segmentation, a report and radiotherapy objects, and a later one of the same patient, as deliveries
de-identify them: every reference leads to what left, every interval is as it was, and a message means the same patient."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileDataset

from hilum.hl7.extract import Defaults
from hilum.hl7.fieldmaps import fieldmap
from hilum.hl7.mapping import map_message
from hilum.hl7.message import parse
from hilum.identity import Authorities
from hilum.order_events import Patient
from processors.anonymize.delivering import Outgoing
from processors.anonymize.policy import policy
from tests.processors.anonymize.objects import KEY, an_object, part10, read
from tests.processors.anonymize.test_study_stays_one import item

_STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, SEG, SR, PLAN, STRUCT, DOSE = (_STORAGE + suffix for suffix in ("2", "66.4", "88.33", "481.5", "481.3", "481.2"))
ROOT = "1.2.826.0.1.3680043.8.498."
STUDY, PRIOR, FRAME = ROOT + "1", ROOT + "2", ROOT + "3"
SERIES = dict(zip((CT, SEG, SR, STRUCT, PLAN, DOSE), (f"{STUDY}.{n}" for n in range(1, 7)), strict=True))
LATER = f"{PRIOR}.1"
#: Of a point of a report, which other reports name.
TRACKING = ROOT + "4"


def pixels(bits: int, data: bytes) -> dict[str, Any]:
    return {
        "Rows": 2,
        "Columns": 4,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": 0,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelData": data,
    }


def of(sop_class: str, number: int, **more: Any) -> Dataset:
    series = SERIES[sop_class]
    own = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": f"{series}.{number}",
        "SeriesInstanceUID": series,
        "StudyInstanceUID": STUDY,
        "PatientID": "P1",
        "IssuerOfPatientID": "NORTH",
        "SeriesDate": "20240301",
        "SeriesTime": "235959.5",
        "InstanceCreationDate": "20240302",
        "TimezoneOffsetFromUTC": "+0100",
        "FrameOfReferenceUID": FRAME,
    }
    return an_object(**{**own, **more})


def to(sop_class: str, *numbers: int) -> list[Dataset]:
    return [item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=f"{SERIES[sop_class]}.{n}") for n in numbers]


def evidence() -> list[Dataset]:
    series = [
        item(SeriesInstanceUID=SERIES[each], ReferencedSOPSequence=to(each, *numbers)) for each, numbers in ((CT, (1, 2)), (SEG, (1,)))
    ]
    later = item(SeriesInstanceUID=LATER, ReferencedSOPSequence=[item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=f"{LATER}.1")])
    return [
        item(StudyInstanceUID=STUDY, ReferencedSeriesSequence=series),
        item(StudyInstanceUID=PRIOR, ReferencedSeriesSequence=[later]),
    ]


def segmentation() -> Dataset:
    frames = [item(DerivationImageSequence=[item(SourceImageSequence=to(CT, n))]) for n in (1, 2)]
    referenced = item(SeriesInstanceUID=SERIES[CT], ReferencedInstanceSequence=to(CT, 1, 2))
    return of(
        SEG,
        1,
        NumberOfFrames=2,
        PerFrameFunctionalGroupsSequence=frames,
        ReferencedSeriesSequence=[referenced],
        DimensionOrganizationSequence=[item(DimensionOrganizationUID=ROOT + "5")],
        DimensionIndexSequence=[item(DimensionOrganizationUID=ROOT + "5")],
        SegmentSequence=[item(SegmentNumber=1, SegmentLabel="Liver", TrackingUID=TRACKING, TrackingID="lesion")],
        **pixels(1, b"\x0f\xf0"),
    )


def report() -> Dataset:
    seen = item(ReferencedSOPSequence=to(CT, 1), RelationshipType="CONTAINS", ValueType="IMAGE")
    shape = item(ReferencedSOPSequence=to(SEG, 1), RelationshipType="CONTAINS", ValueType="IMAGE")
    tracking = item(ValueType="UIDREF", UID=TRACKING, RelationshipType="HAS OBS CONTEXT")
    place = item(ValueType="SCOORD3D", ReferencedFrameOfReferenceUID=FRAME, RelationshipType="CONTAINS")
    at = item(ValueType="DATETIME", DateTime="20240303120000.5+0100", RelationshipType="CONTAINS")
    measured = item(ValueType="CONTAINER", RelationshipType="CONTAINS", ContentSequence=[seen, shape, tracking, place, at])
    contents = item(ValueType="CONTAINER", RelationshipType="CONTAINS", ContentSequence=[measured])
    return of(SR, 1, ValueType="CONTAINER", ContentSequence=[contents], CurrentRequestedProcedureEvidenceSequence=evidence())


def structures() -> Dataset:
    series = item(SeriesInstanceUID=SERIES[CT], ContourImageSequence=to(CT, 1, 2))
    study = item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=STUDY, RTReferencedSeriesSequence=[series])
    region = item(ROINumber=1, ReferencedFrameOfReferenceUID=FRAME, ROIName="Liver", ROIGenerationAlgorithm="")
    contours = item(ReferencedROINumber=1, ContourSequence=[item(ContourImageSequence=to(CT, n)) for n in (1, 2)])
    return of(
        STRUCT,
        1,
        StructureSetLabel="A",
        StructureSetDate="20240304",
        ReferencedFrameOfReferenceSequence=[item(FrameOfReferenceUID=FRAME, RTReferencedStudySequence=[study])],
        StructureSetROISequence=[region],
        ROIContourSequence=[contours],
    )


def plan() -> Dataset:
    return of(PLAN, 1, RTPlanLabel="A", RTPlanDate="20240305", RTPlanGeometry="PATIENT", ReferencedStructureSetSequence=to(STRUCT, 1))


def dose() -> Dataset:
    return of(
        DOSE,
        1,
        ReferencedRTPlanSequence=to(PLAN, 1),
        ReferencedStructureSetSequence=to(STRUCT, 1),
        AcquisitionDateTime="20240306",
        **pixels(16, b"\1\0" * 8),
    )


def everything() -> list[Dataset]:
    later = of(
        CT, 1, SOPInstanceUID=f"{LATER}.1", SeriesInstanceUID=LATER, StudyInstanceUID=PRIOR, StudyDate="20230228", **pixels(8, b"\1" * 8)
    )
    images = [of(CT, n, AcquisitionDateTime=f"2024022823595{n}.5", **pixels(8, b"\1" * 8)) for n in (1, 2)]
    return [*images, segmentation(), report(), structures(), plan(), dose(), later]


def outgoing(name: str, **more: Any) -> Outgoing:
    return Outgoing(policy(name), KEY, **more)


def made(by: Outgoing, ds: Dataset, **more: Any) -> FileDataset:
    return read(b"".join(by.made(part10(ds), **more).parts))


def elements(ds: Dataset, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str, Any]]:
    for each in ds:
        if each.VR == "SQ":
            for n, inner in enumerate(each.value):
                yield from elements(inner, (*path, each.keyword, n))
        else:
            yield (*path, each.keyword), each.VR, each.value


@pytest.mark.parametrize("name", ["basic", "research"])
def test_every_reference_leads_to_what_left(name: str) -> None:
    by, new_of = outgoing(name), dict[str, str]()
    led = 0
    for before in everything():
        after = {path: str(value) for path, vr, value in elements(made(by, before)) if vr == "UI"}
        uids = {path: str(value) for path, vr, value in elements(before) if vr == "UI"}
        assert after.keys() == uids.keys(), "a reference was lost"
        for path, new in after.items():
            old = uids[path]
            assert (new == old) is old.startswith("1.2.840.10008."), path
            assert new_of.setdefault(old, new) == new, path
            led += path[-1] == "ReferencedSOPInstanceUID"

    assert led > 15
    assert len(set(new_of.values())) == len(new_of)
    assert not any(new.startswith(ROOT) for new in new_of.values())


@pytest.mark.parametrize("name", ["basic", "research"])
def test_nothing_refers_to_what_did_not_leave(name: str) -> None:
    by = outgoing(name)
    left = [made(by, each) for each in everything()]
    there = {str(each.SOPInstanceUID) for each in left} | {str(each.StudyInstanceUID) for each in left}

    referenced = {str(value) for each in left for path, _, value in elements(each) if path[-1] == "ReferencedSOPInstanceUID"}
    frames = {
        str(value)
        for each in left
        for path, _, value in elements(each)
        if path[-1] in ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")
    }

    assert referenced <= there
    assert len(frames) == 1


def moments(ds: Dataset) -> dict[tuple[Any, ...], datetime]:
    """Each date, and each date with a time, by its place."""
    found = {}
    for path, vr, value in elements(ds):
        if vr in ("DA", "DT") and value and path[-1] != "PatientBirthDate":
            text = str(value)
            digits, _, fraction = text.partition("+")[0].partition(".")
            found[path] = datetime.strptime(digits.ljust(14, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC) + timedelta(
                seconds=float(f"0.{fraction or 0}")
            )
    return found


def test_every_interval_is_as_it_was_and_times_and_time_zones_stay() -> None:
    by, shifts, count = outgoing("research"), set(), 0
    for before in everything():
        after = made(by, before)
        old, new = moments(before), moments(after)
        assert new.keys() == old.keys()
        shifts |= {new[path] - old[path] for path in old}
        count += len(old)
        times = {path: value for path, vr, value in elements(before) if vr == "TM"}
        assert times == {path: value for path, vr, value in elements(after) if vr == "TM"}
        assert after.TimezoneOffsetFromUTC == "+0100"
        offsets = [str(value)[-5:] for path, vr, value in elements(after) if vr == "DT" and "+" in str(value)]
        assert set(offsets) <= {"+0100"}

    assert count > 25
    assert len(shifts) == 1
    (shift,) = shifts
    assert shift.seconds == shift.microseconds == 0
    assert shift.days < 0


def test_under_the_basic_profile_no_date_is_left() -> None:
    by = outgoing("basic")

    left = [(path, value) for each in everything() for path, value in moments(made(by, each)).items()]

    assert {value.year for _, value in left} <= {1900}


def patient_of(pid: str) -> Patient:
    """Whom a message means, as the orders know it."""
    text = f"MSH|^~\\&|HIS||||20261126||ADT^A08|C|P|2.5.1\rPID|1||{pid}||Doe^Jane||19500102|F\rPV1|1|O"
    (patient,) = map_message(parse(text), fieldmap("hl7"), Defaults()).patients
    return Patient(key="k", ids=patient.ids)


@pytest.mark.parametrize(
    ("pid", "of_object"),
    [
        ("P1^^^NORTH^MR", {"IssuerOfPatientID": "NORTH"}),
        ("P1^^^north", {"IssuerOfPatientID": " North"}),
        ("P1^^^NORTH&1.2.3&ISO", {"IssuerOfPatientID": "NORTH"}),
        ("P1^^^&1.2.3&ISO", {"IssuerOfPatientID": "", "IssuerOfPatientIDQualifiersSequence": [item(UniversalEntityID="1.2.3")]}),
        ("P1^^^&1.2.9&ISO", {"IssuerOfPatientID": "NORTH"}),  # which the site says is the same
        ("P1", {"IssuerOfPatientID": ""}),
        ("P1", {"IssuerOfPatientID": "EAST"}),  # who assigned what does not say
        ("P1^^^NORTH^MR~X9^^^SOUTH", {"IssuerOfPatientID": "NORTH", "PatientName": "Doe^J", "PatientBirthDate": ""}),
    ],
)
@pytest.mark.parametrize("name", ["basic", "research"])
def test_a_message_and_an_object_mean_the_same_patient_on_the_way_out(name: str, pid: str, of_object: dict[str, Any]) -> None:
    """An object of a patient who was merged into the one of the message, beside one that names that patient itself."""
    by = outgoing(name, authorities=Authorities(default="EAST", same={"1.2.9": "NORTH"}))
    of_message = made(by, of(CT, 1, PatientID="OLD77777", **pixels(8, b"\1" * 8)), survivor_of=lambda _ids: patient_of(pid))
    itself = made(by, of(CT, 2, **{**of_object, **pixels(8, b"\1" * 8)}))

    assert (of_message.PatientID, of_message.PatientName) == (itself.PatientID, itself.PatientName)
    assert of_message.StudyDate == itself.StudyDate
