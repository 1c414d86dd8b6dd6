"""Ways to get an identifier through that no row of a table names: each is clean in what leaves, or nothing leaves."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from hilum.dicom.file_meta import part10_head
from processors.anonymize.comments import blanked
from processors.anonymize.engine import anonymize
from processors.anonymize.held import Held
from processors.anonymize.options import Option
from processors.anonymize.outgoing import outgoing
from processors.anonymize.policy import Policy, policy
from tests.processors.anonymize.codestreams import SOF_LS, jp2, jpeg, jpeg_2000, part, segment
from tests.processors.anonymize.objects import CT, LONG, Raw, a_context, a_file, a_policy, encoded, read, samples

NAME, PHONE = b"Zebulon", b"5558612345"
TRACES = (b"zebu", b"ulon", PHONE, b"8612345", b"555-861", "山田".encode(), "山田".encode("iso2022_jp")[3:-3])
SR = "1.2.840.10008.5.1.4.1.1.88.33"
JPEG, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
#: What contradicts another option, and what keeps UIDs, whatever is in them.
LEFT_OUT = (Option.RETAIN_FULL_DATES, Option.RETAIN_UIDS)
POLICIES = (
    policy("basic"),
    policy("research"),
    a_policy(
        *(option.keyword for option in Option if option.column and option not in LEFT_OUT),
        more='[kinds]\nsr-text = "clean"\nrt-label = "clean"\npresentation-state = "clean"',
        name="everything",
    ),
)
#: An image of 2 rows and 2 columns, without its pixels.
IMAGE: list[Raw] = [
    (0x00280002, "US", b"\1\0"),
    (0x00280004, "CS", b"MONOCHROME2"),
    *((tag, "US", b"\2\0") for tag in (0x00280010, 0x00280011)),
    *((tag, "US", b"\x08\0") for tag in (0x00280100, 0x00280101)),
    (0x00280102, "US", b"\7\0"),
    (0x00280103, "US", b"\0\0"),
]


def element(tag: int, vr: str, value: bytes, *, undefined: bool = False, reserved: bytes = b"\0\0") -> bytes:
    """One element as it stands, in Explicit VR."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in LONG:
        return head + reserved + struct.pack("<I", 0xFFFFFFFF if undefined else len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def item(value: bytes, *, undefined: bool = False) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF if undefined else len(value)) + value


def delimiter(kind: int, said: bytes = b"\0\0\0\0") -> bytes:
    """The end of an item (0xE00D) or a sequence (0xE0DD), with its length, which must be nothing."""
    return struct.pack("<HH", 0xFFFE, kind) + said


def ending_with(last: bytes, *, syntax: str = "1.2.840.10008.1.2.1", image: bool = False) -> bytes:
    """An object that ends with these bytes."""
    return a_file([(0x00100020, "LO", b"P1"), *(IMAGE if image else [])], syntax=syntax) + last


def fragments(*values: bytes, end: bytes = b"\0\0\0\0", syntax: str = "") -> bytes:
    inside = b"".join(map(item, values)) + delimiter(0xE0DD, end)
    return ending_with(element(0x7FE00010, "OB", inside, undefined=True), syntax=syntax or JPEG, image=True)


def profile(between: bytes = b"", *tags: tuple[bytes, bytes]) -> bytes:
    """An ICC profile (ICC.1 7) of a white point and these tags, with something between its table and its first tag."""
    values = ((b"wtpt", b"XYZ \0\0\0\0" + bytes(12)), *tags)
    at, table, content = 132 + 12 * len(values) + len(between), b"", between
    for name, value in values:
        table += struct.pack(">4sII", name, at, len(value))
        content, at = content + value, at + len(value)
    head = struct.pack(">I", at).ljust(36, b"\0") + b"acsp"
    return head.ljust(128, b"\0") + struct.pack(">I", len(values)) + table + content


def as_they_come(*elements: bytes) -> bytes:
    """Elements in an order that is none."""
    own = [
        element(0x00080016, "UI", CT.encode() + b"\0"),
        element(0x00080018, "UI", b"1.2.3.4.5.6\0"),
        element(0x0020000D, "UI", b"1.2.3.4.1\0"),
    ]
    return part10_head(CT, "1.2.3.4.5.6", "1.2.840.10008.1.2.1") + b"".join([*own, *elements])


