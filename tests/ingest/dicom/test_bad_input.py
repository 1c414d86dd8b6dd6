"""Every rejection, status and other ending of the reference page, one by one; the last tests hold page and tests together.

The aborts for a breach of the protocol are in test_acceptor.py, each with the words of the page.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from pynetdicom.sop_class import CTImageStorage, MRImageStorage  # type: ignore[attr-defined]  # made at import

from hilum import upper_layer as ul
from hilum.errors import Quarantine, Reason
from hilum.records import Records
from hilum.senders import Exceptions
from hilum.settings import Dicom, Sender, Settings, Title
from hilum.settings import Spool as SpoolSettings
from hilum.spool import Spool
from hilum.testing import eventually
from ingest.describe import describe
from ingest.dicom import aborts, answers, endings, negotiation
from ingest.dicom.answers import Answer
from ingest.dicom.association import ARTIM_S
from ingest.dicom.endings import Ending
from ingest.dicom.listener import Listener
from ingest.dicom.negotiation import Rejection
from ingest.dicom.senders import Senders
from processors.validate import Validate
from tests.ingest.dicom.running import EXPLICIT, RawPeer, Running, a_slice, encoded, records, running
from tests.ingest.dicom.test_acceptor import AFTER, BEFORE
from tests.ingest.dicom.test_associations import client, with_tls

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "statuses.md").read_text(encoding="utf-8")


def a_request(calling: str = "CT1", called: str = "HILUM", **changed: bytes) -> bytes:
    """An A-ASSOCIATE-RQ for CT; `changed` are its version and its application context."""
    request = ul.associate_rq(calling, called, [ul.Context(abstract_syntax=CTImageStorage, transfer_syntax=EXPLICIT)], 16384)
    request = request[:6] + changed.get("version", request[6:8]) + request[8:]
    return request.replace(b"1.2.840.10008.3.1.1.1", changed.get("application_context", b"1.2.840.10008.3.1.1.1"))


@contextmanager
def receiving(path: Path, **settings: Any) -> Iterator[Running]:
    """A receiver with any settings."""
    receiver = Running(
        Settings(data=str(path), **({"dicom": Dicom(port=0), "spool": SpoolSettings(min_free_bytes=0, spare_bytes=0)} | settings))
    )
    try:
        yield receiver
    finally:
        receiver.end()


# Rejections

#: Settings, request, and the rejection that answers it.
REJECTED: dict[str, tuple[dict[str, Any], bytes, Rejection]] = {
    "protocol version": ({}, a_request(version=b"\0\2"), negotiation.PROTOCOL_VERSION),
    "application context": ({}, a_request(application_context=b"1.2.840.10008.3.1.1.9"), negotiation.APPLICATION_CONTEXT_NAME),
    "called title of spaces": ({}, a_request(called=""), negotiation.CALLED_INVALID),
    "called title with a backslash": ({}, a_request(called="HI\\LUM"), negotiation.CALLED_INVALID),
    "calling title of spaces": ({}, a_request(calling=" "), negotiation.CALLING_INVALID),
    "calling title with a control character": ({}, a_request(calling="CT\r\n1"), negotiation.CALLING_INVALID),
    "calling title of NULs": ({}, a_request(calling="\0" * 16), negotiation.CALLING_INVALID),
    "wrong called title": ({"dicom": Dicom(port=0, any_called_aet=False)}, a_request(called="OTHER"), negotiation.CALLED_AET),
    "unknown calling title": ({"dicom": Dicom(port=0, unknown_senders="refuse")}, a_request(), negotiation.CALLING_AET),
    "wrong address": ({"senders": {"CT1": Sender(addresses=("192.0.2.7",))}}, a_request(), negotiation.WRONG_ADDRESS),
    "wrong title of a sender": ({"senders": {"CT1": Sender(called=("RESEARCH",))}}, a_request(), negotiation.WRONG_TITLE),
    "blocked": ({}, a_request(), negotiation.BLOCKED),
    "one too many": ({"dicom": Dicom(port=0, max_associations=1)}, a_request(), negotiation.LOCAL_LIMIT),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_request_is_rejected_with_the_reason_of_the_page_and_recorded(tmp_path: Path, case: str) -> None:
    settings, request, rejection = REJECTED[case]
    with receiving(tmp_path, **settings) as receiver:
        if rejection is negotiation.BLOCKED:
            Exceptions.of(Settings(data=str(tmp_path))).put("CT1", blocked=True)
        before = [RawPeer(receiver.receiver.port)] if rejection is negotiation.LOCAL_LIMIT else []
        peer = RawPeer(receiver.receiver.port, associate=False)
        peer.socket.sendall(request)

        assert peer.pdu() == (ul.Pdu.ASSOCIATE_RJ, bytes((0, rejection.result, rejection.source, rejection.reason)))
        peer.socket.close()
        [record] = records(receiver)
        for each in before:
            each.socket.close()

    assert record.refused == f"{rejection.says} ({rejection.result}/{rejection.source}/{rejection.reason})"
    assert (record.calling_aet, record.called_aet) == (
        "" if rejection is negotiation.CALLING_INVALID else "CT1",
        "" if rejection is negotiation.CALLED_INVALID else request[10:26].decode().strip(),
    )


# Statuses

LETTER = b"This is a letter, and no data set."
SLICE = encoded(a_slice())
NO_DATA_SET_ANNOUNCED = ul.c_store_rq(1, CTImageStorage, "2.25.3").replace(b"\0\x08\x02\0\0\0\x01\0", b"\0\x08\x02\0\0\0\x01\x01")
A_FIND = ul.c_store_rq(1, CTImageStorage, "2.25.3").replace(b"\0\x01\x02\0\0\0\x01\0", b"\0\x01\x02\0\0\0\x20\0")

#: Settings, command, data set, the answer, and whether the object is kept.
ANSWERED: dict[str, tuple[dict[str, Any], bytes, bytes | None, Answer, bool]] = {
    "as announced": ({}, ul.c_store_rq(1, CTImageStorage, "2.25.3"), SLICE, answers.STORED, True),
    "another instance": ({}, ul.c_store_rq(1, CTImageStorage, "2.25.4"), SLICE, answers.OTHER_OBJECT, True),
    "another class": (
        {},
        ul.c_store_rq(1, CTImageStorage, "2.25.3"),
        encoded(a_slice(SOPClassUID=MRImageStorage)),
        answers.OTHER_OBJECT,
        True,
    ),
    "disk nearly full": (
        {"spool": SpoolSettings(min_free_bytes=2**62)},
        ul.c_store_rq(1, CTImageStorage, "2.25.3"),
        SLICE,
        answers.NO_SPACE,
        False,
    ),
    "over the receiver's limit": (
        {"dicom": Dicom(port=0, max_object_bytes=50)},
        ul.c_store_rq(1, CTImageStorage, "2.25.3"),
        SLICE,
        answers.TOO_LARGE,
        False,
    ),
    "over the title's narrower limit": (
        {"dicom": Dicom(port=0, titles={"HILUM": Title(max_object_bytes=50)})},
        ul.c_store_rq(1, CTImageStorage, "2.25.3"),
        SLICE,
        answers.TOO_LARGE,
        False,
    ),
    "over the sender's narrower limit": (
        {"senders": {"CT1": Sender(max_object_bytes=50)}},
        ul.c_store_rq(1, CTImageStorage, "2.25.3"),
        SLICE,
        answers.TOO_LARGE,
        False,
    ),
    "over the receiver's limit, whatever the sender's": (
        {"dicom": Dicom(port=0, max_object_bytes=50), "senders": {"CT1": Sender(max_object_bytes=10_000)}},
        ul.c_store_rq(1, CTImageStorage, "2.25.3"),
        SLICE,
        answers.TOO_LARGE,
        False,
    ),
    "a letter": ({}, ul.c_store_rq(1, CTImageStorage, "2.25.3"), LETTER, answers.NOT_DICOM, True),
    "no bytes": ({}, ul.c_store_rq(1, CTImageStorage, "2.25.3"), b"", answers.NO_DATA_SET, False),
    "no data set announced": ({}, NO_DATA_SET_ANNOUNCED, None, answers.NO_DATA_SET, False),
    "class not negotiated": ({}, ul.c_store_rq(1, MRImageStorage, "2.25.3"), SLICE, answers.NOT_NEGOTIATED, False),
    "another service": ({}, A_FIND, SLICE, answers.UNKNOWN_COMMAND, False),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_a_request_gets_the_status_of_the_page(tmp_path: Path, case: str) -> None:
    settings, command, data_set, answer, kept = ANSWERED[case]
    with receiving(tmp_path, **settings) as receiver:
        peer = RawPeer(receiver.receiver.port)
        peer.socket.sendall(ul.data_header(1, len(command), last=True, command=True) + command)
        if data_set is not None:
            peer.fragment(data_set, last=True)
        _, body = peer.pdu()
        [(_, _, _, raw)] = ul.pdvs(body)
        response = ul.read_response(raw)
        peer.release()

        assert (response.status, response.comment) == (answer.status, answer.comment)
        assert receiver.data_sets() == ([data_set] if kept else [])
        assert receiver.leftovers() == []


# Other endings


class Seconds:
    """A monotonic clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def timed(path: Path) -> Iterator[tuple[int, Seconds, Spool, Records]]:
    """A listener by a clock that is told: its port, the clock, the spool and what it records."""
    settings = Settings(data=str(path), dicom=Dicom(port=0), spool=SpoolSettings(min_free_bytes=0, spare_bytes=0))
    clock, spool, kept = Seconds(), Spool.of(settings), Records.of(settings)
    listener = Listener(settings.dicom, spool, Senders(settings), kept, clock=clock)
    thread = threading.Thread(target=listener.serve, daemon=True)
    thread.start()
    try:
        yield listener.port, clock, spool, kept
    finally:
        listener.stop()
        thread.join(60)


