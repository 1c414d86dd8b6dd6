"""Data sets in other encodings: pydicom reads in the one what it reads in the other."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from hilum.dicom.encoding import Encoding
from hilum.dicom.recode import CannotRecode, Change, Parts, has_odd_value, pieces, recoded

EXPLICIT, IMPLICIT, BIG = Encoding("<", True), Encoding("<", False), Encoding(">", True)
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\^="), max_size=20).map(str.strip)


def written(ds: Dataset, encoding: Encoding) -> memoryview:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = encoding.order == "<", not encoding.explicit
    write_dataset(out, ds)
    return memoryview(out.getvalue())


def read(data: bytes, encoding: Encoding) -> Dataset:
    return read_dataset(BytesIO(data), not encoding.explicit, encoding.order == "<")


def joined(parts: Parts) -> bytes:
    return b"".join(pieces(parts, 1 << 20))


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 0) -> Dataset:
    ds = Dataset()
    ds.PatientID = draw(TEXT)
    ds.PatientName = draw(TEXT)
    ds.ImageComments = draw(TEXT)
    if draw(st.booleans()):
        ds.PixelRepresentation = draw(st.sampled_from((0, 1)))
        ds.SmallestImagePixelValue = draw(st.integers(0, 32767))
    ds.Rows = draw(st.integers(0, 65535))
    ds.SelectorFDValue = draw(st.lists(st.floats(allow_nan=False), max_size=3))
    ds.SelectorATValue = draw(st.lists(st.integers(0, 2**32 - 1), max_size=3))
    ds.SimpleFrameList = draw(st.lists(st.integers(0, 2**32 - 1), max_size=3))
    block = ds.private_block(0x0009, "HILUM TESTS", create=True)
    block.add_new(0x01, "UN", draw(st.binary(max_size=4).filter(lambda value: len(value) % 2 == 0)))
    if depth < 3 and draw(st.booleans()):
        ds.ReferencedStudySequence = draw(st.lists(data_sets(depth=depth + 1), max_size=2))
    return ds


@given(data_sets(), st.sampled_from([EXPLICIT, IMPLICIT, BIG]), st.sampled_from([EXPLICIT, IMPLICIT]))
def test_what_is_written_reads_as_what_was_read(ds: Dataset, source: Encoding, target: Encoding) -> None:
    original = written(ds, source)

    assert read(joined(recoded(original, source, explicit=target.explicit)), target) == read(bytes(original), source)


@given(data_sets())
def test_there_and_back_gives_the_same_bytes(ds: Dataset) -> None:
    once = joined(recoded(written(ds, EXPLICIT), EXPLICIT, explicit=True))

    there = joined(recoded(memoryview(once), EXPLICIT, explicit=False))
    assert joined(recoded(memoryview(there), IMPLICIT, explicit=True)) == once


@given(data_sets(), st.data(), st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_a_data_set_that_is_cut_off_is_no_other_data_set(ds: Dataset, data: st.DataObject, source: Encoding) -> None:
    whole = written(ds, source)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    try:
        parts = recoded(cut, source, explicit=True)
    except CannotRecode:
        return
    original = read(bytes(whole), source)
    assert all(original.get(each.tag) == each for each in read(joined(parts), EXPLICIT))  # cut between two elements


@given(st.binary(max_size=200), st.sampled_from([EXPLICIT, IMPLICIT, BIG]), st.booleans())
def test_garbage_is_refused_or_written_and_nothing_else(data: bytes, source: Encoding, explicit: bool) -> None:
    with suppress(CannotRecode):
        recoded(memoryview(data), source, explicit=explicit)


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def test_text_of_odd_length_is_padded_with_a_space_and_a_uid_with_zero() -> None:
    data = memoryview(element(0x00080018, b"UI", b"1.2") + element(0x00100020, b"LO", b"A"))

    assert has_odd_value(data, EXPLICIT)
    assert joined(recoded(data, EXPLICIT, explicit=True)) == element(0x00080018, b"UI", b"1.2\0") + element(0x00100020, b"LO", b"A ")


def test_a_data_set_of_even_lengths_has_nothing_to_pad() -> None:
    assert not has_odd_value(memoryview(element(0x00100020, b"LO", b"AB")), EXPLICIT)


def test_text_that_is_no_text_in_its_character_set_keeps_its_bytes() -> None:
    value = b"\xff\xfe\x81\x00"

    assert value in joined(recoded(memoryview(element(0x00100010, b"PN", value)), EXPLICIT, explicit=False))


def test_a_sequence_of_unknown_vr_is_implicit_inside() -> None:
    inside = struct.pack("<HHI", 0x0010, 0x0020, 2) + b"ID"
    items = struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = struct.pack("<HH2s2xI", 0x0008, 0x1110, b"UN", 0xFFFFFFFF) + items

    found = read(joined(recoded(memoryview(data), EXPLICIT, explicit=True)), EXPLICIT)

    assert found.ReferencedStudySequence[0].PatientID == "ID"


def test_a_value_too_long_for_its_vr_becomes_unknown() -> None:
    data = struct.pack("<HHI", 0x0010, 0x4000, 70_000) + b"A" * 70_000

    assert joined(recoded(memoryview(data), IMPLICIT, explicit=True))[4:6] == b"UN"


def test_a_big_endian_value_that_ends_within_a_number_is_refused() -> None:
    with pytest.raises(CannotRecode, match="ends within a number"):
        recoded(memoryview(struct.pack(">HH2sH", 0x0028, 0x0010, b"US", 3) + b"123"), BIG, explicit=True)


def test_sequences_that_are_nested_without_end_are_refused() -> None:
    nested = b"".join(struct.pack("<HHIHHI", 0x0008, 0x1110, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) for _ in range(200))

    with pytest.raises(CannotRecode, match="nested more than 50 deep"):
        recoded(memoryview(nested), IMPLICIT, explicit=True)


def test_changes_replace_add_and_remove() -> None:
    data = memoryview(element(0x00080060, b"CS", b"CT") + element(0x00100020, b"LO", b"AB") + element(0x00280004, b"CS", b"RGB "))

    changed = joined(
        recoded(
            data,
            EXPLICIT,
            explicit=True,
            changes={0x00080060: None, 0x00280004: Change(b"CS", b"YBR_FULL"), 0x00282110: Change(b"CS", b"01")},
        )
    )

    assert changed == element(0x00100020, b"LO", b"AB") + element(0x00280004, b"CS", b"YBR_FULL") + element(0x00282110, b"CS", b"01")


def test_compressed_pixel_data_cannot_become_implicit() -> None:
    data = struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

    with pytest.raises(CannotRecode, match="its pixel data are compressed"):
        recoded(memoryview(data), EXPLICIT, explicit=False)


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(1, 64))
def test_pieces_have_the_size_that_is_asked_for_except_the_last(values: list[bytes], size: int) -> None:
    found = [bytes(piece) for piece in pieces(list(values), size)]

    assert b"".join(found) == b"".join(values)
    assert all(len(piece) == size for piece in found[:-1])
    assert all(0 < len(piece) <= size for piece in found)
