from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bench.peers import free_port
from hilum.errors import Misconfigured
from hilum.part10 import Part10
from hilum.runtime.delivery.breaker import FIRST_PAUSE_S, Breaker
from hilum.settings import Settings
from hilum.sink import Later, Outage, Settled, sink_of, sinks_of
from hilum.testing import MemoryStore, SinkContract, a_delivery
from sinks.group import Group
from tests.peers import Pacs, pacs, status


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def there() -> Iterator[list[Pacs]]:
    with ExitStack() as stack:
        yield [stack.enter_context(pacs()) for _ in range(2)]


def node(port: int) -> dict[str, Any]:
    return {"type": "dicom", "host": "127.0.0.1", "port": port, "aet": "PACS"}


def settings_of(*ports: int, **group: Any) -> Settings:
    members = {f"pacs{n}": node(port) for n, port in enumerate(ports)}
    return Settings(destinations=members | {"both": {"type": "group", "members": list(members)} | group})


def deliver(settings: Settings, store: MemoryStore, *uids: str, study: str = "2.25.1") -> list[Settled]:
    """What a session of the group says of each instance."""
    session = sinks_of(settings)["both"].open(settings)
    deliveries = [a_delivery(store, StudyInstanceUID=study, SOPInstanceUID=uid, destination="both") for uid in uids]
    session.begin(deliveries)
    try:
        return [session.deliver(each, Part10(store, each.object)) for each in deliveries]
    finally:
        session.close()


class TestGroup(SinkContract):
    @pytest.fixture
    def settings(self, there: list[Pacs]) -> Settings:
        return settings_of(*(each.port for each in there))

    @pytest.fixture
    def sink(self, settings: Settings) -> Group:
        sink = sinks_of(settings)["both"]
        assert isinstance(sink, Group)
        return sink

    @pytest.fixture
    def broken_sink(self, settings: Settings) -> Group:
        settings.destinations["pacs1"] = node(free_port())
        return Group(members=("pacs0", "pacs1"))

    @pytest.fixture
    def arrived(self, there: list[Pacs]) -> Callable[[str], list[bytes]]:
        return lambda uid: [data for pacs in there for data in dict.fromkeys(pacs.stored.get(uid, []))]


def test_the_first_member_gets_everything_while_it_is_there(there: list[Pacs], store: MemoryStore) -> None:
    settled = deliver(settings_of(*(each.port for each in there)), store, "2.25.7", "2.25.8")

    assert [(each.state, each.member) for each in settled] == [("delivered", "pacs0")] * 2
    assert (len(there[0].stored), len(there[1].stored)) == (2, 0)


def test_the_next_member_gets_it_while_the_first_is_away(there: list[Pacs], store: MemoryStore) -> None:
    settled = deliver(settings_of(free_port(), there[1].port), store, "2.25.7", "2.25.8")

    assert [(each.state, each.member) for each in settled] == [("delivered", "pacs1")] * 2


def test_a_member_that_is_away_is_not_asked_for_each_object(store: MemoryStore) -> None:
    now = 0.0
    deliveries = [a_delivery(store, SOPInstanceUID=f"2.25.{n}", destination="both") for n in range(20)]
    with pacs() as there, pacs(only_called=True, aet="OTHER") as refusing:
        settings = settings_of(refusing.port, there.port)
        session = sinks_of(settings)["both"].open(settings)
        for member in session._members:  # type: ignore[attr-defined]  # a group's
            member.breaker = Breaker(lambda: now)
        session.begin(deliveries)
        for each in deliveries[:-1]:
            session.deliver(each, Part10(store, each.object))
        assert len(refusing.asked) == 1

        now = FIRST_PAUSE_S
        session.deliver(deliveries[-1], Part10(store, deliveries[-1].object))
        session.close()
        assert len(refusing.asked) == 2


def test_studies_are_spread_over_the_members_and_each_stays_together(there: list[Pacs], store: MemoryStore) -> None:
    settings = settings_of(*(each.port for each in there), mode="balance")
    by_study = {
        f"2.25.{n}": {each.member for each in deliver(settings, store, f"2.25.{n}.1", f"2.25.{n}.2", study=f"2.25.{n}")} for n in range(20)
    }

    assert {len(members) for members in by_study.values()} == {1}
    assert {member for members in by_study.values() for member in members} == {"pacs0", "pacs1"}


def test_a_balanced_group_does_without_a_member_that_is_away(there: list[Pacs], store: MemoryStore) -> None:
    settings = settings_of(free_port(), there[1].port, mode="balance")

    assert {each.member for n in range(10) for each in deliver(settings, store, f"2.25.{n}.1", study=f"2.25.{n}")} == {"pacs1"}


def test_if_all_members_are_away_the_group_is(store: MemoryStore) -> None:
    with pytest.raises(Outage, match=r"No member of the group can be used. pacs0: .*; pacs1: "):
        deliver(settings_of(free_port(), free_port()), store, "2.25.7")


def test_what_a_member_says_of_an_object_is_not_asked_of_another(there: list[Pacs], store: MemoryStore) -> None:
    with pacs(status(0xA700)) as full, pytest.raises(Later):
        deliver(settings_of(full.port, there[1].port), store, "2.25.7")

    assert there[1].stored == {}


@pytest.mark.parametrize(
    ("members", "reason"),
    [(["pacs0", "pacs9"], "member-unknown"), (["pacs0", "both"], "member-group"), (["pacs0", "pacs0"], "member-twice")],
)
def test_members_that_cannot_be_are_refused(members: list[str], reason: str) -> None:
    with pytest.raises(Misconfigured) as stop:
        sinks_of(settings_of(1, 2, members=members))

    assert stop.value.reason == reason


def test_a_group_without_members_is_none() -> None:
    with pytest.raises(Misconfigured, match="`members` names no destination"):
        sink_of("both", {"type": "group", "members": []})
