from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum import upper_layer as ul
from hilum.settings import Dicom
from hilum.spool import Arrival, Spool
from ingest.dicom import aborts, negotiation
from ingest.dicom.aborts import Abort
from ingest.dicom.acceptor import MAX_COMMAND_BYTES, Acceptor, State
from ingest.dicom.answers import Answer
from ingest.dicom.commands import Command
from ingest.dicom.negotiation import Context, Request
from ingest.dicom.storage import Storing

CT, MR, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1"
DATA_SET = b"\x08\0\x16\0UI\x1a\x00" + CT.encode() + b"\0\x08\0\x18\0UI\x06\x002.25.3" + bytes(500)
REQUEST = ul.associate_rq("CT1", "HILUM", [ul.Context(abstract_syntax=uid, transfer_syntax=EXPLICIT) for uid in (CT, MR)], 16384)
OTHER_CONTEXT = 3
RELEASE = ul.pdu(ul.Pdu.RELEASE_RQ, bytes(4))


class Association:
    """An `Acceptor` on a spool, and what came of it."""

    def __init__(self, path: Path, max_object_bytes: int = 10_000) -> None:
        self.spool = Spool(path)
        self.answers: list[int] = []
        self.acceptor = Acceptor(self._negotiate, self._store, self._settled)
        self._max_object_bytes = max_object_bytes

    def _negotiate(self, request: Request) -> tuple[Mapping[int, Context] | None, bytes]:
        return negotiation.accept(request, Dicom())

    def _store(self, command: Command, context: Context) -> Storing:
        arrival = Arrival(
            adapter="dicom",
            transfer_syntax_uid=context.transfer_syntax,
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
        )
        return Storing(self.spool, arrival, self._max_object_bytes)

    def _settled(self, _: Command, __: Storing | None, answer: Answer) -> None:
        self.answers.append(answer.status)

    def receive(self, *data: bytes) -> list[tuple[int, bytes]]:
        """Feed bytes; the PDUs that come out, as (kind, body)."""
        out = b"".join(self.acceptor.receive(memoryview(bytearray(each))) for each in data)
        pdus = []
        while out:
            kind, length = ul.read_header(out[:6])
            pdus.append((kind, out[6 : 6 + length]))
            out = out[6 + length :]
        return pdus

    def statuses(self, *data: bytes) -> list[int]:
        """Feed bytes; the statuses of the responses that come out."""
        pdus = self.receive(*data)
        assert all(kind == ul.Pdu.DATA for kind, _ in pdus)
        return [ul.read_response(command).status for _, body in pdus for _, _, _, command in ul.pdvs(body)]

    def established(self) -> Association:
        """The same, with its association accepted."""
        [(kind, _)] = self.receive(REQUEST)
        assert kind == ul.Pdu.ASSOCIATE_AC
        return self

    def leftovers(self) -> list[Path]:
        return [*self.spool.unfinished(), *map(self.spool.path, self.spool.waiting())]


@pytest.fixture
def association(tmp_path: Path) -> Association:
    return Association(tmp_path)


def command(raw: bytes, context: int = 1) -> bytes:
    return ul.data_header(context, len(raw), last=True, command=True) + raw


def data(raw: bytes, *, last: bool = True, context: int = 1) -> bytes:
    return ul.data_header(context, len(raw), last=last) + raw


def a_store(data_set: bytes = DATA_SET, piece: int = 200) -> bytes:
    """A whole C-STORE in fragments of `piece` bytes."""
    pieces = [data_set[at : at + piece] for at in range(0, len(data_set), piece)]
    return command(ul.c_store_rq(7, CT, "2.25.3")) + b"".join(data(each, last=n == len(pieces) - 1) for n, each in enumerate(pieces))


def abort(source: int, reason: int) -> list[tuple[int, bytes]]:
    return [(ul.Pdu.ABORT, bytes((0, 0, source, reason)))]


