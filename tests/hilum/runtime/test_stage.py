from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import msgspec
import pytest
from confluent_kafka import Message

from hilum import bus
from hilum.errors import Quarantine, Reason, Stopped, TryAgain
from hilum.events import Event, Finding, InstanceAccepted, InstanceQuarantined, InstanceReceived, InstanceRouted, decode, following_id
from hilum.runtime.processor import Memory, NeedsWork, Processor, processor
from hilum.runtime.stage import CHUNK, POSTPONED, Incoming, Stage
from hilum.runtime.state import Changes, Codec, PartitionState, milliseconds
from hilum.runtime.work import Pool
from hilum.settings import Settings
from hilum.testing import Clock, an_instance

PATIENT = "Secret^Name"
TOPIC = "imaging.instance.received.v1"


class Row(msgspec.Struct):
    count: int = 0


def a_stage(what: Processor, clock: Clock | None = None) -> Stage:
    return Stage(Settings(), what, clock or Clock())


def incoming(stage: Stage, event: Event | bytes, id_: str = "cause", key: bytes = b"2.25.1") -> Incoming:
    value = event if isinstance(event, bytes) else msgspec.json.encode(event)
    message = Message(topic=TOPIC, partition=0, offset=5, key=key, value=value, headers=[("ce_id", id_.encode())] if id_ else [])
    arrived = Incoming(message)
    stage.read([arrived])
    return arrived


def conclude(stage: Stage, event: Event | bytes, memory: Changes | None = None, id_: str = "cause") -> list[bus.Record]:
    return [record for chunk in stage.conclude(incoming(stage, event, id_), memory) for record in chunk]


def set_aside(stage: Stage, event: Event | bytes, key: bytes = b"2.25.1") -> InstanceQuarantined:
    [chunk] = stage.conclude(incoming(stage, event, key=key), None)
    [record] = chunk
    assert record.topic == "imaging.instance.quarantined.v1"
    return decode(InstanceQuarantined, record.value)


@processor
def twice(event: InstanceReceived) -> Iterable[InstanceAccepted]:
    for number in range(2):
        yield InstanceAccepted.following(event, [Finding(code="number", sentence=str(number))])


@processor
def broken(event: InstanceReceived) -> InstanceAccepted:
    raise ValueError(event.instance.header.text("PatientName"))


@processor
def refuses(event: InstanceReceived) -> InstanceAccepted:  # noqa: ARG001  # its signature is its wiring
    raise Quarantine(Reason.INSTANCE_CONFLICT, "It came again.", found="b", expected="a")


@processor
def waits(event: InstanceReceived) -> InstanceAccepted:  # noqa: ARG001  # as above
    raise TryAgain("PostgreSQL is away.")


def test_each_event_that_follows_has_an_id_of_its_own_and_the_same_on_every_repeat() -> None:
    ids = [[dict(record.headers)["ce_id"] for record in conclude(a_stage(twice), an_instance())] for _ in range(2)]

    assert ids[0] == ids[1] == [following_id("cause", "twice", number).encode() for number in range(2)]


def test_a_message_without_an_id_is_known_by_its_place() -> None:
    [first, _] = conclude(a_stage(twice), an_instance(), id_="")

    assert dict(first.headers)["ce_causationid"] == b"imaging.instance.received.v1/0/5"


def test_quarantine_keeps_the_event_whole_with_its_reason() -> None:
    event = an_instance(receipt="r1")

    waiting = set_aside(a_stage(refuses), event)

    assert (waiting.reason, waiting.sentence, waiting.found, waiting.expected) == (Reason.INSTANCE_CONFLICT, "It came again.", "b", "a")
    assert waiting.fix == Reason.INSTANCE_CONFLICT.fix
    assert (waiting.stage, waiting.receipt, waiting.sop_instance_uid, waiting.key) == ("refuses", "r1", "2.25.3", "2.25.1")
    assert (waiting.input.type, waiting.input.id) == (TOPIC, "cause")
    assert bytes(waiting.input.data) == msgspec.json.encode(event)


def test_an_unforeseen_exception_becomes_a_sentence_without_its_text() -> None:
    waiting = set_aside(a_stage(broken), an_instance(PatientName=PATIENT))

    assert waiting.reason is Reason.PROCESSING_FAILED
    assert waiting.sentence.startswith("Stage broken failed on this event (ValueError at runtime/test_stage.py:")
    assert PATIENT not in waiting.sentence


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b'{"some": "other event"}', {"some": "other event"}),
        (b'["a list"]', {"base64": "WyJhIGxpc3QiXQ=="}),
        (b"\x00\xff", {"base64": "AP8="}),
        (b"", {"base64": ""}),
        (b'{"instance": ' + b"[" * 5000, {"base64": None}),
    ],
)
def test_a_message_that_is_no_such_event_is_kept_as_it_came(value: bytes, kept: dict[str, str | None]) -> None:
    waiting = set_aside(a_stage(twice), value)

    found = json.loads(bytes(waiting.input.data))
    assert (found.keys() == kept.keys()) if None in kept.values() else (found == kept)
    assert waiting.sentence.startswith("Stage twice cannot read this event: it is no imaging.instance.received.v1 (")


