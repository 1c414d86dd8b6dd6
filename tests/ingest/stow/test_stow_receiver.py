"""The role `stow`, asked over HTTP: every answer and every refusal."""

from __future__ import annotations

import base64
import http.client
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.dicom.file_meta import part10_head
from hilum.settings import Spool as SpoolSettings
from hilum.testing import encoded, eventually
from ingest.dicom.answers import NO_DATA_SET, Answer
from ingest.stow import answers
from ingest.stow.answers import Refusal
from tests.stow_client import (
    CT,
    EXPLICIT,
    HANGING_PROTOCOL,
    HEADER,
    IMPLICIT,
    TO_DICOM,
    TO_JSON,
    Answered,
    Running,
    a_body,
    a_file,
    a_head,
    a_json,
    a_json_body,
    running,
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as found:
        yield found


# Stored


def test_what_is_stored_is_durable_byte_for_byte_and_named_in_the_answer(receiver: Running) -> None:
    files = [a_file(SOPInstanceUID="2.25.3"), a_file(IMPLICIT, SOPInstanceUID="2.25.4")]

    answered = receiver.post(a_body(*files))

    assert (answered.status, answered.headers["content-type"]) == (200, "application/dicom+json")
    assert answered.referenced == ["2.25.3", "2.25.4"]
    assert answered.failed == []
    assert answered.json["00081190"] == {"vr": "UR"}, "there is nowhere to retrieve from"
    [(first, first_data), (second, second_data)] = receiver.stored()
    assert first_data == encoded(HEADER, EXPLICIT)
    assert second_data == encoded(HEADER | {"SOPInstanceUID": "2.25.4"}, IMPLICIT)
    assert (first.adapter, first.transfer_syntax_uid, first.sop_class_uid, first.sop_instance_uid) == ("stow", EXPLICIT, CT, "2.25.3")
    assert (second.transfer_syntax_uid, second.peer, second.calling_aet) == (IMPLICIT, "127.0.0.1", "")
    assert first.association == second.association != ""
    assert receiver.leftovers() == []


def test_one_file_needs_no_multipart(receiver: Running) -> None:
    assert receiver.post(a_file(), "application/dicom").status == 200
    assert len(receiver.stored()) == 1


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_chunked_body_comes_in_pieces_of_any_size(receiver: Running, piece: int) -> None:
    body = a_body(a_file())

    answered = receiver.post(body[n : n + piece] for n in range(0, len(body), piece))

    assert (answered.status, answered.referenced) == (200, ["2.25.3"])


@pytest.mark.parametrize(("base", "path"), [("", "/studies"), ("/", "/studies"), ("a/b/", "/a/b/studies")])
def test_the_service_is_where_the_settings_have_it(tmp_path: Path, base: str, path: str) -> None:
    with running(tmp_path, base=base) as receiver:
        assert receiver.post(a_body(a_file()), path=path).status == 200


def test_the_study_of_the_path_takes_its_instances_only(receiver: Running) -> None:
    private = encoded({"SOPClassUID": CT, "SOPInstanceUID": "2.25.5"}) + b"\x09\x00\x10\x00LO\x04\x00TEST"
    far = private + b"\x09\x00\x01\x10OB\0\0\x00\x00\x02\x00" + bytes(0x20000) + encoded({"StudyInstanceUID": "2.25.1"})
    files = [a_file(), a_file(SOPInstanceUID="2.25.4", StudyInstanceUID="2.25.9"), part10_head(CT, "2.25.5", EXPLICIT) + far]

    answered = receiver.post(a_body(*files), path="/dicom-web/studies/2.25.1")

    assert (answered.status, answered.referenced) == (202, ["2.25.3", "2.25.5"])
    assert answered.failed == [("2.25.4", answers.OTHER_STUDY.status)]
    assert [arrival.sop_instance_uid for arrival, _ in receiver.stored()] == ["2.25.3", "2.25.5"]
    assert receiver.leftovers() == []


def test_another_object_than_the_file_meta_says_is_stored_with_a_warning(receiver: Running) -> None:
    answered = receiver.post(a_body(a_file(announced={"SOPInstanceUID": "2.25.7"})))

    [item] = answered.items("00081199")
    assert (answered.status, item["00081155"], item["00081196"]) == (202, "2.25.7", 0xB007)
    assert len(item["00000902"]) <= 64
    assert receiver.stored()[0][0].sop_instance_uid == "2.25.7"


def test_file_meta_without_uids_or_with_a_wrong_group_length_does_no_harm(receiver: Running) -> None:
    whole = a_file()
    wrong_length = whole[:140] + b"\x01\0\0\0" + whole[144:]
    no_length = whole[:132] + whole[144:]
    no_uids = part10_head("", "", EXPLICIT) + encoded(HEADER)

    answered = receiver.post(a_body(wrong_length, no_length, no_uids))

    assert (answered.status, answered.referenced) == (200, ["2.25.3"] * 3)
    assert [data for _, data in receiver.stored()] == [encoded(HEADER)] * 3


def test_an_answer_can_be_had_in_xml(receiver: Running) -> None:
    answered = receiver.post(a_body(a_file(), b"junk"), Accept="application/dicom+xml")

    assert answered.headers["content-type"] == "application/dicom+xml"
    root = ElementTree.fromstring(answered.body)  # noqa: S314  # our own
    name = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    assert [each.get("keyword") for each in root] == ["RetrieveURL", "ReferencedSOPSequence", "OtherFailuresSequence"]
    assert "2.25.3" in [value.text for value in root.iter(f"{name}Value")]


# Failures of one instance


@pytest.mark.parametrize(
    ("part", "answer", "named"),
    [
        (b"", NO_DATA_SET, ""),
        (b"GIF89a", answers.NOT_PART_10, ""),
        (bytes(200), answers.NOT_PART_10, ""),
        (a_file()[:200], answers.NOT_PART_10, ""),
        (part10_head(CT, "2.25.3", "") + encoded(HEADER), answers.NOT_PART_10, "2.25.3"),
        (part10_head(CT, "2.25.3", EXPLICIT), NO_DATA_SET, "2.25.3"),
        (part10_head(CT, "2.25.3", "no uid") + encoded(HEADER), answers.TRANSFER_SYNTAX, "2.25.3"),
        (part10_head("", "", EXPLICIT) + encoded({"PatientID": "1"}), answers.NO_UIDS, ""),
        (a_file(SOPClassUID=HANGING_PROTOCOL), answers.SOP_CLASS, "2.25.3"),
    ],
)
def test_what_is_no_instance_is_refused_and_the_others_are_stored(receiver: Running, part: bytes, answer: Answer, named: str) -> None:
    alone = receiver.post(a_body(part))
    assert (alone.status, alone.failed) == (409, [(named, answer.status)])
    assert alone.items("00081198" if named else "0008119A")[0]["00000902"] == answer.comment
    assert receiver.is_clean()

    among = receiver.post(a_body(a_file(SOPInstanceUID="2.25.8"), part, a_file(SOPInstanceUID="2.25.9")))
    assert (among.status, among.failed, among.referenced) == (202, [(named, answer.status)], ["2.25.8", "2.25.9"])
    assert receiver.leftovers() == []


def test_what_is_no_data_set_fails_and_is_kept_for_a_person_as_with_c_store(receiver: Running) -> None:
    answered = receiver.post(a_body(part10_head(CT, "2.25.3", EXPLICIT) + b"Not a data set, but a letter."))

    assert (answered.status, answered.failed) == (409, [("2.25.3", 0xC000)])
    assert [data for _, data in receiver.stored()] == [b"Not a data set, but a letter."]


def test_an_instance_that_is_too_large_is_refused_and_the_others_are_stored(tmp_path: Path) -> None:
    with running(tmp_path, max_object_bytes=400) as receiver:
        large = a_file(PatientComments="x" * 1000, SOPInstanceUID="2.25.4")
        answered = receiver.post(a_body(large, a_file()))

        assert (answered.status, answered.referenced, answered.failed) == (202, ["2.25.3"], [("2.25.4", 0xA700)])
        assert receiver.leftovers() == []


@pytest.mark.parametrize(
    "body",
    [a_body(a_file(), kind="image/jpeg"), a_body(base64.b64encode(a_file()), more="Content-Transfer-Encoding: base64\r\n")],
)
def test_a_part_of_another_kind_is_refused(receiver: Running, body: bytes) -> None:
    answered = receiver.post(body)

    assert (answered.status, answered.failed) == (409, [("", answers.NOT_AS_ANNOUNCED.status)])
    assert receiver.is_clean()


# Refusals of the whole request


@pytest.mark.parametrize(
    ("body", "kind", "refusal"),
    [
        (a_body(a_file()), "multipart/related; type=application/dicom", answers.NO_BOUNDARY),
        (a_body(a_file()), f'multipart/related; type="application/dicom"; boundary={"b" * 201}', answers.NO_BOUNDARY),
        (a_body(a_file()), "multipart/form-data; boundary=b", answers.MEDIA_TYPE),
        (a_body(a_file()), "", answers.MEDIA_TYPE),
        (a_body(a_file()), "no media type", answers.MEDIA_TYPE),
        (a_body(a_file()), 'multipart/related; type="application/dicom+xml"; boundary=b', answers.MEDIA_TYPE),
        (a_body(a_file()), "image/jpeg", answers.MEDIA_TYPE),
        (a_body(a_file()).removesuffix(b"--b--\r\n"), TO_DICOM, answers.MALFORMED),
        (a_body(a_file())[:400], TO_DICOM, answers.MALFORMED),
        (b"", TO_DICOM, answers.MALFORMED),
        (a_body(a_file()), TO_DICOM.replace("=b", "=another"), answers.MALFORMED),
        (a_body(a_file(), more="no field\r\n"), TO_DICOM, answers.MALFORMED),
        (a_body(), TO_DICOM, answers.NO_INSTANCES),
        (b"", "application/dicom", answers.NO_INSTANCES),
        (a_body(b"{", kind="application/dicom+json"), TO_JSON, answers.MALFORMED),
        (a_body(b"[]", kind="application/dicom+json"), TO_JSON, answers.NO_INSTANCES),
    ],
)
def test_of_a_request_that_is_wrong_as_a_whole_nothing_is_kept(receiver: Running, body: bytes, kind: str, refusal: Refusal) -> None:
    answered = receiver.post(body, kind)

    assert (answered.status, answered.reason) == (refusal.status, refusal.reason)
    eventually(receiver.is_clean)


@pytest.mark.parametrize(
    ("method", "path", "refusal"),
    [
        ("GET", "/dicom-web/studies", answers.ONLY_STORE),
        ("DELETE", "/dicom-web/studies/2.25.1", answers.ONLY_STORE),
        ("POST", "/", answers.NOT_FOUND),
        ("POST", "/dicom-web/studies/2.25.1/series", answers.NOT_FOUND),
        ("POST", "/dicom-web/studies/Marked%5EPatient", answers.NOT_FOUND),
    ],
)
def test_nothing_else_is_served(receiver: Running, method: str, path: str, refusal: Refusal) -> None:
    answered = receiver.post(a_body(a_file()), path=path, method=method)

    assert (answered.status, answered.reason) == (refusal.status, refusal.reason)
    assert b"Marked" not in answered.body


@pytest.mark.parametrize(("limit", "value"), [("max_request_bytes", 500), ("max_parts", 1)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_that_is_too_large_is_refused(tmp_path: Path, limit: str, value: int, chunked: bool) -> None:
    limits: dict[str, Any] = {limit: value}
    with running(tmp_path, **limits) as receiver:
        body = a_body(a_file(), a_file())
        answered = receiver.post(iter([body]) if chunked else body)

        assert (answered.status, answered.reason) == (413, "too-large")
        eventually(receiver.is_clean)


def test_a_compressed_request_is_refused(receiver: Running) -> None:
    assert receiver.post(a_body(a_file()), Content_Encoding="gzip").reason == "media-type"


def test_with_a_full_disk_a_client_is_told_when_to_come_again(tmp_path: Path) -> None:
    with running(tmp_path, SpoolSettings(min_free_bytes=2**62)) as receiver:
        answered = receiver.post(a_body(a_file()))

        assert (answered.status, answered.reason) == (503, "no-space")
        assert int(answered.headers["retry-after"]) > 0
        assert "nearly full" in receiver.receiver.health().says
        assert receiver.receiver.health().ready


def test_a_client_that_stays_silent_is_told_so(tmp_path: Path) -> None:
    with running(tmp_path, idle_timeout_s=0.5) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
        connection.sendall(a_head() + a_body(a_file())[:600])

        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        eventually(receiver.is_clean)


def test_a_client_that_hangs_up_leaves_nothing(receiver: Running) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
        connection.sendall(
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\nContent-Type: {TO_DICOM}\r\n\r\n".encode()
        )
        connection.sendall(a_body(a_file())[:-9])
        eventually(lambda: receiver.receiver.health().says.endswith("1 request under way"))

    eventually(lambda: receiver.receiver.health().says.endswith("0 requests under way"))
    eventually(receiver.is_clean)
    receiver.end()
    assert [record.refused for record in receiver.records()] == [f"{answers.CUT_OFF.title} (cut-off)"]


def test_one_request_more_than_are_served_at_once_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, max_requests=1) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
        connection.sendall(
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\nContent-Type: {TO_DICOM}\r\n\r\n".encode()
        )
        eventually(lambda: receiver.receiver.health().says.endswith("1 request under way"))

        answered = receiver.post(a_body(a_file()))

        assert (answered.status, answered.reason, answered.headers["retry-after"]) == (503, "busy", "5")


def test_what_is_no_http_is_refused_in_words(receiver: Running) -> None:
    for sent in (b"Marked Patient\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000):
        with socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
            connection.sendall(sent)
            response = http.client.HTTPResponse(connection)
            response.begin()
            answered = Answered(response)
        assert (answered.status, answered.reason) == (400, "malformed")


def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(tmp_path: Path) -> None:
    with running(tmp_path, times={"head_s": 0.5}) as receiver:
        for sent in (b"", b"POST /dicom-web/studies HTTP/1.1\r\nHo"):
            with socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
                connection.sendall(sent)
                assert connection.recv(100) == b""


def test_who_asks_first_whether_to_send_is_refused_before_sending(tmp_path: Path) -> None:
    with running(tmp_path, max_request_bytes=10) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
        connection.sendall(a_head(99, "Expect: 100-continue\r\n"))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


# Stopping


def test_what_is_under_way_is_finished_when_it_stops(tmp_path: Path) -> None:
    with running(tmp_path, times={"drain_s": 60}) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
        body = a_body(a_file())
        connection.sendall(a_head(len(body)))
        eventually(lambda: receiver.receiver.health().says.endswith("1 request under way"))
        receiver.stop.set()
        eventually(lambda: not receiver.receiver.port)
        connection.sendall(body)

        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        receiver.end()
        assert len(receiver.stored()) == 1


def test_what_takes_too_long_when_it_stops_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, times={"drain_s": 0.3}) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
        connection.sendall(
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\nContent-Type: {TO_DICOM}\r\n\r\n".encode()
        )
        connection.sendall(a_body(a_file())[:-9])
        eventually(lambda: receiver.receiver.health().says.endswith("1 request under way"))
        receiver.end()

        assert receiver.is_clean()


def test_what_comes_while_it_stops_is_told_to_come_again(receiver: Running) -> None:
    service = receiver.receiver._service
    assert service is not None
    service.stopping = True  # as between the signal and the end of the last request

    answered = receiver.post(a_body(a_file()))

    assert (answered.status, answered.reason, answered.headers["retry-after"]) == (503, "stopping", "10")


def test_a_fault_of_hilums_own_costs_one_request_and_says_nothing_of_it(receiver: Running, capfd: pytest.CaptureFixture[str]) -> None:
    service = receiver.receiver._service
    assert service is not None
    spool, service._spool = service._spool, None  # type: ignore[assignment]  # whatever nobody foresaw
    answered = receiver.post(a_body(a_file()))
    service._spool = spool

    assert (answered.status, answered.reason) == (500, "failed")
    assert "request_failed" in "".join(capfd.readouterr())
    assert receiver.post(a_body(a_file())).status == 200


# What may come

mutations = st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 3), st.binary(max_size=6)), max_size=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(mutations)
def test_whatever_comes_over_the_wire_the_next_request_is_served(receiver: Running, changes: list[tuple[int, int, bytes]]) -> None:
    body = a_body(a_file())
    sent = a_head(len(body)) + body
    for place, gone, come in changes:
        sent = sent[:place] + come + sent[place + gone :]
    with suppress(OSError), socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:  # it may close it at any time
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(9, socket.MSG_WAITALL) in (b"", b"HTTP/1.1 ")

    assert receiver.post(body).status == 200
    receiver.spool.remove(receiver.spool.waiting())


# What must not be said


def test_nothing_of_a_patient_is_logged(receiver: Running, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = a_json(**{"00280010": {"vr": "US", "Value": ["Marked^Patient"]}, "00101010": {"vr": "AS", "Value": ["Marked^Patient"]}})
    for body, kind in ((a_json_body(wrong), TO_JSON), (a_body(a_file(), b"Marked^Patient"), TO_DICOM), (b"Marked^Patient", TO_DICOM)):
        receiver.post(body, kind)
    receiver.post(a_body(a_file()), path="/dicom-web/studies/Marked%5EPatient?q=Marked")

    said = "".join(capfd.readouterr())
    assert "request_refused" in said
    assert "Marked" not in said