def dripped(peer: RawPeer, clock: Seconds, drip: bytes, every_s: float) -> tuple[int, bytes]:
    """Send `drip` again and again, that much time apart, until something comes; what comes (kind 0: the end).

    A drip that comes after the end has it known by a reset of the connection.
    """
    peer.socket.settimeout(0.05)
    for _ in range(400):
        try:
            peer.socket.sendall(drip)
            clock.now += every_s
            return peer.pdu()
        except TimeoutError:
            continue
        except ConnectionError:
            return 0, b""
    raise AssertionError("the peer drips for ever")


def what_ended(kept: Records) -> str:
    [name] = eventually(kept.waiting, what="the association is recorded")
    record = kept.read(name)
    assert record is not None
    return record.ended


def is_silent(path: Path) -> None:
    with running(path, idle_timeout_s=0.5) as receiver:
        peer = RawPeer(receiver.receiver.port)
        peer.begin()
        peer.fragment(SLICE)

        assert peer.pdu() == (ul.Pdu.ABORT, bytes(4))
        peer.socket.close()
        eventually(lambda: not receiver.leftovers())
        [record] = records(receiver)
        assert record.ended == "no byte came from the peer in time"


def drips_amid_an_object(path: Path) -> None:
    with timed(path) as (port, clock, spool, kept):
        peer = RawPeer(port)
        peer.begin()

        assert dripped(peer, clock, ul.data_header(1, 1, last=False) + b"x", 5) == (ul.Pdu.ABORT, bytes(4))
        peer.socket.close()
        assert what_ended(kept) == "too little came from the peer in time"
        assert spool.waiting() == []
        assert not spool.unfinished()


