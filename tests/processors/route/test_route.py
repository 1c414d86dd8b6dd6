from datetime import UTC, datetime, timedelta

import pytest

from hilum.database.known import Decided
from hilum.dicom import Header
from hilum.errors import Quarantine, Reason
from hilum.events import Instance, InstanceAccepted, InstanceRouted, delivery_id_for
from hilum.runtime.processor import NeedsWork
from hilum.settings import Rule, Sender, Settings
from hilum.testing import FakeMemory, an_instance, dicom_json
from processors.route import REMEMBERED, Route
from processors.route.rows import Row
from processors.route.rules import Rules
from tests.processors.route.hospital import ByName, FixedRules, Hospital, Index, decisions

#: The ids of the deliveries of the object aaaa… under 1.2.3 to both destinations.
BOTH = tuple(delivery_id_for("a" * 64, "1.2.3", destination) for destination in ("archive", "pacs"))


class Stored:
    """What a stored object's header says."""

    def __init__(self, **attributes: str) -> None:
        self.attributes = attributes

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        return Header(dicom_json(self.attributes))


def a_route(
    index: Index | None = None, to: tuple[str, ...] = ("archive", "pacs"), when: str = "true", stored: Stored | None = None
) -> Route:
    settings = Settings(destinations={name: {"type": "archive"} for name in ("archive", "pacs")})
    rules = Rules([Rule(name="everything", when=when, to=to)])
    return Route(rules, index or Index(), stored or Stored(), "v1", settings=settings, contents=ByName())


def arrival(sop: str = "1.2.3", receipt: str = "r1", sha256: str = "a" * 64) -> InstanceAccepted:
    return InstanceAccepted.following(an_instance(SOPInstanceUID=sop, receipt=receipt, sha256=sha256))


def decide(route: Route, event: InstanceAccepted, memory: FakeMemory[Row]) -> list[InstanceRouted]:
    route.prepare([event])
    try:
        said = list(route.handle(event, memory))
    except NeedsWork as first:
        said = list(route.handle(event, memory, route.work_on(first.asked)))
    return [each for each in said if isinstance(each, InstanceRouted)]


def indexed(*receipts: str, sha256: str = "a" * 64, deliveries: tuple[str, ...] = ()) -> Index:
    """An index that knows the instance 1.2.3."""
    instance = an_instance(sha256=sha256).instance
    index = Index()
    index.known["1.2.3"] = Decided(
        receipts=receipts,
        sha256=sha256,
        deliveries=deliveries,
        object=instance.object,
        study_instance_uid=instance.study_instance_uid,
        series_instance_uid=instance.series_instance_uid,
    )
    return index


def test_a_delivery_says_by_which_policy_its_destination_was_to_get_it() -> None:
    route = a_route()
    route.configure(
        Settings(
            destinations={"archive": {"type": "archive"}, "pacs": {"type": "dicom", "policy": "basic"}},
            rules=(Rule(name="everything", to=("archive", "pacs")),),
        )
    )

    [routed] = decide(route, arrival(), FakeMemory())

    assert [each.policy for each in routed.deliveries] == ["", "basic"]


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
    route, memory = a_route(), FakeMemory[Row]()
    decide(route, arrival(), memory)

    assert decide(route, arrival(), memory) == []


def test_the_same_object_again_is_a_duplicate_and_goes_nowhere() -> None:
    route, memory = a_route(), FakeMemory[Row]()
    decide(route, arrival(receipt="r1"), memory)

    [routed] = decide(route, arrival(receipt="r2"), memory)

    assert (routed.decision, routed.deliveries) == ("duplicate", ())


def test_the_same_object_again_goes_where_new_rules_send_it_and_nowhere_twice() -> None:
    memory = FakeMemory[Row]()
    decide(a_route(to=("archive",)), arrival(receipt="r1"), memory)

    [again] = decide(a_route(), arrival(receipt="r2"), memory)
    [once_more] = decide(a_route(), arrival(receipt="r3"), memory)

    assert (again.decision, [each.destination for each in again.deliveries]) == ("deliver", ["pacs"])
    assert once_more.decision == "duplicate"
    assert decide(a_route(), arrival(receipt="r2"), memory) == []


def test_what_no_rule_wanted_goes_where_a_new_rule_sends_it_when_it_comes_again() -> None:
    index = indexed("r1")

    [routed] = decide(a_route(index), arrival(receipt="r2"), FakeMemory())

    assert (routed.decision, len(routed.deliveries)) == ("deliver", 2)


def test_another_object_under_the_same_uid_waits_for_a_person_with_both_digests() -> None:
    route, memory = a_route(), FakeMemory[Row]()
    decide(route, arrival(receipt="r1", sha256="a" * 64), memory)

    with pytest.raises(Quarantine, match=r"first aaaaaaaaaaaa… .* now bbbbbbbbbbbb…") as stop:
        decide(route, arrival(receipt="r2", sha256="b" * 64), memory)

    assert stop.value.reason is Reason.INSTANCE_CONFLICT


def test_what_has_left_memory_is_found_through_the_index() -> None:
    index = indexed("r1", deliveries=BOTH)

    [routed] = decide(a_route(index), arrival(receipt="r2"), FakeMemory())

    assert routed.decision == "duplicate"


def test_a_receipt_that_the_index_has_as_decided_is_not_decided_again() -> None:
    index = indexed("r1", deliveries=BOTH)

    assert decide(a_route(index), arrival(receipt="r1"), FakeMemory()) == []


