"""The acceptor beside a model of it: whatever a peer says in whatever order, cut anywhere, both say and keep the same."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from hilum import upper_layer as ul
from hilum.settings import Dicom
from hilum.spool import read_arrival
from ingest.dicom import aborts, negotiation
from ingest.dicom.aborts import Abort
from ingest.dicom.acceptor import State
from ingest.dicom.answers import Answer
from ingest.dicom.commands import Command
from ingest.dicom.negotiation import Context, Request
from ingest.dicom.storage import Storing
from tests.ingest.dicom.test_acceptor import CT, EXPLICIT, MR, Association, command, data

MAX_OBJECT_BYTES = 2000
ULTRASOUND, NEVER_STORED = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.38.1"
PROPOSED = [ul.Context(abstract_syntax=uid, transfer_syntax=EXPLICIT) for uid in (CT, MR, NEVER_STORED)]
REFUSED_CONTEXT = 5  # that of `NEVER_STORED`
REQUEST = ul.associate_rq("CT1", "HILUM", PROPOSED, 16384)
RELEASE, PEERS_ABORT = ul.pdu(ul.Pdu.RELEASE_RQ, bytes(4)), ul.pdu(ul.Pdu.ABORT, bytes(4))
MESSAGE_ID = 7

#: The moves of PS3.8 Table 9-10 that an acceptor makes: idle until it is asked, then established or closing, and never back. A piece
#: of bytes may hold several PDUs and so make several moves.
MOVES = {(before, after) for n, before in enumerate(State) for after in list(State)[n:]}


def a_data_set(sop_class: str, instance: str, size_bytes: int) -> bytes:
    """The beginning of an object in Explicit VR Little Endian, and zeros."""
    uids = [uid.encode() + b"\0" * (len(uid) % 2) for uid in (sop_class, instance)]
    head = b"".join(struct.pack("<HH2sH", 8, element, b"UI", len(uid)) + uid for element, uid in zip((0x16, 0x18), uids, strict=True))
    return head + bytes(size_bytes)


class Message(Struct, kw_only=True):
    """A request with a data set: what is sent, and what must come of it."""

    command: bytes
    context: int
    data_set: bytes
    status: int
    kept: bool
    #: Whether it is written into the spool at all.
    stores: bool = True
    sent: int = 0


def a_store(announced: tuple[str, str], context: int, data_set: bytes, status: int, *, kept: bool, stores: bool = True) -> Message:
    raw = ul.c_store_rq(MESSAGE_ID, *announced)
    return Message(command=raw, context=context, data_set=data_set, status=status, kept=kept, stores=stores)


def messages(size_bytes: int) -> list[Message]:
    """Each kind of request with a data set that there is."""
    ct, mr = (CT, "2.25.3"), (MR, "2.25.40")
    slice_ = a_data_set(*ct, size_bytes)
    find = ul.c_store_rq(MESSAGE_ID, *ct).replace(b"\0\x01\x02\0\0\0\x01\0", b"\0\x01\x02\0\0\0\x20\0")
    return [
        a_store(ct, 1, slice_, 0x0000, kept=True),
        a_store(mr, 3, a_data_set(*mr, size_bytes), 0x0000, kept=True),
        a_store(ct, 3, slice_, 0x0000, kept=True),  # its class was accepted in another context
        a_store((CT, "2.25.4"), 1, slice_, 0xB007, kept=True),
        a_store(ct, 1, b"This is a letter, and no data set.", 0xC000, kept=True),
        a_store(ct, 1, b"", 0xC000, kept=False),
        a_store(ct, 1, slice_ + bytes(MAX_OBJECT_BYTES), 0xA700, kept=False),
        a_store((ULTRASOUND, "2.25.5"), 1, slice_, 0x0122, kept=False, stores=False),
        Message(command=find, context=1, data_set=slice_, status=0x0211, kept=False, stores=False),
    ]


MESSAGES = st.integers(0, 600).flatmap(lambda size_bytes: st.sampled_from(messages(size_bytes)))
#: Where what is said is cut, in thousandths of it.
CUTS = st.lists(st.integers(0, 1000), max_size=4)
CONTEXTS = st.sampled_from((1, 3))


class Observed(Association):
    """An `Acceptor` on a spool; `rejecting` says whether it takes no association."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, MAX_OBJECT_BYTES)
        self.rejecting = False
        self.receipts: list[str] = []

    def _negotiate(self, request: Request) -> tuple[Mapping[int, Context] | None, bytes]:
        if self.rejecting:
            return None, negotiation.reject(negotiation.LOCAL_LIMIT)
        return negotiation.accept(request, Dicom())

    def _settled(self, asked: Command, storing: Storing | None, answer: Answer) -> None:
        super()._settled(asked, storing, answer)
        if storing is not None and storing.receipt:
            self.receipts.append(storing.receipt)


