"""Storage commitment on the receiver's own sockets, with pynetdicom as the SCU; a thread takes the part of the role `commitment`."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from bench.peers import free_port
from hilum import upper_layer as ul
from hilum.commitments import Commitments
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, Failure
from hilum.settings import Commitment as Terms
from hilum.settings import Dicom, Settings
from hilum.settings import Spool as SpoolSettings
from hilum.testing import eventually
from ingest.dicom import Receiver, role
from tests.commitment_scu import Scu, scu
from tests.ingest.dicom.running import RawPeer
from tests.ingest.dicom.test_committing import CONTEXT, an_n_action


class Running:
    """A receiver in a thread."""

    def __init__(self, settings: Settings) -> None:
        found = role(settings)
        assert isinstance(found, Receiver)
        self.receiver = found
        self.commitments = Commitments.of(settings)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.receiver.run, args=(self.stop,))
        self.thread.start()
        self.port = eventually(lambda: self.receiver.port, what="the receiver listens")

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def decide(self, *failed: tuple[str, int]) -> None:
        """Decide on all that is open; these instances fail."""
        reasons = dict(failed)
        for request in self.commitments.open():
            commitment = self.commitments.get(request.id)
            assert commitment is not None
            failures = tuple(
                Failure(each, reasons[each.sop_instance_uid]) for each in commitment.references if each.sop_instance_uid in reasons
            )
            self.commitments.change(request.id, state="decided", decided_at=datetime.now(UTC), failures=failures)


@contextmanager
def running(path: Path, *, wait_s: float = 600.0, **dicom: object) -> Iterator[Running]:
    settings = Settings(
        data=str(path),
        dicom=Dicom(port=0, **dicom),  # type: ignore[arg-type]  # passed through
        spool=SpoolSettings(min_free_bytes=0, spare_bytes=0),
        commitment=Terms(wait_s=wait_s),
    )
    receiver = Running(settings)
    try:
        yield receiver
    finally:
        receiver.end()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as found:
        yield found


@pytest.fixture
def modality() -> Iterator[Scu]:
    with scu() as found:
        yield found


def test_the_report_comes_on_the_association_of_the_request(receiver: Running, modality: Scu) -> None:
    with modality.associated(receiver.port) as association:
        status, transaction = association.ask(["2.25.1", "2.25.2"])
        assert status == 0x0000
        receiver.decide(("2.25.2", 0x0112))

        eventually(lambda: modality.reports and not receiver.commitments.open(), what="it is reported")

    [report] = modality.reports
    assert (report.transaction_uid, report.event_type) == (transaction, 2)
    assert (report.committed, report.failed) == (["2.25.1"], {"2.25.2": 0x0112})
    assert not report.on_new_association
    [done] = receiver.commitments.done()
    assert done.state == "reported"


def test_the_association_goes_on_between_request_and_report(receiver: Running, modality: Scu) -> None:
    with modality.associated(receiver.port) as association:
        asked = [association.ask([f"2.25.{number}"])[1] for number in range(3)]
        receiver.decide()
        asked.append(association.ask(["2.25.9"])[1])
        receiver.decide()
        eventually(lambda: len(modality.reports) == 4, what="all are reported")

    assert sorted(report.transaction_uid for report in modality.reports) == sorted(asked)


def test_a_peer_that_waits_for_a_report_may_be_silent_longer_than_others(tmp_path: Path) -> None:
    with running(tmp_path, idle_timeout_s=0.5) as receiver:
        peer = RawPeer(receiver.port, associate=False)
        # In one piece, so that it cannot be too slow over its request.
        peer.socket.sendall(ul.associate_rq("CT1", "HILUM", [CONTEXT], 16384) + an_n_action())
        assert (peer.pdu()[0], peer.status()) == (ul.Pdu.ASSOCIATE_AC, 0x0000)
        asked_at = time.monotonic()
        eventually(lambda: time.monotonic() > asked_at + 1.0, what="the idle timeout is over")
        receiver.decide()

        [(_, is_command, _, command)] = ul.pdvs(peer.pdu()[1])
        assert (is_command, command) == (True, ul.n_event_report_rq(1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, 1))
        peer.socket.close()


def test_once_the_association_is_released_it_lives_no_more(receiver: Running, modality: Scu) -> None:
    with modality.associated(receiver.port) as association:
        association.ask(["2.25.1"])
        [asked] = receiver.commitments.open()
        assert receiver.commitments.lives(asked.association)

    eventually(lambda: not receiver.commitments.lives(asked.association), what="its end is known")
    assert modality.reports == []


def test_a_report_that_the_peer_refuses_is_left_for_a_new_association(receiver: Running) -> None:
    with scu(answer=lambda _: 0x0110) as refusing, refusing.associated(receiver.port) as association:
        association.ask(["2.25.1"])
        receiver.decide()
        [left] = eventually(lambda: [each for each in receiver.commitments.open() if each.attempts])

    assert (left.state, left.association) == ("decided", "")
    assert "0x0110" in left.says


def test_a_receiver_that_stops_ends_associations_that_wait(tmp_path: Path, modality: Scu) -> None:
    with running(tmp_path) as receiver, modality.associated(receiver.port) as association:
        association.ask(["2.25.1"])
        receiver.end()

        eventually(lambda: association.association.is_aborted, what="it is aborted")
    [left] = receiver.commitments.open()
    assert not receiver.commitments.lives(left.association)


def test_over_tls_it_is_the_same(tmp_path: Path, modality: Scu) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    port = free_port()
    with running(tmp_path, tls_port=port, tls_certificate=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")) as receiver:
        eventually(lambda: receiver.receiver.health().ready)
        with modality.associated(port, tls=(context, "127.0.0.1")) as association:
            transaction = association.ask(["2.25.1"])[1]
            second = association.ask(["2.25.2"])[1]
            receiver.decide()
            eventually(lambda: len(modality.reports) == 2, what="both are reported")

    assert {report.transaction_uid for report in modality.reports} == {transaction, second}
