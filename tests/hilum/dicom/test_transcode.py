"""Objects in other transfer syntaxes: the same pixels and the same header, and what was lost before stays said."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from zlib import compressobj

import numpy as np
import pydicom
import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGBaseline8Bit, RLELossless

from hilum.dicom import jpeg12
from hilum.dicom.encoding import DEFLATED
from hilum.dicom.file_meta import part10_head
from hilum.dicom.recode import CannotRecode
from hilum.dicom.transcode import DECODABLE, evened, targets_for, transcoded
from hilum.part10 import data_set_offset
from hilum.synthetic import ct_study
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

#: Broken on purpose: cut off, with a value that pydicom cannot read, or with a delimiter inside a compressed stream.
UNDECODABLE = {"JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm", "rtplan_truncated.dcm", "badVR.dcm"}
#: What decoding may change, by tag.
DECODING_CHANGES = {0x00280004, 0x00280006, 0x00282110, 0x00282114, 0x00880200, 0x7FE00001, 0x7FE00002}


jpeg12.install()  # or pydicom cannot read two of the sources


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom finds odd in its own test objects
        yield


def samples() -> list[Path]:
    """pydicom's test objects that Hilum can write in another transfer syntax."""
    found = []
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*")):
        if path.is_file() and path.name not in UNDECODABLE:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ds = pydicom.dcmread(path, stop_before_pixels=True)
            except InvalidDicomError:
                continue
            if targets_for(str(ds.file_meta.get("TransferSyntaxUID", ""))) and ds.get("SOPInstanceUID"):
                found.append(path)
    return found


def own_of(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def in_other_syntax(whole: bytes, own: str, target: str) -> Dataset:
    data = b"".join(transcoded(whole, data_set_offset(whole), own, target)(1 << 16))
    return pydicom.dcmread(BytesIO(part10_head("1.2", "1.3", target) + data))


def same(a: Dataset, b: Dataset, but: set[int] = DECODING_CHANGES) -> bool:
    def told(ds: Dataset) -> dict[int, object]:
        # Private elements are read by another VR in implicit, where pydicom knows better than the sender.
        return {each.tag: each.value for each in ds if each.tag not in {*but, 0x7FE00010} and each.tag.element and not each.tag.is_private}

    return told(a) == told(b)


@pytest.mark.parametrize(
    ("path", "own", "target"),
    [(path, own, target) for path in samples() for own in [own_of(path)] for target in targets_for(own)],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_pixels_and_header_are_those_of_the_source(path: Path, own: str, target: str) -> None:
    found, original = in_other_syntax(path.read_bytes(), own, target), pydicom.dcmread(path)

    assert same(found, original)
    if "PixelData" in original:
        assert np.array_equal(pixel_array(found, raw=True), pixel_array(original, raw=True))


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
@pytest.mark.peer("dcmdjpeg")
def test_twelve_bit_jpeg_decodes_as_dcmtk_decodes_it(name: str, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file(name)))
    subprocess.run(["dcmdjpeg", path, tmp_path / "theirs.dcm"], check=True, capture_output=True)

    found = in_other_syntax(path.read_bytes(), own_of(path), EXPLICIT_VR_LITTLE_ENDIAN)

    assert np.array_equal(found.pixel_array, pydicom.dcmread(tmp_path / "theirs.dcm").pixel_array)


def a_lossy_object(**more: object) -> bytes:
    source = pydicom.dcmread(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))
    assert source.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    for keyword, value in more.items():
        setattr(source, keyword, value)
    out = BytesIO()
    source.save_as(out)
    return out.getvalue()


def test_a_lossy_original_keeps_saying_what_was_lost() -> None:
    told = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5", "LossyImageCompressionMethod": "ISO_10918_1"}

    found = in_other_syntax(a_lossy_object(**told), JPEGBaseline8Bit, IMPLICIT_VR_LITTLE_ENDIAN)

    assert {keyword: str(found[keyword].value) for keyword in told} == told


