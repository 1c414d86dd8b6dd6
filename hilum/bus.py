"""Kafka as Hilum uses it: clients made from the settings, topics made from `hilum/events.py`, events as CloudEvents.

CloudEvents 1.0, Kafka protocol binding 3.2 (binary content mode): the value is the event as JSON, everything about it is
a header. Trace context (W3C) rides along as `traceparent`.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from hilum.errors import Misconfigured, TryAgain
from hilum.events import EVENTS, Event, Topic, encode
from hilum.settings import Settings

#: So long the messages of a transaction may wait for one another; its commit waits for none of them (librdkafka's pull request 3494).
#: If they go out one by one, as a stage says them, librdkafka's thread polls without a pause and costs half as much as the stage.
TRANSACTION_LINGER_MS = 200

#: Largest value of an event, in bytes. What is larger belongs into the object store, with a reference in the event.
MAX_EVENT_BYTES = 1_000_000
#: Largest message that producers send: an event of the largest size must fit into quarantine, in base64 if need be.
MAX_MESSAGE_BYTES = 2 * 2**20

EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library leaves it untyped
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as above

_log = logging.getLogger("hilum.kafka")
# A service hears it (`hilum.telemetry`); a command says itself what it could not do, and Python would write the line to stderr.
_log.addHandler(logging.NullHandler())

Headers = list[tuple[str, str | bytes | None]]


# Clients


def client(settings: Settings) -> dict[str, Any]:
    """What every Kafka client of Hilum is configured with: where the broker is, and how to speak to it."""
    kafka = settings.kafka
    config = {
        "bootstrap.servers": kafka.bootstrap,
        "client.id": f"hilum-{settings.site.name}",
        "security.protocol": kafka.security_protocol,
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password,
        "ssl.ca.location": kafka.ssl_ca_location,
        "ssl.certificate.location": kafka.ssl_certificate_location,
        "ssl.key.location": kafka.ssl_key_location,
        "reconnect.backoff.max.ms": 1000,  # a broker that is back is found within a second
        "socket.keepalive.enable": True,
        "log.connection.close": False,
        "logger": _log,
    }
    return {name: value for name, value in config.items() if value != ""}


def producer(
    settings: Settings, *, transactional_id: str = "", transaction_timeout_ms: int = 5000, message_timeout_ms: int | None = None
) -> Producer:
    """An idempotent producer; with `transactional_id`, a transactional one. With `message_timeout_ms=0` it never gives a message up.

    Also for a single message: of topics where the last word decides, a repetition that comes after a later word would undo that.

    All producers agree on the partition of a key (`murmur2_random`), also with Java's and with Faust's.
    """
    config = client(settings) | {
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 5,
        "batch.size": 2**20,
        "batch.num.messages": 10_000,
        "queue.buffering.max.kbytes": 64 * 1024,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        # The first request of a transaction is refused while the last one's markers are written (CONCURRENT_TRANSACTIONS).
        "retry.backoff.ms": 20,
    }
    if message_timeout_ms is not None:
        config["message.timeout.ms"] = message_timeout_ms
    if transactional_id:
        config |= {
            "transactional.id": settings.kafka.prefix + transactional_id,
            "transaction.timeout.ms": transaction_timeout_ms,
            "linger.ms": TRANSACTION_LINGER_MS,
        }
    return Producer(config)


def consumer(settings: Settings, group: str, **more: Any) -> Consumer:
    """A consumer that reads only what is committed and commits nothing by itself; `more` holds further configuration.

    It does not start anywhere by itself either: a partition without a valid offset is an error
    (`auto.offset.reset=error`). Whoever assigns a partition says where to begin.
    """
    return Consumer(
        client(settings)
        | {
            "group.id": settings.kafka.prefix + group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "group.protocol": "classic",
            # Range gives partition n of every joined topic to the same worker, so that their state is in one place.
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 1000,  # also how soon a member hears of a rebalance
            "fetch.max.bytes": 4 * 2**20,
            "fetch.message.max.bytes": 2**20,
            "queued.max.messages.kbytes": 8 * 1024,
            "queued.min.messages": 5000,
            "fetch.error.backoff.ms": 50,
            "fetch.queue.backoff.ms": 10,  # 1000 by default: a full queue that was emptied at once then stays empty for long
        }
        | more
    )


def taken(consumer: Consumer, count: int, timeout_s: float) -> list[Message]:
    """Up to `count` messages (events of the consumer among them) as soon as there is one; none if none comes within `timeout_s`.

    `Consumer.consume` waits its time out as long as there are fewer.
    """
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *consumer.consume(count - 1, 0)]


def admin(settings: Settings) -> AdminClient:
    """A client for topics, offsets and groups."""
    return AdminClient(client(settings))


# Topics


def topic_of(settings: Settings, event: type[Event] | Event) -> str:
    """The name of the topic on which events of this class are."""
    return settings.kafka.prefix + event.topic.name


#: Processors whose rows tell of patients, and whose input has one partition, as then their changelog must.
_OF_PATIENTS = ("orders", "match")


def state_topic(processor: str) -> Topic:
    """The changelog of what `processor` remembers: compacted, in small segments, so that restoring reads little twice."""
    of_patients = processor in _OF_PATIENTS
    return Topic(
        name=f"hilum.{processor}.state.v1",
        phi="full" if of_patients else "limited",
        partitions=1 if of_patients else 0,
        cleanup="compact",
    )


def declared_topics() -> list[Topic]:
    """Every topic of this release: one for each event type, and the changelog of each stateful processor."""
    from hilum.roles import stateful_processors

    return [kind.topic for kind in EVENTS.values()] + [state_topic(name) for name in stateful_processors()]


def provision_topics(settings: Settings, topics: Iterable[Topic] | None = None, *, timeout_s: float = 20.0) -> tuple[int, int]:
    """Make the topics that are missing; existing ones are left as they are. Returns how many there are, and how many were made.

    Partitions and copies are those of the settings; where these say 0, a cluster of one broker gets 4 partitions and one copy
    of each, a larger one 12 and up to 3. Raises `TryAgain` while the broker does not answer, `Misconfigured` if it refuses.
    """
    wanted = {settings.kafka.prefix + topic.name: topic for topic in (declared_topics() if topics is None else topics)}
    client = admin(settings)
    try:
        cluster = client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise away(error) from None
    one = len(cluster.brokers) == 1
    partitions = settings.kafka.partitions or (4 if one else 12)
    replication = settings.kafka.replication or min(3, len(cluster.brokers))
    new = [
        NewTopic(name, topic.partitions or partitions, replication, config=_topic_config(topic, replication))
        for name, topic in wanted.items()
        if name not in cluster.topics
    ]
    made = 0
    for name, future in client.create_topics(new, request_timeout=timeout_s).items() if new else ():
        try:
            future.result()
            made += 1
        except KafkaException as error:
            refused: KafkaError = error.args[0]
            if refused.code() == KafkaError.TOPIC_ALREADY_EXISTS:  # another `hilum provision` was quicker
                continue
            if refused.retriable() or refused.code() in (KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT):
                raise away(error) from None
            raise Misconfigured(
                "topic-refused",
                f"Kafka refused to make topic {name} ({refused.name()}).",
                fix="Check kafka.replication against the number of brokers, and this user's right to create topics.",
            ) from None
    _wait_for_leaders(client, [topic.topic for topic in new], timeout_s)
    return len(wanted), made


def _wait_for_leaders(client: AdminClient, topics: Sequence[str], timeout_s: float) -> None:
    """Return once each partition of topics that were just made answers: a broker needs some time for their folders. Raises `TryAgain`."""
    end = time.monotonic() + timeout_s
    while topics:
        try:
            counts = partition_counts(client, topics)
            offsets(client, [TopicPartition(topic, partition) for topic, count in counts.items() for partition in range(count)], LATEST)
            return
        except (KafkaException, TryAgain, Misconfigured) as error:
            if time.monotonic() > end:
                raise away(error) if isinstance(error, KafkaException) else error from None
        time.sleep(0.05)  # nothing tells when a broker is ready for a partition


def _topic_config(topic: Topic, replication: int) -> dict[str, str]:
    config = {
        "cleanup.policy": topic.cleanup,
        "min.insync.replicas": "2" if replication > 2 else "1",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    if topic.cleanup == "compact":
        return config | {
            "segment.bytes": str(8 * 2**20),
            "segment.ms": str(3600 * 1000),
            "min.cleanable.dirty.ratio": "0.2",
        }
    return config | {"retention.ms": str(topic.retention_ms)}


def partition_counts(cluster_of: Consumer | Producer | AdminClient, topics: Sequence[str], *, timeout_s: float = 10.0) -> dict[str, int]:
    """How many partitions each of `topics` has. Raises `TryAgain` while the broker does not answer, `Misconfigured` if one is missing."""
    try:
        known = cluster_of.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise away(error) from None
    counts = {}
    for name in topics:
        found = known.get(name)
        if found is None or found.error is not None:
            raise Misconfigured("topic-missing", f"Topic {name} does not exist.", fix="Make it with `hilum provision`.")
        counts[name] = len(found.partitions)
    return counts


def offsets(
    admin: AdminClient,
    partitions: Sequence[TopicPartition],
    which: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    *,
    timeout_s: float = 5.0,
) -> dict[tuple[str, int], int]:
    """The `EARLIEST` or `LATEST` offset of each partition; with `READ_COMMITTED`, the latest is the last stable one.

    Raises `TryAgain` while the broker does not answer.
    """
    if not partitions:
        return {}
    answers = admin.list_offsets(dict.fromkeys(partitions, which), isolation_level=isolation, request_timeout=timeout_s)
    try:
        found = {(of.topic, of.partition): answer.result().offset for of, answer in answers.items()}
    except KafkaException as error:
        raise away(error) from None
    if any(offset < 0 for offset in found.values()):  # what the client says, without an error, of a broker that has just died
        raise TryAgain("Kafka does not say where its partitions begin and end.", fix="Check that the broker runs.")
    return found


def away(error: KafkaException) -> TryAgain:
    """The outage that `error` tells of, in words."""
    return TryAgain(f"Kafka does not answer ({error.args[0].name()}).", fix="Check that the broker runs and kafka.bootstrap names it.")


# Events as messages


class Record(NamedTuple):
    """A message to be produced."""

    topic: str
    value: bytes
    key: bytes
    headers: Headers


class Writer:
    """Turns what one stage says into messages with every header that Hilum's messages have."""

    def __init__(self, settings: Settings, stage: str) -> None:
        self._settings = settings
        self._stage = stage
        self._known: dict[type[Event], tuple[str, Headers]] = {}

    def record(self, event: Event, id: str, *, cause: str = "", trace: bytes | None = None, time: bytes | None = None) -> Record:  # noqa: A002  # CloudEvents' name
        """The message that says `event`.

        `id` must be the same whenever this fact is said again; `cause` is the id of the event it follows from, `trace` that
        event's `traceparent`, `time` when the fact came to be (`timestamp()`; now, if not given).
        """
        kind = type(event)
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = (topic_of(self._settings, kind), self._constant_headers(kind))
        topic, constant = known
        headers: Headers = [
            *constant,
            ("ce_id", id.encode()),
            ("ce_time", time or timestamp()),
            ("ce_subject", event.subject.encode()),
            ("traceparent", next_traceparent(trace)),
        ]
        if cause:
            headers.append(("ce_causationid", cause.encode()))
        return Record(topic, encode(event), event.key.encode(), headers)

    def _constant_headers(self, kind: type[Event]) -> Headers:
        return [
            ("ce_specversion", b"1.0"),
            ("ce_type", kind.topic.name.encode()),
            ("ce_source", f"/hilum/{self._settings.site.name}/{self._stage}".encode()),
            ("ce_phi", kind.topic.phi.encode()),
            ("ce_configversion", self._settings.config_version.encode()),
            ("content-type", b"application/json"),
        ]