def text(value: bytes, *, character_set: bytes = b"", tag: int = 0x00081030, vr: str = "LO") -> bytes:
    return a_file([(0x00080005, "CS", character_set), (tag, vr, value)])


def content(kind: bytes, tag: int, vr: str, value: bytes) -> list[Raw]:
    """A content item of a report (PS3.3 C.17.3), with a concept name that tells as well."""
    concept: Raw = (0x0040A043, "SQ", [[(0x00080100, "SH", b"1"), (0x00080102, "SH", b"99"), (0x00080104, "LO", b"Dr " + NAME)]])
    return [(0x0040A010, "CS", b"CONTAINS"), (0x0040A040, "CS", kind), concept, (tag, vr, value)]


def report() -> bytes:
    code: Raw = (0x0040A168, "SQ", [[(0x00080100, "SH", b"1"), (0x00080102, "SH", b"99"), (0x00080104, "LO", NAME)]])
    reference: Raw = (0x00081199, "SQ", [[(0x00081150, "UI", CT.encode()), (0x00081155, "UI", b"1.2." + PHONE)]])
    items = [
        content(b"PNAME", 0x0040A123, "PN", NAME + b"^J"),
        content(b"TEXT", 0x0040A160, "UT", b"Seen by " + NAME + b", call 555-8612345"),
        content(b"UIDREF", 0x0040A124, "UI", b"1.2." + PHONE),
        [*content(b"CODE", 0x0040A160, "UT", NAME), code],
        [*content(b"IMAGE", 0x0040A160, "UT", NAME), reference],
        content(b"NUM", 0x0040A30A, "DS", NAME),
    ]
    deep: list[Raw] = [(0x0040A040, "CS", b"CONTAINER"), (0x0040A730, "SQ", items)]
    for _ in range(3):
        deep = [(0x0040A040, "CS", b"CONTAINER"), (0x0040A730, "SQ", [deep, *items])]
    elements = [each if each[0] != 0x0040A168 else code for each in sorted(deep, key=lambda each: each[0])]
    return a_file(elements, sop_class=SR)


def deflated(behind: bytes) -> bytes:
    head = part10_head(CT, "1.2.3.4.5.6", "1.2.840.10008.1.2.1.99")
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (
        head
        + stream.compress(a_file([(0x00100020, "LO", b"P1")])[len(part10_head(CT, "1.2.3.4.5.6", "1.2.840.10008.1.2.1")) :])
        + (stream.flush() + behind)
    )


