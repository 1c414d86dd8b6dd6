"""The titles of the modality passed on to the PACS: one association has one pair of them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hilum.part10 import Part10
from hilum.settings import Settings
from hilum.sink import Delivery
from hilum.testing import MemoryStore, a_delivery
from sinks.dicom import Dicom
from tests.peers import Pacs, pacs


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def from_modality(store: MemoryStore, number: int, calling: str, called: str = "ARCHIVE") -> Delivery:
    return replace(a_delivery(store, SOPInstanceUID=f"2.25.{number}"), calling_aet=calling, called_aet=called)


def send(there: Pacs, store: MemoryStore, *deliveries: Delivery, **how: str) -> list[tuple[str, str]]:
    """The titles of each association by which these go."""
    session = Dicom(host="127.0.0.1", port=there.port, aet="PACS", calling_aet="HILUM_OUT", **how).open(Settings())  # type: ignore[arg-type]  # by name
    session.begin(deliveries)
    for each in deliveries:
        assert session.deliver(each, Part10(store, each.object)).state == "delivered"
    session.close()
    return there.titles


def test_unless_asked_for_hilum_calls_by_its_own_titles(store: MemoryStore) -> None:
    with pacs() as there:
        assert send(there, store, from_modality(store, 1, "CT1")) == [("HILUM_OUT", "PACS")]


@pytest.mark.parametrize(
    ("how", "titles"),
    [
        ({"calling_title": "sender"}, ("CT1", "PACS")),
        ({"called_title": "sender"}, ("HILUM_OUT", "ARCHIVE")),
        ({"calling_title": "sender", "called_title": "sender"}, ("CT1", "ARCHIVE")),
    ],
)
def test_the_titles_of_the_sender_go_on(store: MemoryStore, how: dict[str, str], titles: tuple[str, str]) -> None:
    with pacs() as there:
        assert send(there, store, from_modality(store, 1, "CT1"), **how) == [titles]


def test_what_came_otherwise_than_by_c_store_goes_by_the_settings(store: MemoryStore) -> None:
    with pacs() as there:
        assert send(there, store, a_delivery(store), calling_title="sender", called_title="sender") == [("HILUM_OUT", "PACS")]


def test_one_association_has_one_title_and_they_come_one_after_the_other(store: MemoryStore) -> None:
    coming = [from_modality(store, n, calling) for n, calling in enumerate(["CT1", "CT1", "MR1", "MR1", "CT1"])]
    with pacs() as there:
        assert [calling for calling, _ in send(there, store, *coming, calling_title="sender")] == ["CT1", "MR1", "CT1"]
        assert len(there.stored) == 5


def test_contexts_are_asked_for_by_those_that_need_them(store: MemoryStore) -> None:
    mr = "1.2.840.10008.5.1.4.1.1.4"
    coming = [from_modality(store, 1, "CT1"), replace(a_delivery(store, SOPInstanceUID="2.25.2", SOPClassUID=mr), calling_aet="MR1")]
    with pacs() as there:
        send(there, store, *coming, calling_title="sender")

    assert [{sop_class for sop_class, _ in asked} for asked in there.asked] == [{coming[0].sop_class_uid}, {mr}]
