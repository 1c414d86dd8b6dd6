"""Text among and behind the samples of frames and waveforms, where no decoder looks: blanked, or nothing leaves."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from pydicom.uid import RLELossless

from processors.anonymize.codestreams import codestream_of
from processors.anonymize.comments import blanked
from processors.anonymize.engine import anonymize
from processors.anonymize.policy import policy
from tests.processors.anonymize.codestreams import SOF_LS, SOS, jp2, jpeg, jpeg_2000, part, segment
from tests.processors.anonymize.objects import Raw, a_context, a_file, a_policy, part10, read, samples
from tests.processors.anonymize.test_attacks import JPEG_2000, JPEG_LS, NAME, ODD, RLE, fragments, leaves
from tests.processors.anonymize.test_pixels import an_image, pixels_of

ECG = "1.2.840.10008.5.1.4.1.1.9.1.1"
BASIC = policy("basic")
COMMENT, EXIF = segment(0xFE, ODD), segment(0xE1, b"Exif\0\0" + ODD)
COMMENTED = part(segment(0x64, b"\0\1" + ODD), number=1)


def waveform(data: bytes, **more: bytes) -> bytes:
    """An ECG of one channel and four samples of 16 bits."""
    item: list[Raw] = [
        (0x003A0005, "US", b"\1\0"),
        (0x003A0010, "UL", b"\4\0\0\0"),
        (0x003A0200, "SQ", [[(0x54000110, "OW", more.get("minimum", b""))]]),
        (0x54001004, "US", more.get("bits", b"\x10\0")),
        (0x5400100A, "OW", more.get("padding", b"\0\0")),
        (0x54001010, "OW", data),
    ]
    return a_file([(0x00100020, "LO", b"P1"), (0x54000100, "SQ", [item])], sop_class=ECG)


def rle(*segments: bytes) -> bytes:
    """An image of 2 rows and 2 columns with a frame of these segments."""
    begins, at = [], 64
    for each in segments:
        begins.append(at)
        at += len(each)
    return fragments(b"", struct.pack("<16I", len(segments), *begins, *([0] * (15 - len(segments)))) + b"".join(segments), syntax=RLE)


ATTACKS = {
    "a comment between scans": fragments(b"", jpeg(scan=b"\1\2\xff\0\3" + COMMENT + SOS + b"\1")),
    "EXIF between scans": fragments(b"", jpeg(scan=b"\1\xff\xd0\2" + EXIF + SOS + b"\1")),
    "a comment behind samples": fragments(b"", jpeg(scan=b"\1\2" + COMMENT)),
    "a comment behind fill bytes": fragments(b"", jpeg(scan=b"\1\2\xff\xff" + COMMENT)),
    "a comment of JPEG-LS between scans": fragments(b"", jpeg(scan=b"\1\xff\x7f" + COMMENT + SOS + b"\1", sof=SOF_LS), syntax=JPEG_LS),
    "EXIF in two fragments": fragments(b"", b"\xff\xd8" + EXIF[:14], EXIF[14:] + jpeg()[2:]),
    "EXIF in three fragments": fragments(b"", b"\xff\xd8\xff", EXIF[1:14], EXIF[14:] + jpeg()[2:] + b"\0"),
    "a comment in the second fragment": fragments(b"", jpeg()[:-2], COMMENT + SOS + b"\1\2\xff\xd9"),
    "a comment in the second tile-part": fragments(b"", jpeg_2000(b"", part(), COMMENTED), syntax=JPEG_2000),
    "a comment in the second tile-part, in JP2": fragments(
        b"",
        jp2(b"ftyp", b"jp2 \0\0\0\0jp2 ").partition(b"\xff\x4f")[0] + jpeg_2000(b"", part(), COMMENTED),
        syntax=JPEG_2000,
    ),
    "behind the last segment of RLE": rle(b"\3\1\2\3\4" + ODD),
    "behind the first segment of RLE": rle(b"\3\1\2\3\4" + ODD, b"\3\1\2\3\4"),
    "a segment of RLE that no sample has": rle(b"\3\1\2\3\4", b"\7" + ODD),
    "behind the samples of a waveform": waveform(bytes(8) + ODD),
    "a waveform without samples": waveform(bytes(8) + ODD, bits=b"\0\0"),
    "a padding value of a waveform": waveform(bytes(8), padding=ODD),
    "a least value of a channel": waveform(bytes(8), minimum=ODD),
    "a waveform where none is": a_file([(0x00100020, "LO", b"P1"), (0x54001010, "OW", ODD), (0x5400100A, "OW", ODD)]),
    "a waveform in another sequence": a_file([(0x00081140, "SQ", [[(0x54001010, "OW", ODD)]])], sop_class=ECG),
}


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_text_does_not_get_through(name: str, trace: bool) -> None:
    assert NAME not in leaves(ATTACKS[name], BASIC, trace=trace)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "comment" in name or "EXIF" in name or "a waveform " in name[:11]][:9])
def test_what_can_be_blanked_leaves(name: str) -> None:
    assert leaves(ATTACKS[name], BASIC, trace=False)


def test_each_engine_blanks_the_same() -> None:
    for name, original in ATTACKS.items():
        assert leaves(original, BASIC, trace=True)[-200:] == leaves(original, BASIC, trace=False)[-200:], name


def test_a_waveform_of_the_size_that_it_says_stays() -> None:
    for original, size in ((waveform(bytes(8), minimum=b"\0\0"), 8), (waveform(b"\1\2\3\4", bits=b"\x08\0"), 4)):
        made = read(leaves(original, BASIC, trace=False))

        assert len(made.WaveformSequence[0].WaveformData) == size


@pytest.mark.parametrize("scans", [b"\1\xff\0\2", b"\1\xff\xd3\2", b"\xff\x7f\1"])
def test_samples_are_taken_for_nothing_else(scans: bytes) -> None:
    frame = b"\xff\xd8" + SOS + scans + ODD + SOS + ODD + b"\xff\xd9"
    pixels = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame

    assert blanked(pixels) == pixels


@pytest.mark.parametrize("cut", [3, 21, 180, 400])
def test_a_frame_in_fragments_is_the_same_image(cut: int) -> None:
    original = samples()["SC_rgb_jpeg_dcmtk.dcm"]
    begin = original.find(b"\xff\xd8\xff")
    (size,) = struct.unpack_from("<I", original, begin - 4)
    frame = original[begin : begin + size]
    longer = frame[:2] + EXIF + frame[2:]
    head = b"\xfe\xff\0\xe0"
    pieces = b"".join(head + struct.pack("<I", len(each)) + each for each in (longer[: cut + cut % 2], longer[cut + cut % 2 :]))

    made = b"".join(anonymize(original[: begin - 8] + pieces + original[begin + size :], a_context("basic")).parts)

    assert NAME not in made
    assert np.array_equal(read(made).pixel_array, read(original).pixel_array)


@pytest.mark.parametrize("of", [{}, {"bits": 16}, {"frames": 3}, {"rows": 7, "columns": 13}])
def test_frames_of_rle_leave(of: dict[str, Any]) -> None:
    file = read(part10(an_image(**of)))
    file.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pylibjpeg")
    original = part10(file, RLELossless)

    assert np.array_equal(pixels_of(leaves(original, BASIC, trace=False)), pixels_of(original))


@pytest.mark.parametrize("name", [name for name in samples() if "rle" in name.lower()])
def test_frames_of_rle_of_other_makers_leave(name: str) -> None:
    by = a_policy(more='kinds.secondary-capture = "pass: test images"\nkinds.rt-label = "clean"\nkinds.screen-save = "pass: test images"')

    assert read(leaves(samples()[name], by, trace=False)).PixelData == read(samples()[name]).PixelData


@pytest.mark.parametrize("behind", [b"", b"\0", b"\x80", b"\x80\0"])
def test_what_pads_a_segment_is_nothing(behind: bytes) -> None:
    assert leaves(rle(b"\3\1\2\3\4" + behind), BASIC, trace=False)


@pytest.mark.parametrize("segments", [(b"\3\1\2\3",), (b"\2\1\2\3",), (b"",), (b"\1\1\1" * 2000,)])
def test_a_segment_of_another_size_is_held(segments: tuple[bytes, ...]) -> None:
    assert leaves(rle(*segments), BASIC, trace=False) == b""


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("JPEG-lossy.dcm", 12),
        ("JPEG2000.dcm", 16),
        ("693_J2KI.dcm", 16),
        ("MR_small_jpeg_ls_lossless.dcm", 16),
        ("SC_rgb_jpeg_dcmtk.dcm", 8),
    ],
)
def test_the_precision_of_a_codestream_is_read(name: str, bits: int) -> None:
    data = read(samples()[name]).PixelData
    begin = next(at for at in (data.find(each) for each in (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")) if at >= 0)

    found = codestream_of(data, begin, len(data))

    assert found is not None
    assert found.bits == bits
