from __future__ import annotations

import struct
import warnings
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from hilum.dicom.file_meta import part10_head
from processors.anonymize.verify.elements import Path as Tags
from processors.anonymize.verify.files import Unreadable
from processors.anonymize.verify.frames import edges
from processors.anonymize.verify.reading import Reader

SAMPLES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
#: Cut short, without File Meta, or without its length.
BROKEN = {
    *("ExplVR_BigEndNoMeta", "ExplVR_LitEndNoMeta", "no_meta", "rtstruct"),
    *("MR_truncated", "rtplan_truncated", "no_meta_group_length"),
}
EVERYTHING = Reader(lambda _tag, _vr: (1, ""), 2)


def leaves(ds: Dataset, path: Tags = ()) -> Counter[Tags]:
    found: Counter[Tags] = Counter()
    for element in ds:
        tag = int(element.tag)
        if element.VR == "SQ":
            for item in element.value:
                found += leaves(item, (*path, tag))
        elif tag not in PIXELS:
            found[*path, tag] += 1
    return found


@pytest.mark.parametrize("sample", [each for each in SAMPLES if each.stem not in BROKEN], ids=lambda each: str(each.stem))
def test_it_sees_what_pydicom_sees(sample: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(sample)
        expected = leaves(ds) + leaves(ds.file_meta)
    del expected[0x00020000,]

    seen = [(path, seen.tag) for path, seen, _, _ in EVERYTHING.read(sample.read_bytes())[1] if seen.tag not in PIXELS]
    assert Counter((*path, tag) for path, tag in seen) == expected


@pytest.mark.parametrize("sample", [each for each in SAMPLES if each.stem in BROKEN], ids=lambda each: str(each.stem))
def test_what_is_not_whole_is_said_to_be_so(sample: Path) -> None:
    with pytest.raises(Unreadable):
        EVERYTHING.read(sample.read_bytes())


@pytest.mark.parametrize("shift", range(0, 16, 2))
def test_no_element_is_missed_where_a_window_ends_just_before_it(shift: int) -> None:
    """A file in parts is read in windows; elements of 16 bytes begin at all kinds of distances from where those end."""
    first = b"\x08\0\x08\0CS" + shift.to_bytes(2, "little") + b"A" * shift
    every = [0x00090010 + number for number in range(4096)]
    elements = b"".join(struct.pack("<HH2sH8s", tag >> 16, tag & 0xFFFF, b"LO", 8, b"Beeblebr") for tag in every)
    whole = part10_head("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1") + first + elements

    parts: list[bytes | memoryview] = [whole[:1000], memoryview(whole)[1000:]]
    for data in (whole, parts):
        assert [seen.tag for _, seen, _, _ in EVERYTHING.read(data)[1] if seen.tag >> 16 == 9] == every


@pytest.mark.parametrize("place", [2**20 + each for each in (-6000, -4000, -1500, -1000, -100, -3, -2, -1, 0, 1)])
@pytest.mark.parametrize("zeros", [0, 1000, 5000, 3 * 2**20])
def test_text_behind_an_end_of_image_is_seen_wherever_pieces_of_its_fragment_end(place: int, zeros: int) -> None:
    for at in (place, place + 2**22 - zeros):  # the end of image, and the text
        frame = b"\xff\xd8\xff".ljust(at, b"\x83") + b"\xff\xd9" + bytes(zeros) + b"Quaggler" + b"\x83" * 2000

        assert edges(lambda begin, size, of=frame: of[begin : begin + size], [(0, len(frame))]) == b"Quaggler\x01Quaggler"  # type: ignore[misc]