def test_a_lossy_original_that_does_not_say_so_says_so_afterwards() -> None:
    whole = a_lossy_object(LossyImageCompression="00")

    found = in_other_syntax(whole, JPEGBaseline8Bit, IMPLICIT_VR_LITTLE_ENDIAN)

    assert (found.LossyImageCompression, found.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


def test_a_compressed_thumbnail_is_left_out() -> None:
    icon = Dataset()
    icon.PixelData = encapsulate([b"12"])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True

    found = in_other_syntax(a_lossy_object(IconImageSequence=[icon]), JPEGBaseline8Bit, EXPLICIT_VR_LITTLE_ENDIAN)

    assert "IconImageSequence" not in found


def test_the_sop_instance_uid_stays() -> None:
    path = Path(str(get_testdata_file("SC_rgb_rle.dcm")))

    assert in_other_syntax(path.read_bytes(), RLELossless, IMPLICIT_VR_LITTLE_ENDIAN).SOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID


def test_an_object_with_fewer_frames_than_it_says_is_refused() -> None:
    source = pydicom.dcmread(str(get_testdata_file("SC_rgb_rle_2frame.dcm")))
    source.PixelData = encapsulate([next(generate_frames(source.PixelData, number_of_frames=2))])
    out = BytesIO()
    source.save_as(out)

    with pytest.raises(CannotRecode):
        in_other_syntax(out.getvalue(), RLELossless, EXPLICIT_VR_LITTLE_ENDIAN)


def test_what_cannot_be_decoded_is_refused_without_a_value_in_the_words() -> None:
    path = Path(str(get_testdata_file("JPEG2000-embedded-sequence-delimiter.dcm")))

    with pytest.raises(CannotRecode, match=r"^its pixel data cannot be decoded \(\w+\)$"):
        in_other_syntax(path.read_bytes(), own_of(path), EXPLICIT_VR_LITTLE_ENDIAN)


def test_what_is_said_to_be_decodable_is_what_the_decoders_offer() -> None:
    compressed = [uid for uid in UID_dictionary if UID(uid).is_transfer_syntax and UID(uid).is_compressed and UID(uid) not in DEFLATED]

    def offered(uid: str) -> bool:
        with suppress(NotImplementedError):
            return bool(get_decoder(uid).is_available)
        return False

    assert {uid for uid in compressed if offered(uid)} == DECODABLE


def test_video_has_no_other_syntax() -> None:
    assert targets_for("1.2.840.10008.1.2.4.102") == ()
    assert targets_for("1.3.46.670589.33.1.4.1") == ()  # private


def test_an_endless_deflate_stream_is_refused() -> None:
    stream = compressobj(wbits=-15)
    data = stream.compress(b"\x08\0\x05\0CS\x0a\0ISO_IR 100") + stream.flush()
    whole = part10_head("1.2", "1.3", "1.2.840.10008.1.2.1.99") + data[:-2]

    with pytest.raises(CannotRecode, match="deflate"):
        in_other_syntax(whole, "1.2.840.10008.1.2.1.99", EXPLICIT_VR_LITTLE_ENDIAN)


def test_odd_lengths_are_padded_and_nothing_else_changes() -> None:
    [ds] = ct_study(1, rows=8, columns=8)
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    whole = out.getvalue()
    at = data_set_offset(whole)
    assert evened(whole, at, EXPLICIT_VR_LITTLE_ENDIAN) is None
    odd = whole[:at] + whole[at:].replace(b"LO\x0a\0SYNTH0001 ", b"LO\x09\0SYNTH0001")
    assert len(odd) == len(whole) - 1

    made = evened(odd, at, EXPLICIT_VR_LITTLE_ENDIAN)

    assert made is not None
    found = pydicom.dcmread(BytesIO(whole[:at] + b"".join(made(1 << 16))))
    assert found == ds
    assert found.PixelData == ds.PixelData