ODD = NAME + b" "
PERSON: list[Raw] = [(0x00100010, "PN", NAME), (0x00102154, "SH", PHONE)]
ATTACKS = {
    # File Meta and what is around the data set
    "transfer syntax": a_file([], syntax="1.2." + PHONE.decode()),
    "behind the data set": ending_with(NAME),
    "behind the data set, after zeros": ending_with(b"\0" * 16 + ODD),
    "padding of the data set": ending_with(element(0xFFFCFFFC, "OB", ODD)),
    "behind the deflate stream": deflated(NAME),
    # Heads and delimiters
    "reserved bytes of heads": as_they_come(element(0x7FE00010, "OW", b"\0" * 4, reserved=b"ze")),
    "length of an item's delimiter": ending_with(
        element(0x00400555, "SQ", item(b"", undefined=True) + delimiter(0xE00D, b"Zebu") + delimiter(0xE0DD), undefined=True)
    ),
    "length of a sequence's delimiter": ending_with(element(0x00400555, "SQ", item(b"") + delimiter(0xE0DD, b"Zebu"), undefined=True)),
    "length of the pixels' delimiter": fragments(b"", jpeg(), end=b"Zebu"),
    "group length": a_file([(0x00100000, "UL", b"Zebu")]),
    # Pixel data that are none
    "behind the last frame": ending_with(element(0x7FE00010, "OB", b"\0" * 4 + ODD), image=True),
    "fragments in a native syntax": ending_with(element(0x7FE00010, "OB", item(ODD) + delimiter(0xE0DD), undefined=True), image=True),
    "fragments of floating point": ending_with(element(0x7FE00008, "OF", item(ODD) + delimiter(0xE0DD), undefined=True)),
    "table of offsets": fragments(ODD, jpeg()),
    "a fragment between frames": fragments(b"", jpeg(), ODD),
    "what is no codestream of JPEG 2000, part 2": fragments(b"", ODD, syntax="1.2.840.10008.1.2.4.93"),
    "frames of a kind that is not known": fragments(b"", ODD, syntax="1.2.840.10008.1.2.4.110"),
    "a fragment before frames": fragments(b"", ODD, jpeg()),
    "elements for a fragment": ending_with(
        element(
            0x7FE00010,
            "OB",
            item(b"") + item(element(0x00100010, "PN", ODD), undefined=True) + delimiter(0xE00D) + delimiter(0xE0DD),
            undefined=True,
        ),
        syntax=JPEG,
    ),
    "behind the end of a frame": fragments(b"", jpeg() + ODD * 2),
    "behind the end of a frame that goes on": fragments(b"", jpeg()[:-3], b"\1\2\xff\xd9" + ODD * 2),
    "behind the end of JPEG 2000": fragments(b"", jpeg_2000() + ODD * 2, syntax=JPEG_2000),
    "a box of JP2": fragments(b"", jp2(b"xml ", ODD), syntax=JPEG_2000),
    "a box of JP2 with a long length": fragments(b"", jp2(b"uuid", ODD, long=True), syntax=JPEG_2000),
    "the header of RLE": fragments(b"", struct.pack("<II", 1, 64) + ODD.ljust(56, b"\0") + b"\3\1\2\3\4", syntax=RLE),
    "more segments of RLE than it can have": fragments(b"", struct.pack("<II", 99, 64) + ODD.ljust(56, b"\0") + b"\3\1\2", syntax=RLE),
    "a comment of JPEG": fragments(b"", jpeg(segment(0xFE, ODD))),
    "EXIF of a photograph": fragments(b"", jpeg(b"\xff" + segment(0xE1, b"Exif\0\0" + ODD))),
    "a thumbnail of JFIF": fragments(b"", jpeg(segment(0xE0, b"JFIF\0" + ODD * 2))),
    "a comment of JPEG 2000": fragments(b"", jpeg_2000(segment(0x64, b"\0\1" + ODD), part(segment(0x64, b"\0\1" + ODD))), syntax=JPEG_2000),
    "a segment of JPEG-LS that nobody knows": fragments(b"", jpeg(sof=SOF_LS + segment(0xF0, ODD)), syntax=JPEG_LS),
    "a segment of JPEG 2000 that nobody knows": fragments(b"", jpeg_2000(segment(0x76, ODD)), syntax=JPEG_2000),
    "a colour profile of JPEG that is none": fragments(b"", jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + ODD))),
    "a box within the header of JP2": fragments(b"", jp2(b"jp2h", struct.pack(">I4s", 8 + len(ODD), b"xml ") + ODD), syntax=JPEG_2000),
    "brands of JP2": fragments(b"", jp2(b"ftyp", b"jp2 \0\0\0\0jp2 " + b" " * 40 + ODD), syntax=JPEG_2000),
    "a colour profile of JP2 that is none": fragments(
        b"", jp2(b"jp2h", struct.pack(">I4s", 11 + len(ODD), b"colr") + b"\2\0\0" + ODD), syntax=JPEG_2000
    ),
    "table of extended offsets": a_file([*IMAGE, (0x7FE00001, "OV", ODD)], syntax=JPEG)
    + element(0x7FE00010, "OB", item(b"") + item(jpeg()) + delimiter(0xE0DD), undefined=True),
    "an icon": a_file([(0x00880200, "SQ", [[*IMAGE, (0x7FE00010, "OB", ODD)]])]),
    "pixels of floating point in an item": a_file([(0x00400555, "SQ", [[(0x7FE00008, "OF", ODD)]])]),
    "pixels in an item": a_file([(0x00400555, "SQ", [[(0x7FE00010, "OW", ODD)]])]),
    "retired pixels": a_file([(0x7F020010, "OB", ODD)]),
    # VRs that are not what they say
    "UN for a name": a_file([(0x00100010, "UN", ODD)]),
    "UN for a sequence": a_file([(0x00081115, "UN", [PERSON])]),
    "UN for a sequence, explicit within": ending_with(element(0x00400555, "UN", item(encoded(PERSON)))),
    "UN without length, unknown": ending_with(element(0x00410FFF, "UN", item(encoded(PERSON)) + delimiter(0xE0DD), undefined=True)),
    "OB for text": a_file([(0x00081030, "OB", ODD)]),
    "text for a number": a_file([(0x00180050, "DS", ODD), (0x00200013, "IS", b"1\\" + NAME), (0x00280030, "DS", b"1\\" + ODD)]),
    "a telephone number for a number": a_file([(0x00180050, "DS", b"555-8612345"), (0x00200013, "IS", b"+1 555-8612345")]),
    "text for a code": a_file([(0x00180015, "CS", NAME), (0x00080008, "CS", b"ORIGINAL\\" + NAME)]),
    "text for an age": a_file([(0x00101010, "AS", ODD)]),
    "text for a time zone": a_file([(0x00080201, "SH", NAME)]),
    "behind a NUL in a UID": a_file([(0x00081155, "UI", b"1.2.3\0Zebulon")]),
    "behind a NUL in a code": a_file([(0x00080060, "CS", b"CT\0Zebulon")]),
    "behind a NUL in text": a_file([(0x00081030, "LO", b"chest\0Zebulon")]),
    # Order
    "a name twice, out of order": as_they_come(
        element(0x00100010, "PN", ODD), element(0x00080060, "CS", b"CT"), element(0x00100010, "PN", ODD), element(0x00100020, "LO", b"P1")
    ),
    "a private element before its creator": as_they_come(
        element(0x0019100C, "IS", ODD), element(0x00190010, "LO", b"SIEMENS MR HEADER "), element(0x00100020, "LO", b"P1")
    ),
    "a VR that is none, out of order": as_they_come(
        element(0x00100020, "LO", b"P1"), element(0x00080060, "CS", b"CT"), element(0x00081030, "ZZ", ODD)
    ),
    # Private blocks
    "a creator that lies": a_file(
        [(0x00190010, "LO", b"SIEMENS MR HEADER"), (0x0019100C, "IS", ODD), (0x0019100D, "CS", b"zebulon"), (0x00191008, "CS", NAME)]
    ),
    "a creator's second block": a_file(
        [*((0x00190010 + n, "LO", b"SIEMENS MR HEADER") for n in range(2)), (0x0019110D, "CS", b"ZEBULON J"), (0x0019110C, "IS", NAME)]
    ),
    "a creator that is a name": a_file([(0x00190010, "LO", NAME), (0x0019100C, "IS", b"1")]),
    "a private block in an item": a_file([(0x00400555, "SQ", [[(0x00190010, "LO", NAME), (0x0019100C, "LO", NAME)]])]),
    "overlays and curves": a_file(
        [
            (0x50000022, "LO", NAME),
            (0x50022500, "LO", NAME),
            (0x501E3000, "OW", ODD),
            (0x60000022, "LO", NAME),
            (0x60001500, "LO", NAME),
            (0x60FE3000, "OW", ODD),
            (0x60024000, "LT", NAME),
        ]
    ),
    "overlays in an item": a_file([(0x00400555, "SQ", [[(0x60003000, "OW", ODD), (0x60001500, "LO", NAME)]])]),
    "a colour profile that is none": a_file([(0x00282000, "OB", ODD), (0x00480105, "SQ", [[(0x00282000, "OB", NAME)]])]),
    "behind a colour profile": a_file([(0x00282000, "OB", profile() + ODD)]),
    "within a colour profile": a_file([(0x00282000, "OB", profile(ODD))]),
    "a tag of nobody's in a colour profile": a_file([(0x00282000, "OB", profile(b"", (b"zzzz", ODD)))]),
    # Text
    "text that people type at consoles": a_file(
        [
            *((tag, "SH", NAME) for tag in (0x00181250, 0x00189005, 0x00189047, 0x00209056, 0x00540018)),
            *((tag, "LO", NAME + b" 555-8612345") for tag in (0x00180031, 0x00181040, 0x00181161, 0x001811B0)),
        ]
    ),
    "ten thousand characters": text(b"chest " * 1500 + ODD * 128, tag=0x00204000, vr="LT"),
    "more text than is looked at": text(b"chest " * 180_000 + ODD, tag=0x0040A160, vr="UT"),
    "several values": text(b"chest\\" + NAME + b"\\lung\\555-8612345"),
    "an escape within a name": text(b"Zeb\x1b(Bulon chest", character_set=b"\\ISO 2022 IR 87"),
    "ideographic text": text("chest 山田".encode("iso2022_jp"), character_set=b"\\ISO 2022 IR 87"),
    "ideographic groups": a_file([(0x00080005, "CS", b"ISO_IR 192"), (0x00100010, "PN", "Zebulon^T=山田^太郎=やまだ^たろう".encode())]),
    "ideographic groups in ISO 2022": a_file(
        [(0x00080005, "CS", b"\\ISO 2022 IR 87"), (0x00100010, "PN", b"Zebulon^T=" + "山田^太郎".encode("iso2022_jp"))]
    ),
    "full-width letters": text("chest Ｚｅｂｕｌｏｎ Zebulon".encode(), character_set=b"ISO_IR 192"),
    "a name of a protocol's shape": text(b"T2_Zebulon_AX-Zebulon"),
    "a number in words": text(b"call 555-8612345, (555) 861 2345, +1.555.861.2345"),
    # Objects within objects
    "a report": report(),
    "original attributes": a_file([(0x04000561, "SQ", [[(0x04000550, "SQ", [PERSON]), (0x04000564, "LO", NAME)]])]),
    "signatures": a_file([(0xFFFAFFFA, "SQ", [[(0x04000115, "OB", ODD), (0x04000404, "OB", ODD), (0x04000401, "SQ", [PERSON])]])]),
    "an encapsulated document elsewhere": a_file([(0x00420010, "ST", NAME), (0x00420011, "OB", ODD), (0x00420012, "LO", NAME)]),
    "labels of plans": a_file(
        [(0x300A0002, "SH", NAME), (0x300A0003, "LO", NAME), (0x300A000E, "ST", NAME), (0x30060002, "SH", NAME), (0x30060004, "LO", NAME)],
        sop_class="1.2.840.10008.5.1.4.1.1.481.5",
    ),
    "annotation of waveforms": a_file(
        [(0x0040B020, "SQ", [[(0x00700006, "ST", NAME), (0x0040A180, "US", b"\1\0")]])], sop_class="1.2.840.10008.5.1.4.1.1.9.1.1"
    ),
    "label of a slide": a_file(
        [
            (0x00400512, "LO", NAME),
            (0x00400560, "SQ", [[(0x00400551, "LO", NAME), (0x00400600, "LO", NAME)]]),
            (0x22000002, "UT", NAME),
            (0x22000005, "LT", NAME),
        ]
    ),
    "text of a presentation": a_file(
        [(0x00700001, "SQ", [[(0x00700002, "CS", NAME), (0x00700008, "SQ", [[(0x00700006, "ST", NAME)]])]])],
        sop_class="1.2.840.10008.5.1.4.1.1.11.1",
    ),
    "a hanging protocol": a_file([(0x00720002, "SH", NAME), (0x00720066, "LO", NAME), (0x0072006A, "PN", NAME)]),
    "codes of procedures": a_file([(0x00081111, "SQ", [[(0x00081155, "UI", b"1.2.3"), (0x00081150, "UI", b"1.2.4")], PERSON])]),
}