def drips_before_it_asks(path: Path) -> None:
    with timed(path) as (port, clock, _, kept):
        peer = RawPeer(port, associate=False)
        peer.socket.sendall(struct.pack(">BxI", ul.Pdu.ASSOCIATE_RQ, 1000))

        assert dripped(peer, clock, b"x", ARTIM_S / 5) == (0, b"")
        assert what_ended(kept) == "it asked for no association in time"


def hilum_stops(path: Path) -> None:
    with running(path) as receiver:
        peer = RawPeer(receiver.receiver.port)
        receiver.stop.set()

        assert peer.pdu() == (ul.Pdu.ABORT, bytes(4))
        peer.socket.close()


def breaks_off_amid_an_object(path: Path) -> None:
    with running(path) as receiver:
        peer = RawPeer(receiver.receiver.port)
        peer.begin()
        peer.fragment(SLICE)
        eventually(receiver.leftovers, what="the object is under way")
        peer.socket.close()

        eventually(lambda: not receiver.leftovers(), what="nothing is left of it")
        assert receiver.spool.waiting() == []
        [record] = records(receiver)
        assert (record.objects, record.statuses, record.ended) == (0, {}, "closed by the peer")


def shows_a_wrong_certificate(path: Path) -> None:
    ca = trustme.CA()
    settings = with_tls(path, ca, client_ca=True)
    with receiving(path, dicom=settings.dicom) as receiver:
        peer = RawPeer(settings.dicom.tls_port, associate=False)
        secured = client(ca, trustme.CA().issue_cert("ct1.example")).wrap_socket(peer.socket)  # TLS 1.3 lets it think that it is in
        with pytest.raises(ssl.SSLError, match="alert unknown ca"):
            secured.recv(1)
        secured.close()
        [record] = records(receiver)

    assert record.refused == "its TLS handshake failed (certificate verify failed)"


