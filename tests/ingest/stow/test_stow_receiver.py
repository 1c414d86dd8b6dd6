"""The role `stow`, asked over HTTP: every answer and every refusal."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from hilum.dicom.file_meta import part10_head
from hilum.errors import Misconfigured
from hilum.settings import Settings, Stow
from hilum.settings import Spool as SpoolSettings
from hilum.spool import Arrival, Spool, read_arrival
from hilum.testing import encoded, eventually
from hilum.web import add_client
from ingest.dicom.answers import NO_DATA_SET, Answer
from ingest.stow import StowReceiver, answers, role
from ingest.stow.answers import Refusal

CT, EXPLICIT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
HANGING_PROTOCOL = "1.2.840.10008.5.1.4.38.1"
HEADER = {
    "SOPClassUID": CT,
    "SOPInstanceUID": "2.25.3",
    "PatientName": "Marked^Patient",
    "PatientID": "MRN-1",
    "StudyInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
}
TO_DICOM = 'multipart/related; type="application/dicom"; boundary=b'
TO_JSON = 'multipart/related; type="application/dicom+json"; boundary=b'


def a_file(transfer_syntax: str = EXPLICIT, announced: dict[str, str] | None = None, **header: str) -> bytes:
    """A DICOM file with a CT slice's header."""
    values = HEADER | header
    said = values | (announced or {})
    return part10_head(said["SOPClassUID"], said["SOPInstanceUID"], transfer_syntax) + encoded(values, transfer_syntax)


def a_head(length: int = 9999, more: str = "") -> bytes:
    """The head of a request."""
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Type: {TO_DICOM}\r\nContent-Length: {length}\r\n{more}\r\n"
    return head.encode()


def a_body(*parts: bytes, kind: str = "application/dicom", more: str = "") -> bytes:
    """A multipart body with the boundary `b`."""
    begun = b"".join(f"--b\r\nContent-Type: {kind}\r\n{more}\r\n".encode() + part + b"\r\n" for part in parts)
    return begun + b"--b--\r\n"


class Answered:
    """A response that was read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> dict[str, Any]:
        """The body."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def items(self, tag: str) -> list[dict[str, Any]]:
        """The items of a sequence, each with its attributes' first values."""
        items = self.json.get(tag, {}).get("Value", [])
        return [{tag: attribute.get("Value", [None])[0] for tag, attribute in item.items()} for item in items]

    @property
    def referenced(self) -> list[str]:
        """SOP instances that are stored."""
        return [item["00081155"] for item in self.items("00081199")]

    @property
    def failed(self) -> list[tuple[str, int]]:
        """SOP instances that are not, and why; `""` where they have no name."""
        return [(item.get("00081155", ""), item["00081197"]) for item in self.items("00081198") + self.items("0008119A")]

    @property
    def reason(self) -> str:
        """Why nothing was taken."""
        assert self.headers["content-type"] == "application/problem+json"
        assert {"title", "detail", "fix"} <= self.json.keys()
        assert self.json["status"] == self.status
        return str(self.json["reason"])


