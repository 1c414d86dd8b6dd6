"""The runtime: events/s of one process through a stateless and a stateful processor, at 2 KB and 12 KB, from 10,000 to 500,000 events."""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psutil
from confluent_kafka import TopicPartition
from pydantic import BaseModel, ConfigDict, Field
from pydicom._dicom_dict import DicomDictionary
from pydicom.data import get_testdata_file

from bench.report import Report
from hilum import bus, telemetry
from hilum.events import EVENTS, Finding, InstanceAccepted, InstanceReceived, decode, encode
from hilum.host import spare_the_garbage_collector
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.processor import Memory, Processor, processor
from hilum.services import embedded
from hilum.settings import S3, Log, Postgres, Settings
from hilum.testing import an_instance

FILLING = ("CS", "DA", "LO", "SH", "TM", "UI")
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@processor
def validate(event: InstanceReceived) -> InstanceAccepted:
    """What the stage `validate` costs: the event and its header decoded, a few attributes read, the event encoded again."""
    missing = [keyword for keyword in IDENTIFIERS if not event.instance.header.text(keyword)]
    return InstanceAccepted.following(event, [Finding(code="identifier-missing", sentence=keyword) for keyword in missing])


class Seen(msgspec.Struct):
    receipt: str
    sha256: str


class Remember:
    """What the stage `route` costs beside its rules: one row for each instance."""

    name = "remember"
    State = Seen

    def handle(self, event: InstanceReceived, memory: Memory[Seen]) -> InstanceAccepted | None:
        instance = event.instance
        if memory.get(instance.sop_instance_uid) is not None:
            return None
        memory.put(instance.sop_instance_uid, Seen(instance.receipt, instance.object.sha256))
        return InstanceAccepted.following(event)


def an_event_of(size_bytes: int) -> InstanceReceived:
    """A `received` event of about this size: as many attributes as fit, those of a real CT first, then made-up ones."""
    real: Any = get_testdata_file("CT_small.dcm", read=True)
    header = {element.keyword: str(element.value) for element in real if element.VR in FILLING and element.VM == 1 and element.keyword}
    filling = (entry[4] for entry in DicomDictionary.values() if entry[0] in FILLING and entry[1] == "1" and entry[4] not in header)
    header |= {keyword: f"{keyword} as the protocol {number * 7919 % 100_003} has it" for number, keyword in enumerate(filling)}
    fewest, most = 0, len(header)
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fits = len(encode(an_instance(**dict(islice(header.items(), middle))))) <= size_bytes
        fewest, most = (middle, most) if fits else (fewest, middle - 1)
    return an_instance(**dict(islice(header.items(), fewest)))


