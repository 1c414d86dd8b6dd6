"""Images compressed with loss: what is made, under which UID, what its header says, and of what nothing is made."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from hilum.dicom.file_meta import part10_head
from hilum.dicom.header import uid_has_leading_zero, uid_is_usable
from hilum.dicom.lossy import JPEG_2000, Lossy, is_made_of, source_named, suits
from hilum.dicom.transcode import lossy
from hilum.part10 import data_set_offset

TEN = Lossy(ratio=10.0)
UIDS = st.from_regex(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,5}", fullmatch=True)


def sample(name: str) -> Dataset:
    return pydicom.dcmread(str(get_testdata_file(name)))


def written(ds: Dataset) -> bytes:
    out = BytesIO()
    ds.save_as(out)
    return out.getvalue()


def derived(whole: bytes, wanted: Lossy = TEN) -> Dataset | None:
    source = pydicom.dcmread(BytesIO(whole), stop_before_pixels=True)
    syntax = str(source.file_meta.TransferSyntaxUID)
    made = lossy(whole, data_set_offset(whole), syntax, wanted)
    if made is None:
        return None
    uid, pieces = made
    data = b"".join(pieces(10_000))
    assert len(data) == pieces.size_bytes
    found = pydicom.dcmread(BytesIO(part10_head(str(source.SOPClassUID), uid, JPEG_2000) + data))
    assert uid == found.SOPInstanceUID
    return found


def made_of(ds: Dataset, wanted: Lossy = TEN) -> Dataset:
    found = derived(written(ds), wanted)
    assert found is not None
    return found


def test_its_header_says_what_was_done_and_to_what() -> None:
    source = sample("CT_small.dcm")
    found = made_of(source)

    assert found.SOPInstanceUID == TEN.uid_of(source.SOPInstanceUID) != source.SOPInstanceUID
    assert list(found.ImageType) == ["DERIVED", *source.ImageType[1:]]
    assert (found.LossyImageCompression, found.LossyImageCompressionMethod) == ("01", "ISO_15444_1")
    assert 9 < found.LossyImageCompressionRatio < 12
    assert "JPEG 2000, 10:1" in found.DerivationDescription
    [code] = found.DerivationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("113040", "DCM", "Lossy Compression")
    [image] = found.SourceImageSequence
    assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121320"


def test_all_other_elements_stay() -> None:
    source, found = sample("CT_small.dcm"), made_of(sample("CT_small.dcm"))
    changed = {element.tag for element in source if element.tag not in found or found[element.tag] != element}

    assert {pydicom.datadict.keyword_for_tag(tag) for tag in changed} == {"ImageType", "SOPInstanceUID", "PixelData"}


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "MR_small_RLE.dcm"])
def test_its_pixels_are_nearly_those_of_the_source(name: str) -> None:
    source = sample(name)
    found = derived(Path(str(get_testdata_file(name))).read_bytes())
    assert found is not None
    expected = source.pixel_array.astype(float)

    assert np.abs(found.pixel_array - expected).mean() < 0.02 * (expected.max() - expected.min())


def test_colour_is_transformed_and_comes_back_frame_by_frame() -> None:
    source, found = sample("SC_rgb_rle_2frame.dcm"), made_of(sample("SC_rgb_rle_2frame.dcm"))

    assert found.PhotometricInterpretation == "YBR_ICT"
    assert found.pixel_array.shape == source.pixel_array.shape
    assert np.abs(found.pixel_array.astype(int) - source.pixel_array.astype(int)).max() <= 3


def test_an_image_that_was_compressed_without_loss_by_the_same_codec_is_compressed_anew() -> None:
    source = sample("GDCMJ2K_TextGBR.dcm")
    found = made_of(source)

    assert (source.PhotometricInterpretation, found.PhotometricInterpretation) == ("YBR_RCT", "YBR_ICT")
    assert np.abs(found.pixel_array.astype(int) - source.pixel_array.astype(int)).mean() < 5


@pytest.mark.parametrize(
    ("before", "after"),
    [("ORIGINAL", ["DERIVED"]), (None, ["DERIVED", "PRIMARY"]), (["DERIVED", "SECONDARY", "MPR"], ["DERIVED", "SECONDARY", "MPR"])],
)
def test_only_the_first_value_of_its_image_type_changes(before: object, after: list[str]) -> None:
    source = sample("CT_small.dcm")
    source.ImageType = before
    if before is None:
        del source.ImageType
    found = made_of(source).ImageType

    assert ([found] if isinstance(found, str) else list(found)) == after


def test_a_higher_ratio_makes_it_smaller_and_another_object() -> None:
    source = sample("CT_small.dcm")
    two, twenty = made_of(source, Lossy(ratio=2.0)), made_of(source, Lossy(ratio=20.0))

    assert len(twenty.PixelData) < len(two.PixelData) / 4
    assert two.SOPInstanceUID != twenty.SOPInstanceUID


def test_the_same_object_gives_the_same_bytes() -> None:
    source = sample("CT_small.dcm")

    assert made_of(source) == made_of(source)


def test_what_it_was_derived_from_before_stays_named() -> None:
    source = sample("CT_small.dcm")
    older = Dataset()
    older.ReferencedSOPClassUID, older.ReferencedSOPInstanceUID = source.SOPClassUID, "1.2.3"
    source.SourceImageSequence = [older]
    source.DerivationDescription = "Averaged"
    found = made_of(source)

    assert [each.ReferencedSOPInstanceUID for each in found.SourceImageSequence] == ["1.2.3", source.SOPInstanceUID]
    assert found.DerivationDescription.startswith("Averaged; Lossy compression by JPEG 2000")


def test_what_no_longer_holds_is_left_out() -> None:
    source = sample("CT_small.dcm")
    source.add_new("SmallestImagePixelValue", "SS", -1024)
    source.add_new("LargestImagePixelValue", "SS", 3000)

    assert not {"SmallestImagePixelValue", "LargestImagePixelValue"} & set(made_of(source).dir())


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_a_validator_finds_nothing_in_it_that_it_does_not_find_in_its_source(name: str, tmp_path: Path) -> None:
    source = Path(str(get_testdata_file(name)))
    made = tmp_path / "made.dcm"
    pydicom.dcmwrite(made, made_of(sample(name)), enforce_file_format=False)

    assert complaints(made) <= complaints(source)


def complaints(path: Path) -> set[str]:
    said = subprocess.run(["dciodvfy", path], capture_output=True, check=False).stderr.decode("latin-1").splitlines()
    return {line for line in said if line.startswith(("Error", "Warning"))}


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("LossyImageCompression", "01"), ("PhotometricInterpretation", "PALETTE COLOR"), ("HighBit", 11), ("Rows", 16)],
)
def test_an_image_that_would_be_spoilt_is_left_as_it_is(keyword: str, value: object) -> None:
    source = sample("CT_small.dcm")
    setattr(source, keyword, value)

    assert derived(written(source)) is None


def test_an_image_with_an_overlay_in_its_pixels_is_left_as_it_is() -> None:
    source = sample("CT_small.dcm")
    source.add_new(0x60000102, "US", 15)

    assert derived(written(source)) is None


def test_an_object_without_pixels_is_left_as_it_is() -> None:
    source = sample("CT_small.dcm")
    del source.PixelData

    assert derived(written(source)) is None


@pytest.mark.parametrize(
    ("sop_class", "syntax", "expected"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", ExplicitVRLittleEndian, True),
        ("1.2.840.10008.5.1.4.1.1.2", JPEG_2000, False),
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.50", False),
        ("1.2.840.10008.5.1.4.1.1.1.2", ExplicitVRLittleEndian, False),  # mammograms
        ("1.2.840.10008.5.1.4.1.1.128", ExplicitVRLittleEndian, False),  # PET
        ("1.2.840.10008.5.1.4.1.1.481.2", ExplicitVRLittleEndian, False),  # dose
        ("1.2.840.10008.5.1.4.1.1.88.59", ExplicitVRLittleEndian, False),  # key objects
    ],
)
def test_only_kinds_of_images_that_are_looked_at_are_compressed(sop_class: str, syntax: str, expected: bool) -> None:
    assert suits(sop_class, UID(syntax)) is expected


@given(UIDS, st.floats(2, 100))
def test_a_derived_uid_is_one_and_tells_whose_it_is(source: str, ratio: float) -> None:
    uid = Lossy(ratio=ratio).uid_of(source)

    assert uid_is_usable(uid)
    assert not uid_has_leading_zero(uid)
    assert uid == Lossy(ratio=ratio).uid_of(source)
    assert is_made_of(uid, source)
    assert source_named(uid, [{"00081155": {"vr": "UI", "Value": [source]}}]) == source


@given(UIDS, UIDS)
def test_no_other_uid_passes_for_one(one: str, other: str) -> None:
    assert not is_made_of(one, other)
    assert one == other or not is_made_of(TEN.uid_of(one), other)


@pytest.mark.parametrize("items", [[], [{}], ["x"], [{"00081155": {"vr": "UI"}}], [{"00081155": {"Value": [3]}}]])
def test_whatever_a_header_names_as_its_source_harms_nothing(items: list[object]) -> None:
    assert source_named("2.25.1", items) == ""