def test_an_object_is_stored_as_it_came_and_answered(association: Association) -> None:
    assert association.established().statuses(a_store()) == [0x0000]

    [receipt] = association.spool.waiting()
    assert association.spool.read(receipt).endswith(DATA_SET)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_makes_no_difference_how_the_bytes_are_cut(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    association = Association(tmp_path_factory.mktemp("spool"))
    stream = REQUEST + a_store(piece=data.draw(st.integers(1, 600))) + command(ul.c_echo_rq(8)) + RELEASE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    kinds = [kind for kind, _ in association.receive(*pieces)]

    assert kinds == [ul.Pdu.ASSOCIATE_AC, ul.Pdu.DATA, ul.Pdu.DATA, ul.Pdu.RELEASE_RP]
    [receipt] = association.spool.waiting()
    assert association.spool.read(receipt).endswith(DATA_SET)
    assert association.acceptor.ended == "released"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_ends_the_association_or_waits_for_more_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, established: bool
) -> None:
    association = Association(tmp_path_factory.mktemp("spool"))
    if established:
        association.established()

    association.receive(garbage)
    association.acceptor.close("gone")

    assert association.leftovers() == []


def test_an_echo_is_answered(association: Association) -> None:
    assert association.established().statuses(command(ul.c_echo_rq(3))) == [0x0000]


def test_several_fragments_may_share_a_pdu(association: Association) -> None:
    fragments = [DATA_SET[:100], DATA_SET[100:]]
    pdvs = b"".join(struct.pack(">IBB", len(each) + 2, 1, n << 1) + each for n, each in enumerate(fragments))

    assert association.established().statuses(command(ul.c_store_rq(1, CT, "2.25.3")) + ul.pdu(ul.Pdu.DATA, pdvs)) == [0x0000]


def test_a_command_may_come_in_fragments(association: Association) -> None:
    raw = ul.c_echo_rq(3)
    first = ul.data_header(1, 10, last=False, command=True) + raw[:10]

    assert association.established().statuses(first, command(raw[10:])) == [0x0000]


def test_an_empty_last_fragment_ends_the_data_set(association: Association) -> None:
    stream = command(ul.c_store_rq(1, CT, "2.25.3")) + data(DATA_SET, last=False) + data(b"")

    assert association.established().statuses(stream) == [0x0000]


def test_a_response_goes_out_in_fragments_if_the_peer_takes_little(association: Association) -> None:
    request = ul.associate_rq("CT1", "HILUM", [ul.Context(abstract_syntax=CT, transfer_syntax=EXPLICIT)], 60)
    association.receive(request)

    pdus = association.receive(command(ul.c_echo_rq(3)))

    assert len(pdus) > 1
    assert all(len(body) <= 60 for _, body in pdus)
    fragments = [pdv for _, body in pdus for pdv in ul.pdvs(body)]
    assert [last for _, _, last, _ in fragments] == [False] * (len(fragments) - 1) + [True]
    assert ul.read_response(b"".join(raw for *_, raw in fragments)).status == 0x0000


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (command(ul.c_store_rq(1, CT, "2.25.3")) + data(b""), 0xC000),
        (a_store(b"This is a letter, and no data set."), 0xC000),
        (command(ul.c_store_rq(1, CT, "2.25.4")) + data(DATA_SET), 0xB007),
        (a_store(DATA_SET + bytes(20_000)), 0xA700),
        (command(ul.c_store_rq(1, CT, "2.25.3").replace(b"\0\x08\x02\0\0\0\x01\0", b"\0\x08\x02\0\0\0\x01\x01")), 0xC000),
        (command(ul.c_echo_rq(1).replace(b"\x30\0", b"\x20\0")), 0x0211),
    ],
    ids=["empty", "a letter", "another instance", "too large", "no data set announced", "C-FIND"],
)
def test_each_kind_of_request_gets_its_status_and_the_association_goes_on(association: Association, stream: bytes, status: int) -> None:
    assert association.established().statuses(stream, command(ul.c_echo_rq(9))) == [status, 0x0000]
    assert association.answers == [status] * (status != 0x0211)


