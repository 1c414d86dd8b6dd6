"""What people want of destinations and studies, on the compacted topic `control.state.v1`: paused, held, limited, added by hand.

It survives restarts and outlives every retention: the last word on each resource stays. `change` says a new one, `Follower` hears
of them for as long as a process lives.
"""

from __future__ import annotations

import getpass
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from msgspec import Struct
from msgspec.structs import replace

from hilum import bundle, bus, telemetry
from hilum.errors import HilumError, TryAgain
from hilum.events import Limits, ResourceWanted, decode
from hilum.settings import Settings

#: How long a command waits for the broker.
ANSWERS_WITHIN_S = 15.0
_AGAIN_S = 1.0

log = telemetry.logger("desired")


class Desired(Struct, frozen=True, kw_only=True):
    """Everything that is wanted at one moment."""

    #: By the destination's name.
    destinations: Mapping[str, ResourceWanted] = {}
    #: By StudyInstanceUID, those that are held.
    held: Mapping[str, ResourceWanted] = {}

    @property
    def added(self) -> dict[str, dict[str, Any]]:
        """The tables of destinations that were added by hand, by name."""
        return {name: wanted.table for name, wanted in self.destinations.items() if wanted.table is not None}

    def tables(self, settings: Settings) -> dict[str, dict[str, Any]]:
        """The tables of all destinations: those of the settings, and those added by hand. The settings win."""
        return {**self.added, **settings.destinations}


def destination(name: str) -> str:
    """The resource of a destination."""
    return f"destination/{name}"


def study(uid: str) -> str:
    """The resource of a study."""
    return f"study/{uid}"


def read(settings: Settings, *, timeout_s: float = ANSWERS_WITHIN_S) -> Desired:
    """What is wanted now. Raises `TryAgain` while the broker does not answer, `Misconfigured` if the topic was never made."""
    with _reader(settings, timeout_s, end_ms=20) as reader:
        deadline = time.monotonic() + timeout_s
        while not reader.read(0.2):
            if time.monotonic() > deadline:
                raise TryAgain("Kafka does not answer.", fix="Check that the broker runs.")
        return reader.desired()


def destinations(settings: Settings) -> Settings:
    """`settings` with the destinations that are there now: also those that were applied and those that were added by hand.

    Raises `TryAgain`, and `Misconfigured` if the topics were never made or this release cannot read what was applied.
    """
    in_force = bundle.in_force(settings, bundle.current(settings))
    return replace(in_force, destinations=read(settings).tables(in_force))


def with_added(settings: Settings, added: Mapping[str, dict[str, Any]]) -> Settings:
    """`settings` with the destinations that were added by hand, under their own version: that says what was applied."""
    if not added:
        return settings
    own = {name: getattr(settings, name) for name in Settings.__struct_fields__}
    tables = {**added, **settings.destinations}
    if isinstance(settings, bundle.InForce):
        return replace(settings, destinations=tables)
    return bundle.InForce(**own | {"destinations": tables}, version=settings.config_version)


def change(settings: Settings, resource: str, **changes: Any) -> ResourceWanted:
    """Want `changes` of a resource, in addition to what was wanted of it; how it is wanted now. Raises as `read`.

    Of two changes of one resource at the same moment, the later one wins as a whole.
    """
    desired = read(settings)
    kind, _, name = resource.partition("/")
    before = (desired.destinations if kind == "destination" else desired.held).get(name)
    now = datetime.now(UTC)
    wanted = replace(before or ResourceWanted(resource=resource, by="", since=now), by=_who(), since=now, **changes)
    _say(settings, wanted)
    return wanted


def account_name() -> str:
    """Who gives commands here: the account of this process."""
    return _who()


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as containers have them
        return "unknown"


def _says_nothing(wanted: ResourceWanted) -> bool:
    return not (wanted.paused or wanted.held or wanted.limits not in (None, Limits()) or wanted.table is not None)


