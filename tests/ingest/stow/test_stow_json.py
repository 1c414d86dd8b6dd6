"""DICOM JSON with bulk data."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from hilum.dicom.file_meta import part10_head
from hilum.testing import eventually
from ingest.stow import answers
from tests.stow_client import (
    CT,
    EXPLICIT,
    HANGING_PROTOCOL,
    TO_JSON,
    Running,
    a_json,
    a_json_body,
    running,
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as found:
        yield found


def read(data: bytes, transfer_syntax: str = EXPLICIT) -> Dataset:
    from pydicom import dcmread

    return dcmread(BytesIO(part10_head(CT, "2.25.3", transfer_syntax) + data))


def test_json_and_its_bulk_data_become_an_object(receiver: Running) -> None:
    answered = receiver.post(a_json_body(a_json()), TO_JSON)

    assert (answered.status, answered.referenced) == (200, ["2.25.3"])
    [(arrival, data)] = receiver.stored()
    assert (arrival.adapter, arrival.transfer_syntax_uid, arrival.sop_instance_uid) == ("stow", EXPLICIT, "2.25.3")
    ds = read(data)
    assert (ds.PatientName, ds.Rows, ds.PixelData) == ("Marked^Patient", 2, b"\1\2\3\4")
    assert receiver.leftovers() == []


def test_several_instances_may_share_bulk_data_and_need_none(receiver: Running) -> None:
    second = a_json(**{"00080018": {"vr": "UI", "Value": ["2.25.4"]}})
    third = a_json(**{"00080018": {"vr": "UI", "Value": ["2.25.5"]}, "7FE00010": {"vr": "OW", "InlineBinary": "AQI="}})

    answered = receiver.post(a_json_body(a_json(), second, third), TO_JSON)

    assert (answered.status, answered.referenced) == (200, ["2.25.3", "2.25.4", "2.25.5"])
    assert [read(data).PixelData for _, data in receiver.stored()] == [b"\1\2\3\4", b"\1\2\3\4", b"\1\2"]


def test_json_is_utf_8_whatever_its_character_set_says(receiver: Running) -> None:
    name = {"vr": "PN", "Value": [{"Alphabetic": "Müller^Żofia", "Ideographic": "山田^太郎"}]}
    receiver.post(a_json_body(a_json(**{"00100010": name, "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}})), TO_JSON)

    [(_, data)] = receiver.stored()
    assert str(read(data).PatientName) == "Müller^Żofia=山田^太郎"


@pytest.mark.parametrize(
    ("kind", "transfer_syntax"),
    [("image/jp2", "1.2.840.10008.1.2.4.90"), ("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.50")],
)
def test_a_compressed_frame_is_encapsulated_in_its_transfer_syntax(receiver: Running, kind: str, transfer_syntax: str) -> None:
    from pydicom.encaps import generate_frames

    pixels = a_json(**{"7FE00010": {"vr": "OB", "BulkDataURI": "pixels"}})
    assert receiver.post(a_json_body(pixels, bulk={"pixels": (kind, b"a frame.")}), TO_JSON).status == 200

    [(arrival, data)] = receiver.stored()
    assert arrival.transfer_syntax_uid == transfer_syntax
    assert list(generate_frames(read(data, transfer_syntax).PixelData, number_of_frames=1)) == [b"a frame."]


def sequence(*items: Any) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"00081140": sequence(found)}
    return found


@pytest.mark.parametrize(
    ("change", "comment"),
    [
        ({"00280010": {"vr": "LO", "Value": ["2"]}}, "00280010 cannot have VR LO"),
        ({"00280010": {"vr": "ZZ", "Value": [2]}}, "00280010 has no VR, or an unknown one"),
        ({"00280010": {"Value": [2]}}, "00280010 has no VR, or an unknown one"),
        ({"00280010": [2]}, "00280010 has no VR, or an unknown one"),
        ({"00280010": {"vr": "US", "Value": 2}}, "00280010 has a value that does not fit"),
        ({"00280010": {"vr": "US", "Value": ["Marked^Patient"]}}, "00280010 has a value that does not fit"),
        ({"00280010": {"vr": "US", "Value": [2], "InlineBinary": "AAA="}}, "00280010 has a value that does not fit"),
        ({"00280010": {"vr": "US", "Value": [70_000]}}, "a value does not fit its VR"),
        ({"7FE00010": {"vr": "OW", "Value": [1]}}, "7FE00010 has a value that does not fit"),
        ({"00081140": sequence("Marked^Patient")}, "00081140 has a value that does not fit"),
        ({"00081140": sequence({"00280010": {"vr": "DS"}})}, "00280010 cannot have VR DS"),
        ({"PatientName": {"vr": "PN"}}, "a name is no tag"),
        (nested(80), "sequences are too deep"),
        ({"7FE00010": {"vr": "OW", "BulkDataURI": "elsewhere"}}, "7FE00010"),
        ({"7FE00010": {"vr": "OW", "BulkDataURI": 5}}, "7FE00010"),
        ({"00104000": {"vr": "LT", "BulkDataURI": "pixels"}}, "00104000"),
    ],
)
def test_json_that_is_no_instance_fails_and_names_the_attribute_only(receiver: Running, change: dict[str, Any], comment: str) -> None:
    other = a_json(**{"00080018": {"vr": "UI", "Value": ["2.25.4"]}})
    answered = receiver.post(a_json_body(a_json(**change), other), TO_JSON)

    assert (answered.status, answered.referenced, answered.failed) == (202, ["2.25.4"], [("2.25.3", 0xC000)])
    assert answered.items("00081198")[0]["00000902"].endswith(comment)
    assert b"Marked" not in answered.body
    assert len(receiver.stored()) == 1
    assert receiver.leftovers() == []


def test_compressed_frames_of_a_multi_frame_image_are_not_taken(receiver: Running) -> None:
    frames = a_json(**{"7FE00010": {"vr": "OB", "BulkDataURI": "pixels"}, "00280008": {"vr": "IS", "Value": [2]}})

    assert receiver.post(a_json_body(frames, bulk={"pixels": ("image/jp2", b"frames")}), TO_JSON).failed == [("2.25.3", 0xC122)]


def test_bulk_data_that_nobody_names_is_told_of(receiver: Running) -> None:
    bulk = {"pixels": ("application/octet-stream", b"1234"), "more": ("application/octet-stream", b"5")}

    assert receiver.post(a_json_body(a_json(), bulk=bulk), TO_JSON).failed == [("", 0xC000)]


def test_json_of_another_study_or_class_is_refused(receiver: Running) -> None:
    other = a_json(**{"0020000D": {"vr": "UI", "Value": ["2.25.9"]}})
    protocol = a_json(**{"00080016": {"vr": "UI", "Value": [HANGING_PROTOCOL]}})

    answered = receiver.post(a_json_body(other, protocol), TO_JSON, path="/dicom-web/studies/2.25.1")

    assert (answered.status, answered.failed) == (409, [("2.25.3", answers.OTHER_STUDY.status), ("2.25.3", 0x0122)])
    assert receiver.is_clean()


def test_more_json_than_is_taken_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, max_json_bytes=100) as receiver:
        assert receiver.post(a_json_body(a_json()), TO_JSON).reason == "too-large"
        eventually(receiver.is_clean)
