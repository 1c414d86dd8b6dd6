"""What a processor makes of one message: the messages it says, or the one by which the input waits for a person.

No Kafka client is used here, so all of it can be tried with made-up messages.
"""

from __future__ import annotations

import base64
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Message
from msgspec import Raw

from hilum import telemetry
from hilum.bus import MAX_EVENT_BYTES, MAX_MESSAGE_BYTES, Record, Writer, headers_of, timestamp, topic_of
from hilum.dicom import uid_is_usable
from hilum.errors import Misconfigured, Quarantine, Reason, Stopped, TryAgain
from hilum.events import Event, InputEvent, InstanceQuarantined, decode, following_id
from hilum.runtime.processor import Processor, Wiring, said
from hilum.runtime.state import Changes
from hilum.settings import Settings

#: So many events of one input are written at once; if there are more, the rest goes into further transactions. A handler that
#: may raise `Quarantine` must do so before it gives more.
CHUNK = 2000

#: A timer whose handler failed unforeseen is tried again after this time.
POSTPONED = timedelta(hours=1)

#: The breaker opens if so many of the last inputs failed in a way nobody foresaw: then the stage is wrong, not its input.
BREAKER_INPUTS = 200
BREAKER_FAILURES = 190

#: What a quarantined event may hold besides its input.
OVERHEAD_BYTES = 64 * 1024

log = telemetry.logger("runtime")


class Incoming:
    """One message of an input topic on its way through the stage."""

    __slots__ = (
        "dropped",
        "event",
        "headers",
        "id",
        "message",
        "offset",
        "partition",
        "problem",
        "size",
        "topic",
        "work",
        "worked",
        "written",
    )

    def __init__(self, message: Message) -> None:
        value = message.value()
        self.message = message
        self.topic: str = message.topic() or ""
        self.partition: int = message.partition() or 0
        self.offset: int = message.offset() or 0
        self.size = len(value) if value else 0
        self.headers = headers_of(message)
        self.event: Event | None = None
        self.problem: BaseException | None = None
        self.work: Any = None
        self.worked = False
        #: The partition was taken away meanwhile; whoever has it now reads the message again.
        self.dropped = False
        #: How many of the events that follow from this one were committed by an earlier transaction.
        self.written = 0
        found = self.headers.get("ce_id")
        self.id = found.decode("utf-8", "replace") if found else f"{self.topic}/{self.partition}/{self.offset}"

    def read(self, kinds: dict[str, type[Event]]) -> None:
        """Decode the event, unless that is done."""
        if self.event is None and self.problem is None:
            try:
                self.event = decode(kinds[self.topic], self.message.value() or b"")
            except Exception as error:  # whatever is wrong with these bytes, it is wrong with this message alone
                self.problem = error

    @property
    def key(self) -> str:
        """The message's key, `""` if it has none."""
        return (self.message.key() or b"").decode("utf-8", "replace")


