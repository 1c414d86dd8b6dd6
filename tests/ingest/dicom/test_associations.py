"""Who is let in, with which limits, and what is remembered of it: over sockets."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]  # made at import

from bench.peers import free_port
from hilum import telemetry
from hilum import upper_layer as ul
from hilum.errors import Misconfigured
from hilum.senders import Exceptions
from hilum.settings import Dicom, Sender, Settings
from hilum.testing import eventually
from hilum.tls import ServerTls
from ingest.dicom import role
from ingest.dicom.aborts import GARBLED_REQUEST
from ingest.dicom.negotiation import NOT_NEGOTIATED
from ingest.dicom.strangers import MOST_OF_PEER
from tests.ingest.dicom.running import EXPLICIT, IMPLICIT, RawPeer, Running, a_slice, associated, encoded, records, rejection, running, send

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
JPEG = "1.2.840.10008.1.2.4.50"


class TestRecords:
    def test_an_association_is_remembered_with_what_was_agreed_to_and_what_came(self, tmp_path: Path) -> None:
        with running(tmp_path) as receiver:
            with associated(receiver.receiver.port, (CTImageStorage, EXPLICIT), (FIND, IMPLICIT), (Verification, JPEG)) as association:
                send(association, encoded(a_slice()))
                send(association, encoded(a_slice(SOPInstanceUID="2.25.9")))
            [record] = records(receiver)

        assert (record.calling_aet, record.called_aet, record.peer) == ("CT1", "HILUM", "127.0.0.1")
        assert record.implementation_version_name.startswith("PYNETDICOM")
        assert [(each.abstract_syntax, each.result, each.transfer_syntax) for each in record.contexts] == [
            (CTImageStorage, 0, EXPLICIT),
            (FIND, 3, ""),
            (Verification, 4, ""),
        ]
        assert (record.objects, record.size_bytes) == (2, 2 * len(encoded(a_slice())))
        assert record.statuses == {"0x0000": 1, "0xB007": 1}
        assert record.refused == ""
        assert record.ended == "released"
        assert record.opened_at <= record.ended_at

    def test_a_refusal_is_remembered_with_its_reason(self, tmp_path: Path) -> None:
        with running(tmp_path, unknown_senders="refuse") as receiver:
            assert rejection(receiver.receiver.port) == (1, 1, 3)
            [record] = records(receiver)

        assert record.refused == "the calling AE title is not recognised (1/1/3)"
        assert record.calling_aet == "CT1"
        assert record.objects == 0

    def test_of_a_refused_association_it_is_remembered_what_was_proposed(self, tmp_path: Path) -> None:
        with running(tmp_path, unknown_senders="refuse") as receiver:
            with associated(receiver.receiver.port, (CTImageStorage, EXPLICIT), (FIND, IMPLICIT)):
                pass
            [record] = records(receiver)

        assert [(each.abstract_syntax, each.transfer_syntaxes, each.result, each.transfer_syntax) for each in record.contexts] == [
            (CTImageStorage, (EXPLICIT,), NOT_NEGOTIATED, ""),
            (FIND, (IMPLICIT,), NOT_NEGOTIATED, ""),
        ]

    def test_a_request_that_is_garbled_is_remembered_with_its_titles(self, tmp_path: Path) -> None:
        with running(tmp_path) as receiver:
            peer = RawPeer(receiver.receiver.port, associate=False)
            request = ul.associate_rq("CT1", "HILUM", [ul.Context(abstract_syntax=CTImageStorage, transfer_syntax=EXPLICIT)], 16384)
            peer.socket.sendall(ul.pdu(ul.Pdu.ASSOCIATE_RQ, request[6:-5]))
            assert peer.pdu() == (ul.Pdu.ABORT, bytes(4))
            peer.socket.close()
            [record] = records(receiver)

        assert (record.calling_aet, record.called_aet, record.peer, record.contexts) == ("CT1", "HILUM", "127.0.0.1", ())
        assert record.refused == record.ended == GARBLED_REQUEST.says

    @pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00\x00"], ids=["a browser", "half a word"])
    def test_who_speaks_and_asks_for_nothing_is_remembered_by_its_address(self, tmp_path: Path, words: bytes) -> None:
        with running(tmp_path) as receiver:
            peer = RawPeer(receiver.receiver.port, associate=False)
            peer.socket.sendall(words)
            peer.socket.shutdown(socket.SHUT_WR)
            [record] = records(receiver)
            peer.socket.close()

        assert (record.calling_aet, record.key, record.objects) == ("", "127.0.0.1", 0)
        assert record.refused == record.ended != ""

    def test_a_scanner_leaves_a_few_records_and_the_rest_is_counted(self, tmp_path: Path) -> None:
        not_recorded = telemetry.ATTEMPTS_NOT_RECORDED._value.get
        before = not_recorded()
        with running(tmp_path) as receiver:
            for _ in range(MOST_OF_PEER + 3):
                peer = RawPeer(receiver.receiver.port, associate=False)
                peer.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert peer.pdu()[0] == ul.Pdu.ABORT
                peer.socket.close()
            with associated(receiver.receiver.port) as association:  # who says its name is always recorded
                assert association.is_established
            eventually(lambda: not_recorded() == before + 3, what="the others are counted")
            found = records(receiver, MOST_OF_PEER + 1)

        assert len(found) == MOST_OF_PEER + 1
        assert [each.ended for each in found if each.calling_aet] == ["released"]

    def test_a_connection_on_which_nobody_asks_for_anything_is_not(self, tmp_path: Path) -> None:
        with running(tmp_path) as receiver:
            RawPeer(receiver.receiver.port, associate=False).socket.close()
            with associated(receiver.receiver.port):
                pass
            [_] = records(receiver)


class TestLimits:
    def test_a_sender_that_is_blocked_while_hilum_runs_is_refused_from_then_on(self, tmp_path: Path) -> None:
        with running(tmp_path) as receiver:
            with associated(receiver.receiver.port) as association:
                assert association.is_established
                Exceptions.of(Settings(data=str(tmp_path))).put("CT1", blocked=True)
                assert send(association, encoded(a_slice())).Status == 0x0000  # it goes on to its end
            assert rejection(receiver.receiver.port) == (1, 1, 3)

    def test_a_sender_that_is_too_fast_is_answered_later_and_loses_nothing(self, tmp_path: Path) -> None:
        settings = Settings(data=str(tmp_path), dicom=Dicom(port=0), senders={"CT1": Sender(max_objects_per_s=20)})
        receiver = Running(settings)
        try:
            with associated(receiver.receiver.port) as association:
                began = time.monotonic()
                assert {send(association, encoded(a_slice())).Status for _ in range(30)} == {0x0000}
                assert time.monotonic() - began >= (30 - 20) / 20 - 0.1  # 20 at once, the others one each 50 ms
        finally:
            receiver.end()
        assert len(receiver.spool.waiting()) == 30

    def test_a_senders_rate_holds_over_all_its_associations(self, tmp_path: Path) -> None:
        settings = Settings(data=str(tmp_path), dicom=Dicom(port=0), senders={"CT1": Sender(max_objects_per_s=10)})
        receiver = Running(settings)
        try:
            began = time.monotonic()
            for _ in range(15):
                with associated(receiver.receiver.port) as association:
                    assert send(association, encoded(a_slice())).Status == 0x0000
            assert time.monotonic() - began >= (15 - 10) / 10 - 0.1
        finally:
            receiver.end()

    def test_two_processes_share_a_port(self, tmp_path: Path) -> None:
        port = free_port()
        receivers = [Running(Settings(data=str(tmp_path), dicom=Dicom(port=port, reuse_port=True))) for _ in range(2)]
        try:
            for _ in range(8):
                with associated(port) as association:
                    assert send(association, encoded(a_slice())).Status == 0x0000
        finally:
            for each in receivers:
                each.end()
        assert len(receivers[0].spool.waiting()) == 8


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


def written(path: Path, certificate: trustme.LeafCert) -> tuple[str, str]:
    """Certificate and key as files."""
    chain, key = path / "certificate.pem", path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    return str(chain), str(key)


def with_tls(path: Path, ca: trustme.CA, *, client_ca: bool = False) -> Settings:
    certificate, key = written(path, ca.issue_cert("localhost", "127.0.0.1", common_name="Hilum"))
    authorities = path / "ca.pem"
    ca.cert_pem.write_to_path(str(authorities))
    tls = Dicom(port=0, tls_port=free_port(), tls_certificate=certificate, tls_key=key, tls_client_ca=str(authorities) if client_ca else "")
    return Settings(data=str(path), dicom=tls)


def client(ca: trustme.CA, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    context.check_hostname = False
    if certificate is not None:
        certificate.configure_cert(context)
    return context


class TestTls:
    def test_objects_come_in_over_tls(self, tmp_path: Path, ca: trustme.CA) -> None:
        settings = with_tls(tmp_path, ca)
        receiver = Running(settings)
        try:
            ae = AE("CT1")
            association = ae.associate(
                "127.0.0.1", settings.dicom.tls_port, [build_context(CTImageStorage, EXPLICIT)], tls_args=(client(ca), "localhost")
            )
            assert send(association, encoded(a_slice())).Status == 0x0000
            association.release()
            assert receiver.data_sets() == [encoded(a_slice())]
            assert f"with TLS on {settings.dicom.tls_port}" in receiver.receiver.health().says
            with associated(receiver.receiver.port) as plain:
                assert plain.is_established
        finally:
            receiver.end()

    def test_a_peer_without_certificate_is_refused_where_one_is_asked_for(self, tmp_path: Path, ca: trustme.CA) -> None:
        settings = with_tls(tmp_path, ca, client_ca=True)
        receiver = Running(settings)
        known, stranger = ca.issue_cert("ct1.example", common_name="CT 1"), trustme.CA().issue_cert("ct1.example")
        try:

            def established(certificate: trustme.LeafCert | None) -> bool:
                association = AE("CT1").associate(
                    "127.0.0.1", settings.dicom.tls_port, [build_context(Verification)], tls_args=(client(ca, certificate), "localhost")
                )
                is_established = association.is_established
                if is_established:
                    association.release()
                return is_established

            assert not established(None)
            assert not established(stranger)
            assert established(known)
            nobody, unknown, record = records(receiver, 3)
            assert nobody.refused == "its TLS handshake failed (peer did not return a certificate)"
            assert unknown.refused == "its TLS handshake failed (certificate verify failed)"
            assert (unknown.calling_aet, unknown.key, unknown.ended) == ("", "127.0.0.1", unknown.refused)
            assert "CN=CT 1" in record.certificate
        finally:
            receiver.end()

    def test_tls_1_1_is_not_spoken(self, tmp_path: Path, ca: trustme.CA) -> None:
        settings = with_tls(tmp_path, ca)
        assert ServerTls("dicom", settings.dicom.tls_certificate, settings.dicom.tls_key).context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_who_says_nothing_in_the_handshake_holds_nobody_up(self, tmp_path: Path, ca: trustme.CA) -> None:
        settings = with_tls(tmp_path, ca)
        receiver = Running(settings)
        try:
            silent = [RawPeer(settings.dicom.tls_port, associate=False) for _ in range(5)]
            association = AE("CT1").associate(
                "127.0.0.1", settings.dicom.tls_port, [build_context(Verification)], tls_args=(client(ca), "localhost")
            )
            assert association.is_established
            association.release()
            for each in silent:
                each.socket.close()
        finally:
            receiver.end()

    @pytest.mark.peer("echoscu")
    def test_dcmtk_is_served_over_tls(self, tmp_path: Path, ca: trustme.CA) -> None:
        settings = with_tls(tmp_path, ca)
        receiver = Running(settings)
        try:
            command = ["echoscu", "+tla", "+cf", str(tmp_path / "ca.pem"), "127.0.0.1", str(settings.dicom.tls_port)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
        finally:
            receiver.end()

    def test_a_renewed_certificate_is_shown_without_a_restart(self, tmp_path: Path, ca: trustme.CA) -> None:
        settings = with_tls(tmp_path, ca)
        tls = ServerTls("dicom", settings.dicom.tls_certificate, settings.dicom.tls_key)
        before = tls.expires_at

        written(tmp_path, ca.issue_cert("localhost", not_after=before + timedelta(days=400)))

        assert tls.context
        assert tls.expires_at == before + timedelta(days=400)

    def test_the_end_of_a_certificate_is_told_in_time(self, tmp_path: Path, ca: trustme.CA) -> None:
        ends = datetime(2030, 6, 30, tzinfo=UTC)
        certificate, key = written(tmp_path, ca.issue_cert("localhost", not_after=ends))
        tls = ServerTls("dicom", certificate, key)

        assert tls.warning(ends - timedelta(days=100)) == ""
        assert tls.warning(ends - timedelta(days=9, hours=1)) == "The TLS certificate expires on 2030-06-30, in 9 days."
        assert tls.warning(ends + timedelta(hours=1)).startswith("The TLS certificate expired on 2030-06-30")

    def test_a_key_that_does_not_belong_to_the_certificate_is_named(self, tmp_path: Path, ca: trustme.CA) -> None:
        settings = with_tls(tmp_path, ca)
        (tmp_path / "key.pem").write_bytes(ca.issue_cert("other").private_key_pem.bytes())

        with pytest.raises(Misconfigured, match=r"dicom\.tls_key: .*key\.pem cannot be used"):
            role(settings).run(threading.Event())