def test_a_delivery_has_the_same_id_on_every_repeat() -> None:
    [first] = decide(a_route(), arrival(), FakeMemory())
    [again] = decide(a_route(), arrival(), FakeMemory())

    assert first.deliveries == again.deliveries


def test_an_instance_is_forgotten_once_its_time_has_passed_and_the_index_has_it() -> None:
    index, memory = Index(), FakeMemory[Row]()
    route = a_route(index)
    decide(route, arrival(), memory)
    index.known |= indexed("r1", deliveries=BOTH).known

    route.prepare_due(["1.2.3"])
    list(route.due("1.2.3", memory, datetime.now(UTC) + REMEMBERED))

    assert memory.get("1.2.3") is None


def test_an_instance_that_the_index_does_not_have_yet_is_kept_in_memory() -> None:
    memory = FakeMemory[Row]()
    route = a_route()
    decide(route, arrival(), memory)
    now = datetime.now(UTC) + REMEMBERED

    route.prepare_due(["1.2.3"])
    list(route.due("1.2.3", memory, now))

    assert memory.get("1.2.3") is not None
    assert memory.due("1.2.3") == now + timedelta(hours=1)


def test_a_value_that_the_event_leaves_out_is_read_in_the_object_and_never_taken_for_absent() -> None:
    route = a_route(when='ImageComments == "yes"', stored=Stored(ImageComments="yes"))
    event = InstanceAccepted.following(an_instance(header_cut=("00204000",)))

    [routed] = decide(route, event, FakeMemory())

    assert routed.decision == "deliver"


class TestSecondDigest:
    """Another object under the same UID. Digests here say what is in it: first letter pixels, second header, third encoding."""

    def hospital(self, corrections: str = "quarantine") -> Hospital:
        destinations = {"pacs": {"type": "dicom", "host": "192.0.2.1", "port": 104, "aet": "PACS"}}
        settings = Settings(destinations=destinations, senders={"CT1": Sender(corrections=corrections)})  # type: ignore[arg-type]
        hospital = Hospital(FixedRules(now=("pacs",)), settings)
        hospital.arrive("2.25.3", sha256="aa1")
        return hospital

    def test_the_same_encoded_otherwise_is_a_duplicate_and_compared_once(self) -> None:
        hospital = self.hospital()

        assert decisions(hospital.arrive("2.25.3", sha256="aa2")) == [("duplicate", ())]
        row = hospital.instance("2.25.3")
        assert row is not None
        assert len(row.also) == 1
        assert decisions(hospital.arrive("2.25.3", sha256="aa2")) == [("duplicate", ())]

    def test_another_header_waits_for_a_person(self) -> None:
        hospital = self.hospital()
        hospital.arrive("2.25.3", sha256="ab1")

        why = hospital.quarantined["receipt-1"]
        assert why.reason is Reason.INSTANCE_CORRECTED
        assert "(0010,0010)" in why.sentence

    def test_a_correction_that_is_taken_goes_where_the_first_went_and_what_waits_of_the_first_is_cancelled(self) -> None:
        hospital = self.hospital("take")

        assert decisions(hospital.arrive("2.25.3", sha256="ab1")) == [("corrected", ("pacs",))]
        assert sorted(hospital.deliveries.values()) == ["cancelled", "pending"]
        assert decisions(hospital.arrive("2.25.3", sha256="aa1")) == [("duplicate", ())]
        assert decisions(hospital.arrive("2.25.3", sha256="ab1")) == [("duplicate", ())]
        assert hospital.study().instances == 1

    def test_a_correction_may_be_ignored(self) -> None:
        hospital = self.hospital("ignore")

        assert decisions(hospital.arrive("2.25.3", sha256="ab1")) == [("ignored", ())]
        assert not hospital.quarantined

    def test_other_pixels_wait_for_a_person_whatever_the_settings_say(self) -> None:
        hospital = self.hospital("take")
        hospital.arrive("2.25.3", sha256="ba1")

        assert hospital.quarantined["receipt-1"].reason is Reason.INSTANCE_CONFLICT

    def test_the_same_uid_in_another_study_is_found_through_the_index(self) -> None:
        hospital = self.hospital()
        hospital.catch_up()
        hospital.state.rows.clear()  # the other study's rows are with another worker

        hospital.arrive("2.25.3", sha256="ba1", StudyInstanceUID="2.25.99")

        why = hospital.quarantined["receipt-1"]
        assert why.reason is Reason.INSTANCE_ELSEWHERE
        assert "2.25.99" in why.sentence

    def test_a_correction_is_remembered_by_the_index(self) -> None:
        hospital = self.hospital("take")
        hospital.arrive("2.25.3", sha256="ab1")
        hospital.catch_up()
        hospital.state.rows.clear()

        assert decisions(hospital.arrive("2.25.3", sha256="ab1")) == [("duplicate", ())]
        assert decisions(hospital.arrive("2.25.3", sha256="aa1")) == [("duplicate", ())]


def test_rows_that_are_to_leave_memory_are_asked_for_together() -> None:
    hospital = Hospital()
    for number in range(50):
        hospital.arrive(f"2.25.3{number}")
    hospital.wait(minutes=2)
    hospital.catch_up()
    hospital.index.asked = 0
    hospital.wait(hours=25)

    assert not hospital.state.rows
    assert hospital.index.asked == 1
