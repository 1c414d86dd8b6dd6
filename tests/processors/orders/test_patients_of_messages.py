from __future__ import annotations

from datetime import UTC, datetime

from hilum.events import CommandOutcome, PatientCommand
from tests.processors.orders.ris import Site, adt, codes, names_of, order_message


def test_a_merge_takes_the_orders_along() -> None:
    site = Site()
    site.take(order_message(patient="OLD"))
    site.take(adt("A40", patient="NEW", prior="OLD", name="Maier^Anna", at="202611260930"))

    order = site.order("P1")
    assert order.patient.name == "Maier^Anna"
    assert names_of(order.patient) == ("NEW", "OLD")
    assert site.patient("OLD").merged_into == site.patient("NEW").patient.key


def test_an_order_for_a_patient_who_was_merged_is_of_the_one_who_stays() -> None:
    site = Site()
    site.take(adt("A40", patient="NEW", prior="OLD", name="Maier^Anna"))
    site.take(order_message(patient="OLD", at="202611260930"))

    assert site.order("P1").patient.ids[0].value == "NEW"


def test_a_chain_of_merges_ends_with_the_last() -> None:
    site = Site()
    site.take(order_message(patient="A"))
    site.take(adt("A40", patient="B", prior="A", at="202611260910"))
    site.take(adt("A34", patient="C", prior="B", at="202611260920"))

    assert names_of(site.order("P1").patient) == ("C", "B", "A")


def test_of_merges_in_a_circle_the_oldest_does_not_count() -> None:
    site = Site()
    site.take(order_message(patient="A"))
    site.take(adt("A40", patient="B", prior="A", at="202611260910"))
    said = site.take(adt("A40", patient="A", prior="B", at="202611260920"))

    assert "merge-cycle" in codes(said)
    assert site.order("P1").patient.ids[0].value == "A"
    assert site.patient("A").merged_into == ""


def test_a_merge_turned_round_within_the_same_minute_is_as_it_came_last() -> None:
    site = Site()
    site.take(adt("A40", patient="B", prior="A"))
    site.take(adt("A40", patient="A", prior="B"))

    assert site.patient("A").merged_into == ""
    assert site.patient("B").merged_into == site.patient("A").patient.key


def test_a_patient_can_be_unmerged_by_hand() -> None:
    site = Site()
    site.take(order_message(patient="OLD"))
    site.take(adt("A40", patient="NEW", prior="OLD"))
    command = PatientCommand(
        id="c", action="unmerge", patient_key=site.patient("OLD").patient.key, asked_at=datetime(2026, 11, 26, 12, tzinfo=UTC)
    )
    said = site.give(command)

    assert [event.done for event in said if isinstance(event, CommandOutcome)] == [True]
    assert site.order("P1").patient.ids[0].value == "OLD"
    assert names_of(site.patient("NEW").patient) == ("NEW",)


def test_unmerging_who_is_not_merged_does_nothing() -> None:
    site = Site()
    site.take(adt())
    command = PatientCommand(
        id="c", action="unmerge", patient_key=site.patient("4711").patient.key, asked_at=datetime(2026, 11, 26, 12, tzinfo=UTC)
    )

    assert [event.done for event in site.give(command) if isinstance(event, CommandOutcome)] == [False]


def test_a_merge_that_is_older_than_the_unmerge_comes_too_late() -> None:
    site = Site()
    site.take(adt("A40", patient="NEW", prior="OLD", at="202611260930"))
    key = site.patient("OLD").patient.key
    site.give(PatientCommand(id="c", action="unmerge", patient_key=key, asked_at=datetime(2026, 11, 26, 12, tzinfo=UTC)))
    said = site.take(adt("A40", patient="NEW", prior="OLD", at="202611260940"))

    assert "stale-message" in codes(said)
    assert site.patient("OLD").merged_into == ""


def test_linked_patients_stay_two_and_know_of_each_other() -> None:
    site = Site()
    site.take(adt("A24", patient="A", other="B"))

    assert [each.value for each in site.patient("A").patient.linked_ids] == ["B"]
    site.take(adt("A37", patient="A", other="B", at="202611260930"))
    assert site.patient("A").patient.linked_ids == ()


def test_a_changed_identifier_takes_the_orders_along() -> None:
    site = Site()
    site.take(order_message(patient="TEMP"))
    site.take(adt("A47", patient="4711", prior="TEMP", at="202611260930"))

    assert site.order("P1").patient.ids[0].value == "4711"


def test_a_moved_admission_takes_its_orders_along() -> None:
    site = Site()
    site.take(order_message(patient="A").replace("PV1||O", "PV1||O|||||||||||||||||V77"))
    site.take("""
        MSH|^~\\&|ADT|NORTH|HILUM|NORTH|202611260930||ADT^A45|C9|P|2.5.1
        EVN|A45|202611260930
        PID|||B^^^NORTH||Right^Rita
        MRG|A^^^NORTH||||V77
        PV1||O
    """)

    assert site.order("P1").patient.name == "Right^Rita"


