from __future__ import annotations

from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from hilum.dicom.file_meta import part10_head
from hilum.media.errors import Skipped, Unreadable, Why
from hilum.media.recognise import HEAD_BYTES, Head, recognise
from hilum.testing import encoded

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
UIDS = {"SOPClassUID": CT, "SOPInstanceUID": "2.25.3", "StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}
SAMPLES = [path for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*")) if path.is_file()]
PART10 = [path for path in SAMPLES if path.read_bytes()[128:132] == b"DICM"]


def head_of(path: Path) -> Head:
    return recognise(path.read_bytes()[:HEAD_BYTES], path.name)


@pytest.mark.parametrize("path", PART10, ids=lambda path: path.name)
def test_the_file_meta_of_every_sample_says_what_pydicom_reads(path: Path) -> None:
    meta = read_file_meta_info(path)

    head = head_of(path)

    assert head.sop_class_uid == meta.get("MediaStorageSOPClassUID", "")
    assert head.sop_instance_uid == meta.get("MediaStorageSOPInstanceUID", "")
    if "TransferSyntaxUID" in meta:
        assert head.transfer_syntax_uid == meta.TransferSyntaxUID
    assert head.directory == (meta.get("MediaStorageSOPClassUID") == "1.2.840.10008.1.3.10")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_data_set_without_file_meta_is_taken_for_what_it_is(syntax: str) -> None:
    head = recognise(encoded(UIDS, syntax), "IM1")

    assert head == Head(transfer_syntax_uid=syntax, data_set_at=0, bare=True)


def test_a_big_endian_data_set_without_file_meta_is_one(tmp_path: Path) -> None:
    ds = dcmread(next(path for path in SAMPLES if path.name == "MR_small_bigendian.dcm"))
    ds.save_as(tmp_path / "bare", implicit_vr=False, little_endian=False, enforce_file_format=False)
    whole = (tmp_path / "bare").read_bytes()

    assert recognise(whole[head_of(tmp_path / "bare").data_set_at :], "IM1").transfer_syntax_uid == BIG


def test_a_file_without_the_preamble_is_read() -> None:
    whole = part10_head(CT, "2.25.3", EXPLICIT) + encoded(UIDS)

    for start in (128, 132):
        head = recognise(whole[start:], "IM1")
        assert whole[start:][head.data_set_at :] == encoded(UIDS)
        assert (head.transfer_syntax_uid, head.sop_instance_uid) == (EXPLICIT, "2.25.3")


def test_a_group_length_that_lies_is_not_believed() -> None:
    whole = bytearray(part10_head(CT, "2.25.3", EXPLICIT) + encoded(UIDS))
    whole[140:144] = (10_000).to_bytes(4, "little")

    assert whole[recognise(bytes(whole), "IM1").data_set_at :] == encoded(UIDS)


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b"", "IM1", Why.EMPTY),
        (b"\xff\xd8\xff\xe0 not really", "IM1.dcm", Why.NO_DICOM),
        (part10_head(CT, "2.25.3", EXPLICIT), "IM1", Why.TRUNCATED),
        (part10_head(CT, "2.25.3", EXPLICIT)[:150], "IM1", Why.TRUNCATED),
        (part10_head(CT, "2.25.3", "") + b"no data set whatever", "IM1", Why.UNREADABLE),
        (encoded({"ImageType": "ORIGINAL", "Modality": "CT", "PatientID": "MRN-1"}), "IM1", Why.IDENTIFIER_MISSING),
    ],
)
def test_what_should_be_an_object_and_is_none_is_refused_in_words(content: bytes, name: str, why: Why) -> None:
    with pytest.raises(Unreadable) as refused:
        recognise(content, name)

    assert refused.value.why is why
    assert refused.value.sentence
    assert "MRN-1" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b"MZ\x90\0 a viewer", "VIEWER.EXE", Why.NO_DICOM),
        (b"[autorun]\r\nopen=viewer.exe\r\n", "AUTORUN.INF", Why.NO_DICOM),
        (b"\x08\0\0\0", "short", Why.NO_DICOM),
        (b"PK\x03\x04" + bytes(200), "inner.zip", Why.NESTED_ARCHIVE),
        (b"PK\x03\x04" + bytes(200), "viewer.jar", Why.NO_DICOM),
    ],
)
def test_what_else_lies_on_a_medium_is_left_out(content: bytes, name: str, why: Why) -> None:
    with pytest.raises(Skipped) as skipped:
        recognise(content, name)

    assert skipped.value.why is why


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda rest: bytes(128) + b"DICM\x02\0" + rest))
def test_whatever_the_bytes_are_the_answer_is_one_of_three(content: bytes) -> None:
    try:
        head = recognise(content, "IM1")
    except (Skipped, Unreadable):
        return
    assert 0 <= head.data_set_at < len(content)
