from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import murmur2

from hilum import bus
from hilum.errors import Misconfigured, TryAgain
from hilum.events import EVENTS, InstanceReceived, Topic
from hilum.settings import Kafka, Settings, Site
from hilum.testing import an_instance

if TYPE_CHECKING:
    from tests.conftest import Log

TRACE = b"0af7651916cd43dd8448eb211c80319c"


def test_a_message_has_the_attributes_of_its_event_as_headers_and_no_value_of_the_patient() -> None:
    settings = Settings(site=Site(name="north"), kafka=Kafka(prefix="n."))

    record = bus.Writer(settings, "publish").record(an_instance(PatientID="MRN-7", AccessionNumber="A-7"), "id-1", cause="id-0")

    headers = dict(record.headers)
    assert record.topic == "n.imaging.instance.received.v1"
    assert record.key == b"2.25.1"
    assert {
        name: headers[name] for name in ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_causationid", "ce_phi")
    } == {
        "ce_specversion": b"1.0",
        "ce_id": b"id-1",
        "ce_type": b"imaging.instance.received.v1",
        "ce_source": b"/hilum/north/publish",
        "ce_subject": b"2.25.3",
        "ce_causationid": b"id-0",
        "ce_phi": b"full",
    }
    assert not re.search(rb"MRN-7|A-7|Marked", record.key + b"".join(str(value).encode() for value in headers.values()))


def test_the_time_of_an_event_is_in_utc() -> None:
    assert bus.timestamp(datetime(2024, 2, 29, 12, 30, tzinfo=UTC)) == b"2024-02-29T12:30:00.000Z"


def test_a_trace_goes_on_with_a_new_span_and_its_flags() -> None:
    following = bus.next_traceparent(b"00-" + TRACE + b"-b7ad6b7169203331-00")

    assert re.fullmatch(b"00-" + TRACE + b"-[0-9a-f]{16}-00", following)
    assert b"b7ad6b7169203331" not in following


def test_a_trace_of_a_newer_version_goes_on_with_what_is_known_of_it() -> None:
    following = bus.next_traceparent(b"01-" + TRACE + b"-b7ad6b7169203331-01-more")

    assert re.fullmatch(b"00-" + TRACE + b"-[0-9a-f]{16}-01", following)


@pytest.mark.parametrize(
    "broken",
    [
        None,
        b"",
        b"junk",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"ff-" + TRACE + b"-b7ad6b7169203331-01",
        b"00-" + TRACE + b"-b7ad6b7169203331-01-more",
    ],
)
def test_without_a_valid_trace_a_new_one_begins(broken: bytes | None) -> None:
    following = bus.next_traceparent(broken)

    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", following)
    assert TRACE not in following


@pytest.mark.system
def test_topics_are_made_once_with_what_their_events_declare(log: Log) -> None:
    topics = [*(kind.topic for kind in EVENTS.values()), bus.state_topic("route")]

    assert bus.provision_topics(log.settings, topics) == (len(topics), len(topics))
    assert bus.provision_topics(log.settings, topics) == (len(topics), 0)
    client = bus.admin(log.settings)
    names = {topic.name: log.settings.kafka.prefix + topic.name for topic in topics}
    counts = bus.partition_counts(client, list(names.values()))
    assert counts[names["hilum.route.state.v1"]] == counts[names["imaging.instance.accepted.v1"]] == 4
    asked = {name: ConfigResource(ResourceType.TOPIC, names[name]) for name in ("hilum.route.state.v1", "imaging.instance.accepted.v1")}
    answers = client.describe_configs(list(asked.values()))
    configs = {name: {entry.name: entry.value for entry in answers[resource].result(60).values()} for name, resource in asked.items()}
    assert configs["hilum.route.state.v1"]["cleanup.policy"] == "compact"
    assert int(configs["hilum.route.state.v1"]["segment.bytes"]) < 16 * 2**20
    assert configs["imaging.instance.accepted.v1"]["retention.ms"] == str(30 * 24 * 3600 * 1000)


@pytest.mark.system
def test_a_topic_that_kafka_refuses_is_named_with_what_to_check(log: Log) -> None:
    settings = Settings(kafka=msgspec.structs.replace(log.settings.kafka, replication=7))

    with pytest.raises(
        Misconfigured, match=r"Kafka refused to make topic .*x\.v1 \(INVALID_REPLICATION_FACTOR\)\. Check kafka\.replication"
    ):
        bus.provision_topics(settings, [Topic(name="x.v1", phi="none")])


def test_a_broker_that_is_away_is_an_outage(free_port: int) -> None:
    with pytest.raises(TryAgain, match="Kafka does not answer"):
        bus.provision_topics(Settings(kafka=Kafka(bootstrap=f"127.0.0.1:{free_port}")), [], timeout_s=0.5)


@pytest.mark.system
def test_a_key_has_the_partition_that_every_other_client_computes_for_it(log: Log) -> None:
    log.make()
    studies = [f"2.25.{n}" for n in range(40)]
    log.say(*(an_instance(StudyInstanceUID=study) for study in studies))

    for message in log.messages(bus.topic_of(log.settings, InstanceReceived), len(studies)):
        assert message.partition() == murmur2(message.key() or b"", 4)


@pytest.mark.system
def test_a_consumer_reads_only_what_is_committed(log: Log) -> None:
    log.make()
    topic = bus.topic_of(log.settings, InstanceReceived)
    producer: Producer = bus.producer(log.settings, transactional_id="test", transaction_timeout_ms=60_000)
    producer.init_transactions(60)
    for value, end in ((b"undone", producer.abort_transaction), (b"done", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value, b"k")
        producer.flush(60)
        end(60)

    assert [message.value() for message in log.messages(topic, 1)] == [b"done"]


@pytest.mark.system
def test_the_commit_of_a_transaction_does_not_let_its_messages_linger(log: Log) -> None:
    log.make()
    producer: Producer = bus.producer(log.settings, transactional_id="test", transaction_timeout_ms=60_000)
    producer.init_transactions(60)

    def takes() -> float:
        began = time.monotonic()
        producer.begin_transaction()
        producer.produce(bus.topic_of(log.settings, InstanceReceived), b"said", b"k")
        producer.commit_transaction(60)
        return time.monotonic() - began

    assert min(takes() for _ in range(5)) < bus.TRANSACTION_LINGER_MS / 1000


@pytest.mark.system
def test_a_consumer_without_an_offset_does_not_begin_somewhere_by_itself(log: Log) -> None:
    log.make()
    log.say(an_instance())
    consumer = bus.consumer(log.settings, "nobody")
    consumer.assign([TopicPartition(bus.topic_of(log.settings, InstanceReceived), partition) for partition in range(4)])

    message = consumer.poll(10)

    consumer.close()
    assert message is not None
    assert message.error() is not None


def test_what_a_kafka_client_logs_is_not_written_to_the_stderr_of_a_command() -> None:
    program = "import logging; from hilum import bus; logging.getLogger('hilum.kafka').error('FAIL [consumer-1]: Connection refused')"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stderr == ""


@pytest.mark.system
def test_what_is_there_is_taken_without_waiting_for_more(log: Log) -> None:
    log.make(partitions=1)
    log.say(*(an_instance() for _ in range(3)))
    consumer = bus.consumer(log.settings, "test")
    consumer.assign([TopicPartition(bus.topic_of(log.settings, InstanceReceived), 0, 0)])

    count = 0
    while count < 3:
        count += len(bus.taken(consumer, 100, timeout_s=3600))  # longer than a test may take

    assert bus.taken(consumer, 100, timeout_s=0) == []
    consumer.close()
