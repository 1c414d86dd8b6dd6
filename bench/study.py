"""A study of 10,000 instances that goes to 12 destinations: what it costs as it comes, and how long its decisions take."""

# ruff: noqa: ARG002  # rules and an index as the stage asks them

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
from confluent_kafka import TopicPartition

from bench.report import Report
from hilum import bus, telemetry
from hilum.database.known import Decided, IndexedStudy, Noted, Person
from hilum.dicom import Header
from hilum.events import (
    EVENTS,
    Event,
    Instance,
    InstanceAccepted,
    InstanceQuarantined,
    InstanceRouted,
    ObjectRef,
    StudyChanged,
    decode,
)
from hilum.host import spare_the_garbage_collector
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.stage import Stage
from hilum.runtime.state import Changes, Codec, PartitionState, milliseconds
from hilum.services import embedded
from hilum.settings import S3, Completeness, Log, Postgres, Settings
from hilum.testing import Clock, an_instance
from processors.route import Route
from processors.route.contents import Comparison
from processors.route.facts import Matched, StudyFacts, StudyRoute
from processors.route.rows import Row

BATCH = 200


class Rules:
    """One rule that sends whole studies to `destinations`."""

    tags: frozenset[str] = frozenset()
    any_of_study = True

    def __init__(self, destinations: Sequence[str]) -> None:
        self._routes = (StudyRoute(rule="whole-study", to=tuple(destinations)),)

    def matched(self, event: InstanceAccepted, header: Header | None = None) -> Matched:
        return Matched(destinations={}, study_rules=("whole-study",))

    def of_study(self, facts: StudyFacts, matched: Mapping[str, int]) -> tuple[StudyRoute, ...]:
        return self._routes