def _say(settings: Settings, wanted: ResourceWanted) -> None:
    record = bus.Writer(settings, "control").record(wanted, str(uuid.uuid4()))
    value = None if _says_nothing(wanted) else record.value
    failed: list[KafkaError] = []
    producer = bus.producer(settings)

    def answered(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(error)

    producer.produce(record.topic, value, record.key, headers=record.headers, on_delivery=answered)
    if producer.flush(ANSWERS_WITHIN_S) or failed:
        producer.purge()
        raise TryAgain("Kafka did not acknowledge what was said; nothing may have changed.", fix="Look at it, and say it again.")


class _Reader:
    """Reads the topic from its beginning on, and keeps the last word on each resource."""

    def __init__(self, settings: Settings, consumer: Consumer, timeout_s: float) -> None:
        self._consumer = consumer
        self._topic = bus.topic_of(settings, ResourceWanted)
        bus.partition_counts(consumer, [self._topic], timeout_s=timeout_s)
        consumer.assign([TopicPartition(self._topic, 0, 0)])
        self._wanted: dict[str, ResourceWanted] = {}
        self._at_end = False

    def read(self, timeout_s: float) -> bool:
        """Read what there is, for up to `timeout_s` if nothing comes. Whether the end was reached. Raises `KafkaException`."""
        for message in bus.taken(self._consumer, 500, timeout_s):
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                self._at_end = True
                continue
            key = (message.key() or b"").decode("utf-8", "replace")
            try:
                value = message.value()
                if value is None:
                    self._wanted.pop(key, None)
                else:
                    self._wanted[key] = decode(ResourceWanted, value)
            except msgspec.MsgspecError:
                log.warning("control_state_unreadable", offset=message.offset())
        return self._at_end

    def desired(self) -> Desired:
        parts: dict[str, dict[str, ResourceWanted]] = {"destination": {}, "study": {}}
        for resource, wanted in self._wanted.items():
            kind, _, name = resource.partition("/")
            if kind in parts:
                parts[kind][name] = wanted
        return Desired(destinations=parts["destination"], held={uid: each for uid, each in parts["study"].items() if each.held})


@contextmanager
def _reader(settings: Settings, timeout_s: float = ANSWERS_WITHIN_S, end_ms: int = 500) -> Iterator[_Reader]:
    """`end_ms`: how long the broker waits at the end of the topic whether more comes, before it says that this is the end."""
    consumer = bus.consumer(settings, "hilum-desired", **{"enable.partition.eof": True, "fetch.wait.max.ms": end_ms})
    try:
        yield _Reader(settings, consumer, timeout_s)
    except KafkaException as error:
        raise bus.away(error) from None
    finally:
        consumer.close()


class Taking:
    """What a role takes: the configuration in force, with the destinations that were added by hand. For one thread."""

    def __init__(self, following: bundle.Following, follower: Follower) -> None:
        self._following = following
        self._follower = follower
        self._base: Settings | None = None
        self._added: Mapping[str, dict[str, Any]] = {}

    def take(self, apply: Callable[[Settings], None]) -> bool:
        """As `hilum.bundle.Following.take`; also when a destination was added by hand or removed.

        Raises `TryAgain` also until it is known which were.
        """
        desired = self._follower.now
        if desired is None:
            raise TryAgain(f"Which destinations were added by hand is not known: {self._follower.says or 'not read yet'}", after_s=0.2)

        def applied(base: Settings) -> None:
            apply(with_added(base, desired.added))
            self._base, self._added = base, desired.added

        if self._following.take(applied):
            return True
        if self._base is None or desired.added == self._added:
            return False
        applied(self._base)
        return True


class Follower:
    """Hears what is wanted, in a thread of its own. While the broker is away, what was heard last holds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: What is wanted; None until the topic was read once: nobody knows yet what is paused.
        self.now: Desired | None = None
        #: What it waits for, in words; empty if for nothing.
        self.says = ""

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop` is set."""
        while not stop.is_set():
            try:
                with _reader(self._settings) as reader:
                    while not stop.is_set():
                        if reader.read(0.25):
                            now = reader.desired()
                            if now != self.now:
                                self.now = now
                            self.says = ""
            except HilumError as error:
                if not self.says:
                    log.warning("control_state_away", says=str(error))
                self.says = str(error)
                stop.wait(_AGAIN_S)
