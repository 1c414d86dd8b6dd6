from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from hilum import telemetry
from hilum.order_sections import Orders
from hilum.sections import Sender
from hilum.settings import Settings
from processors.match.rows import order_key
from tests.processors.match.room import NOON, Room, a_study, an_order


def test_an_order_and_its_study_are_matched_by_accession_number() -> None:
    room = Room()
    room.give(an_order(), a_study())

    found = room.of("1.2.3")
    assert (found.outcome, found.by, found.order_ids) == ("matched", "accession-number", ("order-1",))
    assert room.of("order-1").outcome == "imaged"


def test_outcomes_are_counted_by_what_they_are_of() -> None:
    counters = [telemetry.MATCHES_CHANGED.labels(*labels) for labels in (("study", "unmatched"), ("study", "matched"), ("order", "imaged"))]
    before = [each._value.get() for each in counters]
    room = Room()
    room.give(a_study(), an_order())

    assert [each._value.get() - was for each, was in zip(counters, before, strict=True)] == [1, 1, 1]


def test_the_order_may_come_after_the_images_and_says_so() -> None:
    room = Room()
    room.give(a_study())
    assert room.of("1.2.3").outcome == "unmatched"
    room.give(an_order())

    found = room.of("1.2.3")
    assert (found.outcome, found.before, found.cause) == ("matched", "unmatched", "order")
    assert [note.code for note in found.notes] == ["order-came-late"]


def test_without_accession_number_the_study_uid_matches() -> None:
    room = Room()
    room.give(an_order(uid="1.2.3"), a_study(accession=""))

    assert (room.of("1.2.3").outcome, room.of("1.2.3").by) == ("matched", "study-instance-uid")


def test_a_wrong_accession_number_is_told_where_the_study_uid_finds_the_order() -> None:
    room = Room()
    room.give(an_order(uid="1.2.3"), a_study(accession="WRONG"))

    (difference,) = room.of("1.2.3").differences
    assert (difference.attribute, difference.ordered, difference.found) == ("AccessionNumber", "A1", "WRONG")


def test_an_accession_number_of_one_order_under_the_study_uid_of_another_is_told() -> None:
    room = Room()
    room.give(an_order("1"), an_order("2", accession="A2", uid="1.2.3"), a_study())

    assert room.of("1.2.3").order_ids == ("order-1",)
    assert [each.attribute for each in room.of("1.2.3").differences] == ["StudyInstanceUID"]


def test_patient_and_time_make_a_candidate_and_no_match() -> None:
    room = Room()
    room.give(an_order(accession="A9"), a_study(accession=""))

    assert (room.of("1.2.3").outcome, room.of("1.2.3").candidates) == ("unmatched", ("order-1",))


def test_an_order_of_another_day_or_modality_is_no_candidate() -> None:
    room = Room()
    room.give(an_order("1", accession="A8", start=NOON + timedelta(days=3)), an_order("2", accession="A9", modality="MR"))
    room.give(a_study(accession=""))

    assert room.of("1.2.3").candidates == ()


def test_every_attribute_that_differs_is_told_with_both_values() -> None:
    room = Room()
    room.give(an_order(), a_study(patient="9999", name="Huber^Hans", born="19500101", modality="MR"))

    found = room.of("1.2.3")
    assert found.outcome == "mismatched"
    assert [each.attribute for each in found.differences] == ["PatientID", "PatientName", "PatientBirthDate", "Modality"]
    assert ("Meier^Anna", "Huber^Hans") in [(each.ordered, each.found) for each in found.differences]


def test_a_correction_of_the_order_changes_the_outcome_of_images_seen_before() -> None:
    room = Room()
    room.give(an_order(), a_study(name="Maier^Anna"))
    assert room.of("1.2.3").outcome == "mismatched"
    room.give(an_order(version=2, name="Maier^Anna", change="patient"))

    assert (room.of("1.2.3").outcome, room.of("1.2.3").cause) == ("matched", "patient")


def test_a_corrected_object_holds_in_place_of_what_it_was_before() -> None:
    room = Room()
    room.give(an_order(), a_study(accession="WRONG"))
    room.give(a_study(replaces=True))

    assert room.of("1.2.3").outcome == "matched"


def test_a_merged_patient_fits_by_the_former_identifier() -> None:
    room = Room()
    room.give(an_order(), a_study(patient="OLD"))
    assert room.of("1.2.3").outcome == "mismatched"
    room.give(an_order(version=2, former=("OLD",), change="patient"))

    assert room.of("1.2.3").outcome == "matched"


def test_images_of_a_cancelled_order_are_told() -> None:
    room = Room()
    room.give(an_order(), a_study())
    room.give(an_order(version=2, status="cancelled", change="cancelled"))

    assert room.of("1.2.3").outcome == "order-cancelled"


def test_an_order_without_images_is_told_once_its_window_is_over() -> None:
    room = Room()
    room.give(an_order())
    assert room.pass_time(hours=71) == []
    said = room.pass_time(hours=2)

    assert [(each.subject, each.outcome) for each in said] == [("order-1", "no-images")]
    room.give(a_study(at=NOON + timedelta(hours=80)))
    assert room.of("order-1").outcome == "imaged"


