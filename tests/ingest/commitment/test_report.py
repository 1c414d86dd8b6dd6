from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from pynetdicom import evt

from bench.peers import free_port
from hilum.commitments import Commitment, Commitments
from hilum.dicom.commitment import Failure, FailureReason, Reference
from hilum.settings import Node
from hilum.testing import Clock, eventually
from hilum.upper_layer import Pdu, pdu
from ingest.commitment.report import LONGEST_PAUSE_S, Reporter, pause
from tests.commitment_scu import CT, scu
from tests.peers import hangs_up, pacs, raw_peer

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


class Hilum:
    """A reporter on requests that are decided."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock(NOON)
        self.commitments = Commitments(path)
        self.nodes: dict[str, Node] = {}
        self.reporter = Reporter(self.commitments, self.nodes, self.clock)

    def knows(self, aet: str, port: int, **tls: Any) -> None:
        self.nodes[aet] = Node(host="127.0.0.1", port=port, **tls)

    def decided(self, *instances: str, transaction: str = "2.25.9", aet: str = "CT1", failed: tuple[str, ...] = ()) -> str:
        """A request that is decided; its id."""
        references = tuple(Reference(CT, instance) for instance in (*instances, *failed))
        asked = self.commitments.ask(
            Commitment(
                id=Commitments.id_of(aet, transaction),
                transaction_uid=transaction,
                calling_aet=aet,
                called_aet="OUR_ARCHIVE",
                peer="127.0.0.1",
                association="",
                asked_at=NOON,
                objects=len(references),
                references=references,
            )
        )
        failures = tuple(Failure(each, FailureReason.NO_SUCH_INSTANCE) for each in references if each.sop_instance_uid in failed)
        self.commitments.change(asked.id, state="decided", decided_at=NOON, failures=failures)
        return asked.id

    def tell(self) -> None:
        self.reporter.tell(self.commitments.open())

    def fails(self, id_: str) -> Commitment:
        """What is left of a report that fails."""
        self.tell()

        def tried() -> Commitment | None:
            found = self.commitments.get(id_)
            assert found is not None
            return found if found.attempts else None

        found = eventually(tried, what="the attempt failed")
        assert found is not None
        return found


@pytest.fixture
def hilum(tmp_path: Path) -> Hilum:
    return Hilum(tmp_path)


def ended(hilum: Hilum) -> None:
    eventually(lambda: not hilum.commitments.open(), what="all is reported")


def test_a_report_goes_to_the_scu_with_the_title_that_it_called(hilum: Hilum) -> None:
    with scu() as modality:
        hilum.knows("CT1", modality.port)
        hilum.decided("2.25.1", failed=("2.25.2",))
        hilum.tell()
        ended(hilum)

        [report] = modality.reports
    assert (report.transaction_uid, report.event_type, report.calling_aet) == ("2.25.9", 2, "OUR_ARCHIVE")
    assert (report.committed, report.failed) == (["2.25.1"], {"2.25.2": 0x0112})
    assert report.on_new_association
    [done] = hilum.commitments.done()
    assert (done.state, done.ended_at, done.attempts) == ("reported", NOON, 1)


def test_several_reports_go_on_one_association(hilum: Hilum) -> None:
    with scu() as modality:
        hilum.knows("CT1", modality.port)
        for number in range(5):
            hilum.decided("2.25.1", transaction=f"2.25.{number}")
        hilum.tell()
        ended(hilum)

        assert (len(modality.reports), modality.associations) == (5, 1)


def test_a_large_report_arrives_whole(hilum: Hilum) -> None:
    instances = [f"2.25.{10**30 + number}" for number in range(3000)]
    with scu() as modality:
        hilum.knows("CT1", modality.port)
        hilum.decided(*instances)
        hilum.tell()
        eventually(lambda: not hilum.commitments.open())

        assert modality.reports[0].committed == instances


def test_a_peer_that_says_nothing_of_roles_gets_its_report(hilum: Hilum) -> None:
    with scu(role=False) as modality:
        hilum.knows("CT1", modality.port)
        hilum.decided("2.25.1")
        hilum.tell()
        eventually(lambda: modality.reports or hilum.commitments.open()[0].attempts)

        assert len(modality.reports) == 1


def test_an_scu_that_cannot_be_reached_is_tried_again_later(hilum: Hilum) -> None:
    port = free_port()
    hilum.knows("CT1", port)
    left = hilum.fails(hilum.decided("2.25.1"))

    assert (left.state, left.attempts, left.not_before) == ("decided", 1, NOON + timedelta(seconds=10))
    assert left.says.startswith(f"127.0.0.1:{port} cannot be reached: connection refused.")


def test_an_scu_without_storage_commitment_is_said_to_be_so(hilum: Hilum) -> None:
    with pacs(aet="CT1") as other:
        hilum.knows("CT1", other.port)
        left = hilum.fails(hilum.decided("2.25.1"))

    assert "takes the association, but no report of storage commitment: this SOP class is not supported." in left.says


def test_an_scu_that_refuses_hilum_the_role_of_the_scp_gets_no_report(hilum: Hilum) -> None:
    def refuse_the_role(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        length = int.from_bytes(stream.read(6)[2:], "big")
        assert bytes((0, 1)) in stream.read(length)
        contexts = b"".join(bytes((0x21, 0, 0, 0x19, number, 0, 0, 0, 0x40, 0, 0, 0x11)) + b"1.2.840.10008.1.2" for number in (1, 3))
        role = (20).to_bytes(2, "big") + b"1.2.840.10008.1.20.1" + bytes((0, 0))
        user = bytes((0x51, 0, 0, 4)) + (16384).to_bytes(4, "big") + bytes((0x54, 0, 0, len(role))) + role
        connection.sendall(pdu(Pdu.ASSOCIATE_AC, b"\0\1\0\0" + bytes(64) + contexts + bytes((0x50, 0, 0, len(user))) + user))
        stream.read(10)  # the release
        connection.sendall(pdu(Pdu.RELEASE_RP, bytes(4)))

    with raw_peer(refuse_the_role) as port:
        hilum.knows("CT1", port)
        left = hilum.fails(hilum.decided("2.25.1"))

    assert "it refuses Hilum the role of the SCP" in left.says


def test_an_scu_that_refuses_the_report_is_told_again_later(hilum: Hilum) -> None:
    with scu(answer=lambda _: 0x0110) as modality:
        hilum.knows("CT1", modality.port)
        left = hilum.fails(hilum.decided("2.25.1"))

    assert left.says == f"127.0.0.1:{modality.port} answered the report with 0x0110."


def test_a_warning_is_an_answer_like_success(hilum: Hilum) -> None:
    with scu(answer=lambda _: 0x0107) as modality:
        hilum.knows("CT1", modality.port)
        hilum.decided("2.25.1")
        hilum.tell()
        ended(hilum)


def test_a_report_after_which_the_scu_hangs_up_does_not_hold_up_the_next_ones(hilum: Hilum) -> None:
    def answer(event: evt.Event) -> int:
        return hangs_up(event) if event.event_information.TransactionUID == "2.25.1" else 0x0000

    with scu(answer=answer) as modality:
        hilum.knows("CT1", modality.port)
        first, second = hilum.decided("2.25.1", transaction="2.25.1"), hilum.decided("2.25.2", transaction="2.25.2")
        assert hilum.fails(first).attempts == 1
        hilum.reporter.tell([each for each in hilum.commitments.open() if each.id == second])
        eventually(lambda: hilum.commitments.get(second) is None, what="the second is reported")

    left = hilum.commitments.get(first)
    assert left is not None
    assert "closed the connection without an answer" in left.says


def test_what_speaks_no_dicom_is_said_to_be_so(hilum: Hilum) -> None:
    with raw_peer(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        hilum.knows("CT1", port)
        left = hilum.fails(hilum.decided("2.25.1"))

    assert "does not speak DICOM" in left.says


def test_one_scu_does_not_hold_up_another(hilum: Hilum) -> None:
    def silent(connection: object) -> None:
        connection.recv(1)  # type: ignore[attr-defined]  # a socket
        released.wait(60)

    released = threading.Event()
    with raw_peer(silent) as port, scu("CT2") as modality:
        hilum.knows("CT1", port)
        hilum.knows("CT2", modality.port)
        hilum.decided("2.25.1", aet="CT1")
        hilum.decided("2.25.2", aet="CT2")
        hilum.tell()
        eventually(lambda: modality.reports, what="the other is told")
        released.set()


def test_an_scu_that_is_being_told_is_not_told_twice(hilum: Hilum) -> None:
    go_on = threading.Event()

    def answer(_: evt.Event) -> int:
        go_on.wait(60)
        return 0x0000

    with scu(answer=answer) as modality:
        hilum.knows("CT1", modality.port)
        hilum.decided("2.25.1")
        for _ in range(3):
            hilum.tell()
        eventually(lambda: modality.reports)
        hilum.tell()
        go_on.set()
        ended(hilum)

        assert len(modality.reports) == 1


def test_without_an_address_nothing_is_tried(hilum: Hilum) -> None:
    id_ = hilum.decided("2.25.1")
    hilum.tell()

    assert hilum.reporter.node_of("CT1") is None
    left = hilum.commitments.get(id_)
    assert left is not None
    assert left.attempts == 0


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 10), (1, 20), (5, 320), (9, LONGEST_PAUSE_S), (10_000, LONGEST_PAUSE_S)])
def test_pauses_grow_up_to_an_hour(attempts: int, seconds: float) -> None:
    assert pause(attempts) == timedelta(seconds=seconds)


# TLS


class Authority:
    """A certificate authority, and files that it has made."""

    def __init__(self, path: Path) -> None:
        self.ca = trustme.CA()
        self.pem = path / "ca.pem"
        self.ca.cert_pem.write_to_path(self.pem)
        self.hilum = path / "hilum.pem"
        self.ca.issue_cert("hilum.example").private_key_and_cert_chain_pem.write_to_path(self.hilum)

    def server(self, name: str = "127.0.0.1", *, mutual: bool = False) -> ssl.SSLContext:
        """For an SCU with a certificate for `name`; `mutual`: Hilum must show one, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name).configure_cert(context)
        if mutual:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_an_scu_that_speaks_tls_only_gets_its_report(hilum: Hilum, authority: Authority) -> None:
    with scu(tls=authority.server()) as modality:
        hilum.knows("CT1", modality.port, tls=True, tls_ca=str(authority.pem))
        instances = [f"2.25.{10**30 + number}" for number in range(3000)]
        hilum.decided(*instances)
        hilum.tell()
        eventually(lambda: not hilum.commitments.open())

        assert modality.reports[0].committed == instances