MASKED = a_policy(more="masks = [{ boxes = [[0, 0, 1, 1]] }]", name="masked")


def leaves(original: bytes, by: Policy, *, trace: bool) -> bytes:
    """What leaves, or nothing."""
    try:
        return b"".join(outgoing(original, a_context(by), trace=trace).parts)
    except Held:
        return b""


@pytest.mark.parametrize("name", ATTACKS)
def test_an_identifier_does_not_get_through(name: str) -> None:
    through = []
    for by in POLICIES:
        for trace in (False, True):
            out = leaves(ATTACKS[name], by, trace=trace).lower()
            through += [(by.name, trace, each) for each in TRACES if each in out]

    assert through == []


@pytest.mark.parametrize(
    "elements",
    [
        [(0x00080008, "CS", b"ORIGINAL\\PRIMARY\\Zebulon")],
        [(0x00082111, "ST", b"Drawn by Zebulon, 555-8612345")],
        [(0x00080008, "CS", b"Zebulon")],
        [(0x00880200, "SQ", [[*IMAGE, (0x7FE00010, "OB", ODD)]])],
    ],
)
def test_an_identifier_does_not_get_through_where_pixels_are_painted_over(elements: list[Raw]) -> None:
    painted = element(0x7FE00010, "OB", b"\1" * 4)
    original = a_file([(0x00100020, "LO", b"P1"), *IMAGE, *elements]) + painted

    out = leaves(original, MASKED, trace=False)

    assert read(out).PixelData == b"\0\1\1\1"
    assert not any(each in out.lower() for each in TRACES)


