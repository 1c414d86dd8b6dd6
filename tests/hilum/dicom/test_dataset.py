from __future__ import annotations

import importlib.util
import tracemalloc
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_dataset

from hilum.dicom.dataset import ReadHeader, fitted, read_header
from hilum.dicom.encoding import DEFLATED, EXPLICIT_BIG, Encoding, encoding_of
from hilum.dicom.modules import KEPT_TAGS
from hilum.dicom.values import LITTLE
from hilum.dicom.walk import MAX_DEPTH, MAX_ELEMENTS, MAX_HEADER_BYTES
from hilum.part10 import data_set_offset

# The oracle lies beside this file, which is no package.
_spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
assert _spec is not None
assert _spec.loader is not None
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATE = "1.2.840.10008.1.2.1.99"


@cache
def samples() -> list[Path]:
    """pydicom's own test files that are Part 10 files with a transfer syntax; read from its folder, for its finder may download more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = (Path(pydicom.data.__file__).parent / "test_files").rglob("*")
        part10 = [file for file in files if file.is_file() and file.read_bytes()[128:132] == b"DICM"]
        return sorted(file for file in part10 if "TransferSyntaxUID" in read_file_meta_info(file))


def data_set_of(file: Path) -> tuple[bytes, str]:
    """A sample's data set and transfer syntax."""
    whole = file.read_bytes()
    return whole[data_set_offset(whole) :], str(read_file_meta_info(file).TransferSyntaxUID)