def test_an_scu_that_wants_a_certificate_is_shown_hilums(hilum: Hilum, authority: Authority) -> None:
    with scu(tls=authority.server(mutual=True)) as modality:
        hilum.knows("CT1", modality.port, tls=True, tls_ca=str(authority.pem), tls_certificate=str(authority.hilum))
        hilum.decided("2.25.1")
        hilum.tell()
        ended(hilum)

        assert len(modality.reports) == 1


def test_a_certificate_of_another_authority_is_not_trusted(hilum: Hilum, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with scu(tls=Authority(tmp_path / "other").server()) as modality:
        hilum.knows("CT1", modality.port, tls=True, tls_ca=str(authority.pem))
        left = hilum.fails(hilum.decided("2.25.1"))

        assert "shows a certificate that is not trusted" in left.says
        assert "Set tls_ca" in left.says
        assert modality.reports == []


def test_a_certificate_for_another_name_is_trusted_only_if_names_are_not_looked_at(hilum: Hilum, authority: Authority) -> None:
    with scu(tls=authority.server("ct1.example")) as modality:
        hilum.knows("CT1", modality.port, tls=True, tls_ca=str(authority.pem))
        id_ = hilum.decided("2.25.1")
        assert "tls_check_name = false" in hilum.fails(id_).says

        hilum.knows("CT1", modality.port, tls=True, tls_ca=str(authority.pem), tls_check_name=False)
        hilum.tell()
        ended(hilum)


def test_an_scu_without_tls_is_said_not_to_agree_on_it(hilum: Hilum, authority: Authority) -> None:
    with raw_peer(lambda connection: connection.sendall(b"no TLS here")) as port:
        hilum.knows("CT1", port, tls=True, tls_ca=str(authority.pem))
        left = hilum.fails(hilum.decided("2.25.1"))

    assert f"127.0.0.1:{port} does not agree on TLS: " in left.says


def test_a_file_that_cannot_be_used_is_named(hilum: Hilum, authority: Authority) -> None:
    with scu(tls=authority.server()) as modality:
        hilum.knows("CT1", modality.port, tls=True, tls_ca="/nowhere.pem")
        left = hilum.fails(hilum.decided("2.25.1"))

    assert left.says.startswith("peers.CT1.tls_ca: /nowhere.pem cannot be used (No such file or directory).")