def test_most_of_them_leave_clean_and_are_not_merely_held() -> None:
    left = [name for name, original in ATTACKS.items() if leaves(original, POLICIES[0], trace=False)]

    assert len(left) > len(ATTACKS) // 2


def test_reserved_bytes_are_written_anew() -> None:
    out = leaves(ATTACKS["reserved bytes of heads"], POLICIES[0], trace=False)

    assert b"OWze" not in out
    assert read(out).PixelData == b"\0" * 4


def test_a_report_stays_one() -> None:
    made = read(leaves(ATTACKS["a report"], POLICIES[0], trace=False))

    assert [each.ValueType for each in made.ContentSequence] == ["CONTAINER", "PNAME", "TEXT", "UIDREF", "CODE", "IMAGE", "NUM"]


@pytest.mark.parametrize("name", ["SC_rgb_jls_lossy_line.dcm", "examples_ybr_color.dcm", "examples_jpeg2k.dcm", "JPEG-lossy.dcm"])
def test_frames_without_anything_beside_samples_stay_as_they_are(name: str) -> None:
    pixels = read(samples()[name]).PixelData

    assert blanked(pixels) == pixels


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize(("name", "marker"), [("SC_rgb_jpeg_dcmtk.dcm", 0xFE), ("examples_ybr_color.dcm", 0xE1), ("JPEG2000.dcm", 0x64)])
def test_an_image_is_the_same_without_its_comment(name: str, marker: int, trace: bool) -> None:
    original = samples()[name]
    at = max(original.find(b"\xff\xd8\xff") + 2, original.find(b"\xff\x4f\xff\x51") + 49) if marker != 0x64 else original.find(b"\xff\x64")
    comment = segment(marker, b"\0\1" + ODD)
    begin = original.rfind(b"\xfe\xff\x00\xe0", 0, at) + 4
    size = struct.unpack_from("<I", original, begin)[0]
    longer = original[:begin] + struct.pack("<I", size + len(comment)) + original[begin + 4 : at] + comment + original[at:]

    made = b"".join(anonymize(longer, a_context("basic"), trace=trace).parts)

    assert NAME not in made
    assert np.array_equal(read(made).pixel_array, read(original).pixel_array)


@pytest.mark.parametrize("padding", [b"\xff", b"\0", b"\0\0\0", b""])
def test_what_pads_a_frame_is_nothing(padding: bytes) -> None:
    frame = jpeg() + padding

    assert frame in leaves(fragments(b"", frame), policy("basic"), trace=False)


def test_the_end_of_a_thumbnail_is_not_that_of_its_frame() -> None:
    thumbnail = segment(0xE1, b"Exif\0\0\xff\xd8\xff\xd9 here is more ")

    assert leaves(fragments(b"", b"\xff\xd8" + thumbnail, jpeg()[2:]), policy("basic"), trace=False)


def test_a_colour_profile_stays() -> None:
    out = leaves(a_file([(0x00282000, "OB", profile(b"", (b"desc", b"text\0\0\0\0sRGB")))]), policy("basic"), trace=False)

    assert read(out).ICCProfile == profile(b"", (b"desc", b"text\0\0\0\0sRGB"))
