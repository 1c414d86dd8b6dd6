"""The ledger beside what a destination says it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from hilum import bus
from hilum.database.deliveries import Selection
from hilum.errors import Misconfigured
from hilum.runtime.delivery.queue import Queue
from hilum.settings import Settings
from hilum.sink import Expected, Settled, Sink
from hilum.testing import MemoryStore
from hilum.verify import Verified, verify
from tests.ledger import DELIVERED, Scripted, enter, some

pytestmark = pytest.mark.system

SINK = Scripted(answer=lambda *_: DELIVERED)


def settle(dsn: str, *outcomes: Settled) -> None:
    queue = Queue(dsn, "pacs", f"w{datetime.now(UTC)}", bus.Writer(Settings(), "deliver"))
    queue.record(list(zip(queue.claim(len(outcomes)), outcomes, strict=True)))
    queue.close()


def verified(dsn: str, *there: str, selection: Selection | None = None) -> tuple[Verified, list[tuple[str, set[str]]]]:
    """What comes of asking a destination that has these, and what it was asked."""
    asked: list[tuple[str, set[str]]] = []

    def ask(_: Sink, study: str, expected: list[Expected]) -> frozenset[str]:
        asked.append((study, {each.series_instance_uid for each in expected}))
        return frozenset(there)

    return verify(dsn, selection or Selection(destination="pacs"), {"pacs": SINK, "pacs2": SINK}, ask), asked


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_what_was_delivered_and_is_not_there_is_named(postgres: str, store: MemoryStore) -> None:
    enter(postgres, *some(store, 3, "2.25.1"), *some(store, 2, "2.25.2"))
    settle(postgres, *[DELIVERED] * 5)

    found, asked = verified(postgres, "2.25.1.0", "2.25.1.2", "2.25.2.0", "2.25.2.1", "2.25.9.9")

    assert (found.studies, found.objects, found.there) == (2, 5, 4)
    assert [(each.study_instance_uid, each.sop_instance_uid) for each in found.missing] == [("2.25.1", "2.25.1.1")]
    assert asked == [("2.25.1", {"2.25.2"}), ("2.25.2", {"2.25.2"})]


def test_what_has_not_arrived_is_not_missed(postgres: str, store: MemoryStore) -> None:
    enter(postgres, *some(store, 4))
    settle(postgres, DELIVERED, Settled(state="already_there"), Settled(state="rejected"))

    found, _ = verified(postgres)

    assert {each.sop_instance_uid for each in found.missing} == {"2.25.1.0", "2.25.1.1"}


def test_only_what_was_chosen_is_asked_for(postgres: str, store: MemoryStore) -> None:
    enter(postgres, *some(store, 1, "2.25.1"), *some(store, 1, "2.25.2"))
    settle(postgres, DELIVERED, DELIVERED)

    assert verified(postgres, selection=Selection(destination="pacs", study="2.25.2"))[0].objects == 1
    assert verified(postgres, selection=Selection(destination="pacs", since=datetime.now(UTC) + timedelta(hours=1)))[0].objects == 0


def test_of_a_group_the_member_that_got_it_is_asked(postgres: str, store: MemoryStore) -> None:
    enter(postgres, *some(store, 2))
    settle(postgres, Settled(state="delivered", member="pacs2"), Settled(state="delivered", member="pacs2"))

    assert {each.destination for each in verified(postgres)[0].missing} == {"pacs2"}


def test_what_was_sent_under_another_uid_is_asked_for_under_that(postgres: str, store: MemoryStore) -> None:
    enter(postgres, *some(store, 2))
    settle(postgres, Settled(state="delivered", sent_as="2.25.77"), Settled(state="delivered", sent_as="2.25.78"))

    found, _ = verified(postgres, "2.25.77")

    assert [each.sop_instance_uid for each in found.missing] == ["2.25.1.1"]


def test_what_was_sent_in_two_forms_is_there_and_not_proven(postgres: str, store: MemoryStore) -> None:
    first, *_ = some(store, 2)
    corrected = replace(first, delivery_id="corrected", object=replace(first.object, sha256="c" * 64))
    enter(postgres, *some(store, 2))
    settle(postgres, DELIVERED, DELIVERED)
    enter(postgres, corrected)
    settle(postgres, DELIVERED)

    found, _ = verified(postgres, "2.25.1.0", "2.25.1.1")

    assert found.missing == ()
    assert [(each.delivery_id, each.sop_instance_uid) for each in found.unproven] == [("corrected", "2.25.1.0")]


def test_a_member_that_is_gone_is_said(postgres: str, store: MemoryStore) -> None:
    enter(postgres, *some(store, 1))
    settle(postgres, Settled(state="delivered", member="pacs9"))

    with pytest.raises(Misconfigured, match="pacs9 got objects of the group pacs, and is gone"):
        verified(postgres)


def test_a_type_of_destination_that_cannot_be_asked_says_so() -> None:
    with pytest.raises(Misconfigured, match="cannot be asked what it has"):
        SINK.holdings(Settings(), "2.25.1", ())
