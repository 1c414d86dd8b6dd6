from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from hilum.database.known import Decided
from hilum.dicom import Header
from hilum.errors import Quarantine, Reason
from hilum.events import Instance, InstanceAccepted, InstanceRouted, delivery_id_for
from hilum.settings import Rule
from hilum.testing import FakeMemory, an_instance, dicom_json
from processors.route import REMEMBERED, Route
from processors.route.rules import Rules

#: The ids of the deliveries of the object aaaa… under 1.2.3 to both destinations.
BOTH = tuple(delivery_id_for("a" * 64, "1.2.3", destination) for destination in ("archive", "pacs"))


class Index:
    """What the index knows, as a dict."""

    def __init__(self, rows: Mapping[str, Decided] | None = None) -> None:
        self.rows = dict(rows or {})

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Decided]:
        return {uid: self.rows[uid] for uid in sop_instance_uids if uid in self.rows}


class Stored:
    """What a stored object's header says."""

    def __init__(self, **attributes: str) -> None:
        self.attributes = attributes

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        return Header(dicom_json(self.attributes))


def a_route(
    index: Index | None = None, to: tuple[str, ...] = ("archive", "pacs"), when: str = "true", stored: Stored | None = None
) -> Route:
    return Route(Rules([Rule(name="everything", when=when, to=to)]), index or Index(), stored or Stored(), "v1")


def arrival(sop: str = "1.2.3", receipt: str = "r1", sha256: str = "a" * 64) -> InstanceAccepted:
    return InstanceAccepted.following(an_instance(SOPInstanceUID=sop, receipt=receipt, sha256=sha256))


def decide(route: Route, event: InstanceAccepted, memory: FakeMemory[Decided]) -> list[InstanceRouted]:
    route.prepare([event])
    return list(route.handle(event, memory))


def test_an_instance_gets_one_decision_with_a_delivery_for_each_destination() -> None:
    [routed] = decide(a_route(), arrival(), FakeMemory())

    assert routed.decision == "deliver"
    assert [delivery.destination for delivery in routed.deliveries] == ["archive", "pacs"]
    assert routed.deliveries[0].rules == ("everything",)
    assert routed.config_version == "v1"


def test_an_instance_that_no_rule_wants_is_decided_too() -> None:
    [routed] = decide(a_route(when="false"), arrival(), FakeMemory())

    assert (routed.decision, routed.deliveries) == ("no-rule", ())


def test_the_same_event_again_makes_no_second_decision() -> None:
    route, memory = a_route(), FakeMemory[Decided]()
    decide(route, arrival(), memory)

    assert decide(route, arrival(), memory) == []


def test_the_same_object_again_is_a_duplicate_and_goes_nowhere() -> None:
    route, memory = a_route(), FakeMemory[Decided]()
    decide(route, arrival(receipt="r1"), memory)

    [routed] = decide(route, arrival(receipt="r2"), memory)

    assert (routed.decision, routed.deliveries) == ("duplicate", ())


def test_the_same_object_again_goes_where_new_rules_send_it_and_nowhere_twice() -> None:
    memory = FakeMemory[Decided]()
    decide(a_route(to=("archive",)), arrival(receipt="r1"), memory)

    [again] = decide(a_route(), arrival(receipt="r2"), memory)
    [once_more] = decide(a_route(), arrival(receipt="r3"), memory)

    assert (again.decision, [each.destination for each in again.deliveries]) == ("deliver", ["pacs"])
    assert once_more.decision == "duplicate"
    assert decide(a_route(), arrival(receipt="r2"), memory) == []


def test_what_no_rule_wanted_goes_where_a_new_rule_sends_it_when_it_comes_again() -> None:
    index = Index({"1.2.3": Decided(receipts=("r1",), sha256="a" * 64)})

    [routed] = decide(a_route(index), arrival(receipt="r2"), FakeMemory())

    assert (routed.decision, len(routed.deliveries)) == ("deliver", 2)


def test_another_object_under_the_same_uid_waits_for_a_person_with_both_digests() -> None:
    route, memory = a_route(), FakeMemory[Decided]()
    decide(route, arrival(receipt="r1", sha256="a" * 64), memory)

    with pytest.raises(Quarantine, match=r"first aaaaaaaaaaaa… .* now bbbbbbbbbbbb…") as stop:
        decide(route, arrival(receipt="r2", sha256="b" * 64), memory)

    assert stop.value.reason is Reason.INSTANCE_CONFLICT


def test_what_has_left_memory_is_found_through_the_index() -> None:
    index = Index({"1.2.3": Decided(receipts=("r1",), sha256="a" * 64, deliveries=BOTH)})

    [routed] = decide(a_route(index), arrival(receipt="r2"), FakeMemory())

    assert routed.decision == "duplicate"


def test_a_receipt_that_the_index_has_as_decided_is_not_decided_again() -> None:
    index = Index({"1.2.3": Decided(receipts=("r1",), sha256="a" * 64, deliveries=BOTH)})

    assert decide(a_route(index), arrival(receipt="r1"), FakeMemory()) == []


def test_a_delivery_has_the_same_id_on_every_repeat() -> None:
    [first] = decide(a_route(), arrival(), FakeMemory())
    [again] = decide(a_route(), arrival(), FakeMemory())

    assert first.deliveries == again.deliveries


def test_an_instance_is_forgotten_once_its_time_has_passed_and_the_index_has_it() -> None:
    index, memory = Index(), FakeMemory[Decided]()
    route = a_route(index)
    decide(route, arrival(), memory)
    index.rows["1.2.3"] = Decided(receipts=("r1",), sha256="a" * 64, deliveries=BOTH)

    list(route.due("1.2.3", memory, datetime.now(UTC) + REMEMBERED))

    assert memory.get("1.2.3") is None


def test_an_instance_that_the_index_does_not_have_yet_is_kept_in_memory() -> None:
    memory = FakeMemory[Decided]()
    route = a_route()
    decide(route, arrival(), memory)
    now = datetime.now(UTC) + REMEMBERED

    list(route.due("1.2.3", memory, now))

    assert memory.get("1.2.3") is not None
    assert memory.due("1.2.3") == now + timedelta(hours=1)


def test_a_value_that_the_event_leaves_out_is_read_in_the_object_and_never_taken_for_absent() -> None:
    route = a_route(when='ImageComments == "yes"', stored=Stored(ImageComments="yes"))
    event = InstanceAccepted.following(an_instance(header_cut=("00204000",)))

    [routed] = decide(route, event, FakeMemory())

    assert routed.decision == "deliver"
