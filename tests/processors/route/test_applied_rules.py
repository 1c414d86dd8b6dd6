"""Rules are applied and rolled back while traffic flows: every event says by which version, and nothing is lost or doubled."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest

from hilum import bus
from hilum.applying import publish, wait
from hilum.candidate import Candidate
from hilum.database.known import IndexedInstances
from hilum.events import InstanceAccepted, InstanceRouted, decode
from hilum.runtime.loop import ProcessorRole
from hilum.sections import Roles
from hilum.settings import Postgres, Settings
from hilum.testing import MemoryStore, an_instance, eventually
from processors.route import Route, StoredHeaders
from processors.route.rules import Rules

if TYPE_CHECKING:
    from tests.conftest import Log

pytestmark = pytest.mark.system

BASE = {"archive": {"type": "archive"}, "pacs": {"type": "archive"}}
BOTH = Candidate(destinations=BASE, rules=({"name": "all", "to": ["archive", "pacs"]},))
ONE = Candidate(destinations=BASE, rules=({"name": "all", "to": ["archive"]},))


def arrivals(since: int, count: int) -> list[InstanceAccepted]:
    return [
        InstanceAccepted.following(an_instance(SOPInstanceUID=f"2.25.{n}", StudyInstanceUID=f"2.25.9.{n % 20}", receipt=f"r{n}"))
        for n in range(since, since + count)
    ]


@pytest.fixture
def settings(log: Log, postgres: str) -> Settings:
    log.make(bus.state_topic("route"), partitions=2)
    return msgspec.structs.replace(log.settings, postgres=Postgres(dsn=postgres), roles=Roles(processes=("route",)))


def a_worker(settings: Settings, store: MemoryStore, slot: str) -> ProcessorRole:
    route = Route(Rules.of(settings), IndexedInstances(settings), StoredHeaders(store), settings.config_version)
    return ProcessorRole(settings, route, slot=slot)


def test_versions_are_on_every_decision_and_nothing_is_lost_or_doubled(log: Log, settings: Settings) -> None:
    first = publish(settings, ONE)
    said: list[int] = []
    done = threading.Event()

    def traffic() -> None:
        while not done.is_set():
            log.say(*arrivals(len(said) * 50, 50))
            said.append(50)

    store = MemoryStore()
    with log.running(a_worker(settings, store, "0"), a_worker(settings, store, "1")):
        flowing = threading.Thread(target=traffic)
        flowing.start()
        try:
            assert wait_for_both(settings, first.version)
            for candidate in (BOTH, ONE, BOTH):
                publish(settings, candidate)
                assert wait_for_both(settings, candidate.version)
                marked = len(said)
                eventually(lambda mark=marked: len(said) > mark + 2)  # type: ignore[misc]  # binds the loop's mark
        finally:
            done.set()
            flowing.join()
        messages = log.messages(bus.topic_of(settings, InstanceRouted), sum(said))

    events = [decode(InstanceRouted, message.value() or b"") for message in messages]
    assert Counter(event.receipt for event in events) == Counter(f"r{n}" for n in range(sum(said)))
    goes = {(event.config_version, tuple(delivery.destination for delivery in event.deliveries)) for event in events}
    assert goes == {(ONE.version, ("archive",)), (BOTH.version, ("archive", "pacs"))}
    assert all(bus.headers_of(m)["ce_configversion"].decode() == event.config_version for m, event in zip(messages, events, strict=True))


def wait_for_both(settings: Settings, version: str) -> bool:
    return eventually(lambda: len((waited := wait(settings, version, 20.0)).running) == 2 and not waited.stragglers)


def test_a_worker_that_starts_decides_nothing_by_an_older_configuration(log: Log, settings: Settings) -> None:
    log.say(*arrivals(0, 20))
    for candidate in (ONE, BOTH, ONE):
        publish(settings, candidate)

    with log.running(a_worker(settings, MemoryStore(), "0")):
        events = log.events(InstanceRouted, 20)

    assert {event.config_version for event in events} == {ONE.version}
