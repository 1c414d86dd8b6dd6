from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread

from hilum.dicom import file_meta
from hilum.dicom.file_meta import part10_head, read_meta
from hilum.part10 import data_set_offset
from hilum.upper_layer import IMPLEMENTATION_CLASS_UID

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
DATA_SET = b"\x08\0\x18\0UI\x06\x002.25.3"


def test_others_read_it_as_it_was_meant() -> None:
    head = part10_head(CT, "2.25.3", EXPLICIT, {file_meta.SENDING_AET: b"CT1", file_meta.SENDING_ADDRESS: b"dicom://10.1.2.3"})

    ds = dcmread(BytesIO(head + DATA_SET))

    meta = ds.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (CT, "2.25.3", EXPLICIT)
    assert (meta.SendingApplicationEntityTitle, meta.SendingPresentationAddress) == ("CT1", "dicom://10.1.2.3")
    assert (meta.ImplementationClassUID, meta.FileMetaInformationVersion) == (IMPLEMENTATION_CLASS_UID, b"\0\1")
    assert ds.SOPInstanceUID == "2.25.3"


def test_what_was_written_is_read_back_with_the_data_sets_place() -> None:
    private = {file_meta.PRIVATE_CREATOR_UID: b"2.25.77", file_meta.PRIVATE_INFORMATION: b'{"a":1}\0'}
    head = part10_head(CT, "2.25.3", EXPLICIT, private)

    found, data_set_at = read_meta(head + DATA_SET)

    assert data_set_at == len(head) == data_set_offset(head)
    assert found[file_meta.SOP_CLASS_UID] == CT.encode()
    assert found[file_meta.PRIVATE_INFORMATION] == b'{"a":1}\0'


def test_every_value_has_an_even_length() -> None:
    for uid in ("2.25.3", "2.25.33"):
        head = part10_head(CT, uid, EXPLICIT)
        assert len(head) % 2 == 0
        assert dcmread(BytesIO(head + DATA_SET)).file_meta.MediaStorageSOPInstanceUID == uid


def test_it_depends_on_nothing_but_its_arguments() -> None:
    assert part10_head(CT, "2.25.3", EXPLICIT) == part10_head(CT, "2.25.3", EXPLICIT)


def test_what_a_sender_put_in_place_of_a_uid_does_no_harm() -> None:
    assert read_meta(part10_head("größe", "\u4e00", EXPLICIT))[0][file_meta.SOP_INSTANCE_UID] == b"?"


@pytest.mark.parametrize("head", [b"", bytes(132), bytes(128) + b"DICM" + bytes(20), part10_head(CT, "2.25.3", EXPLICIT)[:-1]])
def test_what_is_no_file_meta_is_told_apart(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"Part 10|not complete"):
        read_meta(head)