def test_images_without_order_are_told_once_their_window_is_over_and_a_later_order_still_counts() -> None:
    room = Room()
    room.give(a_study())
    room.pass_time(hours=25)
    assert room.of("1.2.3").outcome == "no-order"
    room.give(an_order())

    assert room.of("1.2.3").outcome == "matched"


def test_several_orders_of_a_patient_with_one_accession_number_share_the_study() -> None:
    room = Room()
    room.give(an_order("1"), an_order("2"), a_study())

    assert (room.of("1.2.3").outcome, room.of("1.2.3").order_ids) == ("matched", ("order-1", "order-2"))


def test_a_study_with_several_accession_numbers_serves_all_their_orders() -> None:
    room = Room()
    room.give(an_order("1"), an_order("2", accession="A2"), a_study(accession=("A1", "A2")))

    assert room.of("1.2.3").order_ids == ("order-1", "order-2")
    assert room.of("1.2.3").outcome == "matched"


def test_of_two_patients_with_one_accession_number_the_images_patient_is_meant() -> None:
    room = Room()
    room.give(an_order("1"), an_order("2", ids=("9999",), name="Huber^Hans"), a_study())

    assert (room.of("1.2.3").outcome, room.of("1.2.3").order_ids) == ("matched", ("order-1",))


def test_an_accession_number_of_another_issuer_is_another_one() -> None:
    room = Room(Settings(senders={"CT01": Sender(issuer_of_accession_number="SOUTH")}))
    room.give(an_order(issuer="NORTH"), a_study())

    assert room.of("1.2.3").outcome == "unmatched"


def test_an_accession_number_that_is_used_again_years_later_is_another_one() -> None:
    room = Room()
    room.give(an_order(start=NOON - timedelta(days=400)), a_study())

    assert room.of("1.2.3").outcome == "unmatched"


@pytest.mark.parametrize(("coerce", "coercible"), [((), False), (("PatientName",), True), (("PatientID", "PatientName"), True)])
def test_what_differs_may_be_just_what_is_set_right_on_the_way_out(coerce: tuple[str, ...], coercible: bool) -> None:
    room = Room(msgspec.convert({"senders": {"CT01": {"coerce": coerce}}}, Settings))
    room.give(an_order(), a_study("1.2.3", name="Maier^Anna"), a_study("1.2.4", patient="9999", name="Maier^Anna"))

    assert (room.of("1.2.3").outcome, room.of("1.2.3").coercible) == ("mismatched", coercible)
    assert not room.of("1.2.4").coercible


def test_a_study_of_which_nothing_is_left_frees_its_order() -> None:
    room = Room()
    room.give(an_order(), a_study())
    room.give(a_study(instances=0))

    assert room.of("1.2.3").outcome == "withdrawn"
    assert room.of("order-1").outcome == "awaited"


def test_the_same_event_again_says_nothing() -> None:
    room = Room()
    room.give(an_order(), a_study())

    assert room.give(an_order(), a_study()) == []


def test_an_order_that_changes_nothing_of_its_study_writes_the_order_alone() -> None:
    room = Room()
    room.give(an_order(), a_study(), an_order(version=2))

    assert room.written == {order_key("order-1")}


def test_a_study_whose_order_was_changed_without_an_effect_on_it_keeps_its_timer() -> None:
    room = Room()
    room.give(a_study(accession="WRONG"), an_order(), an_order(version=2))

    assert [event.outcome for event in room.pass_time(hours=48) if event.subject == "1.2.3"] == ["no-order"]


def test_what_is_done_is_forgotten_in_the_end_and_an_order_with_images_is_never_told_to_have_none() -> None:
    room = Room()
    room.give(an_order(), a_study())
    said = [room.pass_time(days=40), room.pass_time(days=40), room.pass_time(days=40)]

    assert said == [[], [], []]
    assert not room.state.rows


def test_no_row_has_a_key_that_tells_a_number() -> None:
    room = Room()
    room.give(an_order(accession="ACCESS", ids=("PATIENT",)), a_study(accession="ACCESS", patient="PATIENT"))

    assert not any(word in key for key in room.state.rows for word in ("ACCESS", "PATIENT"))


@pytest.mark.parametrize("hours", [1.0, 48.0])
def test_windows_are_those_of_the_settings(hours: float) -> None:
    room = Room(Settings(orders=Orders(order_within_hours=hours)))
    room.give(a_study())
    room.pass_time(hours=hours - 0.1)
    assert room.of("1.2.3").outcome == "unmatched"
    room.pass_time(hours=0.2)

    assert room.of("1.2.3").outcome == "no-order"


def test_identifiers_that_differ_in_their_issuer_are_told_with_it() -> None:
    room = Room()
    room.give(an_order(), a_study(patient_issuer="SOUTH"))

    (difference,) = room.of("1.2.3").differences
    assert (difference.ordered, difference.found) == ("4711 of NORTH", "4711 of SOUTH")


def test_a_correction_is_noted_with_when_and_what() -> None:
    room = Room()
    room.give(an_order(name="Maier^Anna"), a_study(), an_order(version=2))

    (note,) = room.of("1.2.3").notes
    assert note.sentence == "The order or its patient was changed after the images came, at 2026-11-26 12:00 UTC: PatientName."