@pytest.mark.parametrize(("key", "study", "receipt"), [(b"2.25.1", "2.25.1", "cause"), (b"receipt-7", "", "receipt-7"), (b"", "", "cause")])
def test_a_message_that_nobody_can_read_waits_under_its_own_key(key: bytes, study: str, receipt: str) -> None:
    waiting = set_aside(a_stage(twice), b"junk", key=key)

    assert (waiting.study_instance_uid, waiting.receipt) == (study, receipt)


def test_a_message_that_is_too_large_to_be_kept_in_quarantine_is_referred_to() -> None:
    waiting = set_aside(a_stage(twice), b"\xff" * 1_900_000)

    assert json.loads(bytes(waiting.input.data)) == {"topic": TOPIC, "partition": 0, "offset": 5}


def test_an_outage_is_not_an_event_s_fault() -> None:
    with pytest.raises(TryAgain, match="PostgreSQL is away"):
        conclude(a_stage(waits), an_instance())


class Undeclared:
    name = "undeclared"

    def handle(self, event: InstanceReceived) -> InstanceRouted:
        return event  # type: ignore[return-value]  # what the test is about


class TooMuch:
    name = "much"

    def handle(self, event: InstanceReceived) -> InstanceAccepted:
        return InstanceAccepted.following(event, [Finding(code="much", sentence="x" * 1_100_000)])


@pytest.mark.parametrize("what", [Undeclared(), TooMuch()])
def test_an_event_that_may_not_be_said_sets_its_cause_aside(what: Processor) -> None:
    assert set_aside(a_stage(what), an_instance()).reason is Reason.PROCESSING_FAILED


class Remembers:
    """Remembers an event, then does with it what its StudyDescription asks for."""

    name = "remembers"
    State = Row

    def handle(self, event: InstanceReceived, memory: Memory[Row]) -> Iterator[InstanceAccepted]:
        memory.put("a", Row(1))
        yield InstanceAccepted.following(event)
        match event.instance.header.text("StudyDescription"):
            case "refuse":
                raise Quarantine(Reason.RULE_FAILED, "No.")
            case "break":
                raise ZeroDivisionError

    def due(self, key: str, memory: Memory[Row], now: object) -> Iterable[InstanceAccepted]:
        if key == "bad":
            raise ZeroDivisionError
        return [InstanceAccepted.following(an_instance())]


def changes() -> Changes:
    return Changes(PartitionState(0), Codec(Row))


@pytest.mark.parametrize(
    ("what", "said", "remembered"), [("", "accepted", Row(1)), ("refuse", "quarantined", None), ("break", "quarantined", None)]
)
def test_of_an_event_that_is_set_aside_nothing_is_said_or_remembered(what: str, said: str, remembered: Row | None) -> None:
    memory = changes()

    records = conclude(a_stage(Remembers()), an_instance(StudyDescription=what), memory)

    assert [record.topic for record in records] == [f"imaging.instance.{said}.v1"]
    assert memory.get("a") == remembered


def test_a_timer_fires_once_unless_it_is_set_again() -> None:
    clock = Clock()
    stage, memory = a_stage(Remembers(), clock), changes()
    memory.put("a", Row(1), due=clock())
    memory.keep()

    records = stage.due("a", milliseconds(clock()), memory)

    assert len(records) == 1
    assert memory.due_of("a") is None
    assert memory.get("a") == Row(1)


def test_what_a_timer_says_has_the_same_id_on_every_repeat() -> None:
    ids = [dict(a_stage(Remembers()).due("a", 7, changes())[0].headers)["ce_id"] for _ in range(2)]

    assert ids[0] == ids[1]


def test_a_timer_that_fails_is_tried_again_later_and_does_not_stop_the_others() -> None:
    clock = Clock()
    stage, memory = a_stage(Remembers(), clock), changes()
    memory.put("bad", Row(1), due=clock())
    memory.keep()

    assert stage.due("bad", milliseconds(clock()), memory) == []
    assert memory.due_of("bad") == milliseconds(clock() + POSTPONED)


class Asks:
    """Remembers something, and then asks for slow work."""

    name = "asks"
    State = Row

    def work_on(self, asked: str) -> str:
        return asked.upper()

    def handle(self, event: InstanceReceived, memory: Memory[Row], work: str | None = None) -> InstanceAccepted:
        memory.put("a", Row(1))
        if work is None:
            raise NeedsWork("question")
        return InstanceAccepted.following(event, [Finding(code="answer", sentence=work)])