def encoded(ds: Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    """`ds` as bytes."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = transfer_syntax != EXPLICIT_BIG, transfer_syntax == IMPLICIT
    write_dataset(out, ds)
    data = out.getvalue()
    if transfer_syntax in DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()
    return data


def a_data_set(**values: Any) -> Dataset:
    """A data set with a SOP class in front, as every instance has one."""
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    for keyword, value in values.items():
        if keyword == "PixelData":
            ds.add_new(keyword, "OW", value)
        else:
            setattr(ds, keyword, value)
    return ds


def read(ds: Dataset, transfer_syntax: str = EXPLICIT, **options: Any) -> ReadHeader:
    return read_header(encoded(ds, transfer_syntax), transfer_syntax, **options)


# Equal to pydicom

#: Samples that end too early; of the third, the last item is 24 bytes short.
CUT_SHORT = {"MR_truncated.dcm", "rtplan_truncated.dcm", "DICOMDIR-nooffset"}


@pytest.mark.parametrize("file", samples(), ids=lambda file: file.name)
def test_the_header_of_a_sample_is_the_one_that_pydicom_reads(file: Path) -> None:
    data_set, transfer_syntax = data_set_of(file)

    found = read_header(data_set, transfer_syntax, full=True)

    assert found.truncated == (file.name in CUT_SHORT)
    if not found.truncated:
        assert found.fault == ""
        read_as = transfer_syntax if not found.encoded_as else found.encoded_as
        assert found.json == oracle.header_by_pydicom(data_set, read_as)


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\=^"), max_size=12)
words = st.text("ABCXYZ019 _", max_size=12)
numbers = st.one_of(st.integers(-99999, 99999).map(str), st.floats(-1e9, 1e9).map(lambda x: f"{x:.9g}"), st.sampled_from(["", "1.", "+5"]))
names = st.builds(lambda *groups: "=".join(groups), text, text, text)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "ImageType": st.lists(words, max_size=4),
    "AccessionNumber": text,
    "StudyDescription": text,
    "OperatorsName": st.lists(names, max_size=3),
    "PatientName": names,
    "AdditionalPatientHistory": text,
    "PatientWeight": numbers,
    "OtherPatientNames": st.lists(names, max_size=2),
    "InstanceNumber": st.integers(-(2**31), 2**31 - 1),
    "ImagePositionPatient": st.lists(st.floats(-1e5, 1e5).map(lambda x: f"{x:.6g}"), min_size=3, max_size=3),
    "Rows": st.integers(0, 65535),
    "PixelRepresentation": st.sampled_from([0, 1]),
    "SmallestImagePixelValue": st.integers(0, 32767),
    "RecommendedDisplayFrameRateInFloat": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "ImagerPixelSpacing": st.lists(numbers, max_size=3),
    "FrameIncrementPointer": st.lists(st.integers(0, 2**32 - 1), max_size=3),
    "TableTopVerticalPosition": st.floats(allow_nan=False, allow_infinity=False, width=64),
    "EncapsulatedDocument": st.binary(max_size=40).map(lambda data: data + data[: len(data) % 2]),
    "RetrieveURL": st.sampled_from(["", "https://example.org/a"]),
    "ReferencedFrameNumber": st.lists(st.integers(0, 99), max_size=3),
}


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 2) -> Dataset:
    """Data sets with values of every kind, and sequences of such, some of undefined length."""
    ds = Dataset()
    for keyword in draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=8)):
        setattr(ds, keyword, draw(VALUES[keyword]))
    for keyword in draw(st.lists(st.sampled_from(["ProcedureCodeSequence", "ReferencedImageSequence"]), unique=True)) if depth else ():
        setattr(ds, keyword, draw(st.lists(data_sets(depth - 1), max_size=3)))
        ds[keyword].is_undefined_length = draw(st.booleans())
        for item in ds[keyword].value:
            item.is_undefined_length_sequence_item = draw(st.booleans())
    if draw(st.booleans()):
        block = ds.private_block(0x0029, "HILUM TEST", create=True)
        block.add_new(1, "LO", draw(text))
        block.add_new(2, "UN", draw(st.binary(max_size=16)))
    return ds


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data_sets(), st.sampled_from([IMPLICIT, EXPLICIT, EXPLICIT_BIG, DEFLATE]))
def test_any_header_is_the_one_that_pydicom_reads(ds: Dataset, transfer_syntax: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        ds.SpecificCharacterSet = "ISO_IR 192"
        data_set = encoded(ds, transfer_syntax)

        found = read_header(data_set, transfer_syntax, full=True)

        assert found.fault == ""
        assert found.json == oracle.header_by_pydicom(data_set, transfer_syntax)


# Faults


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "rtplan.dcm"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_data_set_cut_anywhere_is_known_as_such(name: str, data: st.DataObject) -> None:
    [file] = [file for file in samples() if file.name == name]
    data_set, transfer_syntax = data_set_of(file)
    whole = read_header(data_set, transfer_syntax)
    length = data.draw(st.integers(0, len(data_set) - 1))

    found = read_header(data_set[:length], transfer_syntax)

    # Between two elements of the top level nothing tells that more was to come.
    assert found.truncated or found.fault or found.json.keys() <= whole.json.keys()
    assert not found.json or found.json.items() <= whole.json.items()


def test_pixel_data_that_ends_early_is_truncated() -> None:
    data_set = encoded(a_data_set(PixelData=b"\0" * 100))

    found = read_header(data_set[:-1], EXPLICIT)

    assert found.truncated
    assert found.fault == "The data set ends 1 bytes before the end of element (7FE0,0010)."
    assert found.json["00080016"]["Value"] == ["1.2.840.10008.5.1.4.1.1.2"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([IMPLICIT, EXPLICIT, EXPLICIT_BIG, DEFLATE, "1.2.840.10008.1.2.4.90"]))
def test_garbage_never_raises(garbage: bytes, transfer_syntax: str) -> None:
    msgspec.json.encode(read_header(garbage, transfer_syntax).json)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(["CT_small.dcm", "MR_small_implicit.dcm", "test-SR.dcm", "JPEG2000.dcm", "MR_small_bigendian.dcm"]))
def test_a_damaged_data_set_never_raises(data: st.DataObject, name: str) -> None:
    [file] = [file for file in samples() if file.name == name]
    data_set, transfer_syntax = data_set_of(file)
    damaged = bytearray(data_set)
    for at in data.draw(st.lists(st.integers(0, min(len(damaged), 3000) - 1), min_size=1, max_size=5)):
        damaged[at] = data.draw(st.integers(0, 255))

    found = read_header(bytes(damaged), transfer_syntax)

    msgspec.json.encode(found.json)
    assert "\0" not in msgspec.json.encode(found.json).decode()


@pytest.mark.parametrize(
    "garbage", [b"", b"abc", b"GIF89a" + bytes(100), b"\x89PNG\r\n" * 40, b"This is a README, and no image at all. " * 9]
)
@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
def test_what_is_no_data_set_is_unreadable_and_not_truncated(garbage: bytes, transfer_syntax: str) -> None:
    found = read_header(garbage, transfer_syntax)

    assert found.fault
    assert not found.truncated
    assert found.json == {}


def test_a_bomb_of_nested_sequences_is_refused_in_words() -> None:
    item = Dataset()
    item.PatientID = "1"
    for _ in range(MAX_DEPTH + 1):
        outer = Dataset()
        outer.ReferencedImageSequence = [item]
        item = outer
    item.SOPClassUID = "1.2"

    assert read(item).fault == f"Sequences are nested more than {MAX_DEPTH} deep."


@pytest.mark.parametrize("nested", [False, True])
def test_a_data_set_of_endlessly_many_elements_is_refused_in_words(nested: bool) -> None:
    many = b"\x10\0\x20\0LO\0\0" * (MAX_ELEMENTS + 2)
    if nested:
        item = b"\xfe\xff\x00\xe0" + (len(many) // 2).to_bytes(4, "little")
        half = many[: len(many) // 2]
        many = b"\x08\0\x40\x11SQ\0\0" + (2 * len(item + half)).to_bytes(4, "little") + 2 * (item + half)

    found = read_header(encoded(a_data_set()) + many, EXPLICIT, full=True)

    assert found.fault == f"The data set has more than {MAX_ELEMENTS} elements."


def test_a_deflate_stream_without_its_end_is_truncated() -> None:
    assert read_header(encoded(a_data_set(PatientID="1"), DEFLATE)[:-3], DEFLATE).truncated


def test_a_deflated_bomb_is_looked_at_no_further_than_the_limit() -> None:
    data_set = encoded(a_data_set(PatientID="1", EncapsulatedDocument=bytes(80 * 2**20)), DEFLATE)

    found = read_header(data_set, DEFLATE)

    assert found.fault == ""
    assert found.json["00100020"]["Value"] == ["1"]


@pytest.mark.parametrize(("declared", "is_in"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT), ("1.2.840.10008.1.2.4.50", IMPLICIT)])
def test_a_data_set_under_the_wrong_transfer_syntax_is_read_as_what_it_is(declared: str, is_in: str) -> None:
    found = read_header(encoded(a_data_set(PatientID="1"), is_in), declared)

    assert (found.fault, found.encoded_as) == ("", is_in)
    assert found.json["00100020"]["Value"] == ["1"]


def test_a_data_set_in_its_transfer_syntax_is_not_said_to_differ() -> None:
    assert read(a_data_set(PatientID="1")).encoded_as == ""
    assert encoding_of(encoded(a_data_set(), EXPLICIT_BIG)[:8], 100, EXPLICIT_BIG) == Encoding(">", True)


# What is left out


def test_pixels_and_long_numbers_and_bytes_are_left_out_and_listed() -> None:
    ds = a_data_set(PixelData=b"\0\0", EncapsulatedDocument=b"x" * 2000, RedPaletteColorLookupTableDescriptor=[1, 2, 3])
    ds.add_new(0x00281101, "US", list(range(600)))
    ds.IconImageSequence = [a_data_set(PixelData=b"\0\0")]

    found = read(ds)

    assert found.cut == ("00281101", "00420011", "00880200", "7FE00010")
    assert found.json["00880200"] == {"vr": "SQ", "Value": [{"00080016": found.json["00080016"]}]}
    assert not found.cut_beyond_bulk


def test_a_value_that_a_rule_names_stays_however_long() -> None:
    ds = a_data_set()
    ds.add_new(0x00281101, "US", list(range(600)))

    assert read(ds, keep=frozenset({"00281101"})).json["00281101"]["Value"] == list(range(600))


@pytest.mark.parametrize("undefined", [False, True])
def test_per_frame_groups_are_left_out_and_a_full_header_has_them(undefined: bool) -> None:
    ds = a_data_set(PatientID="1")
    frame = Dataset()
    frame.FrameAcquisitionNumber = 7
    ds.PerFrameFunctionalGroupsSequence = [frame]
    ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined
    ds.add_new(0x52009999, "LO", "behind")

    found, full = read(ds), read(ds, full=True)

    assert (found.cut, found.cut_beyond_bulk) == (("52009230",), True)
    assert found.json["52009999"]["Value"] == ["behind"]
    assert full.cut == ()
    assert full.json["52009230"]["Value"] == [{"00209156": {"vr": "US", "Value": [7]}}]


@pytest.mark.parametrize("undefined", [False, True])
def test_a_sequence_longer_than_a_header_may_be_is_left_out_whole_unless_it_is_kept(undefined: bool) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "2.25.1"
    nested = Dataset()
    nested.ReferencedImageSequence = [item] * 4000
    nested["ReferencedImageSequence"].is_undefined_length = undefined
    ds = a_data_set(PatientID="1", ReferencedSeriesSequence=[nested])
    ds["ReferencedSeriesSequence"].is_undefined_length = undefined

    found, kept = read(ds), read(ds, keep=frozenset({"00081115"}))

    assert (found.cut, found.cut_beyond_bulk) == (("00081115",), True)
    assert "00081115" not in found.json
    assert found.json["00100020"]["Value"] == ["1"]
    assert len(kept.json["00081115"]["Value"][0]["00081140"]["Value"]) == 4000


def test_a_header_is_cut_to_its_size_largest_first_and_never_in_what_is_kept() -> None:
    ds = a_data_set(PatientComments="p" * 30_000, ImageComments="i" * 40_000, PatientID="1", DerivationDescription="d" * 1000)

    encoded_header, cut = fitted(read(ds), KEPT_TAGS)

    assert cut == ("00204000",)
    assert len(encoded_header) <= MAX_HEADER_BYTES
    left = msgspec.json.decode(encoded_header)
    assert {"00104000", "00100020", "00082111"} <= left.keys()


def test_even_what_is_kept_is_cut_and_listed_before_an_event_becomes_too_large_for_kafka() -> None:
    encoded_header, cut = fitted(read(a_data_set(PatientComments="p" * 300_000, PatientID="1")), KEPT_TAGS)

    assert cut == ("00104000",)
    assert msgspec.json.decode(encoded_header)["00100020"]["Value"] == ["1"]


def test_group_lengths_and_padding_are_no_content() -> None:
    data_set = b"\x08\0\0\0UL\x04\0\x0c\0\0\0" + encoded(a_data_set()) + b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0\0\0"

    found = read_header(data_set, EXPLICIT)

    assert list(found.json) == ["00080016"]
    assert found.cut == ()


def test_elements_out_of_order_come_sorted() -> None:
    later, earlier = encoded(a_data_set()), encoded(Dataset.from_json('{"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}'))

    assert list(read_header(later + earlier, EXPLICIT).json) == ["00080005", "00080016"]


# Values


def element(vr: str, raw: bytes, character_set: bytes = b"", tag: bytes = b"\x10\0\x00\x40") -> Any:
    """The JSON of one element with these bytes, in a data set of this character set."""
    raw += b"\0" * (len(raw) % 2)
    character_set += b" " * (len(character_set) % 2)
    long = LITTLE[vr].long
    head = tag + vr.encode() + (b"\0\0" + len(raw).to_bytes(4, "little") if long else len(raw).to_bytes(2, "little"))
    data_set = b"\x08\0\x05\0CS" + len(character_set).to_bytes(2, "little") + character_set + head + raw
    found = read_header(data_set, EXPLICIT)
    assert found.fault == ""
    return found.json["00104000"].get("Value") if "00104000" in found.json else found.cut


@pytest.mark.parametrize(
    ("vr", "raw", "values"),
    [
        ("IS", b" 12 \\-3\\", [12, -3, None]),
        ("IS", b"1.5", ["1.5"]),
        ("IS", b"1_0", ["1_0"]),
        ("IS", b"9" * 40, ["9" * 40]),
        ("DS", b"1.50\\ -2e3 ", [1.5, -2000.0]),
        ("DS", b"abc", ["abc"]),
        ("DS", b"nan\\1e999", ["nan", "1e999"]),
        ("DS", b"", None),
        ("CS", b"A\\ B \\", ["A", "B", None]),
        ("LO", b"a\0b", ["a\ufffdb"]),
        ("LT", b" a\\b  ", [" a\\b"]),
        ("UI", b"1.2.3\0", ["1.2.3"]),
        ("AT", b"\x10\0\x20\0", ["00100020"]),
        ("US", b"\1\0\2\0", [1, 2]),
        ("PN", b"A^B", [{"Alphabetic": "A^B"}]),
        ("PN", b"=I=P", [{"Ideographic": "I", "Phonetic": "P"}]),
        ("PN", b"  ", None),
    ],
)
def test_a_value_becomes_json(vr: str, raw: bytes, values: Any) -> None:
    assert element(vr, raw) == values


@pytest.mark.parametrize(("vr", "raw"), [("FD", b"\0\0\0\0\0\0\xf8\x7f"), ("FL", b"\0\0\x80\x7f"), ("US", b"\1\0\0\0\0\0"[:3])])
def test_what_json_cannot_say_is_left_out_and_listed(vr: str, raw: bytes) -> None:
    if vr == "US":
        found = read_header(encoded(a_data_set()) + b"\x10\0\x00\x40US\x03\0" + raw, EXPLICIT)
        assert found.cut == ("00104000",)
    else:
        assert element(vr, raw) == ("00104000",)


@pytest.mark.parametrize(
    ("character_set", "raw", "expected"),
    [
        (b"ISO_IR 100", "Müller".encode("latin-1"), ["Müller"]),
        (b"ISO_IR 192", "Ωmega\\Ж".encode(), ["Ωmega", "Ж"]),
        (b"ISO_IR 144", "Люк".encode("iso8859_5"), ["Люк"]),
        # 0x5C, a backslash by itself, is the second byte of this character.
        (b"GB18030", "王\u8a98".encode("gb18030"), ["王\u8a98"]),
        (b"GBK", "誠\\b".encode("gbk"), ["誠", "b"]),
        (b"\\ISO 2022 IR 87", "\u5341\u5341".encode("iso2022_jp"), ["\u5341\u5341"]),
        (b"ISO_IR 192", b"\xff\xfe", ["\ufffd\ufffd"]),
        (b"NOBODY KNOWS", b"a\xe9", ["aé"]),
    ],
)
def test_text_is_decoded_by_the_data_sets_character_set(character_set: bytes, raw: bytes, expected: list[str]) -> None:
    assert element("LO", raw, character_set) == expected


def test_a_second_byte_that_looks_like_an_equals_sign_does_not_part_a_name() -> None:
    name = b"Yamada^Tarou=" + "春日^太郎".encode("iso2022_jp") + b"=" + "はる^たろう".encode("iso2022_jp")

    assert element("PN", name, b"\\ISO 2022 IR 87") == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "春日^太郎", "Phonetic": "はる^たろう"}
    ]


def test_a_korean_name_of_the_standards_example_is_read() -> None:
    name = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"

    assert element("PN", name, b"\\ISO 2022 IR 149") == [{"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"}]


def test_an_item_may_have_a_character_set_of_its_own() -> None:
    item = Dataset()
    item.SpecificCharacterSet, item.CodeMeaning = "ISO_IR 144", "Люк"
    ds = a_data_set(SpecificCharacterSet="ISO_IR 100", ProcedureCodeSequence=[item], StudyDescription="Ü")

    found = read(ds)

    assert found.json["00081032"]["Value"][0]["00080104"]["Value"] == ["Люк"]
    assert found.json["00081030"]["Value"] == ["Ü"]


def test_a_standard_attribute_that_came_as_un_is_what_it_is() -> None:
    found = read_header(encoded(a_data_set()) + b"\x10\0\x20\0UN\0\0\x04\0\0\0ID 1", EXPLICIT)

    assert found.json["00100020"] == {"vr": "LO", "Value": ["ID 1"]}


def test_a_large_file_costs_no_memory() -> None:
    data_set = encoded(a_data_set(PixelData=bytes(50 * 2**20)))
    tracemalloc.start()
    read_header(data_set, EXPLICIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2**20
