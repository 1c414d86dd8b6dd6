"""Deliveries that come with the titles of their senders, for a destination that wants these."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hilum import bus
from hilum.database import connect
from hilum.runtime.delivery.queue import Queue
from hilum.settings import Settings
from hilum.sink import Delivery, sinks_of
from hilum.testing import MemoryStore, a_delivery
from tests.ledger import enter

pytestmark = pytest.mark.system


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(params=[False, True], ids=["one by one", "by study"])
def queue(postgres: str, request: pytest.FixtureRequest) -> Iterator[Queue]:
    queue = Queue(postgres, "pacs", "w1", bus.Writer(Settings(), "deliver"), grouped=request.param, titled=True)
    yield queue
    queue.close()


def received(dsn: str, delivery: Delivery, calling: str, adapter: str = "dicom") -> None:
    """The index has read that the object of a delivery came in."""
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO receipt (receipt, sop_instance_uid, adapter, calling_aet, called_aet, received)"
            " VALUES (%s, %s, %s, %s, 'HILUM', true)",
            (delivery.receipt, delivery.sop_instance_uid, adapter, calling),
        )


def test_they_are_those_of_the_association_on_which_it_came(postgres: str, store: MemoryStore, queue: Queue) -> None:
    delivery = a_delivery(store)
    enter(postgres, delivery)
    received(postgres, delivery, "CT1")

    [claimed] = queue.claim(10)

    assert (claimed.calling_aet, claimed.called_aet) == ("CT1", "HILUM")


def test_what_came_otherwise_has_none(postgres: str, store: MemoryStore, queue: Queue) -> None:
    delivery = a_delivery(store)
    enter(postgres, delivery)
    received(postgres, delivery, "a-key", adapter="stow")

    [claimed] = queue.claim(10)

    assert (claimed.calling_aet, claimed.called_aet) == ("", "")


def test_a_delivery_whose_sender_the_index_has_yet_to_learn_waits_and_holds_up_no_other(
    postgres: str, store: MemoryStore, queue: Queue
) -> None:
    early = a_delivery(store, SOPInstanceUID="2.25.10", StudyInstanceUID="2.25.101")
    other = a_delivery(store, SOPInstanceUID="2.25.11", StudyInstanceUID="2.25.102")
    enter(postgres, early, other)
    received(postgres, other, "CT1")

    assert [each.sop_instance_uid for each in queue.claim(10)] == ["2.25.11"]

    received(postgres, early, "CT2")
    assert [each.calling_aet for each in queue.claim(10)] == ["CT2"]


def test_those_of_one_sender_come_together(postgres: str, store: MemoryStore, queue: Queue) -> None:
    coming = [a_delivery(store, SOPInstanceUID=f"2.25.{n}") for n in range(10, 16)]
    for n, each in enumerate(coming):
        enter(postgres, each)
        received(postgres, each, f"CT{n % 2}")

    assert [each.calling_aet for each in queue.claim(10)] == ["CT0"] * 3 + ["CT1"] * 3


def test_a_group_wants_them_if_one_of_its_members_does() -> None:
    node = {"type": "dicom", "host": "192.0.2.1", "port": 104, "aet": "PACS"}
    group = {"type": "group", "members": ["one", "other"]}
    plain = Settings(destinations={"one": node, "other": node, "both": group})
    passing = Settings(destinations={"one": node, "other": node | {"calling_title": "sender"}, "both": group})

    assert not sinks_of(plain)["both"].titled_in(plain)
    assert sinks_of(passing)["both"].titled_in(passing)