def test_an_event_that_needs_slow_work_is_handled_again_with_it_and_left_no_trace_before() -> None:
    stage, memory = a_stage(Asks()), changes()
    event = incoming(stage, an_instance())

    with pytest.raises(NeedsWork):
        next(stage.conclude(event, memory))
    memory.keep()
    assert (event.asked, memory.get("a")) == ("question", None)

    pool = Pool(stage.name, stage.wiring.work, stage.wiring.work_on)
    for future in pool.start([event, incoming(stage, an_instance())]):
        future.result()
    [[record]] = stage.conclude(event, memory)
    pool.close()

    assert decode(InstanceAccepted, record.value).findings[0].sentence == "QUESTION"
    assert memory.get("a") == Row(1)


def test_an_event_that_asks_for_work_without_end_is_set_aside() -> None:
    class AsksAgain(Asks):
        def work_on(self, asked: str) -> None:  # type: ignore[override]  # it answers nothing
            return None

    stage, memory = a_stage(AsksAgain()), changes()
    event = incoming(stage, an_instance())
    with pytest.raises(NeedsWork):
        next(stage.conclude(event, memory))
    event.worked = True

    [[record]] = stage.conclude(event, memory)

    assert decode(InstanceQuarantined, record.value).reason is Reason.PROCESSING_FAILED


def test_a_look_up_for_timers_that_fails_is_made_again_and_ends_no_worker() -> None:
    class Fails(Remembers):
        def prepare_due(self, keys: Sequence[str]) -> None:
            raise ValueError(keys)

    with pytest.raises(TryAgain, match="ValueError"):
        a_stage(Fails()).prepare_due(["a"])


class Many:
    name = "many"
    State = Row

    def __init__(self, count: int, fails_at: int = -1) -> None:
        self.count = count
        self.fails_at = fails_at

    def handle(self, event: InstanceReceived, memory: Memory[Row]) -> Iterator[InstanceAccepted]:
        memory.put("a", Row(1))
        for number in range(self.count):
            if number == self.fails_at:
                raise ZeroDivisionError
            yield InstanceAccepted.following(event)


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (CHUNK, [CHUNK]), (CHUNK + 1, [CHUNK, 1]), (3 * CHUNK + 7, [CHUNK, CHUNK, CHUNK, 7])]
)
def test_an_event_that_says_much_is_written_in_chunks_and_remembered_with_the_last(count: int, sizes: list[int]) -> None:
    stage, memory = a_stage(Many(count)), changes()

    found = []
    for chunk in stage.conclude(incoming(stage, an_instance()), memory):
        found.append(len(chunk))
        assert bool(list(memory.items())) is (len(found) == len(sizes))

    assert found == sizes


def test_what_an_earlier_transaction_has_written_of_an_event_is_not_said_again() -> None:
    stage = a_stage(Many(CHUNK + 10))
    begun = incoming(stage, an_instance())
    begun.written = CHUNK

    [chunk] = stage.conclude(begun, changes())

    assert [dict(record.headers)["ce_id"].decode() for record in chunk] == [  # type: ignore[union-attr]  # never None
        following_id("cause", "many", number) for number in range(CHUNK, CHUNK + 10)
    ]


def test_an_event_that_fails_after_its_first_chunk_is_set_aside_too() -> None:
    stage = a_stage(Many(2 * CHUNK, fails_at=CHUNK + 10))

    chunks = list(stage.conclude(incoming(stage, an_instance()), changes()))

    assert [len(chunk) for chunk in chunks] == [CHUNK, 1]
    assert chunks[1][0].topic == "imaging.instance.quarantined.v1"


def test_a_stage_that_fails_on_nearly_every_event_stops() -> None:
    stage = a_stage(broken)
    for _ in range(199):
        conclude(stage, an_instance(PatientName=PATIENT))

    with pytest.raises(Stopped, match="failed on 200 of its last 200 events; last: ValueError at") as stopped:
        conclude(stage, an_instance(PatientName=PATIENT))
    assert PATIENT not in str(stopped.value)


def test_a_stage_that_refuses_every_event_goes_on() -> None:
    stage = a_stage(refuses)

    for _ in range(300):
        conclude(stage, an_instance())
        stage.committed()


def test_an_event_that_is_tried_again_and_again_is_counted_once_as_failed() -> None:
    stage = a_stage(broken)

    for _ in range(300):
        conclude(stage, an_instance())
        stage.aborted()


def test_a_stage_says_when_it_said_it() -> None:
    clock = Clock()
    stage = a_stage(twice, clock)
    clock.forward(hours=1)

    [first, _] = conclude(stage, an_instance())

    assert dict(first.headers)["ce_time"] == bus.timestamp(Clock()() + timedelta(hours=1))
