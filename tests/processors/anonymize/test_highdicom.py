"""What another library derives from images: nobody's name leaves, references stay whole, and the library itself still reads it."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset

from processors.anonymize.options import Option
from processors.anonymize.outgoing import outgoing
from processors.anonymize.policy import Policy, policy_of
from tests.processors.anonymize.highdicom_objects import PLANTED, objects
from tests.processors.anonymize.objects import a_context, read
from tests.processors.anonymize.test_valid import Checks

KINDS = """
kinds.presentation-state = "clean"
kinds.sr-text = "clean"
kinds.rt-label = "clean"
kinds.secondary-capture = "pass: drawn for the test"
"""
OPTIONS = {
    "basic": "",
    "research": 'options = ["retain-modified-dates", "retain-device-identity", "retain-patient-characteristics", "retain-safe-private", '
    '"clean-descriptors", "clean-structured-content"]',
    **{option.keyword: f'options = ["{option.keyword}"]' for option in Option if option.column},
}
every_policy = pytest.mark.parametrize("name", OPTIONS)


def a_policy(name: str) -> Policy:
    return policy_of(OPTIONS[name] + KINDS, name)


@cache
def left(name: str, trace: bool = False) -> dict[str, bytes]:
    """What leaves under a policy, by what it is; by the engine on bytes, or the one on pydicom."""
    context = a_context(a_policy(name))
    return {of: b"".join(outgoing(original, context, trace=trace).parts) for of, original in objects().items()}


@cache
def uids(name: str = "") -> dict[str, set[str]]:
    """The UIDs of all objects by keyword: of what leaves under a policy, or of the originals."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in (left(name) if name else objects()).values():
        for each in read(file).iterall():
            if each.VR == "UI":
                found[each.keyword].add(str(each.value))
    return found


@every_policy
@pytest.mark.parametrize("trace", [False, True])
def test_nobody_is_named(name: str, trace: bool) -> None:
    forms = [each.lower().encode(encoding) for each in PLANTED for encoding in ("ascii", "utf-16-le", "utf-16-be")]

    assert [(of, form) for of, file in left(name, trace).items() for form in forms if form in file.lower()] == []


@every_policy
def test_references_lead_to_what_leaves_with_them(name: str) -> None:
    before, after = uids(), uids(name)

    assert after["ReferencedSOPInstanceUID"] <= after["SOPInstanceUID"]
    assert after["ReferencedFrameOfReferenceUID"] <= after["FrameOfReferenceUID"]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert len(after[keyword]) == len(before[keyword])
        assert after[keyword].isdisjoint(before[keyword]) == (name != Option.RETAIN_UIDS.keyword)


@every_policy
@pytest.mark.parametrize(
    "of", ["segmentation", "fractional segmentation", "compressed segmentation", "label map", "parametric map of numbers"]
)
def test_samples_are_what_they_were(name: str, of: str) -> None:
    assert read(left(name)[of]).PixelData == read(objects()[of]).PixelData


@pytest.mark.peer("dciodvfy")
def test_all_is_as_valid_as_it_was(tmp_path: Path) -> None:
    derived = [of for of in objects() if of not in ("slice 1", "slice 2", "slice 3")]

    assert Checks(tmp_path).new_errors({f"{of}, {name}": (objects()[of], left(name)[of]) for name in OPTIONS for of in derived}) == {}


@pytest.mark.peer("dcmdump")
def test_dcmtk_reads_all(tmp_path: Path) -> None:
    assert Checks(tmp_path).unread({f"{of}, {name}": file for name in ("basic", "research") for of, file in left(name).items()}) == []


def as_read(name: str, of: str) -> Dataset:
    return read(left(name)[of])


@every_policy
def test_highdicom_finds_the_segments_of_each_slice(name: str) -> None:
    before, after = (hd.seg.segread(BytesIO(files["segmentation"])) for files in (objects(), left(name)))
    slices = [read(left(name)[f"slice {number}"]).SOPInstanceUID for number in range(4)]
    old = [read(objects()[f"slice {number}"]).SOPInstanceUID for number in range(4)]

    assert np.array_equal(after.get_pixels_by_source_instance(slices), before.get_pixels_by_source_instance(old))
    assert [after.get_segment_description(number).segmented_property_type.value for number in (1, 2)] == ["272673000", "272673000"]


@pytest.mark.parametrize("name", ["research", "clean-structured-content"])
def test_highdicom_finds_the_measurements_of_a_report(name: str) -> None:
    found: Any = hd.sr.Comprehensive3DSR.from_dataset(as_read(name, "report")).content

    (planar,) = found.get_planar_roi_measurement_groups()
    (volume,) = found.get_volumetric_roi_measurement_groups()
    assert [each.value for each in (*planar.get_measurements(), *volume.get_measurements())] == [17.5, 17.5]
    assert volume.reference_type == hd.sr.CodedConcept("121191", "DCM", "Referenced Segment")


@pytest.mark.parametrize("name", ["research", "clean-graphics"])
def test_a_presentation_state_names_its_slices(name: str) -> None:
    (series,) = as_read(name, "presentation state").ReferencedSeriesSequence

    assert len(series.ReferencedImageSequence) == 4
