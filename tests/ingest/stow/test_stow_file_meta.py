from __future__ import annotations

from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_file_meta_info

from hilum.dicom.file_meta import part10_head
from hilum.part10 import data_set_offset
from ingest.stow.file_meta import MAX_BYTES, FileMeta, read_file_meta

HEAD = part10_head("1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1", {0x0102: b"x" * 300})
EXPECTED = FileMeta(sop_class_uid="1.2.3", sop_instance_uid="1.2.3.4", transfer_syntax_uid="1.2.840.10008.1.2.1", data_set_at=len(HEAD))
DATA_SET = b"\x08\0\x16\0UI\x04\x001.2\0"


@given(st.integers(0, len(HEAD) + 20))
def test_more_is_asked_for_until_it_is_there(size: int) -> None:
    found = read_file_meta((HEAD + DATA_SET + bytes(100))[:size])

    assert found == (EXPECTED if size >= len(HEAD) else None)


@given(st.integers(0, len(HEAD) - 1))
def test_what_is_cut_off_is_no_file(size: int) -> None:
    with pytest.raises(ValueError):
        read_file_meta(HEAD[:size], whole=True)


@pytest.mark.parametrize("length", [0, 10, 5000, 0xFFFFFFFF])
def test_a_wrong_group_length_does_no_harm(length: int) -> None:
    wrong = HEAD[:140] + length.to_bytes(4, "little") + HEAD[144:]

    assert read_file_meta(wrong + DATA_SET) == EXPECTED


def test_a_data_set_that_looks_like_file_meta_is_none() -> None:
    deflated = b"\x02\0\x10\0UI\x04\x009.9\0"

    assert read_file_meta(HEAD + deflated) == EXPECTED


@given(st.binary(max_size=400))
def test_whatever_comes_is_file_meta_or_none(garbage: bytes) -> None:
    for head in (garbage, bytes(128) + b"DICM" + garbage, HEAD + garbage, HEAD[:200] + garbage):
        for whole in (False, True):
            try:
                found = read_file_meta(head, whole=whole)
            except ValueError:
                continue
            assert found is None or 132 <= found.data_set_at <= len(head)


def test_it_is_bounded() -> None:
    endless = bytes(128) + b"DICM" + b"\x02\0\x02\x01OB\0\0\xf0\xff\xff\x7f"
    with pytest.raises(ValueError):
        read_file_meta(endless)
    small = b"\x02\0\x10\0UI\x04\x009.9\0"
    with pytest.raises(ValueError):
        read_file_meta(bytes(128) + b"DICM" + small * (MAX_BYTES // len(small) + 1))


def test_it_reads_of_every_sample_what_pydicom_reads() -> None:
    count = 0
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*")):
        if not path.is_file() or (whole := path.read_bytes())[128:132] != b"DICM":
            continue
        found, meta = read_file_meta(whole, whole=True), read_file_meta_info(path)
        assert found is not None
        assert found.sop_instance_uid == meta.get("MediaStorageSOPInstanceUID", "")
        assert found.transfer_syntax_uid == meta.get("TransferSyntaxUID", "")
        assert found.data_set_at == data_set_offset(whole)
        count += 1
    assert count > 60
