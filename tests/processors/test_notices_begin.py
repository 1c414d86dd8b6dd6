"""From when on destinations of messages are told: from their configuration's taking force, whether or not somebody looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hilum import provision as provisioning
from hilum.bundle import Bundle, InForce, since
from hilum.database import connect
from hilum.database.told import begun
from hilum.events import ConfigApplied
from hilum.notices import message_destinations
from hilum.settings import Postgres, Settings
from hilum.testing import MemoryStore
from processors.notices import Notices
from tests.processors.test_notices import Hospital, a_message

NOW = datetime.now(UTC)
RIS = {"type": "hl7", "host": "127.0.0.1", "port": 1, "on": ["message"]}


def a_bundle(hours_ago: int, *names: str) -> Bundle:
    applied = ConfigApplied(
        version=f"v{hours_ago}",
        destinations=dict.fromkeys(names, RIS),
        rules=(),
        actor="",
        why="",
        applied_at=NOW - timedelta(hours=hours_ago),
    )
    return Bundle(applied=applied, offset=-hours_ago)


class Applied(Hospital):
    """A destination that `hilum apply` published; nothing of it is written down yet."""

    def __init__(self, dsn: str, *known: Bundle) -> None:
        super().__init__(dsn)
        own = {name: getattr(self.settings, name) for name in Settings.__struct_fields__}
        in_force = InForce(**own | {"destinations": {"ris": RIS}}, version="v")
        self.notices = Notices(in_force, history=lambda _: known)


@pytest.mark.system
def test_the_first_message_is_told_also_if_it_is_looked_at_much_later(postgres: str) -> None:
    hospital = Hospital(postgres, NOW - timedelta(hours=2), ris=RIS)  # `notices` is down for an hour

    assert hospital.told(a_message(1), a_message(2), at=NOW - timedelta(hours=1)) == [("message", "ris")] * 2
    assert hospital.told(a_message(3), at=NOW - timedelta(hours=3)) == [("message", "ris")] * 2
    hospital.connection.close()


@pytest.mark.system
def test_provisioning_writes_down_when_they_begin_and_once(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(postgres=Postgres(dsn=postgres), destinations={"ris": RIS, "pacs": {"type": "folder", "path": "/nowhere"}})
    monkeypatch.setattr("hilum.bus.provision_topics", lambda _: (0, 0))
    monkeypatch.setattr("hilum.store.open_store", lambda _: MemoryStore())
    provisioning.provision(settings)
    with connect(postgres) as connection:
        first = begun(connection)
        provisioning.provision(settings)
        assert begun(connection) == first
    assert list(first) == ["ris"]
    assert first["ris"] > NOW - timedelta(seconds=1)


@pytest.mark.system
def test_the_role_writes_down_what_nobody_has_while_nothing_happens(postgres: str) -> None:
    hospital = Hospital(postgres)
    hospital.notices = Notices(Settings(postgres=Postgres(dsn=postgres), destinations={"ris": RIS}))
    with hospital.connection.transaction():
        hospital.notices.follow(hospital.connection)

    assert hospital.told(a_message(1)) == [("message", "ris")]
    hospital.connection.close()


@pytest.mark.system
def test_one_that_was_applied_begins_with_the_first_version_that_has_it_without_a_break(postgres: str) -> None:
    hospital = Applied(postgres, a_bundle(9, "ris"), a_bundle(8), a_bundle(5, "ris"), a_bundle(1, "ris", "other"))

    assert hospital.told(a_message(1), at=NOW - timedelta(hours=6)) == []
    assert hospital.told(a_message(2), at=NOW - timedelta(hours=4)) == [("message", "ris")]
    hospital.connection.close()


def test_a_destination_of_no_published_configuration_has_no_moment_of_its_own() -> None:
    known = (a_bundle(3, "ris"), a_bundle(2, "other"))

    assert (since(known, "ris"), since((), "ris")) == (None, None)
    assert since(known, "other") == NOW - timedelta(hours=2)


def test_those_that_take_messages_are_known_also_where_they_are_wrong() -> None:
    tables: dict[str, dict[str, Any]] = {
        "a": {"type": "hl7"},
        "b": {"type": "mpps"},
        "c": {"type": "folder"},
        "d": {},
        "e": {"type": "hl8"},
    }

    assert message_destinations(tables) == ["a", "b"]
