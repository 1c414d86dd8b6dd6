"""Workers and the broker are killed: nothing is lost, nothing comes twice, no state is wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import IsolationLevel, TopicPartition

from hilum import bus
from hilum.events import InstanceAccepted, decode
from hilum.services.process import Child
from hilum.services.runstate import read_run_state
from hilum.settings import S3, Postgres, Settings
from hilum.testing import an_instance, eventually
from tests.conftest import started_alone
from tests.roles import roles

if TYPE_CHECKING:
    from tests.conftest import Log

WORKER = Path(__file__).with_name("counting_worker.py")
STUDIES = 60


def a_worker(slot: str, environment: dict[str, str], log: Path) -> Child:
    """`counting_worker.py` in a slot."""
    return Child(name=slot, argv=[sys.executable, WORKER, slot], log=log, ready=lambda: True, env=environment)


def hanging_transactions(settings: Settings) -> list[tuple[str, int]]:
    """Partitions that consumers cannot read to the end, since a transaction is open on them; the broker's own topics too."""
    admin = bus.admin(settings)
    every = [TopicPartition(name, p) for name, topic in admin.list_topics(timeout=60).topics.items() for p in topic.partitions]
    ends = bus.offsets(admin, every, bus.LATEST)
    stable = bus.offsets(admin, every, bus.LATEST, IsolationLevel.READ_COMMITTED)
    return [of for of in ends if ends[of] != stable[of]]


@pytest.mark.system
def test_kills_of_workers_and_broker_lose_nothing_repeat_nothing_and_spoil_no_state(tmp_path: Path, make_log: type[Log]) -> None:
    elsewhere = Settings(postgres=Postgres(dsn="postgresql://none"), s3=S3(endpoint="http://none"))
    with started_alone(tmp_path / "data", elsewhere) as endpoints:
        settings = endpoints.filled_into(elsewhere)
        log = make_log(settings)
        log.make(bus.state_topic("count"))
        ids: list[str] = []
        arrived: set[bytes] = set()

        def say(count: int) -> None:
            instances = (an_instance(StudyInstanceUID=f"2.25.{(len(ids) + n) % STUDIES}", receipt=str(len(ids) + n)) for n in range(count))
            ids.extend(log.say(*instances))

        workers = [a_worker(slot, endpoints.environment(), tmp_path / f"worker-{slot}.log") for slot in ("1", "2", "3")]
        with roles(*workers) as running, log.following(InstanceAccepted) as following:

            def answered(count: int) -> bool:
                arrived.update(bus.headers_of(message)["ce_causationid"] for message in following())
                return len(arrived) >= count

            running.start("1", "2")
            say(2500)
            eventually(lambda: answered(1000), what="the first events")
            running.kill("1")
            say(2000)
            running.start("3")
            say(1500)
            running.start("1")
            eventually(lambda: answered(4000), what="events after a worker was killed and one added")
            say(2000)
            broker = read_run_state(tmp_path / "data")
            assert broker is not None
            os.kill(next(child.pid for child in broker.children if child.name == "kafka"), signal.SIGKILL)
            say(2000)
            running.kill_and_start("2")
            eventually(lambda: answered(len(ids)), what="every event")
            assert running.end() == {"1": 0, "2": 0, "3": 0}

        eventually(lambda: not hanging_transactions(settings), what="the end of every transaction")
        messages = log.messages(bus.topic_of(settings, InstanceAccepted), len(ids))
        causes = [bus.headers_of(message)["ce_causationid"].decode() for message in messages]
        assert sorted(causes) == sorted(ids)
        numbers = defaultdict(list)
        for message in messages:
            event = decode(InstanceAccepted, message.value() or b"")
            numbers[event.key].append(int(event.findings[0].sentence))
        assert {study: found for study, found in numbers.items() if found != list(range(1, len(found) + 1))} == {}
