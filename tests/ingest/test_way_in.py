"""From the wire into the store and onto the log, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import pydicom.data
import pytest
from confluent_kafka import TopicPartition
from pydicom.filereader import read_file_meta_info
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]  # made at import

from bench.wire import RawSender
from hilum import bus
from hilum.events import InstanceReceived, decode
from hilum.part10 import data_set_offset
from hilum.roles import find_role
from hilum.settings import Dicom, Settings
from hilum.spool import Arrival, Spool
from hilum.store import open_store
from hilum.testing import encoded, eventually

pytestmark = pytest.mark.system


@pytest.fixture
def hilum(site: Settings) -> Settings:
    """Where modalities can send."""
    return msgspec.structs.replace(site, dicom=Dicom(port=0))


@contextmanager
def running(name: str, settings: Settings) -> Iterator[object]:
    """A role for as long as the block lasts."""
    role, stop = find_role(name, settings), threading.Event()
    thread = threading.Thread(target=role.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: role.health().ready, what=f"{name} is ready")
        yield role
    finally:
        stop.set()
        thread.join(60)


def messages(settings: Settings) -> Callable[[], list[tuple[str, InstanceReceived]]]:
    """Reads the topic from its beginning: each call gives (event id, event) of all that came so far."""
    consumer = bus.consumer(settings, "test")
    topic = bus.topic_of(settings, InstanceReceived)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(bus.partition_counts(consumer, [topic])[topic])])
    found: list[tuple[str, InstanceReceived]] = []

    def read() -> list[tuple[str, InstanceReceived]]:
        for message in consumer.consume(10_000, 0.2):
            assert message.error() is None
            found.append((bus.headers_of(message)["ce_id"].decode(), decode(InstanceReceived, message.value() or b"")))
        return found

    return read


def stored(settings: Settings, event: InstanceReceived) -> bytes:
    """The data set in the store."""
    part10 = open_store(settings).get(event.instance.object.bucket, event.instance.object.key)
    return part10[data_set_offset(part10) :]


def test_every_sample_comes_into_the_store_byte_for_byte_with_its_header_on_the_log(hilum: Settings) -> None:
    samples = [
        (str(meta.TransferSyntaxUID), whole[data_set_offset(whole) :])
        for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*"))
        if path.is_file() and (whole := path.read_bytes())[128:132] == b"DICM"
        if "TransferSyntaxUID" in (meta := read_file_meta_info(path))
    ]
    assert len(samples) > 60
    with running("dicom", hilum) as receiver, running("publish", hilum):
        sender = RawSender(receiver.port, [(CTImageStorage, syntax) for syntax in sorted({syntax for syntax, _ in samples})])  # type: ignore[attr-defined]  # the receiver's own
        for n, (syntax, data_set) in enumerate(samples):
            assert sender.send(CTImageStorage, f"2.25.{n}", syntax, data_set) in (0x0000, 0xB007)
        sender.release()
        eventually(lambda: not Spool.of(hilum).waiting())

    read = messages(hilum)
    eventually(lambda: len(read()) == len(samples))
    by_announcement = {event.instance.announced_sop_instance_uid: event for _, event in read()}
    for n, (syntax, data_set) in enumerate(samples):
        event = by_announcement[f"2.25.{n}"]
        assert stored(hilum, event) == data_set
        assert event.instance.object.sha256 == sha256(data_set).hexdigest()
        assert event.instance.transfer_syntax_uid == syntax
        assert event.instance.unreadable == ""


def fewer(spool: Spool, count: int) -> bool:
    """Whether at most `count` objects wait, or none."""
    return len(spool.waiting()) <= max(count, 0)


PUBLISH = """
import json, sys, threading
import msgspec
from hilum.roles import find_role
from hilum.settings import Settings
find_role("publish", msgspec.json.decode(sys.stdin.readline(), type=Settings)).run(threading.Event())
"""


def test_a_publisher_that_is_killed_again_and_again_loses_nothing_and_repeats_only_the_same(hilum: Settings) -> None:
    spool = Spool.of(hilum)
    receipts: list[str] = []
    common = {"SOPClassUID": CTImageStorage, "StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}

    def more(count: int) -> None:
        for _ in range(count):
            uid = f"2.25.{len(receipts)}"
            incoming = spool.open(Arrival(adapter="dicom", transfer_syntax_uid="1.2.840.10008.1.2.1", sop_instance_uid=uid))
            incoming.write(encoded(common | {"SOPInstanceUID": uid}))
            receipts.append(incoming.commit())

    for end in (40, 40, 40, 0):  # objects that may be left when it is killed
        more(60)
        with subprocess.Popen([sys.executable, "-c", PUBLISH], stdin=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdin is not None
            publisher.stdin.write(json.dumps(msgspec.to_builtins(hilum)) + "\n")
            publisher.stdin.flush()
            eventually(partial(fewer, spool, end), what="it publishes")
            publisher.kill()

    read = messages(hilum)
    eventually(lambda: {event_id for event_id, _ in read()} >= set(receipts))
    said: dict[str, InstanceReceived] = {}
    for event_id, event in read():
        assert said.setdefault(event_id, event).instance.object == event.instance.object
    assert set(said) == set(receipts)
    for event in said.values():
        assert sha256(stored(hilum, event)).hexdigest() == event.instance.object.sha256
