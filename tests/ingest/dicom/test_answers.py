from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from ingest.dicom.answers import ANSWERS, HEAD_BYTES, NOT_DICOM, OTHER_OBJECT, STORED, judge

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


def a_data_set(transfer_syntax: str = EXPLICIT, **values: str) -> bytes:
    ds = Dataset()
    for keyword, value in ({"ImageType": "ORIGINAL", "SOPClassUID": CT, "SOPInstanceUID": "2.25.3", "PatientID": "1"} | values).items():
        if value:
            setattr(ds, keyword, value)
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = transfer_syntax != BIG, transfer_syntax == IMPLICIT
    write_dataset(out, ds)
    return out.getvalue()


def answer(data_set: bytes, transfer_syntax: str = EXPLICIT, sop_class: str = CT, instance: str = "2.25.3") -> int:
    return judge(data_set[:HEAD_BYTES], len(data_set), transfer_syntax, sop_class, instance).status


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG])
def test_the_object_that_was_announced_is_stored(transfer_syntax: str) -> None:
    assert answer(a_data_set(transfer_syntax), transfer_syntax) == STORED.status


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("other", [{"SOPClassUID": MR}, {"SOPInstanceUID": "2.25.4"}, {"SOPClassUID": ""}, {"SOPInstanceUID": ""}])
def test_another_object_than_announced_gets_a_warning(transfer_syntax: str, other: dict[str, str]) -> None:
    assert answer(a_data_set(transfer_syntax, **other), transfer_syntax) == OTHER_OBJECT.status


def test_nothing_announced_is_nothing_to_differ_from() -> None:
    assert answer(a_data_set(), sop_class="", instance="") == STORED.status


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("garbage", [b"GIF89a" + bytes(99), b"Not a DICOM object, but a letter.", b"x", bytes(range(255, 0, -1))])
def test_what_is_no_data_set_cannot_be_understood(garbage: bytes, transfer_syntax: str) -> None:
    assert answer(garbage, transfer_syntax) == NOT_DICOM.status


def test_the_other_vr_encoding_is_understood_nevertheless() -> None:
    assert answer(a_data_set(IMPLICIT), EXPLICIT) == STORED.status
    assert answer(a_data_set(EXPLICIT), IMPLICIT) == STORED.status


def test_what_cannot_be_seen_is_left_to_validation() -> None:
    assert answer(b"\xed\xbd\x07\x60", "1.2.840.10008.1.2.1.99") == STORED.status
    sequence_in_front = b"\x08\0\x06\0SQ\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0" + a_data_set(SOPClassUID=MR)
    assert answer(sequence_in_front) == STORED.status


def test_every_comment_fits_its_element() -> None:
    for each in ANSWERS:
        assert len(each.comment) <= 64
        assert each.comment.isascii()
