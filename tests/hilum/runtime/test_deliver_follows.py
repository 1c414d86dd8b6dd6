"""Destinations come, change, pause and go while the role `deliver` runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.peers import free_port
from hilum import bus, desired
from hilum.bundle import version_of
from hilum.database import connect
from hilum.database.queues import outages
from hilum.deid_sections import Deid
from hilum.events import ConfigApplied, Limits, ResourceWanted
from hilum.runtime.deliver import Deliver
from hilum.settings import S3, Postgres, Settings
from hilum.sink import Delivery
from hilum.store import open_store
from hilum.testing import a_delivery, eventually
from tests.conftest import Log
from tests.ledger import enter
from tests.peers import Pacs, pacs

pytestmark = pytest.mark.system


@pytest.fixture
def settings(log: Log, postgres: str, s3: S3) -> Settings:
    log.make()
    settings = msgspec.structs.replace(log.settings, postgres=Postgres(dsn=postgres), s3=s3)
    open_store(settings).ensure_bucket("hilum-originals")
    return settings


@pytest.fixture
def there() -> Iterator[Pacs]:
    with pacs() as running:
        yield running


def node(port: int) -> dict[str, Any]:
    return {"type": "dicom", "host": "127.0.0.1", "port": port, "aet": "PACS"}


def waiting(settings: Settings, *destinations: str, count: int = 3) -> list[Delivery]:
    """New deliveries, in the ledger."""
    store = open_store(settings)
    study = f"2.25.{uuid.uuid4().int}"
    made = [
        a_delivery(store, StudyInstanceUID=study, SOPInstanceUID=f"2.25.{uuid.uuid4().int}", destination=name)
        for name in destinations
        for _ in range(count)
    ]
    enter(settings.postgres.dsn, *made)
    return made


def delivered(settings: Settings, deliveries: list[Delivery]) -> bool:
    with connect(settings.postgres.dsn) as connection:
        [(count,)] = connection.execute(
            "SELECT count(*) FROM delivery WHERE state = 'delivered' AND delivery_id = ANY(%s)",
            ([each.delivery_id for each in deliveries],),
        ).fetchall()
    return bool(count == len(deliveries))


def apply(log: Log, destinations: dict[str, dict[str, Any]]) -> None:
    """Publish a configuration, as `hilum apply` does."""
    version = version_of(destinations, ())
    log.say(ConfigApplied(version=version, destinations=destinations, rules=(), actor="me", applied_at=datetime.now(UTC)))


def test_a_destination_that_is_added_by_hand_is_delivered_to_until_it_is_removed(settings: Settings, log: Log, there: Pacs) -> None:
    first = waiting(settings, "pacs")
    role = Deliver(settings, measure_s=0.5)
    with log.running(role):
        eventually(lambda: "3 deliveries waiting for pacs, which the settings do not have" in role.health().says)
        desired.change(settings, desired.destination("pacs"), table=node(there.port))
        eventually(lambda: delivered(settings, first))

        desired.change(settings, desired.destination("pacs"), table=None)
        eventually(lambda: role.health().says == "has no destination")
        second = waiting(settings, "pacs")
        eventually(lambda: "3 deliveries waiting for pacs" in role.health().says)
        assert not delivered(settings, second)


def test_a_configuration_that_is_applied_starts_changes_and_retires_workers(settings: Settings, log: Log, there: Pacs) -> None:
    role = Deliver(settings)
    with log.running(role), pacs() as other:
        apply(log, {"pacs": node(there.port)})
        first = waiting(settings, "pacs")
        eventually(lambda: delivered(settings, first))

        apply(log, {"pacs": node(other.port)})
        eventually(lambda: waiting(settings, "pacs", count=1) and other.stored)

        apply(log, {"archive": {"type": "archive"}})
        eventually(lambda: role.health().says.startswith("delivers to archive") or "waiting for pacs" in role.health().says)
        last = waiting(settings, "archive")
        eventually(lambda: delivered(settings, last))


def test_a_pause_outlives_the_process_and_stops_no_other_destination(settings: Settings, log: Log, there: Pacs) -> None:
    settings = msgspec.structs.replace(settings, destinations={"pacs": node(there.port), "archive": {"type": "archive"}})
    desired.change(settings, desired.destination("pacs"), paused=True, why="moved until Monday")
    for _ in range(2):
        to_archive, to_pacs = waiting(settings, "archive"), waiting(settings, "pacs")
        role = Deliver(settings)
        with log.running(role):
            eventually(partial(delivered, settings, to_archive))
            assert "pacs waits: paused" in role.health().says
        assert not delivered(settings, to_pacs)

    with log.running(Deliver(settings)):
        desired.change(settings, desired.destination("pacs"), paused=False)
        eventually(lambda: delivered(settings, to_pacs))


def test_a_held_study_goes_nowhere_until_it_is_released(settings: Settings, log: Log, there: Pacs) -> None:
    settings = msgspec.structs.replace(settings, destinations={"pacs": node(there.port)})
    held, free = waiting(settings, "pacs"), waiting(settings, "pacs")
    desired.change(settings, desired.study(held[0].study_instance_uid), held=True)
    with log.running(Deliver(settings)):
        eventually(lambda: delivered(settings, free))
        assert not delivered(settings, held)
        desired.change(settings, desired.study(held[0].study_instance_uid), held=False)
        eventually(lambda: delivered(settings, held))


def test_a_destination_that_cannot_work_stops_no_other(settings: Settings, log: Log, there: Pacs) -> None:
    settings = msgspec.structs.replace(settings, destinations={"pacs": node(there.port)})
    log.say(
        ResourceWanted(resource="destination/odd", table={"type": "dicon"}, by="me", since=datetime.now(UTC)),
        ResourceWanted(resource="destination/both", table={"type": "group", "members": ["gone"]}, by="me", since=datetime.now(UTC)),
    )
    role = Deliver(settings)
    with log.running(role):
        made = waiting(settings, "pacs")
        eventually(lambda: delivered(settings, made))
        assert "odd cannot work: destinations.odd: there is no destination type 'dicon'." in role.health().says
        assert "both cannot work: destinations.both: there is no destination 'gone'." in role.health().says


def test_without_its_key_a_destination_does_not_begin_and_commands_are_told_why(
    settings: Settings, log: Log, there: Pacs, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    settings = msgspec.structs.replace(
        settings, destinations={"study": node(there.port) | {"policy": "basic"}}, deid=Deid(key_path=str(key), policies="/nonexistent")
    )
    role = Deliver(settings)
    with log.running(role):
        told = eventually(lambda: outages(settings.postgres.dsn))["study"]
        assert str(key) in told.says
        assert f"study cannot work: {told.says}" in role.health().says


def test_a_group_follows_its_members(settings: Settings, log: Log, there: Pacs) -> None:
    destinations = {"pacs1": node(free_port()), "both": {"type": "group", "members": ["pacs1", "pacs2"]}, "pacs2": node(there.port)}
    settings = msgspec.structs.replace(settings, destinations=destinations)
    made = waiting(settings, "both")
    with log.running(Deliver(settings)):
        eventually(lambda: delivered(settings, made))

    with connect(settings.postgres.dsn) as connection:
        assert connection.execute("SELECT DISTINCT member FROM delivery").fetchall() == [("pacs2",)]


def test_a_member_that_is_paused_gets_nothing_through_its_group(settings: Settings, log: Log, there: Pacs) -> None:
    with pacs() as first:
        destinations = {"pacs1": node(first.port), "pacs2": node(there.port), "both": {"type": "group", "members": ["pacs1", "pacs2"]}}
        settings = msgspec.structs.replace(settings, destinations=destinations)
        desired.change(settings, desired.destination("pacs1"), paused=True)
        made = waiting(settings, "both")
        role = Deliver(settings)
        with log.running(role):
            eventually(lambda: delivered(settings, made))
            assert first.stored == {}
            desired.change(settings, desired.destination("pacs2"), paused=True)
            eventually(lambda: "both waits: paused" in role.health().says)


class TestDesiredState:
    def test_the_last_word_on_each_resource_holds(self, settings: Settings) -> None:
        desired.change(settings, desired.destination("pacs"), paused=True)
        desired.change(settings, desired.destination("pacs"), limits=Limits(objects_per_s=5.0))
        desired.change(settings, desired.study("2.25.1"), held=True)

        found = desired.read(settings)

        assert (found.destinations["pacs"].paused, found.destinations["pacs"].limits) == (True, Limits(objects_per_s=5.0))
        assert set(found.held) == {"2.25.1"}

    def test_what_wants_nothing_leaves_nothing(self, settings: Settings, log: Log) -> None:
        desired.change(settings, desired.destination("pacs"), paused=True)
        desired.change(settings, desired.destination("pacs"), paused=False)

        assert desired.read(settings).destinations == {}
        assert [message.value() for message in log.messages(bus.topic_of(settings, ResourceWanted), 2)][1] is None

    def test_what_cannot_be_read_is_passed_over(self, settings: Settings, log: Log) -> None:
        log.put(bus.topic_of(settings, ResourceWanted), b"destination/odd", b"{")
        log.flush()
        desired.change(settings, desired.destination("pacs"), paused=True)

        assert set(desired.read(settings).destinations) == {"pacs"}
