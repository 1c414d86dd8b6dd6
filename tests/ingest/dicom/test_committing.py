from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hilum import upper_layer as ul
from hilum.commitments import Commitment, Commitments
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, Failure, FailureReason, Reference, write_report
from hilum.settings import Commitment as Terms
from hilum.settings import Dicom, Node, Settings
from hilum.settings import Spool as SpoolSettings
from hilum.testing import eventually
from ingest.dicom import negotiation
from ingest.dicom.aborts import INVALID_PARAMETER
from ingest.dicom.acceptor import MAX_ACTION_BYTES, Acceptor, State
from ingest.dicom.answers import ANSWERS, COMMITMENT_ANSWERS, Answer
from ingest.dicom.commands import Command
from ingest.dicom.commitment import Committing, Reports, Scu
from ingest.dicom.negotiation import Context, Request

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
CONTEXT = ul.Context(abstract_syntax=STORAGE_COMMITMENT, transfer_syntax=EXPLICIT)
CT_1, CT_2 = Reference(CT, "2.25.3"), Reference(CT, "2.25.4")


def a_data_set(*references: Reference, transaction: str = "2.25.9") -> bytes:
    """A request looks like a report without failures."""
    return write_report(transaction, references or (CT_1, CT_2), (), EXPLICIT)[1]


def message(command: bytes, data_set: bytes = b"") -> bytes:
    sent = ul.data_header(1, len(command), last=True, command=True) + command
    return sent + ul.data_header(1, len(data_set), last=True) + data_set if data_set else sent


def an_n_action(data_set: bytes | None = None, *, instance: str = STORAGE_COMMITMENT_INSTANCE, action: int = 1) -> bytes:
    return message(ul.n_action_rq(5, STORAGE_COMMITMENT, instance, action), a_data_set() if data_set is None else data_set)


def a_response(message_id: int, status: int) -> bytes:
    """An N-EVENT-REPORT-RSP (PS3.7 10.3.1.2)."""
    elements = [(0x0100, 0x8100), (0x0120, message_id), (0x0800, 0x0101), (0x0900, status)]
    return message(b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in elements))


class Association:
    """An `Acceptor` with its `Reports`, as a listener joins them."""

    def __init__(self, settings: Settings, name: str = "a1", max_pdu_bytes: int = 16384) -> None:
        self.acceptor = Acceptor(self._negotiate, self._no_store, self._no_store, self._act)
        self.reports: Reports = Committing(settings).on(Scu(name, "CT1", "HILUM", "10.1.2.3"))
        self.receive(ul.associate_rq("CT1", "HILUM", [CONTEXT], max_pdu_bytes))
        assert self.acceptor.state is State.ESTABLISHED

    def _negotiate(self, request: Request) -> tuple[Mapping[int, Context] | None, bytes]:
        return negotiation.accept(request, Dicom())

    def _no_store(self, *_: object) -> NoReturn:
        raise AssertionError("nothing is stored here")

    def _act(self, command: Command, context_id: int, context: Context, data_set: bytes) -> Answer:
        return self.reports.ask(command, context_id, context, data_set)

    def receive(self, *data: bytes) -> bytes:
        return b"".join(self.acceptor.receive(memoryview(bytearray(each))) for each in data)

    def statuses(self, *data: bytes) -> list[int]:
        return [ul.read_response(command).status for command, _ in messages(self.receive(*data))]

    def due(self) -> list[tuple[bytes, bytes]]:
        """The report that is due, after the time between two looks."""
        return eventually(lambda: messages(self.reports.due(self.acceptor)))