def headers_of(message: Message) -> dict[str, bytes]:
    """The headers of a message by name; the last one where a name is repeated."""
    found = message.headers()
    return dict(found) if found else {}  # type: ignore[arg-type]  # a consumed header's value is bytes; None only if somebody sent null


def timestamp(moment: datetime | None = None) -> bytes:
    """`ce_time`: RFC 3339 in UTC."""
    return (moment or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_random_bits = random.Random().getrandbits  # noqa: S311  # span ids must differ, not be secret; seeded by the system


def next_traceparent(incoming: bytes | None) -> bytes:
    """The `traceparent` (W3C Trace Context 3.2) of what follows from `incoming`: its trace, or a new one, and a new span.

    Of a newer version of the header, which may be longer, the part that this version knows counts.
    """
    if incoming and _TRACEPARENT.match(incoming) and (len(incoming) == 55 or (incoming[:2] != b"00" and incoming[55:56] == b"-")):
        return b"00%b%016x%b" % (incoming[2:36], _random_bits(64) or 1, incoming[52:55])
    return b"00-%032x-%016x-01" % (_random_bits(128) or 1, _random_bits(64) or 1)


class Log(Protocol):
    """What is needed of a Kafka producer (`confluent_kafka.Producer`)."""

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Callable[[Any, Any], None]) -> None:
        """Send without waiting; `on_delivery(error, message)` is called from `poll`. Raises `BufferError` and `KafkaException`."""
        ...

    def poll(self, timeout: float) -> int:
        """Call what is due."""
        ...

    def flush(self, timeout: float) -> int:
        """Wait for acknowledgements; how many are still missing."""
        ...
