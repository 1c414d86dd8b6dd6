"""What a peer does not take at all, or not in this kind: an outage, or as setting and profile say."""

from __future__ import annotations

import msgspec
import pytest
from pydicom.uid import EnhancedSRStorage

from hilum.part10 import Part10
from hilum.profiles import GENERIC, profile
from hilum.settings import Settings
from hilum.sink import Delivery, Later, Outage, Park, Settled, sink_of
from hilum.testing import MemoryStore, a_delivery
from tests.peers import CT, EXPLICIT, IMPLICIT, MR, Pacs, pacs
from tests.sinks.test_dicom import sink_for


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def deliver(there: Pacs, store: MemoryStore, delivery: Delivery, **settings: object) -> Settled:
    session = sink_for(there.port, **settings).open(Settings())
    try:
        session.begin([delivery])
        return session.deliver(delivery, Part10(store, delivery.object))
    finally:
        session.close()


@pytest.mark.parametrize("refused_contexts", ["person", "permanent", "retry"])
def test_a_peer_that_takes_no_context_at_all_is_an_outage_whatever_the_setting(store: MemoryStore, refused_contexts: str) -> None:
    with pacs(contexts=[]) as there, pytest.raises(Outage, match=f"no presentation context: not SOP class {CT}, and none of 13") as away:
        deliver(there, store, a_delivery(store), refused_contexts=refused_contexts)

    assert "licence" in away.value.fix


def test_a_kind_that_is_not_taken_beside_others_waits_for_a_person_with_what_was_proposed_and_why(store: MemoryStore) -> None:
    with pacs(contexts=[(MR, IMPLICIT)]) as there, pytest.raises(Park) as parked:
        deliver(there, store, a_delivery(store))

    assert parked.value.sentence.startswith(f"PACS does not take SOP class {CT} in transfer syntax {EXPLICIT}, ")
    assert parked.value.sentence.endswith(": this SOP class is not supported.")


@pytest.mark.parametrize(("refused_contexts", "ends"), [("person", Park), ("retry", Later), ("permanent", None)])
def test_a_kind_that_is_not_taken_ends_as_setting_or_profile_say(
    store: MemoryStore, refused_contexts: str, ends: type[Exception] | None
) -> None:
    with pacs(contexts=[(MR, IMPLICIT)]) as there:
        if ends is None:
            assert deliver(there, store, a_delivery(store), refused_contexts=refused_contexts).state == "rejected"
        else:
            with pytest.raises(ends):
                deliver(there, store, a_delivery(store), refused_contexts=refused_contexts)
    table = {"type": "dicom", "host": "h", "port": 104, "aet": "PACS", "profile": GENERIC}
    assert msgspec.to_builtins(sink_of("pacs", table))["refused_contexts"] == profile(GENERIC).fact("dicom", "refused_contexts") == "person"


def test_one_kind_that_is_not_taken_is_no_outage_also_if_the_study_has_no_other(store: MemoryStore) -> None:
    with pacs(contexts=[(MR, IMPLICIT)]) as there, pytest.raises(Park):
        deliver(there, store, a_delivery(store, SOPClassUID=str(EnhancedSRStorage)))