def test_a_correction_of_the_name_reaches_the_orders() -> None:
    site = Site()
    site.take(order_message())
    site.take(adt("A08", name="Mayer^Anna", at="202611260930"))

    assert site.order("P1").patient.name == "Mayer^Anna"


def test_a_message_without_a_patient_identifier_changes_nothing() -> None:
    site = Site()

    assert site.take("MSH|^~\\&|ADT|NORTH|HILUM|NORTH|202611260930||ADT^A08|C9|P|2.5.1\nPID|||") == []


def test_a_merge_that_is_said_again_later_is_told_if_it_breaks_a_circle_elsewhere() -> None:
    site = Site()
    for patient in ("A", "B"):  # so that merges say nothing new but who is who
        site.take(adt(patient=patient, at="20261126100000"))
    site.take(adt("A40", patient="B", prior="A", at="20261126090000"))
    site.take(adt("A40", patient="A", prior="B", at="20261126090100"))
    site.take(adt("A40", patient="B", prior="A", at="20261126090200"))

    assert site.patient("B").merged_into == ""
    assert site.patient("A").merged_into == site.patient("B").patient.key


def test_of_two_who_were_merged_into_somebody_without_a_name_the_one_named_last_gives_it() -> None:
    said = [
        adt(patient="A", name="Early^Eve", at="20261126090000"),
        adt(patient="B", name="Late^Lea", at="20261126090100"),
        adt("A40", patient="C", prior="A", name="", at="20261126090200"),
        adt("A40", patient="C", prior="B", name="", at="20261126090300"),
        adt(patient="A", name="Early^Eve", at="20261126080000"),
    ]
    forward, backward = Site(), Site()
    for text in said:
        forward.take(text)
    for text in reversed(said):
        backward.take(text)

    assert forward.patient("C").patient.name == backward.patient("C").patient.name == "Late^Lea"


def test_an_order_is_told_when_its_patient_is_named_by_another_who_was_merged() -> None:
    site = Site()
    site.take(adt("A40", patient="B", prior="A", name="", at="20261126090000"))
    site.take(adt("A40", patient="B", prior="C", name="", at="20261126090000"))
    site.take(order_message(patient="C", name="", at="20261126090000"))
    site.take(adt(patient="A", name="Meier^Anna", at="20261126090100"))

    assert site.order("P1").patient.name == "Meier^Anna"


def test_everybody_on_the_way_of_merges_is_told_who_is_named_by_another() -> None:
    site = Site()
    site.take(adt("A40", patient="C", prior="A", name="", at="20261126090000"))
    site.take(adt("A40", patient="B", prior="C", name="", at="20261126090000"))
    site.take(adt(patient="A", name="Meier^Anna", at="20261126090100"))

    assert [site.patient(each).patient.name for each in "ABC"] == ["Meier^Anna"] * 3


def test_in_a_circle_of_merges_of_two_senders_the_same_counts_whichever_came_first() -> None:
    desk = [adt("A40", patient="A", prior="B", at="20261126090000"), adt("A40", patient="B", prior="C", at="20261126090000")]
    other = adt("A40", patient="C", prior="A", at="20261126090001")
    first, last = Site(), Site()
    for text in (other, *desk):
        first.take(text, "other" if text is other else "desk")
    for text in (*desk, other):
        last.take(text, "other" if text is other else "desk")

    assert [first.patient(each).merged_into for each in "ABC"] == [last.patient(each).merged_into for each in "ABC"]


def test_who_is_named_again_gives_the_name_from_then_on() -> None:
    site = Site()
    site.take(adt("A40", patient="C", prior="A", name="", at="20261126080000"))
    site.take(adt("A40", patient="C", prior="B", name="", at="20261126080000"))
    site.take(adt(patient="A", name="Meier^Anna", at="20261126090000"))
    site.take(adt(patient="B", name="Maier^Anna", at="20261126090100"))
    site.take(adt(patient="A", name="Meier^Anna", at="20261126090200"))

    assert site.patient("C").patient.name == "Meier^Anna"


def test_a_patient_of_whom_nothing_new_is_said_is_not_told_again() -> None:
    site = Site()
    site.take(order_message())
    site.take(adt())

    assert site.take(adt(at="202611260930")) == []


def test_in_a_circle_a_merge_that_is_said_again_is_the_latest_word() -> None:
    site = Site()
    site.take(adt("A40", patient="B", prior="A", at="202611260901"))
    site.take(adt("A40", patient="A", prior="B", at="202611260900"), "other")
    before = site.patient("A").merged_into
    site.take(adt("A40", patient="A", prior="B", at="202611260902"), "other")

    assert before == site.patient("B").patient.key
    assert (site.patient("A").merged_into, site.patient("B").merged_into) == ("", site.patient("A").patient.key)