class Stage:
    """One processor, its wiring, and what it says as messages."""

    def __init__(self, settings: Settings, processor: Processor, now: Callable[[], datetime]) -> None:
        self.wiring = Wiring.of(processor)
        self.name = self.wiring.name
        self.kinds = {topic_of(settings, kind): kind for kind in self.wiring.inputs}
        self._handle = processor.handle
        self._gives = frozenset(self.wiring.outputs)
        #: The topics on which it may say something.
        self.says_on = [topic_of(settings, kind) for kind in self.wiring.outputs] + [topic_of(settings, InstanceQuarantined)]
        self._writer = Writer(settings, self.name)
        self._configure = getattr(processor, "configure", None)
        self._now = now
        self._time = timestamp(now())
        self._failures: deque[bool] = deque(maxlen=BREAKER_INPUTS)
        self._open_failures: list[bool] = []
        self._open_reasons: list[Reason] = []

    @property
    def follows(self) -> bool:
        """Whether the processor uses rules or destinations, and so is told of each configuration."""
        return self._configure is not None

    def configure(self, settings: Settings) -> None:
        """Go on with `settings`; what is said from now on carries their version. Raises `Misconfigured` and changes nothing."""
        if self._configure is not None:
            self._configure(settings)
        self._writer = Writer(settings, self.name)

    def read(self, batch: Sequence[Incoming]) -> None:
        """Decode a batch. What cannot be decoded waits for a person once it is its turn."""
        self._time = timestamp(self._now())
        for incoming in batch:
            incoming.read(self.kinds)

    def prepare(self, batch: Sequence[Incoming]) -> None:
        """Let the processor look up what it needs for a batch that was read. Raises `TryAgain`."""
        if self.wiring.prepare is not None:
            events = [incoming.event for incoming in batch if incoming.event is not None and incoming.problem is None]
            if events:
                self.wiring.prepare(events)

    def conclude(self, incoming: Incoming, memory: Changes | None) -> Iterator[list[Record]]:
        """The messages that follow from one input, `CHUNK` at most in each list; the first of them even if it is empty.

        When the last list comes, what the handler changed in `memory` is kept or undone. Raises `TryAgain` if the same input
        is to be handled again later, and `Stopped` if nearly every input fails.
        """
        chunk: list[Record] = []
        ordinal = 0
        try:
            if incoming.problem is not None:
                raise incoming.problem
            more: dict[str, Any] = {}
            if memory is not None:
                more["memory"] = memory
            if self.wiring.takes_work:
                more["work"] = incoming.work
            result = self._handle(incoming.event, **more) if more else self._handle(incoming.event)
            for event in said(result):
                if ordinal >= incoming.written:
                    if len(chunk) == CHUNK:
                        yield chunk
                        chunk = []
                    chunk.append(self._record(event, incoming.id, ordinal, incoming.headers.get("traceparent"), incoming.id))
                ordinal += 1
            if memory is not None:
                memory.keep()
            self._open_failures.append(False)
        except (TryAgain, Stopped, Misconfigured):
            raise
        except Quarantine as why:
            self._open_failures.append(False)
            if memory is not None:
                memory.undo()
            chunk = [self._set_aside(incoming, why)]
        except Exception as error:
            self._count_failure(error)
            if memory is not None:
                memory.undo()
            chunk = [self._set_aside(incoming, Quarantine(Reason.PROCESSING_FAILED, self._sentence(incoming, error)))]
        yield chunk

    def due(self, key: str, due_ms: int, memory: Changes) -> list[Record]:
        """The messages that follow from time having come for `key`. A timer fires once, unless it is set again."""
        assert self.wiring.due is not None
        now = self._now()
        try:
            events = said(self.wiring.due(key, memory, now))
            records = [self._record(event, f"timer/{key}/{due_ms}", ordinal, None, "") for ordinal, event in enumerate(events)]
            if memory.due_of(key) == due_ms:
                memory.put(key, memory.get(key))
        except (TryAgain, Stopped, Misconfigured):
            raise
        except Exception as error:
            log.error("timer_failed", stage=self.name, error=error)
            self._count_failure(error)
            memory.undo()
            memory.put(key, memory.get(key), due=now + POSTPONED)
            records = []
        memory.keep()
        return records

    def committed(self) -> None:
        """What was concluded since the last commit counts."""
        self._failures.extend(self._open_failures)
        for reason in self._open_reasons:
            telemetry.EVENTS_QUARANTINED.labels(self.name, reason).inc()
        self.aborted()

    def aborted(self) -> None:
        """What was concluded since the last commit never was."""
        self._open_failures.clear()
        self._open_reasons.clear()

    def _record(self, event: Event, follows: str, ordinal: int, trace: bytes | None, cause: str) -> Record:
        if type(event) not in self._gives:
            raise TypeError(f"{self.name} gave a {type(event).__name__}, which its type hints do not name")
        record = self._writer.record(event, following_id(follows, self.name, ordinal), cause=cause, trace=trace, time=self._time)
        if len(record.value) > MAX_EVENT_BYTES:
            raise ValueError(f"{self.name} gave an event of {len(record.value)} bytes; {MAX_EVENT_BYTES} is the most")
        return record

    def _set_aside(self, incoming: Incoming, why: Quarantine) -> Record:
        """The message by which an input waits for a person, with all of it inside."""
        self._open_reasons.append(why.reason)
        about = getattr(incoming.event, "instance", incoming.event)
        key = incoming.key
        event = InstanceQuarantined(
            receipt=getattr(about, "receipt", "") or ("" if uid_is_usable(key) else key) or incoming.id,
            study_instance_uid=getattr(about, "study_instance_uid", key if about is None and uid_is_usable(key) else ""),
            series_instance_uid=getattr(about, "series_instance_uid", ""),
            sop_instance_uid=getattr(about, "sop_instance_uid", ""),
            stage=self.name,
            reason=why.reason,
            sentence=why.sentence,
            fix=why.fix,
            found=why.found,
            expected=why.expected,
            quarantined_at=self._now(),
            input=InputEvent(type=self.kinds[incoming.topic].topic.name, id=incoming.id, data=_whole(incoming)),
        )
        return self._writer.record(
            event,
            following_id(incoming.id, f"{self.name}/quarantine", 0),
            cause=incoming.id,
            trace=incoming.headers.get("traceparent"),
            time=self._time,
        )

    def _sentence(self, incoming: Incoming, error: Exception) -> str:
        """What happened, without the exception's text: it may quote the event."""
        if error is incoming.problem and incoming.event is None:
            return f"Stage {self.name} cannot read this event: it is no {incoming.topic} ({type(error).__name__})."
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
        return f"Stage {self.name} failed on this event ({type(error).__name__}{where})."

    def _count_failure(self, error: Exception) -> None:
        self._open_failures.append(True)
        last = [*self._failures, *self._open_failures][-BREAKER_INPUTS:]
        if len(last) == BREAKER_INPUTS and sum(last) >= BREAKER_FAILURES:
            raise Stopped(
                f"Stage {self.name} failed on {sum(last)} of its last {BREAKER_INPUTS} events; last: {telemetry.described(error)}.",
                fix="Its input or its release is wrong; set right what the log shows, then start it again.",
            ) from None


def _whole(incoming: Incoming) -> Raw:
    """A message's value as JSON: itself if it is a JSON object, `{"base64": …}` if not, and where it is if it is too large for either."""
    value = incoming.message.value() or b""
    try:
        is_object = isinstance(msgspec.json.decode(value), dict)
    except Exception:  # whatever these bytes are, they are kept
        is_object = False
    kept = value if is_object else msgspec.json.encode({"base64": base64.b64encode(value).decode()})
    if len(kept) > MAX_MESSAGE_BYTES - OVERHEAD_BYTES:
        kept = msgspec.json.encode({"topic": incoming.topic, "partition": incoming.partition, "offset": incoming.offset})
    return Raw(kept)
