"""Compressed frames end where their own syntax says, and are of the image that the header tells of; else nothing leaves."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from processors.anonymize.codestreams import codestream_of
from processors.anonymize.held import Held
from processors.anonymize.outgoing import outgoing
from processors.anonymize.policy import policy
from tests.processors.anonymize.codestreams import SIZ, SOF, SOF_LS, SOS, jp2, jpeg, jpeg_2000, part, segment
from tests.processors.anonymize.objects import a_context, a_file, a_policy, read, samples
from tests.processors.anonymize.test_attacks import IMAGE, JPEG, JPEG_2000, JPEG_LS, ODD, fragments

ANY = a_policy(more="\n".join(f'kinds.{kind} = "pass: test images"' for kind in ("secondary-capture", "screen-save", "ultrasound")))
FRAMES = {JPEG: jpeg(), JPEG_LS: jpeg(sof=SOF_LS), JPEG_2000: jpeg_2000()}
#: Real objects of each family, each of one frame.
REAL = ("SC_rgb_jpeg_gdcm.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "JPEG-lossy.dcm", "examples_jpeg2k.dcm")


def why(original: bytes) -> str:
    with pytest.raises(Held) as stop:
        outgoing(original, a_context(ANY))
    assert stop.value.reason == "pixels-unreadable"
    return str(stop.value)


def frame_of(name: str) -> bytes:
    """The first frame of a sample, without what pads it."""
    frame: bytes = next(generate_frames(read(samples()[name]).PixelData, number_of_frames=1))
    return frame[: frame.rfind(b"\xff\xd9") + 2]


def with_frames(name: str, *frames: bytes, **attributes: Any) -> bytes:
    """A sample with these frames, a fragment each."""
    ds = read(samples()[name])
    ds.PixelData = encapsulate(list(frames))
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.save_as(out := BytesIO())
    return out.getvalue()


def numbered(frames: int, *values: bytes, syntax: str, table: bytes = b"") -> bytes:
    """An object with these fragments that says how many frames it has."""
    return fragments(table, *values, syntax=syntax).replace(
        struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2),
        struct.pack("<HH2sH", 0x0028, 0x0008, b"IS", 2) + b"%2d" % frames + b"\x28\0\x10\0US\2\0",
    )


@pytest.mark.parametrize("name", REAL)
def test_nothing_is_behind_the_end_of_a_frame_though_a_second_end_follows(name: str) -> None:
    frame = frame_of(name)

    assert "Behind the end of a frame" in why(with_frames(name, frame + b"Doe Jane P1" + bytes(2000) + b"\xff\xd9"))


@pytest.mark.parametrize("name", REAL)
def test_a_second_picture_in_a_frame_s_fragment_is_held(name: str) -> None:
    frame = frame_of(name)

    assert "Behind the end of a frame" in why(with_frames(name, frame + frame))
    assert "Behind the end of a frame" in why(with_frames(name, frame + frame_of("examples_jpeg2k.dcm")))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("behind", [b"", b"\0", b"\0\0\0\0"])
def test_what_pads_a_frame_is_nothing(name: str, behind: bytes) -> None:
    original = with_frames(name, frame_of(name) + behind)

    assert read(b"".join(outgoing(original, a_context(ANY)).parts)).PixelData == read(original).PixelData


@pytest.mark.parametrize("syntax", FRAMES)
def test_a_whole_picture_behind_the_end_in_a_fragment_of_its_own_is_a_frame_too_many(syntax: str) -> None:
    assert "not as many frames" in why(fragments(b"", FRAMES[syntax], FRAMES[syntax], syntax=syntax))


@pytest.mark.parametrize("number", [50, 51, *range(53, 67), 70, 80, 81, 90, 91, 201, 202, 203])
def test_more_frames_than_the_header_says_are_held_in_every_syntax(number: int) -> None:
    frame = FRAMES[JPEG if number <= 70 else JPEG_LS if number <= 81 else JPEG_2000]

    assert "not as many frames" in why(fragments(b"", frame, frame, frame, syntax=f"1.2.840.10008.1.2.4.{number}"))


@pytest.mark.parametrize("syntax", FRAMES)
@pytest.mark.parametrize("cut", [3, 4, 12, 20, -4, -2])
def test_a_frame_over_fragments_is_one(syntax: str, cut: int) -> None:
    frame = FRAMES[syntax]
    cut = max(cut, 4) if syntax == JPEG_2000 else cut

    assert outgoing(numbered(2, frame[:cut], frame[cut:], frame, syntax=syntax), a_context("basic"))


@pytest.mark.parametrize("syntax", FRAMES)
def test_something_behind_a_frame_over_fragments_is_held(syntax: str) -> None:
    frame = FRAMES[syntax]

    assert "Behind the end of a frame" in why(fragments(b"", frame[:-6], frame[-6:] + ODD + b"\xff\xd9", syntax=syntax))
    assert "Behind the end of a frame" in why(fragments(b"", frame, ODD + b"\xff\xd9", syntax=syntax))
    assert "Behind the end of a frame" in why(fragments(b"", frame, b"\0\0", syntax=syntax))


def test_a_segment_that_goes_over_what_begins_like_a_frame_is_held() -> None:
    exif = segment(0xE1, b"Exif\0\0" + ODD + jpeg())
    cut = exif.find(b"\xff\xd8")

    assert "cannot be followed" in why(fragments(b"", b"\xff\xd8" + exif[:cut], exif[cut:] + jpeg()[2:]))
    assert "cannot be followed" in why(numbered(2, b"\xff\xd8" + exif[:cut], exif[cut:] + jpeg()[2:], syntax=JPEG))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(jpeg()[:-2], id="no end"),
        pytest.param(b"\xff\xd8\xff\xd9", id="nothing at all"),
        pytest.param(b"\xff\xd8" + SOS + b"\1\xff\xd9", id="no size"),
        pytest.param(jpeg(segment(0xFE, ODD) + ODD), id="text between segments"),
        pytest.param(jpeg(segment(0x01, ODD)), id="a segment of no kind that has a length"),
        pytest.param(jpeg(b"\xff\xd8\xff\xd9"), id="another image in its header"),
        pytest.param(jpeg(scan=b"\1" + jpeg()), id="another image in its scan"),
        pytest.param(jpeg(scan=b"\1" + jpeg()[2:-2]), id="a second size"),
        pytest.param(jpeg(segment(0xFE, b"")[:3] + b"\xff"), id="a segment that is longer than the frame"),
    ],
)
def test_a_frame_of_jpeg_that_cannot_be_followed_is_held(frame: bytes) -> None:
    assert "cannot be followed" in why(fragments(b"", frame))


@pytest.mark.parametrize(
    ("sof", "codes"), [(SOF, (*range(0x01, 0xD0), 0xD8)), (SOF_LS, (*range(0x80, 0xD0), 0xD8))], ids=["JPEG", "JPEG-LS"]
)
def test_what_follows_a_code_that_samples_cannot_have_is_held(sof: bytes, codes: tuple[int, ...]) -> None:
    for code in codes:
        assert codestream_of(jpeg(scan=b"\1\xff%cDoe Jane P1" % code, sof=sof), 0, 99) is None, f"{code:02X}"


@pytest.mark.parametrize(
    ("sof", "codes"), [(SOF, (0x00, *range(0xD0, 0xD8))), (SOF_LS, (*range(0x80), *range(0xD0, 0xD8)))], ids=["JPEG", "JPEG-LS"]
)
def test_codes_of_samples_and_restart_are_no_end(sof: bytes, codes: tuple[int, ...]) -> None:
    frame = jpeg(scan=b"".join(b"\1\xff%c" % code for code in codes) + b"\1\xff", sof=sof)  # and bytes that fill up to a marker
    found = codestream_of(frame, 0, len(frame))

    assert found is not None
    assert found.end == len(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(jpeg_2000()[:-20], id="no end"),
        pytest.param(jpeg_2000(b"", b"\xff\x93\1\1"), id="no tile-part"),
        pytest.param(jpeg_2000(b"", part(), ODD), id="text between tile-parts"),
        pytest.param(jpeg_2000(b"", part(b"", b"\1\xff\xd9" + ODD)), id="an end within a tile-part"),
        pytest.param(jpeg_2000(b"", part(b"", jpeg_2000())), id="another image within a tile-part"),
        pytest.param(jpeg_2000(b"", part()[:6] + b"\0\0\0\x0c" + part()[10:]), id="a tile-part that ends within its header"),
        pytest.param(jpeg_2000(b"", part()[:6] + b"\0\0\1\0" + part()[10:]), id="a tile-part that is longer than the frame"),
        pytest.param(jpeg_2000(siz=segment(0x51, SIZ[4:-3])), id="a size that is cut"),
        pytest.param(jp2(b"jp2h", b"")[:-60], id="a box that is longer than the frame"),
    ],
)
def test_a_frame_of_jpeg_2000_that_cannot_be_followed_is_held(frame: bytes) -> None:
    assert "7FE0,0010" in why(fragments(b"", frame, syntax=JPEG_2000))


def test_a_last_tile_part_without_a_length_ends_with_the_codestream() -> None:
    tile = bytearray(part())
    tile[6:10] = bytes(4)
    frame = jpeg_2000(b"", bytes(tile))

    assert outgoing(fragments(b"", frame, syntax=JPEG_2000), a_context("basic"))
    assert "Behind the end of a frame" in why(fragments(b"", frame + ODD + b"\xff\xd9", syntax=JPEG_2000))


@pytest.mark.parametrize("behind", [b"", b"\0", b"\0\0"])
def test_the_end_of_the_last_tile_part_is_enough(behind: bytes) -> None:
    frame = jpeg_2000()[:-2]

    assert outgoing(fragments(b"", frame + behind, syntax=JPEG_2000), a_context("basic"))
    assert "Behind the end of a frame" in why(fragments(b"", frame + b"Doe", syntax=JPEG_2000))


def test_the_end_of_a_codestream_in_jp2_is_that_of_its_frame() -> None:
    assert outgoing(fragments(b"", jp2(b"ftyp", b"jp2 \0\0\0\0jp2 "), syntax=JPEG_2000), a_context("basic"))
    assert "Behind the end of a frame" in why(fragments(b"", jp2(b"ftyp", b"jp2 \0\0\0\0jp2 ") + ODD + b"\xff\xd9", syntax=JPEG_2000))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_a_picture_of_another_size_than_the_header_says_is_held(name: str, keyword: str) -> None:
    ds = read(samples()[name])
    setattr(ds, keyword, getattr(ds, keyword) // 2)
    ds.save_as(original := BytesIO())

    assert "rows and columns" in why(original.getvalue())


def test_a_picture_of_another_object_is_held() -> None:
    assert "rows and columns" in why(with_frames("MR_small_jp2klossless.dcm", frame_of("examples_jpeg2k.dcm")))


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "examples_jpeg2k.dcm", "SC_rgb_jls_lossy_line.dcm"])
def test_a_picture_in_colour_where_the_header_says_grey_is_held(name: str) -> None:
    ds = read(samples()[name])
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PatientID = 1, "MONOCHROME2", "P1"
    ds.StudyInstanceUID = "1.2.3.4.1"
    ds.save_as(original := BytesIO())

    assert "colour instead of grey" in why(original.getvalue())


@pytest.mark.parametrize(("name", "allocated", "stored"), [("JPEG-lossy.dcm", 8, 8), ("SC_rgb_jpeg_dcmtk.dcm", 16, 12)])
def test_a_picture_of_samples_of_another_size_is_held(name: str, allocated: int, stored: int) -> None:
    ds = read(samples()[name])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.save_as(original := BytesIO())

    assert "other bits" in why(original.getvalue())


@pytest.mark.parametrize("frame", range(30))
def test_each_frame_is_compared(frame: int) -> None:
    ds = read(samples()["examples_ybr_color.dcm"])
    frames = list(generate_frames(ds.PixelData, number_of_frames=30))
    frames[frame] = frame_of("SC_rgb_jpeg_dcmtk.dcm")

    assert "rows and columns" in why(with_frames("examples_ybr_color.dcm", *frames))


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LS, JPEG_2000])
def test_a_frame_of_another_family_than_the_transfer_syntax_says_is_held(syntax: str) -> None:
    for other, frame in FRAMES.items():
        if other != syntax:
            assert "as the transfer syntax says" in why(fragments(b"", frame, syntax=syntax))


@pytest.mark.parametrize("table", [(0, 40), (0, 39), (0,), (0, 40, 80), ()])
def test_a_table_of_offsets_that_goes_up_leaves(table: tuple[int, ...]) -> None:
    assert outgoing(numbered(2, jpeg(), jpeg(), syntax=JPEG, table=struct.pack(f"<{len(table)}I", *table)), a_context("basic"))


@pytest.mark.parametrize("table", [(40, 0), (8, 40), (0, 60, 40), (0, 1, 2, 3), (0, 4000)])
def test_a_table_of_offsets_that_is_none_is_held(table: tuple[int, ...]) -> None:
    assert "table of offsets" in why(numbered(2, jpeg(), jpeg(), syntax=JPEG, table=struct.pack(f"<{len(table)}I", *table)))


@pytest.mark.parametrize("wrong", [False, True])
def test_extended_offsets_are_of_the_frames(wrong: bool) -> None:
    ds = read(samples()["examples_ybr_color.dcm"])
    frames = list(generate_frames(ds.PixelData, number_of_frames=30))
    ds.PixelData, ds.ExtendedOffsetTable, lengths = encapsulate_extended(frames)
    ds.ExtendedOffsetTableLengths = lengths[:-8] + b"Zebulon " if wrong else lengths
    ds.save_as(original := BytesIO())

    if wrong:
        assert "(7FE0,0002)" in why(original.getvalue())
    else:
        assert outgoing(original.getvalue(), a_context(ANY))


@pytest.mark.parametrize("tag", [0x7FE00001, 0x7FE00002])
@pytest.mark.parametrize("pixels", [True, False])
def test_a_table_of_extended_offsets_without_compressed_frames_is_held(tag: int, pixels: bool) -> None:
    image = [*IMAGE, (0x7FE00010, "OW", bytes(4))] if pixels else []

    assert "no compressed frames" in why(a_file([*image, (tag, "OV", b"Brandt  Oliver  ")]))


@pytest.mark.parametrize("name", ["basic", "research"])
def test_the_shipped_policies_hold_what_is_behind_a_frame(name: str) -> None:
    original = with_frames("MR_small_jp2klossless.dcm", frame_of("MR_small_jp2klossless.dcm") + b"Doe" + bytes(2000) + b"\xff\xd9")

    with pytest.raises(Held, match="Behind the end of a frame"):
        outgoing(original, a_context(policy(name)))


@pytest.mark.parametrize("frame", FRAMES.values())
def test_whatever_a_codestream_is_cut_to_it_is_told_or_not_but_never_beyond_its_bytes(frame: bytes) -> None:
    for stop in range(len(frame)):
        found = codestream_of(frame, 0, stop)
        assert found is None or found.end <= stop