class Empty:
    """An index that knows nothing, at once; and no store."""

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Decided]:
        return {}

    def studies(self, study_instance_uids: Sequence[str]) -> Mapping[str, IndexedStudy]:
        return {}

    def unpublished(self) -> datetime | None:
        return None

    def withdrawn(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Noted]:
        return {}

    def studies_made_here(self, study_instance_uids: Sequence[str]) -> Collection[str]:
        return ()

    def made_here(self, sop_instance_uids: Sequence[str]) -> Collection[str]:
        return ()

    def failing(self, sop_instance_uids: Sequence[str], config_version: str, limit: int) -> Mapping[str, InstanceAccepted]:
        return {}

    def failing_of(self, study_instance_uids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {}

    def persons(self, ids: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Person]:
        return {}

    def of_study(self, study_instance_uid: str, after: str, limit: int) -> Sequence[str]:
        return []

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        raise AssertionError("no header of the bench is cut, so that the store is never asked for one")

    def compare(self, first: ObjectRef, second: ObjectRef) -> Comparison:
        raise AssertionError("no instance of the bench comes with a second digest, so that none is compared")


class Fixed(Route):
    """The stage with the rules that it was made with: to follow configurations takes PostgreSQL."""

    configure = None  # type: ignore[assignment]  # see above


def settings_of(destinations: int, idle_s: float) -> Settings:
    tables = {f"destination-{number:02}": {"type": "archive"} for number in range(destinations)}
    return Settings(destinations=tables, completeness=Completeness(idle_s=idle_s))


def an_arrival(number: int, **more: Any) -> InstanceAccepted:
    sop = f"1.3.12.2.1107.5.1.4.99999.30000024022907{number:09}.{number}"
    received = an_instance(
        SOPInstanceUID=sop,
        SeriesInstanceUID=f"2.25.2{number // 500}",
        receipt=f"0190e2c4-1d2e-7f00-8000-{number:012}",
        sha256=f"{number:064x}",
        key=f"2.25.1/2.25.2{number // 500}/{sop}/{number:064x}.dcm",
        InstanceNumber=number,
        **more,
    )
    return InstanceAccepted.following(received)


def engine(instances: int, destinations: int) -> dict[str, Any]:
    """The stage alone: events decoded, rows and decisions encoded, as in a worker, without Kafka."""
    clock, settings = Clock(), settings_of(destinations, 60)
    route = Route(Rules(list(settings.destinations)), Empty(), Empty(), "bench", contents=Empty(), settings=settings, now=clock)
    stage, state, codec = Stage(settings, route, clock), PartitionState(0), Codec(Row)
    values = [msgspec.json.encode(an_arrival(number, received_at=clock())) for number in range(instances)]
    changelog = 0
    began = time.perf_counter()
    for at in range(0, instances, BATCH):
        events = [decode(InstanceAccepted, value) for value in values[at : at + BATCH]]
        route.prepare(events)
        changes = Changes(state, codec)
        for event in events:
            for said in route.handle(event, changes):
                msgspec.json.encode(said)
            changes.keep()
        changelog += sum(len(value or b"") for _, value in changes.items())
        changes.commit()
    arrived = time.perf_counter() - began
    rows = sum(map(len, state.rows.values()))
    clock.forward(minutes=2)
    steps, decisions = [], 0
    while (timers := state.due(milliseconds(clock()), 500)) and timers[0][1].startswith("study/"):
        began = time.perf_counter()
        changes = Changes(state, codec)
        route.prepare_due([key for _, key in timers])
        for due, key in timers:
            decisions += sum(b"deliver" in record.value for record in stage.due(key, due, changes))
        changes.commit()
        steps.append(time.perf_counter() - began)
        clock.moment += timedelta(milliseconds=2)
    return {
        "instances": instances,
        "destinations": destinations,
        "arrival µs": round(arrived / instances * 1e6, 1),
        "changelog bytes an instance": round(changelog / instances),
        "row bytes": round(rows / instances),
        "steps": len(steps),
        "longest step ms": round(max(steps) * 1e3, 1),
        "all steps s": round(sum(steps), 2),
        "deliveries/s": round(decisions * destinations / sum(steps)),
    }


def on_kafka(settings: Settings, instances: int, destinations: int) -> dict[str, Any]:
    """The same in a worker on Kafka: from the first event to the last, and from the study's completion to its last decision."""
    settings = msgspec.structs.replace(
        settings_of(destinations, 3.0),
        kafka=msgspec.structs.replace(settings.kafka, prefix=f"bench{time.time_ns()}."),
    )
    bus.provision_topics(settings, [*(kind.topic for kind in EVENTS.values()), bus.state_topic("route")])
    producer, writer = bus.producer(settings), bus.Writer(settings, "bench")
    route = Fixed(Rules(list(settings.destinations)), Empty(), Empty(), "bench", contents=Empty(), settings=settings)
    stop, role = threading.Event(), ProcessorRole(settings, route, slot="")
    thread = threading.Thread(target=role.run, args=(stop,))
    consumers = {kind: follow(settings, kind) for kind in (InstanceRouted, StudyChanged)}
    thread.start()
    while not role.health().ready:
        time.sleep(0.05)
    began, cpu = time.monotonic(), sum(psutil.Process().cpu_times()[:2])
    now = Clock(route._now())
    for number in range(instances):
        record = writer.record(an_arrival(number, received_at=now()), f"event-{number}")
        producer.produce(record.topic, record.value, record.key, headers=record.headers)
        producer.poll(0)
    producer.flush()
    arrived_at = take(consumers[InstanceRouted], instances)
    completed_at = take(consumers[StudyChanged], 2)
    written_at = take(consumers[InstanceRouted], instances)
    cpu = sum(psutil.Process().cpu_times()[:2]) - cpu
    quarantined = bus.topic_of(settings, InstanceQuarantined)
    assert all(end == 0 for end in bus.offsets(bus.admin(settings), [TopicPartition(quarantined, 0)], bus.LATEST).values())
    stop.set()
    thread.join()
    return {
        "instances": instances,
        "destinations": destinations,
        "arrivals/s": round(instances / (arrived_at - began)),
        "from complete to the last decision s": round(written_at - completed_at, 2),
        "deliveries/s": round(instances * destinations / (written_at - completed_at)),
        "process CPU s": round(cpu, 1),
        "RSS MB": round(psutil.Process().memory_info().rss / 2**20),
    }


def follow(settings: Settings, kind: type[Event]) -> Any:
    consumer = bus.consumer(settings, f"bench-{kind.__name__}")
    topic = bus.topic_of(settings, kind)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(bus.partition_counts(consumer, [topic])[topic])])
    return consumer


def take(consumer: Any, count: int) -> float:
    """The moment when so many more events are there."""
    while count > 0:
        count -= sum(message.error() is None for message in consumer.consume(count, 0.2))
    return time.monotonic()


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench study", description=__doc__)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--destinations", type=int, default=12)
    parser.add_argument("--engine", action="store_true", help="without Kafka; writes no result")
    options = parser.parse_args(list(arguments))
    telemetry.configure(Settings(log=Log(level="ERROR")))
    spare_the_garbage_collector()
    report = Report("study", "A large study: its rows, its completion, its decisions")
    counts = [(options.instances // 10, options.destinations), (options.instances, options.destinations)]
    alone = [engine(*each) for each in counts]
    report.table(f"The stage alone, {BATCH} events in a transaction", list(alone[0]), [list(run.values()) for run in alone])
    if options.engine:
        return
    servers = Settings(postgres=Postgres(dsn="postgresql://none"), s3=S3(endpoint="http://none"))
    with (
        tempfile.TemporaryDirectory(prefix="hilum-bench-", dir=os.environ.get("TMPDIR")) as folder,
        embedded(Path(folder), servers) as endpoints,
    ):
        settings = endpoints.filled_into(servers)
        on_kafka(settings, 500, 2)  # the JVM warms up
        runs = [on_kafka(settings, *each) for each in counts]
    report.table("A worker on Kafka, producer and readers in the same process", list(runs[0]), [list(run.values()) for run in runs])
    report.write()


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
