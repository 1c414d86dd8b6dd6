from __future__ import annotations

import io
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from hilum.errors import NotFound
from hilum.events import ObjectRef
from hilum.testing import MemoryStore
from processors.route import contents
from processors.route.contents import StoredContents, compare


def a_file(name: str = "CT_small.dcm") -> FileDataset:
    found = get_testdata_file(name, download=False)
    assert found is not None
    return pydicom.dcmread(str(found))


def written(ds: FileDataset, syntax: pydicom.uid.UID | None = None) -> bytes:
    buffer = BytesIO()
    if syntax is not None:
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(buffer, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    return buffer.getvalue()


def as_it_came(name: str) -> bytes:
    found = get_testdata_file(name, download=False)
    assert found is not None
    return Path(str(found)).read_bytes()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_another_encoding_of_the_same_object_is_the_same(syntax: pydicom.uid.UID) -> None:
    assert compare(written(a_file(), ExplicitVRLittleEndian), written(a_file(), syntax)).result == "same"


def test_a_compressed_image_is_the_same_as_what_it_was_made_of() -> None:
    compressed = a_file()
    compressed.compress(RLELossless, generate_instance_uid=False)

    assert compare(written(a_file(), ExplicitVRLittleEndian), written(compressed, RLELossless)).result == "same"


OTHERS = ("RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded")


@pytest.mark.parametrize("encoding", OTHERS)
def test_one_image_in_every_encoding_that_loses_nothing_is_the_same(encoding: str) -> None:
    found = compare(as_it_came("MR_small.dcm"), as_it_came(f"MR_small_{encoding}.dcm"))

    assert (found.result, found.tags) == ("same", ())


def rename(ds: FileDataset) -> None:
    ds.PatientName = "Corrected^Name"


def re_describe(ds: FileDataset) -> None:
    ds.OtherPatientIDsSequence[0].PatientID = "other"


def drop(ds: FileDataset) -> None:
    del ds.StudyDescription


@pytest.mark.parametrize(("change", "tag"), [(rename, "00100010"), (re_describe, "00101002"), (drop, "00081030")])
def test_another_header_with_the_same_pixels_is_told_by_its_tags_and_no_value(change: Callable[[FileDataset], None], tag: str) -> None:
    corrected = a_file()
    change(corrected)

    found = compare(written(a_file(), ExplicitVRLittleEndian), written(corrected, ImplicitVRLittleEndian))

    assert (found.result, found.tags, found.says) == ("header", (tag,), "")


def test_one_pixel_makes_it_another_image() -> None:
    changed = a_file()
    changed.PixelData = bytes([changed.PixelData[0] ^ 1]) + changed.PixelData[1:]

    assert compare(written(a_file(), ExplicitVRLittleEndian), written(changed, ImplicitVRLittleEndian)).result == "pixels"


def test_a_report_with_other_content_is_another_object() -> None:
    changed = a_file("reportsi.dcm")
    changed.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning = "Something else"

    assert compare(as_it_came("reportsi.dcm"), as_it_came("reportsi.dcm")).result == "same"
    assert compare(written(a_file("reportsi.dcm"), ExplicitVRLittleEndian), written(changed, ExplicitVRLittleEndian)).result == "pixels"


def test_group_lengths_and_padding_say_nothing() -> None:
    padded = a_file()
    padded.add_new(0x00080000, "UL", 1234)
    padded.add_new(0xFFFCFFFC, "OB", b"\0" * 64)

    assert compare(written(a_file(), ExplicitVRLittleEndian), written(padded, ExplicitVRLittleEndian)).result == "same"


def test_text_in_another_character_set_is_the_same_text() -> None:
    one, other = a_file(), a_file()
    one.SpecificCharacterSet, other.SpecificCharacterSet = "ISO_IR 100", "ISO_IR 192"
    one.PatientName = other.PatientName = "Müller^Jörg"

    assert compare(written(one, ExplicitVRLittleEndian), written(other, ExplicitVRLittleEndian)).result == "same"


def test_private_elements_that_one_path_did_not_know_are_compared_by_their_bytes() -> None:
    one = a_file()
    block = one.private_block(0x0029, "MAKER", create=True)
    block.add_new(0x10, "LO", "private text")

    assert compare(written(one, ExplicitVRLittleEndian), written(one, ImplicitVRLittleEndian)).result == "same"


def encapsulated(frame: bytes, filler: bytes = b"") -> bytes:
    ds = a_file()
    ds.PixelData = pydicom.encaps.encapsulate([frame + filler])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    ds.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def test_pixels_that_cannot_be_decoded_are_compared_frame_by_frame_and_else_left_to_a_person() -> None:
    assert compare(encapsulated(b"no image"), encapsulated(b"no image", b"\0\0")).result == "same"
    found = compare(encapsulated(b"no image"), encapsulated(b"another1"))
    assert found.result == "unknown"
    assert "cannot be decoded" in found.says


def test_what_is_no_dicom_is_left_to_a_person() -> None:
    assert compare(b"\0" * 100, written(a_file(), ExplicitVRLittleEndian)).result in ("unknown", "pixels", "header")
    assert compare(written(a_file(), ExplicitVRLittleEndian), written(a_file(), ExplicitVRLittleEndian)[:20_000]).result != "same"


def test_objects_are_read_from_the_store_and_large_ones_are_not() -> None:
    store = MemoryStore()
    whole = written(a_file(), ExplicitVRLittleEndian)
    store.put("b", "one", BytesIO(whole), len(whole))
    one, large = (
        ObjectRef(bucket="b", key="one", size_bytes=size, sha256=generate_uid()) for size in (len(whole), contents.MOST_BYTES + 1)
    )

    assert StoredContents(store).compare(one, one).result == "same"
    assert StoredContents(store).compare(one, large).result == "unknown"


def test_what_has_expired_cannot_be_compared_and_it_is_said_since_when() -> None:
    store = MemoryStore()
    whole = written(a_file())
    store.put("b", "now", BytesIO(whole), len(whole))
    before, now = (ObjectRef(bucket="b", key=key, size_bytes=len(whole), sha256=generate_uid()) for key in ("before", "now"))

    found = StoredContents(store, lambda ref: f"{ref.key} expired on 2026-01-31.").compare(before, now)

    assert (found.result, found.says) == ("unknown", "They cannot be compared. before expired on 2026-01-31.")


def test_what_is_gone_and_did_not_expire_is_no_matter_of_contents() -> None:
    gone = ObjectRef(bucket="b", key="gone", size_bytes=1, sha256=generate_uid())

    with pytest.raises(NotFound):
        StoredContents(MemoryStore()).compare(gone, gone)