def speaks_no_tls(path: Path) -> None:
    settings = with_tls(path, trustme.CA())
    request = ul.associate_rq("CT1", "HILUM", [ul.Context(abstract_syntax=CTImageStorage, transfer_syntax=EXPLICIT)], 16384)
    with receiving(path, dicom=settings.dicom) as receiver:
        peer = RawPeer(settings.dicom.tls_port, associate=False)
        peer.socket.sendall(request)
        with pytest.raises(ConnectionResetError):
            peer.socket.recv(1)
        peer.socket.close()
        [record] = records(receiver)
        assert record.refused == "its TLS handshake failed (wrong version number)"

        brief = RawPeer(settings.dicom.tls_port, associate=False)
        brief.socket.sendall(request[:5])
        assert brief.pdu() == (0, b"")
        brief.socket.close()


def sends_a_long_pdu(path: Path) -> None:
    with running(path, max_pdu_bytes=4096) as receiver:
        peer = RawPeer(receiver.receiver.port)

        assert peer.store(encoded(a_slice(PatientComments="x" * 9000))) == answers.STORED.status
        peer.release()


def sends_small_fragments(path: Path) -> None:
    with running(path) as receiver:
        peer = RawPeer(receiver.receiver.port)
        peer.begin()
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(SLICE)):
            peer.fragment(SLICE[n : n + 1])
            peer.fragment(b"")
            peer.socket.sendall(ul.pdu(ul.Pdu.DATA, b""))
        peer.fragment(b"", last=True)

        assert peer.status() == answers.STORED.status
        peer.release()
        assert receiver.data_sets() == [SLICE]


def waits_as_truncated(path: Path, data_set: bytes) -> None:
    """Success, and then quarantine."""
    with running(path) as receiver:
        peer = RawPeer(receiver.receiver.port)
        assert peer.store(data_set) == answers.STORED.status
        peer.release()
        [receipt] = receiver.spool.waiting()
        event = describe(receiver.spool.path(receipt), receipt, "originals", frozenset()).event

    with pytest.raises(Quarantine) as stop:
        Validate({}).handle(event)
    assert stop.value.reason is Reason.TRUNCATED