def test_a_class_that_was_accepted_in_no_context_is_refused_and_the_association_goes_on(association: Association) -> None:
    stream = command(ul.c_store_rq(1, "1.2.840.10008.5.1.4.1.1.20", "2.25.3")) + data(DATA_SET)

    assert association.established().statuses(stream, a_store()) == [0x0122, 0x0000]
    assert association.answers == [0x0122, 0x0000]
    assert len(association.leftovers()) == 1


def test_a_class_that_was_accepted_in_another_context_is_stored(association: Association) -> None:
    association.established()

    assert association.statuses(command(ul.c_store_rq(1, CT, "2.25.3"), context=3) + data(DATA_SET, context=3)) == [0x0000]


def test_what_was_no_data_set_is_kept_for_a_person_and_what_was_too_large_is_not(association: Association) -> None:
    association.established().statuses(a_store(b"This is a letter, and no data set."), a_store(bytes(20_000)))

    [receipt] = association.spool.waiting()
    assert association.spool.read(receipt).endswith(b"This is a letter, and no data set.")
    assert association.leftovers() == [association.spool.path(receipt)]


def test_a_request_with_a_data_set_that_is_not_served_is_answered_after_the_data_set(association: Association) -> None:
    find = ul.c_store_rq(1, CT, "2.25.3").replace(b"\0\x01\x02\0\0\0\x01\0", b"\0\x01\x02\0\0\0\x20\0")

    assert association.established().statuses(command(find)) == []
    assert association.statuses(data(DATA_SET)) == [0x0211]
    assert association.leftovers() == []


def test_an_association_that_breaks_amid_an_object_leaves_nothing_of_it(association: Association) -> None:
    association.established().receive(a_store()[:-1])
    assert len(association.leftovers()) == 1

    association.acceptor.close("the connection broke")

    assert association.leftovers() == []


def test_it_knows_whether_a_message_is_under_way(association: Association) -> None:
    association.established()
    stream = a_store()

    assert association.acceptor.between_messages
    association.receive(stream[:3])
    assert not association.acceptor.between_messages
    association.receive(stream[3:-1])
    assert not association.acceptor.between_messages
    association.receive(stream[-1:])
    assert association.acceptor.between_messages


def an_answer() -> bytes:
    """The command set of a response to an N-EVENT-REPORT."""
    elements = ((0x0100, 0x8100), (0x0120, 1), (0x0800, 0x0101), (0x0900, 0))
    body = b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def twice_one_context() -> bytes:
    """A request in which two presentation contexts have one id."""
    contexts = [ul.Context(abstract_syntax=CT, transfer_syntax=EXPLICIT), ul.Context(abstract_syntax=MR, transfer_syntax=EXPLICIT)]
    request = bytearray(ul.associate_rq("CT1", "HILUM", contexts, 16384))
    second = request.index(b"\x20\x00", request.index(b"\x20\x00", 80) + 8)
    request[second + 4] = 1
    return bytes(request)