class Running:
    """The role in a thread, and its spool."""

    def __init__(self, wanted: Settings, **times: float) -> None:
        self.receiver = StowReceiver(wanted, **times)
        self.spool = Spool.of(wanted)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.receiver.run, args=(self.stop,))
        self.thread.start()
        self.port = eventually(lambda: self.receiver.port, what="it listens")

    def end(self) -> None:
        """Stop it, and wait until it has."""
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def post(
        self, body: bytes | Iterator[bytes], kind: str = TO_DICOM, path: str = "/dicom-web/studies", method: str = "POST", **headers: str
    ) -> Answered:
        """Ask it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, body, sent, encode_chunked=not isinstance(body, bytes))
        try:
            return Answered(connection.getresponse())
        finally:
            connection.close()

    def stored(self) -> list[tuple[Arrival, bytes]]:
        """What is in the spool, oldest first: arrival and data set."""
        files = [self.spool.path(receipt).read_bytes() for receipt in self.spool.waiting()]
        return [(arrival, file[begin:]) for file in files for arrival, begin in [read_arrival(file)]]

    def leftovers(self) -> list[Path]:
        """Unfinished files in the spool."""
        return [path for path in (self.spool.new.parent / "tmp").rglob("*") if path.is_file()]

    def is_clean(self) -> bool:
        """Whether nothing was kept and nothing is left over."""
        return not self.stored() and not self.leftovers()


@contextmanager
def running(path: Path, spool: SpoolSettings | None = None, times: dict[str, float] | None = None, **stow: Any) -> Iterator[Running]:
    """The role for as long as the block lasts."""
    receiver = Running(Settings(data=str(path), stow=Stow(port=0, **stow), spool=spool or SpoolSettings(min_free_bytes=0)), **(times or {}))
    try:
        yield receiver
    finally:
        receiver.end()


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
        assert not receiver.receiver.health().ready


def test_a_client_that_stays_silent_is_told_so(tmp_path: Path) -> None:
    with running(tmp_path, idle_timeout_s=0.2) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(a_head() + a_body(a_file())[:600])

        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        eventually(receiver.is_clean)


def test_a_client_that_hangs_up_leaves_nothing(receiver: Running) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\nContent-Type: {TO_DICOM}\r\n\r\n".encode()
        )
        connection.sendall(a_body(a_file())[:-9])
        eventually(lambda: receiver.receiver.health().says.endswith("1 request under way"))

    eventually(lambda: receiver.receiver.health().says.endswith("0 requests under way"))
    eventually(receiver.is_clean)


def test_one_request_more_than_are_served_at_once_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, max_requests=1) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\nContent-Type: {TO_DICOM}\r\n\r\n".encode()
        )
        eventually(lambda: receiver.receiver.health().says.endswith("1 request under way"))

        answered = receiver.post(a_body(a_file()))

        assert (answered.status, answered.reason, answered.headers["retry-after"]) == (503, "busy", "5")


def test_what_is_no_http_is_refused_in_words(receiver: Running) -> None:
    for sent in (b"Marked Patient\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000):
        with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
            connection.sendall(sent)
            response = http.client.HTTPResponse(connection)
            response.begin()
            answered = Answered(response)
        assert (answered.status, answered.reason) == (400, "malformed")


def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(tmp_path: Path) -> None:
    with running(tmp_path, times={"head_s": 0.2}) as receiver:
        for sent in (b"", b"POST /dicom-web/studies HTTP/1.1\r\nHo"):
            with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
                connection.sendall(sent)
                assert connection.recv(100) == b""


def test_who_asks_first_whether_to_send_is_refused_before_sending(tmp_path: Path) -> None:
    with running(tmp_path, max_request_bytes=10) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(a_head(99, "Expect: 100-continue\r\n"))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


# Who may


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    return tmp_path / "clients"


def bearer(key: str) -> str:
    return f"Bearer {key}"


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"whoever:{key}".encode()).decode()


@pytest.mark.parametrize("scheme", [bearer, basic])
def test_a_clients_key_names_the_sender(tmp_path: Path, clients: Path, scheme: Callable[[str], str]) -> None:
    keys = {title: add_client(clients, title) for title in ("PORTAL", "LAB")}
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        assert receiver.post(a_body(a_file()), Authorization=scheme(keys["LAB"])).status == 200
        assert receiver.stored()[0][0].calling_aet == "LAB"


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer wrong", "Basic d3Jvbmc=", "Basic %%%", "Basic /w==", "Negotiate x", "Bearer é"]
)
def test_who_has_no_key_is_refused(tmp_path: Path, clients: Path, authorization: str) -> None:
    add_client(clients, "PORTAL")
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        answered = receiver.post(a_body(a_file()), **({"Authorization": authorization} if authorization else {}))

        assert (answered.status, answered.reason) == (401, "unauthorized")
        assert "Bearer" in answered.headers["www-authenticate"]
        assert receiver.is_clean()


def test_anonymous_requests_are_taken_where_that_is_wanted_but_no_wrong_key(tmp_path: Path, clients: Path) -> None:
    add_client(clients, "PORTAL")
    with running(tmp_path / "data", clients=str(clients), anonymous=True) as receiver:
        assert receiver.post(a_body(a_file())).status == 200
        assert receiver.post(a_body(a_file()), Authorization="Bearer wrong").status == 401


def test_a_key_holds_at_once_and_is_taken_back_at_once(tmp_path: Path, clients: Path) -> None:
    add_client(clients, "PORTAL")
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        key = add_client(clients, "LAB")
        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).status == 200

        clients.write_text("# nobody\n")
        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).status == 401

        clients.unlink()
        assert receiver.post(a_body(a_file()), Authorization=bearer(key)).reason == "no-clients"
        assert "hilum stow key" in receiver.receiver.health().says
        assert not receiver.receiver.health().ready


def test_without_keys_nobody_else_can_reach_it_unless_that_is_wanted(tmp_path: Path) -> None:
    everywhere = "0.0.0.0"  # noqa: S104  # that is the point
    with pytest.raises(Misconfigured, match=r"would take objects from anybody.*stow\.anonymous = true"):
        role(Settings(data=str(tmp_path), stow=Stow(host=everywhere, port=0))).run(threading.Event())
    with running(tmp_path, host=everywhere, anonymous=True) as receiver:
        assert receiver.post(a_body(a_file())).status == 200


def test_a_port_that_is_taken_is_said_in_words(receiver: Running, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"STOW-RS cannot listen on 127\.0\.0\.1"):
        role(Settings(data=str(tmp_path), stow=Stow(port=receiver.port))).run(threading.Event())


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certified(authority: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    """Settings with a certificate for 127.0.0.1."""
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(tmp_path / "certificate.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {"certificate": str(tmp_path / "certificate.pem"), "private_key": str(tmp_path / "key.pem")}


def post_over_tls(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    connection.request("POST", "/dicom-web/studies", a_body(a_file()), {"Content-Type": TO_DICOM})
    return connection.getresponse().status


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_it_speaks_tls_with_forward_secrecy_and_nothing_older(tmp_path: Path, authority: trustme.CA, certified: dict[str, Any]) -> None:
    with running(tmp_path / "data", **certified) as receiver:
        assert receiver.receiver.health().says.startswith("https://127.0.0.1:")
        assert post_over_tls(receiver.port, trusting(authority)) == 200
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert post_over_tls(receiver.port, old) == 200
        old.set_ciphers("AES256-GCM-SHA384")  # without an ephemeral key
        with pytest.raises(ssl.SSLError):
            post_over_tls(receiver.port, old)


def test_with_mutual_tls_only_certificates_of_the_authority_are_let_in(
    tmp_path: Path, authority: trustme.CA, certified: dict[str, Any]
) -> None:
    with running(tmp_path / "data", client_ca=str(tmp_path / "ca.pem"), **certified) as receiver:
        known = trusting(authority)
        authority.issue_cert("client.example").configure_cert(known)
        assert post_over_tls(receiver.port, known) == 200
        stranger = trusting(authority)
        trustme.CA().issue_cert("client.example").configure_cert(stranger)
        for context in (stranger, trusting(authority)):
            with pytest.raises((ssl.SSLError, OSError)):
                post_over_tls(receiver.port, context)
        assert len(receiver.stored()) == 1


def test_a_certificate_that_ends_soon_is_spoken_of(tmp_path: Path, authority: trustme.CA, certified: dict[str, Any]) -> None:
    ends = datetime.now(UTC) + timedelta(days=29)
    issued = authority.issue_cert("127.0.0.1", not_after=ends)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    with running(tmp_path / "data", certificate=str(tmp_path / "both.pem")) as receiver:
        assert f"The certificate ends on {ends:%Y-%m-%d}" in receiver.receiver.health().says
        assert receiver.receiver.health().ready
    with running(tmp_path / "more", **certified) as receiver:
        assert "ends" not in receiver.receiver.health().says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"certificate": ""}, r"stow\.certificate is missing"),
        ({"certificate": "/nowhere.pem"}, r"/nowhere\.pem is no certificate that can be read"),
        ({"private_key": "{ca}"}, r"cannot be used for TLS"),
        ({"client_ca": "/nowhere.pem"}, r"/nowhere\.pem cannot be used: No such file"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_said_in_words(
    tmp_path: Path, certified: dict[str, Any], change: dict[str, str], says: str
) -> None:
    stow = certified | {name: value.format(ca=tmp_path / "ca.pem") for name, value in change.items()}
    with pytest.raises(Misconfigured, match=says):
        role(Settings(data=str(tmp_path), stow=Stow(port=0, **stow))).run(threading.Event())


# Stopping


def test_what_is_under_way_is_finished_when_it_stops(tmp_path: Path) -> None:
    with running(tmp_path) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
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
    with running(tmp_path, times={"drain_s": 0.3}) as receiver, socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        connection.sendall(
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\nContent-Type: {TO_DICOM}\r\n\r\n".encode()
        )
        connection.sendall(a_body(a_file())[:-9])
        eventually(lambda: receiver.receiver.health().says.endswith("1 request under way"))
        receiver.end()

        assert receiver.is_clean()


# DICOM JSON


def a_json(**changes: Any) -> dict[str, Any]:
    """DICOM JSON of a small image whose pixels are bulk data."""
    ds = Dataset()
    for keyword, value in HEADER.items():
        setattr(ds, keyword, value)
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.SamplesPerPixel = 2, 2, 8, 1
    return ds.to_json_dict() | {"7FE00010": {"vr": "OW", "BulkDataURI": "pixels"}} | changes


def a_json_body(*instances: dict[str, Any], bulk: Mapping[str, tuple[str, bytes]] | None = None) -> bytes:
    """A request with these instances and their bulk data."""
    body = b"--b\r\nContent-Type: application/dicom+json\r\n\r\n" + json.dumps(instances, ensure_ascii=False).encode() + b"\r\n"
    for location, (kind, data) in ({"pixels": ("application/octet-stream", b"\1\2\3\4")} if bulk is None else bulk).items():
        body += f"--b\r\nContent-Type: {kind}\r\nContent-Location: {location}\r\n\r\n".encode() + data + b"\r\n"
    return body + b"--b--"


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


# What may come

mutations = st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 3), st.binary(max_size=6)), max_size=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(mutations)
def test_whatever_comes_over_the_wire_the_next_request_is_served(receiver: Running, changes: list[tuple[int, int, bytes]]) -> None:
    body = a_body(a_file())
    sent = a_head(len(body)) + body
    for place, gone, come in changes:
        sent = sent[:place] + come + sent[place + gone :]
    with socket.create_connection(("127.0.0.1", receiver.port), 10) as connection:
        with suppress(OSError):  # it may have closed the connection already
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(9) in (b"", b"HTTP/1.1 ")

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