def produce(settings: Settings, count: int, size_bytes: int) -> int:
    """Put `count` different events on the input topic; the size of one's value."""
    producer = bus.producer(settings)
    writer = bus.Writer(settings, "bench")
    event = an_event_of(size_bytes)
    old = event.instance.sop_instance_uid.encode()
    record = writer.record(event, "0")
    for number in range(count):
        sop = f"{number:0{len(old)}d}".encode()
        headers = [*record.headers, ("ce_id", b"event-%d" % number)]
        while True:
            try:
                producer.produce(record.topic, record.value.replace(old, sop), b"2.25.%d" % (number % 997), headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return len(record.value)


def consumed(stage: str) -> float:
    """How many events the stage has dealt with in this process."""
    [metric] = telemetry.EVENTS_CONSUMED.collect()
    return sum(sample.value for sample in metric.samples if sample.name.endswith("_total") and sample.labels["stage"] == stage)


@contextmanager
def running(settings: Settings, processor: Processor) -> Iterator[ProcessorRole]:
    stop = threading.Event()
    role = ProcessorRole(settings, processor, slot="")
    thread = threading.Thread(target=role.run, args=(stop,))
    thread.start()
    try:
        yield role
    finally:
        stop.set()
        thread.join()


def wait_for(condition: Callable[[], bool]) -> float:
    """The moment when it came true."""
    while not condition():
        time.sleep(0.02)
    return time.monotonic()


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def broker() -> psutil.Process:
    return next(child for child in psutil.Process().children(recursive=True) if child.name() == "java")


def own_topics(settings: Settings) -> Settings:
    """The settings with a prefix of their own, whose topics are made."""
    kafka = msgspec.structs.replace(settings.kafka, prefix=f"bench{time.time_ns()}.")
    settings = msgspec.structs.replace(settings, kafka=kafka)
    bus.provision_topics(settings, [*(kind.topic for kind in EVENTS.values()), bus.state_topic("remember")])
    return settings


def one_run(settings: Settings, processor: Processor, count: int, size_bytes: int) -> dict[str, Any]:
    """Events first, then the role: from its first commit to its last."""
    settings = own_topics(settings)
    value_bytes = produce(settings, count, size_bytes)
    before = consumed(processor.name)
    java = broker()
    rest = psutil.Process().memory_info().rss  # this process has made the events, too
    with running(settings, processor):
        begun = wait_for(lambda: consumed(processor.name) > before)
        first, cpu, java_cpu = consumed(processor.name) - before, cpu_seconds(), sum(java.cpu_times()[:2])
        ended = wait_for(lambda: consumed(processor.name) - before >= count)
        cpu, java_cpu = cpu_seconds() - cpu, sum(java.cpu_times()[:2]) - java_cpu
        memory = psutil.Process().memory_info().rss
    counted = count - first
    return {
        "processor": processor.name,
        "value_bytes": value_bytes,
        "events": count,
        "events_per_s": round(counted / (ended - begun)),
        "process_cpu_us_per_event": round(cpu / counted * 1e6, 1),
        "broker_cpu_us_per_event": round(java_cpu / counted * 1e6, 1),
        "rss_mb_added": round((memory - rest) / 2**20),
    }


def latency(settings: Settings, times: int) -> dict[str, Any]:
    """From an event's production to its successor being readable, one event at a time."""
    settings = own_topics(settings)
    producer, writer, consumer = bus.producer(settings), bus.Writer(settings, "bench"), bus.consumer(settings, "bench")
    topic = bus.topic_of(settings, InstanceAccepted)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(bus.partition_counts(consumer, [topic])[topic])])
    event, took = an_event_of(2048), []
    with running(settings, validate) as role:
        wait_for(lambda: role.health().ready)
        for number in range(times):
            record = writer.record(event, str(number))
            began = time.monotonic()
            producer.produce(record.topic, record.value, record.key, headers=record.headers)
            producer.flush()
            while consumer.poll(1) is None:
                pass
            took.append((time.monotonic() - began) * 1000)
    consumer.close()
    ordered = sorted(took)
    return {"events": times, "median_ms": round(ordered[times // 2], 1), "p95_ms": round(ordered[int(times * 0.95)], 1)}


def idle(settings: Settings, roles: int, seconds: float) -> dict[str, Any]:
    """What processes cost that wait: some roles in one process, as under `hilum up`."""
    settings = own_topics(settings)
    before = psutil.Process().memory_info().rss
    contexts = [running(settings, type("Idle", (Remember,), {"name": "remember"})()) for _ in range(roles)]
    entered = [context.__enter__() for context in contexts]
    wait_for(lambda: all(role.health().ready for role in entered))
    time.sleep(2)
    cpu, at = cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    used = (cpu_seconds() - cpu) / (time.monotonic() - at)
    result = {
        "roles": roles,
        "cpu_percent": round(100 * used, 2),
        "rss_mb": round(psutil.Process().memory_info().rss / 2**20),
        "rss_mb_added": round((psutil.Process().memory_info().rss - before) / 2**20),
        "threads": psutil.Process().num_threads(),
    }
    for context in contexts:
        context.__exit__(None, None, None)
    return result


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Object(_Model):
    bucket: str
    key: str
    size_bytes: int
    sha256: str


class _Source(_Model):
    adapter: str
    calling_aet: str = ""
    called_aet: str = ""
    peer: str = ""
    association: str = ""


class _Instance(_Model):
    receipt: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    object: _Object
    source: _Source
    received_at: datetime
    announced_sop_class_uid: str = ""
    announced_sop_instance_uid: str = ""
    header: dict[str, Any] = Field(default_factory=dict)
    header_cut: tuple[str, ...] = ()
    unreadable: str = ""


class _Received(_Model):
    instance: _Instance


def codecs(size_bytes: int) -> list[tuple[str, float, float]]:
    """(library, microseconds to decode with the header, microseconds to encode) of one event."""
    value = encode(an_event_of(size_bytes))

    def cost(call: Callable[[], object], times: int = 3000) -> float:
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(times):
                call()
            best = min(best, (time.perf_counter() - began) / times)
        return round(best * 1e6, 1)

    event = decode(InstanceReceived, value)
    model = _Received.model_validate_json(value)
    return [
        ("msgspec", cost(lambda: decode(InstanceReceived, value).instance.header), cost(lambda: encode(event))),
        ("pydantic", cost(lambda: _Received.model_validate_json(value)), cost(lambda: model.model_dump_json())),
    ]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench runtime", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--most", type=int, default=500_000, help="events of the longest run at 2 KB")
    parser.add_argument("--quick", action="store_true", help="one short run of each kind; writes no result")
    options = parser.parse_args(list(arguments))
    telemetry.configure(Settings(log=Log(level="ERROR")))
    spare_the_garbage_collector()  # as every process of Hilum does
    plan: list[tuple[Processor, int, int]] = [(validate, 10_000, 2048), (validate, 10_000, 12_288), (Remember(), 10_000, 2048)]
    if not options.quick:
        plan = [(validate, count, 2048) for count in (10_000, 100_000, options.most)]
        plan += [(validate, count, 12_288) for count in (10_000, 100_000)]
        plan += [(Remember(), 100_000, 2048)]
    servers = Settings(postgres=Postgres(dsn="postgresql://none"), s3=S3(endpoint="http://none"))
    with (
        tempfile.TemporaryDirectory(prefix="hilum-bench-", dir=os.environ.get("TMPDIR")) as folder,
        embedded(Path(folder), servers) as endpoints,
    ):
        settings = endpoints.filled_into(servers)
        one_run(settings, validate, 5000, 2048)  # the JVM warms up
        waiting = idle(settings, 4, 5.0 if options.quick else 20.0)
        one_by_one = latency(settings, 20 if options.quick else 200)
        runs = [one_run(settings, *each) for each in plan]
    sizes = codecs(12_288)
    report = Report("runtime", "The runtime: events/s of one process")
    report.table(
        "Throughput, broker with log.flush.interval.messages=1 on the same machine", list(runs[0]), [list(run.values()) for run in runs]
    )
    report.table("Four stateful roles of one process at rest", list(waiting), [list(waiting.values())])
    report.table("One event at a time, from its production to its successor being readable", list(one_by_one), [list(one_by_one.values())])
    report.table("One `received` event of 12 KB, header included", ["library", "decode µs", "encode µs"], sizes)
    if options.json:
        options.json.write_bytes(
            msgspec.json.format(msgspec.json.encode({"runs": runs, "idle": waiting, "latency": one_by_one, "codecs": sizes}))
        )
    if not options.quick:
        report.write()


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