#: What is sent before an association is established, or after, and the abort that answers it.
BEFORE = {
    "data": (ul.pdu(ul.Pdu.DATA, bytes(6)), aborts.EARLY_PDU),
    "release": (RELEASE, aborts.EARLY_PDU),
    "unknown PDU": (struct.pack(">BxI", 9, 4) + bytes(4), aborts.UNKNOWN_PDU),
    "huge": (struct.pack(">BxI", 1, 2**31), aborts.ENDLESS_PDU),
    "garbled request": (ul.pdu(ul.Pdu.ASSOCIATE_RQ, bytes(10)), aborts.GARBLED_REQUEST),
    "one context id twice": (twice_one_context(), aborts.GARBLED_REQUEST),
    "a browser": (b"GET / HTTP/1.1\r\nHost: hilum\r\n\r\n", aborts.UNKNOWN_PDU),
}
AFTER = {
    "unknown PDU": (struct.pack(">BxI", 9, 4) + bytes(4), aborts.UNKNOWN_PDU),
    "huge": (struct.pack(">BxI", 5, 2**31), aborts.ENDLESS_PDU),
    "a second request": (REQUEST, aborts.PDU_OUT_OF_PLACE),
    "no command": (data(DATA_SET), aborts.DATA_SET_WITHOUT_COMMAND),
    "data set of another context": (
        command(ul.c_store_rq(1, CT, "2.25.3")) + data(DATA_SET, context=OTHER_CONTEXT),
        aborts.DATA_SET_WITHOUT_COMMAND,
    ),
    "command amid": (command(ul.c_store_rq(1, CT, "2.25.3")) + command(ul.c_echo_rq(1)), aborts.COMMAND_AMID_MESSAGE),
    "release amid": (command(ul.c_store_rq(1, CT, "2.25.3")) + RELEASE, aborts.PDU_OUT_OF_PLACE),
    "release amid a command": (ul.data_header(1, 8, last=False, command=True) + bytes(8) + RELEASE, aborts.PDU_OUT_OF_PLACE),
    "unknown context": (command(ul.c_echo_rq(1), context=99), aborts.STRAY_FRAGMENT),
    "fragment over its PDU": (ul.pdu(ul.Pdu.DATA, struct.pack(">IBB", 99, 1, 3)), aborts.STRAY_FRAGMENT),
    "a PDU without room for a fragment": (ul.pdu(ul.Pdu.DATA, bytes(3)), aborts.STRAY_FRAGMENT),
    "bytes after the last fragment": (ul.pdu(ul.Pdu.DATA, struct.pack(">IBB", 3, 1, 0) + bytes(4)), aborts.STRAY_FRAGMENT),
    "no command set": (command(b"\x08\0\0\0\0\0\0\0"), aborts.GARBLED_COMMAND),
    "cut command": (command(b"\0\0"), aborts.GARBLED_COMMAND),
    "endless command": (ul.data_header(1, MAX_COMMAND_BYTES + 2, last=False, command=True), aborts.ENDLESS_COMMAND),
    "answer to nothing": (command(an_answer()), aborts.STRAY_ANSWER),
}


@pytest.mark.parametrize(("stream", "why"), BEFORE.values(), ids=BEFORE)
def test_before_an_association_anything_else_than_a_request_is_aborted(association: Association, stream: bytes, why: Abort) -> None:
    assert association.receive(stream) == abort(0, 0)  # PS3.8 Table 9-9, AA-1
    assert association.acceptor.state is State.CLOSING
    assert association.acceptor.ended == why.says


@pytest.mark.parametrize(("stream", "why"), AFTER.values(), ids=AFTER)
def test_what_breaks_the_protocol_is_aborted_and_leaves_nothing(association: Association, stream: bytes, why: Abort) -> None:
    assert association.established().receive(stream) == abort(2, why.reason)
    assert association.acceptor.ended == why.says
    assert association.leftovers() == []


def test_every_abort_of_the_reference_page_is_tested() -> None:
    assert {why for _, why in BEFORE.values()} == set(aborts.ABORTS_BEFORE)
    # What comes amid the answers to a query is in tests/ingest/worklist/test_asking_for_steps.py.
    assert {why for _, why in AFTER.values()} == set(aborts.ABORTS) - {aborts.COMMAND_AMID_ANSWERS}


def test_after_the_end_nothing_is_answered(association: Association) -> None:
    association.established().receive(RELEASE)

    assert association.receive(a_store()) == []
    assert association.leftovers() == []


def test_memory_does_not_grow_with_the_object(tmp_path: Path) -> None:
    association = Association(tmp_path, max_object_bytes=2**40).established()
    association.receive(command(ul.c_store_rq(1, CT, "2.25.3")))
    fragment = memoryview(bytearray(data(bytes(100_000), last=False)))
    tracemalloc.start()
    for _ in range(300):
        association.acceptor.receive(fragment)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 500_000
    association.acceptor.close("done")