#: Most of what a peer may do ends the association. It comes only after some steps, or hardly any object would ever arrive.
in_the_end = precondition(lambda self: self.patience <= 0)
PATIENCE = st.integers(0, 4)


class Peer(RuleBasedStateMachine):
    """Says whatever a peer may say, one association after the other into one spool."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.kept: list[bytes] = []  #: data sets that must be in the spool, as they were sent
        self.state = State.REQUESTED
        self.message: Message | None = None
        self.patience = 0  #: how many steps come before what may end the association

    @initialize(patience=PATIENCE)
    def connect(self, patience: int) -> None:
        self.association = Observed(self.folder)
        self.state, self.message, self.patience = State.REQUESTED, None, patience

    # How it is said, and what is expected

    def say(self, raw: bytes, cuts: Sequence[int] = ()) -> list[tuple[int, bytes]]:
        """Send `raw` in pieces; the PDUs that come back. Each move must be one of the standard's."""
        self.patience -= 1
        at = sorted(len(raw) * cut // 1000 for cut in cuts)
        answered = []
        for a, b in zip([0, *at], [*at, len(raw)], strict=True):
            before = self.association.acceptor.state
            answered += self.association.receive(raw[a:b])
            assert (before, self.association.acceptor.state) in MOVES
            self.nothing_is_acknowledged_that_is_not_in_the_spool()
        return answered

    def is_answered(self, pdus: Sequence[tuple[int, bytes]], status: int) -> None:
        """One response with this status came, to the request that was made, and nothing else."""
        [(kind, body)] = pdus
        [(_, is_command, is_last, raw)] = ul.pdvs(body)
        response = ul.read_response(raw)
        assert (kind, is_command, is_last, response.has_data_set) == (ul.Pdu.DATA, True, True, False)
        assert (response.status, response.answers) == (status, MESSAGE_ID)

    def is_aborted(self, pdus: Sequence[tuple[int, bytes]], why: Abort) -> None:
        """One A-ABORT came: by the user before the association is established (AA-1), else by the provider with its reason (AA-8)."""
        source, reason = (0, 0) if self.state is State.REQUESTED else (2, why.reason)
        assert pdus == [(ul.Pdu.ABORT, bytes((0, 0, source, reason)))]
        assert self.association.acceptor.ended == why.says
        self.ends()

    def ends(self) -> None:
        self.state, self.message = State.CLOSING, None

    # Before the association

    @precondition(lambda self: self.state is State.REQUESTED)
    @rule(cuts=CUTS)
    def asks(self, cuts: list[int]) -> None:
        [(kind, body)] = self.say(REQUEST, cuts)

        assert kind == ul.Pdu.ASSOCIATE_AC
        assert {context: result == 0 for context, result in ul.read_associate_ac(body).results.items()} == {1: True, 3: True, 5: False}
        self.state = State.ESTABLISHED

    @in_the_end
    @precondition(lambda self: self.state is State.REQUESTED)
    @rule(cuts=CUTS)
    def asks_and_is_rejected(self, cuts: list[int]) -> None:
        self.association.rejecting = True

        assert self.say(REQUEST, cuts) == [(ul.Pdu.ASSOCIATE_RJ, bytes((0, 2, 3, 2)))]
        self.ends()

    @in_the_end
    @precondition(lambda self: self.state is State.REQUESTED)
    @rule(body=st.integers(0, 67).map(lambda size: REQUEST[6 : 6 + size]) | st.integers(1, 20).map(lambda cut: REQUEST[6:-cut]), cuts=CUTS)
    def asks_in_a_garbled_request(self, body: bytes, cuts: list[int]) -> None:
        """Too short for its fields, or its last item, the user information, is cut off."""
        self.is_aborted(self.say(ul.pdu(ul.Pdu.ASSOCIATE_RQ, body), cuts), aborts.GARBLED_REQUEST)

    @in_the_end
    @precondition(lambda self: self.state is State.REQUESTED)
    @rule(early=st.sampled_from((RELEASE, command(ul.c_echo_rq(MESSAGE_ID)), ul.pdu(ul.Pdu.ASSOCIATE_AC, bytes(70)))), cuts=CUTS)
    def speaks_too_early(self, early: bytes, cuts: list[int]) -> None:
        self.is_aborted(self.say(early, cuts), aborts.EARLY_PDU)

    # Messages

    def is_idle(self) -> bool:
        return self.state is State.ESTABLISHED and self.message is None

    def is_amid_a_message(self) -> bool:
        return self.state is State.ESTABLISHED and self.message is not None

    @precondition(is_idle)
    @rule(context=CONTEXTS, cuts=CUTS, pieces=st.integers(1, 5))
    def echoes(self, context: int, cuts: list[int], pieces: int) -> None:
        raw = ul.c_echo_rq(MESSAGE_ID)
        size = -(-len(raw) // pieces)
        fragments = [raw[at : at + size] for at in range(0, len(raw), size)]
        said = b"".join(
            ul.data_header(context, len(each), last=n == len(fragments) - 1, command=True) + each for n, each in enumerate(fragments)
        )

        self.is_answered(self.say(said, cuts), 0x0000)

    @precondition(is_idle)
    @rule(context=CONTEXTS, cuts=CUTS)
    def cancels_what_is_not_there(self, context: int, cuts: list[int]) -> None:
        cancel = ul.c_echo_rq(MESSAGE_ID).replace(b"\x30\0", b"\xff\x0f")

        assert self.say(command(cancel, context), cuts) == []

    @precondition(is_idle)
    @rule(field=st.sampled_from((0x0010, 0x0020, 0x0021, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150)), cuts=CUTS)
    def asks_for_what_is_not_served(self, field: int, cuts: list[int]) -> None:
        raw = ul.c_echo_rq(MESSAGE_ID).replace(b"\x30\0", struct.pack("<H", field))

        self.is_answered(self.say(command(raw), cuts), 0x0211)

    @precondition(is_idle)
    @rule(cuts=CUTS)
    def announces_no_data_set(self, cuts: list[int]) -> None:
        raw = ul.c_store_rq(MESSAGE_ID, CT, "2.25.3").replace(b"\0\x08\x02\0\0\0\x01\0", b"\0\x08\x02\0\0\0\x01\x01")

        self.is_answered(self.say(command(raw), cuts), 0xC000)

    @precondition(is_idle)
    @rule(message=MESSAGES, cuts=CUTS)
    def begins_a_message(self, message: Message, cuts: list[int]) -> None:
        assert self.say(command(message.command, message.context), cuts) == []
        self.message = Message(**{name: getattr(message, name) for name in message.__struct_fields__})

    @precondition(is_amid_a_message)
    @rule(sizes=st.lists(st.integers(0, 200), max_size=5), in_one_pdu=st.booleans(), cuts=CUTS)
    def sends_fragments(self, sizes: list[int], in_one_pdu: bool, cuts: list[int]) -> None:
        message = self.message
        assert message is not None
        pieces = []
        for size in sizes:
            pieces.append(message.data_set[message.sent : message.sent + size])
            message.sent += len(pieces[-1])
        if in_one_pdu:
            said = ul.pdu(ul.Pdu.DATA, b"".join(struct.pack(">IBB", len(each) + 2, message.context, 0) + each for each in pieces))
        else:
            said = b"".join(data(each, last=False, context=message.context) for each in pieces)

        assert self.say(said, cuts) == []

    @precondition(is_amid_a_message)
    @rule(cuts=CUTS)
    def sends_the_rest(self, cuts: list[int]) -> None:
        message = self.message
        assert message is not None
        if message.kept:
            self.kept.append(message.data_set)

        answered = self.say(data(message.data_set[message.sent :], context=message.context), cuts)

        self.is_answered(answered, message.status)
        self.message = None

    # Against the protocol

    @in_the_end
    @precondition(is_amid_a_message)
    @rule(context=CONTEXTS, raw=st.sampled_from((ul.c_echo_rq(8), ul.c_store_rq(8, CT, "2.25.9"))), cuts=CUTS)
    def sends_a_command_amid_a_message(self, context: int, raw: bytes, cuts: list[int]) -> None:
        self.is_aborted(self.say(command(raw, context), cuts), aborts.COMMAND_AMID_MESSAGE)

    @in_the_end
    @precondition(is_amid_a_message)
    @rule(last=st.booleans(), cuts=CUTS)
    def mixes_contexts_amid_a_message(self, last: bool, cuts: list[int]) -> None:
        assert self.message is not None
        said = data(b"x" * 10, last=last, context=4 - self.message.context)

        self.is_aborted(self.say(said, cuts), aborts.DATA_SET_WITHOUT_COMMAND)

    @in_the_end
    @precondition(is_idle)
    @rule(last=st.booleans(), cuts=CUTS)
    def sends_a_data_set_without_a_command(self, last: bool, cuts: list[int]) -> None:
        self.is_aborted(self.say(data(b"x" * 10, last=last), cuts), aborts.DATA_SET_WITHOUT_COMMAND)

    @in_the_end
    @precondition(lambda self: self.state is State.ESTABLISHED)
    @rule(is_command=st.booleans(), cuts=CUTS)
    def uses_a_context_that_was_refused(self, is_command: bool, cuts: list[int]) -> None:
        said = ul.data_header(REFUSED_CONTEXT, 10, last=False, command=is_command) + bytes(10)

        self.is_aborted(self.say(said, cuts), aborts.STRAY_FRAGMENT)

    @in_the_end
    @precondition(is_idle)
    @rule(raw=st.sampled_from((b"x" * 10, bytes(9), b"")), cuts=CUTS)
    def sends_a_garbled_command(self, raw: bytes, cuts: list[int]) -> None:
        self.is_aborted(self.say(command(raw), cuts), aborts.GARBLED_COMMAND)

    @in_the_end
    @precondition(lambda self: self.state is State.ESTABLISHED)
    @rule(stray=st.sampled_from((REQUEST, ul.pdu(ul.Pdu.RELEASE_RP, bytes(4)))), cuts=CUTS)
    def sends_a_pdu_out_of_place(self, stray: bytes, cuts: list[int]) -> None:
        self.is_aborted(self.say(stray, cuts), aborts.PDU_OUT_OF_PLACE)

    @in_the_end
    @precondition(lambda self: self.state is not State.CLOSING)
    @rule(kind=st.sampled_from((0, 8, 0x47, 0xFF)), tail=st.binary(min_size=5, max_size=40), cuts=CUTS)
    def sends_what_is_no_pdu(self, kind: int, tail: bytes, cuts: list[int]) -> None:
        self.is_aborted(self.say(bytes((kind,)) + tail, cuts), aborts.UNKNOWN_PDU)

    # How it ends

    @in_the_end
    @precondition(is_idle)
    @rule(cuts=CUTS)
    def releases(self, cuts: list[int]) -> None:
        assert self.say(RELEASE, cuts) == [(ul.Pdu.RELEASE_RP, bytes(4))]
        assert self.association.acceptor.ended == "released"
        self.ends()

    @in_the_end
    @precondition(is_amid_a_message)
    @rule(cuts=CUTS)
    def releases_amid_a_message(self, cuts: list[int]) -> None:
        self.is_aborted(self.say(RELEASE, cuts), aborts.PDU_OUT_OF_PLACE)

    @in_the_end
    @precondition(lambda self: self.state is not State.CLOSING)
    @rule(cuts=CUTS)
    def aborts(self, cuts: list[int]) -> None:
        assert self.say(PEERS_ABORT, cuts) == []
        assert self.association.acceptor.ended == "aborted by the peer"
        self.ends()

    @in_the_end
    @precondition(is_idle)
    @rule(message=MESSAGES, part=st.integers(0, 999), cuts=CUTS)
    def breaks_off_amid_a_request(self, message: Message, part: int, cuts: list[int]) -> None:
        whole = command(message.command, message.context) + data(message.data_set, context=message.context)

        assert self.say(whole[: len(whole) * part // 1000], cuts) == []
        self.breaks_off()

    @in_the_end
    @precondition(lambda self: self.state is not State.CLOSING)
    @rule(noise=st.binary(max_size=60), cuts=CUTS)
    def makes_noise_and_breaks_off(self, noise: bytes, cuts: list[int]) -> None:
        """Noise may by chance be anything: only what holds always is asked of it."""
        self.say(noise, cuts)
        self.breaks_off()
        self.kept = self.in_the_spool()

    @in_the_end
    @precondition(lambda self: self.state is not State.CLOSING)
    @rule()
    def breaks_off(self) -> None:
        self.association.acceptor.close("closed by the peer")
        self.ends()

    @in_the_end
    @precondition(lambda self: self.state is not State.CLOSING)
    @rule()
    def hilum_stops(self) -> None:
        assert self.association.acceptor.abort("Hilum stops") == ul.pdu(ul.Pdu.ABORT, bytes(4))
        self.ends()

    @precondition(lambda self: self.state is State.CLOSING)
    @rule(more=st.sampled_from((REQUEST, RELEASE, PEERS_ABORT, command(ul.c_echo_rq(MESSAGE_ID)))), cuts=CUTS)
    def goes_on_after_the_end(self, more: bytes, cuts: list[int]) -> None:
        assert self.say(more, cuts) == []

    @precondition(lambda self: self.state is State.CLOSING)
    @rule(patience=PATIENCE)
    def comes_again(self, patience: int) -> None:
        self.connect(patience)

    # What holds always

    def in_the_spool(self) -> list[bytes]:
        """The data sets, oldest first."""
        files = [self.association.spool.read(receipt) for receipt in self.association.spool.waiting()]
        return [file[read_arrival(file)[1] :] for file in files]

    @invariant()
    def nothing_is_acknowledged_that_is_not_in_the_spool(self) -> None:
        waiting = self.association.spool.waiting()
        assert self.association.receipts == waiting[len(waiting) - len(self.association.receipts) :]

    @invariant()
    def the_spool_holds_what_was_sent_whole_and_nothing_else(self) -> None:
        assert self.in_the_spool() == self.kept

    @invariant()
    def only_an_object_under_way_is_unfinished(self) -> None:
        is_under_way = self.message is not None and self.message.stores and self.association.spool.unfinished() != []
        if self.message is None or not self.message.stores:
            assert self.association.spool.unfinished() == []
        else:
            # One that grew too large is given up at once.
            assert is_under_way or self.message.sent > MAX_OBJECT_BYTES

    @invariant()
    def it_is_where_the_model_is(self) -> None:
        now = self.association.acceptor
        assert now.state is self.state
        assert (now.ended != "") == (self.state is State.CLOSING)
        if self.state is State.ESTABLISHED:
            assert now.between_messages == (self.message is None)

    def teardown(self) -> None:
        self.association.acceptor.close("the end")
        assert self.association.spool.unfinished() == []
        assert self.in_the_spool() == self.kept
        shutil.rmtree(self.folder)


TestAcceptor = Peer.TestCase
TestAcceptor.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
