"""The role `hl7` with a real broker: from a socket to the log, with Kafka away, and through `kill -9`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

from bench.peers import free_port, wait_for_port
from hilum import bus
from hilum.events import MessageReceived, MessageRefused, MessageValidated
from hilum.journal import Journal
from hilum.settings import S3, Hl7, Kafka, Settings, Spool
from hilum.testing import eventually
from ingest.hl7 import Receiver
from processors.grammar import role as grammar

from .listening import Peer, a_message

if TYPE_CHECKING:
    from tests.conftest import Log

pytestmark = pytest.mark.system
NO_STORE = S3(endpoint="http://127.0.0.1:1", access_key="none", secret_key="none")


def settings_of(log: Log, path: Path, **hl7: object) -> Settings:
    table = msgspec.convert({"port": 0, "history_bytes": 2**20, **hl7}, Hl7)
    return msgspec.structs.replace(log.settings, spool=Spool(path=str(path), min_free_bytes=0), s3=NO_STORE, hl7=table)


def test_what_is_acknowledged_is_told_in_its_order_and_held_against_the_grammar(log: Log, tmp_path: Path) -> None:
    log.make()
    settings = settings_of(log, tmp_path)
    receiver = Receiver(settings)
    with log.running(receiver, grammar(log.settings)):
        eventually(lambda: receiver.port)
        with Peer(receiver.port) as peer:
            for number in range(20):
                assert peer.asked(a_message(f"M{number}")).get("MSA-1") == "AA"
            assert peer.asked("MSH|^^\\&|").get("MSA-1") == "AE"
            assert peer.asked(a_message("BAD", more="FOO|1\r")).get("MSA-1") == "AA"
        received = log.events(MessageReceived, 21)
        [refused] = log.events(MessageRefused, 1)
        [validated] = log.events(MessageValidated, 1)
        eventually(lambda: receiver.health().lag == 0)
        assert receiver.health().ready

    assert [event.control_id for event in received] == [*(f"M{number}" for number in range(20)), "BAD"]
    assert refused.reason == "encoding-characters"
    assert (validated.message_id, validated.findings[0].path) == (received[-1].message_id, "FOO")


def test_with_kafka_away_messages_are_acknowledged(tmp_path: Path) -> None:
    settings = Settings(
        kafka=Kafka(bootstrap="127.0.0.1:1"), spool=Spool(path=str(tmp_path), min_free_bytes=0), s3=NO_STORE, hl7=Hl7(port=0)
    )
    receiver = Receiver(settings)
    from tests.conftest import Running

    running = Running(receiver)
    try:
        eventually(lambda: receiver.port)
        with Peer(receiver.port) as peer:
            assert peer.asked(a_message()).get("MSA-1") == "AA"
        health = eventually(lambda: found if (found := receiver.health()).lag == 1 else None)
        assert health is not None
        assert health.ready
    finally:
        running.end()


def test_a_second_process_waits_until_the_first_has_gone(log: Log, tmp_path: Path) -> None:
    log.make()
    settings = settings_of(log, tmp_path)
    journal = Journal(tmp_path / "hl7", history_bytes=2**20)
    receiver = Receiver(settings)
    with journal.opened() as mine:
        assert mine
        with log.running(receiver):
            eventually(lambda: "waits to take over" in receiver.health().says)
            assert not receiver.health().ready


@contextmanager
def a_process(settings: Settings, data: Path, port: int, **more: str) -> Iterator[psutil.Process]:
    """The role in a process of its own."""
    environment = {
        **os.environ,
        "HILUM_HL7__PORT": str(port),
        "HILUM_SPOOL__MIN_FREE_BYTES": "0",
        **{f"HILUM_KAFKA__{name.upper()}": str(value) for name, value in msgspec.to_builtins(settings.kafka).items()},
        "HILUM_POSTGRES__DSN": "postgresql://none",
        "HILUM_S3__ENDPOINT": "http://127.0.0.1:1",
        "HILUM_S3__ACCESS_KEY": "none",
        "HILUM_S3__SECRET_KEY": "none",
        "HILUM_PROBE__PORT": str(free_port()),
        **more,
    }
    command = [sys.executable, "-m", "hilum.host", "hl7", "--data", str(data)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            wait_for_port(port, 60)
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def test_what_was_acknowledged_before_a_kill_is_told_once_by_its_id(log: Log, tmp_path: Path) -> None:
    log.make()
    acknowledged: list[str] = []
    port = free_port()
    for life in range(4):
        with a_process(log.settings, tmp_path, port) as process, Peer(port) as peer:
            for number in range(200):
                control_id = f"M{life}-{number}"
                assert peer.asked(a_message(control_id)).get("MSA-1") == "AA"
                acknowledged.append(control_id)
                if number == 37 * (life + 1):
                    process.kill()
                    break
    with a_process(log.settings, tmp_path, port), Peer(port) as peer:
        assert peer.asked(a_message("last")).get("MSA-1") == "AA"
        acknowledged.append("last")
        eventually(lambda: "last" in [event.control_id for event in log.events(MessageReceived, 1)])
    told = {event.message_id: event.control_id for event in log.events(MessageReceived, len(acknowledged))}

    assert list(told.values()) == acknowledged


def test_validating_processes_end_with_a_role_that_is_killed(log: Log, tmp_path: Path) -> None:
    log.make()
    port = free_port()
    with a_process(log.settings, tmp_path, port, HILUM_HL7__VALIDATION="strict") as process, Peer(port) as peer:
        assert peer.asked(a_message()).get("MSA-1") == "AA"
        validators = process.children(recursive=True)
        assert validators
        process.kill()
        _, alive = psutil.wait_procs(validators, timeout=60)

    assert alive == []


def test_topics_of_messages_have_one_partition(log: Log) -> None:
    log.make(partitions=4)
    counts = bus.partition_counts(bus.producer(log.settings), [bus.topic_of(log.settings, MessageReceived)])

    assert set(counts.values()) == {1}