def is_truncated(path: Path) -> None:
    waits_as_truncated(path, encoded(a_slice(StudyDescription="of the chest"))[:-3])


def declares_a_length_beyond(path: Path) -> None:
    waits_as_truncated(path, SLICE + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", 2**31) + bytes(64))


#: What a peer does, and the row of the page.
ENDED: dict[Callable[[Path], None], Ending] = {
    is_silent: endings.SILENT,
    drips_amid_an_object: endings.DRIPPING,
    hilum_stops: endings.STOPPING,
    breaks_off_amid_an_object: endings.BROKEN_OFF,
    drips_before_it_asks: endings.NOT_ASKED,
    shows_a_wrong_certificate: endings.TLS_REFUSED,
    speaks_no_tls: endings.NO_TLS,
    sends_a_long_pdu: endings.LONG_PDU,
    sends_small_fragments: endings.SMALL_FRAGMENTS,
    is_truncated: endings.TRUNCATED,
    declares_a_length_beyond: endings.LENGTH_BEYOND,
}


@pytest.mark.parametrize("what", ENDED, ids=lambda what: what.__name__)
def test_it_ends_as_the_page_says(tmp_path: Path, what: Callable[[Path], None]) -> None:
    what(tmp_path)


# The page

#: Every kind of bad input, and the rows of the page that say what comes of it.
KINDS: dict[str, tuple[object, ...]] = {
    "wrong called title": (negotiation.CALLED_AET, negotiation.CALLED_INVALID, negotiation.WRONG_TITLE),
    "unknown calling title": (negotiation.CALLING_AET, negotiation.CALLING_INVALID, negotiation.BLOCKED, negotiation.WRONG_ADDRESS),
    "bad PDU type": (aborts.UNKNOWN_PDU, aborts.EARLY_PDU, aborts.PDU_OUT_OF_PLACE),
    "bad PDU length": (aborts.ENDLESS_PDU, aborts.GARBLED_REQUEST, aborts.STRAY_FRAGMENT),
    "PDU over the maximum": (endings.LONG_PDU,),
    "fragment out of order": (aborts.COMMAND_AMID_MESSAGE, aborts.STRAY_FRAGMENT),
    "data set without command": (aborts.DATA_SET_WITHOUT_COMMAND,),
    "truncated object": (endings.BROKEN_OFF, endings.TRUNCATED),
    "SOP class not negotiated": (answers.NOT_NEGOTIATED,),
    "data set against command UIDs": (answers.OTHER_OBJECT,),
    "duplicate presentation context ids": (aborts.GARBLED_REQUEST,),
    "a declared length beyond the bytes received": (endings.LENGTH_BEYOND, aborts.STRAY_FRAGMENT),
    "slowloris": (endings.NOT_ASKED, endings.DRIPPING, endings.SILENT),
    "TLS with a wrong certificate": (endings.TLS_REFUSED, endings.NO_TLS),
}


def proven() -> list[object]:
    """The rows that are tested."""
    aborts = [why for _, why in (*BEFORE.values(), *AFTER.values())]
    return [*aborts, *(each for *_, each in REJECTED.values()), *(each for *_, each, _ in ANSWERED.values()), *ENDED.values()]


def test_every_rejection_of_the_page_is_tested() -> None:
    on_page = [each for each in vars(negotiation).values() if isinstance(each, Rejection)]

    assert [each.says for each in on_page if each not in proven()] == []


def test_every_status_of_the_page_is_tested() -> None:
    assert [each.when for each in answers.ANSWERS if each not in proven()] == []


def test_every_other_ending_of_the_page_is_tested() -> None:
    assert [each.when for each in (*endings.ENDINGS, *endings.TAKEN) if each not in proven()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bad_input_has_rows_on_the_page_that_are_tested(kind: str) -> None:
    for row in KINDS[kind]:
        assert row in proven()
        assert (row.says if isinstance(row, Rejection) else row.when) in PAGE  # type: ignore[attr-defined]  # each kind of row has one