def messages(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Command and data set of each message in a stream of P-DATA-TF."""
    found: list[tuple[bytes, bytes]] = []
    while stream:
        kind, length = ul.read_header(stream[:6])
        assert kind == ul.Pdu.DATA
        for _, of_command, _, value in ul.pdvs(stream[6 : 6 + length]):
            if of_command and (not found or found[-1][1]):
                found.append((b"", b""))
            command, data_set = found[-1]
            found[-1] = (command + value, data_set) if of_command else (command, data_set + value)
        stream = stream[6 + length :]
    return found


@pytest.fixture
def hilum(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path), spool=SpoolSettings(min_free_bytes=0, spare_bytes=0))


def decide(hilum: Settings, *failures: Failure) -> Commitment:
    """What the role `commitment` does with the one request that is open."""
    commitments = Commitments.of(hilum)
    [asked] = commitments.open()
    decided = commitments.change(asked.id, state="decided", decided_at=datetime.now(UTC), failures=failures)
    assert decided is not None
    return decided


def the_request(hilum: Settings) -> Commitment:
    commitments = Commitments.of(hilum)
    [asked] = commitments.open() or commitments.done()
    [whole] = commitments.find(asked.id)
    return whole


def test_a_request_is_kept_before_it_is_answered(hilum: Settings) -> None:
    assert Association(hilum).statuses(an_n_action()) == [0x0000]

    kept = the_request(hilum)
    assert (kept.transaction_uid, kept.references) == ("2.25.9", (CT_1, CT_2))
    assert (kept.calling_aet, kept.called_aet, kept.peer, kept.association) == ("CT1", "HILUM", "10.1.2.3", "a1")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (an_n_action(instance="2.25.1"), 0x0112),
        (an_n_action(action=2), 0x0123),
        (an_n_action(b"Dear archive, "), 0x0115),
        (
            message(
                ul.n_action_rq(5, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, 1).replace(
                    b"\0\x08\x02\0\0\0\x01\0", b"\0\x08\x02\0\0\0\x01\x01"
                )
            ),
            0x0115,
        ),
        (an_n_action(bytes(MAX_ACTION_BYTES + 2)), 0x0213),
        (
            message(ul.c_store_rq(5, STORAGE_COMMITMENT, "2.25.1").replace(b"\0\x01\x02\0\0\0\x01\0", b"\0\x01\x02\0\0\0\x20\0"), bytes(8)),
            0x0211,
        ),
    ],
    ids=["another instance", "another action", "a letter", "no data set", "too large", "C-FIND"],
)
def test_what_asks_for_nothing_gets_its_status_and_the_association_goes_on(hilum: Settings, request_: bytes, status: int) -> None:
    association = Association(hilum)

    assert association.statuses(request_) == [status]
    assert association.statuses(an_n_action()) == [0x0000]
    assert len(Commitments.of(hilum).open()) == 1


def test_a_full_disk_refuses_for_now(tmp_path: Path) -> None:
    full = Settings(data=str(tmp_path), spool=SpoolSettings(min_free_bytes=2**62))

    assert Association(full).statuses(an_n_action()) == [0x0213]
    assert Commitments.of(full).open() == []


def test_every_status_of_storage_commitment_has_a_comment_that_fits_and_is_on_the_page() -> None:
    assert all(len(each.comment) <= 64 and each.when and each.means for each in (*ANSWERS, *COMMITMENT_ANSWERS))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_makes_no_difference_how_a_request_is_cut(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    hilum = Settings(data=str(tmp_path_factory.mktemp("hilum")), spool=SpoolSettings(min_free_bytes=0, spare_bytes=0))
    stream = an_n_action()
    cuts = sorted({0, len(stream), *data.draw(st.lists(st.integers(0, len(stream)), max_size=30))})

    assert Association(hilum).statuses(*(stream[a:b] for a, b in itertools.pairwise(cuts))) == [0x0000]


def test_a_report_goes_out_on_the_association_once_it_is_decided(hilum: Settings) -> None:
    association = Association(hilum)
    association.receive(an_n_action())
    assert association.reports.waiting
    assert association.reports.due(association.acceptor) == b""

    decide(hilum, Failure(CT_2, FailureReason.NO_SUCH_INSTANCE))
    [(command, data_set)] = association.due()

    assert ul.n_event_report_rq(1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, 2) == command
    assert data_set == write_report("2.25.9", [CT_1], [Failure(CT_2, FailureReason.NO_SUCH_INSTANCE)], EXPLICIT)[1]
    assert not association.reports.waiting
    assert not association.acceptor.can_report

    assert association.receive(a_response(1, 0x0000)) == b""
    assert the_request(hilum).state == "reported"
    assert association.acceptor.can_report


def test_a_report_goes_out_in_fragments_that_the_peer_takes(hilum: Settings) -> None:
    association = Association(hilum, max_pdu_bytes=60)
    association.receive(an_n_action())
    decide(hilum)

    stream = eventually(lambda: association.reports.due(association.acceptor))

    [(_, data_set)] = messages(stream)
    assert data_set == a_data_set()
    assert len(stream) > len(data_set) + 3 * 12


def test_two_requests_are_reported_one_after_the_other(hilum: Settings) -> None:
    association = Association(hilum)
    association.receive(an_n_action(), an_n_action(a_data_set(CT_1, transaction="2.25.10")))
    commitments = Commitments.of(hilum)
    for each in commitments.open():
        commitments.change(each.id, state="decided")

    reported = []
    for message_id in (1, 2):
        [(_, data_set)] = association.due()
        reported.append(data_set)
        association.receive(a_response(message_id, 0x0000))

    assert sorted(reported) == sorted([a_data_set(), a_data_set(CT_1, transaction="2.25.10")])
    assert not association.reports.waiting
    assert commitments.open() == []


def test_amid_a_message_of_the_peer_no_report_goes_out(hilum: Settings) -> None:
    association = Association(hilum)
    association.receive(an_n_action())
    decide(hilum)
    echo = message(ul.c_echo_rq(6))

    association.receive(echo[:20])
    assert association.reports.due(association.acceptor) == b""
    association.receive(echo[20:])
    assert association.due()


def test_a_request_of_the_peer_that_crosses_a_report_is_answered(hilum: Settings) -> None:
    association = Association(hilum)
    association.receive(an_n_action())
    decide(hilum)
    association.due()

    assert association.statuses(an_n_action(a_data_set(CT_1, transaction="2.25.10"))) == [0x0000]
    assert association.receive(a_response(1, 0x0000)) == b""
    assert the_request(hilum).transaction_uid == "2.25.10"


def test_a_report_that_is_answered_with_a_failure_goes_on_for_a_new_association(hilum: Settings) -> None:
    association = Association(hilum)
    association.receive(an_n_action())
    decide(hilum)
    association.due()
    association.receive(a_response(1, 0x0110))

    left = the_request(hilum)
    assert (left.state, left.association, left.attempts) == ("decided", "", 1)
    assert "0x0110" in left.says
    assert not association.reports.waiting


@pytest.mark.parametrize("message_id", [1, 7])
def test_an_answer_to_a_report_that_was_not_sent_ends_the_association(hilum: Settings, message_id: int) -> None:
    association = Association(hilum)
    if message_id != 1:
        association.receive(an_n_action())
        decide(hilum)
        association.due()

    kind, length = ul.read_header(association.receive(a_response(message_id, 0x0000))[:6])

    assert (kind, length) == (ul.Pdu.ABORT, 4)
    assert association.acceptor.state is State.CLOSING
    assert INVALID_PARAMETER == 6


def test_a_living_association_reports_alone_and_a_closed_one_leaves_it_to_others(hilum: Settings) -> None:
    association = Association(hilum)
    association.receive(an_n_action())
    commitments = Commitments.of(hilum)
    assert commitments.lives(the_request(hilum).association)

    association.reports.close()
    association.reports.close()

    assert not commitments.lives(the_request(hilum).association)
    assert not association.reports.waiting


@pytest.mark.parametrize(
    "more",
    [{"commitment": Terms(report="new")}, {"peers": {"CT1": Node(host="10.1.2.3", port=104, report="new")}}],
    ids=["by the settings", "by the peer's settings"],
)
def test_who_wants_reports_on_new_associations_gets_none_on_this_one(hilum: Settings, more: dict[str, object]) -> None:
    association = Association(replace(hilum, **more))
    association.receive(an_n_action())

    assert the_request(hilum).association == ""
    assert not association.reports.waiting


def test_a_peer_may_differ_from_the_settings_the_other_way(hilum: Settings) -> None:
    node = Node(host="10.1.2.3", port=104, report="same-or-new")
    association = Association(replace(hilum, commitment=Terms(report="new"), peers={"CT1": node}))
    association.receive(an_n_action())

    assert association.reports.waiting


def test_a_request_that_was_answered_elsewhere_is_waited_for_no_more(hilum: Settings) -> None:
    association = Association(hilum)
    association.receive(an_n_action())
    commitments = Commitments.of(hilum)
    commitments.finish(the_request(hilum).id, state="given-up")

    eventually(lambda: not association.reports.due(association.acceptor) and not association.reports.waiting)
