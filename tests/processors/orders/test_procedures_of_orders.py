"""Orders with several requested procedures, and procedures that get another id."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.events import OrderChanged
from hilum.order_events import Order
from tests.processors.orders.ris import Site, codes, order_message


def two_procedures(control: str = "NW", at: str = "202611260900", second: str = "A4|RP4|S4", first: str = "A3|RP3|S3") -> str:
    """An ORM^O01 of one ORC with two OBR, each of which has an accession number."""
    return f"""
        MSH|^~\\&|RIS|NORTH|HILUM|NORTH|{at}||ORM^O01|C{at}{control}|P|2.3.1
        PID|||4711^^^NORTH||Meier^Anna||19700203|F
        ORC|{control}|P1^HIS|F1^RIS||||^^^20261126143000^^R||{at}|||77^Doctor^Dora
        OBR|1|P1^HIS|F1^RIS|CTH^CT head^L||||||||||||||{first}||||CT
        OBR|2|P1^HIS|F1^RIS|CTN^CT neck^L||||||||||||||{second}||||CT
    """


def told(order: Order) -> list[tuple[str, str, list[str]]]:
    """Of each procedure its accession number, its id, and its steps."""
    accessions = [order.accession_of(each) for each in order.procedures]
    return [
        (accession.value if accession else "", each.procedure_id, [step.step_id for step in each.steps])
        for accession, each in zip(accessions, order.procedures, strict=True)
    ]


def test_a_second_obr_under_one_orc_is_a_procedure_with_its_own_accession_number() -> None:
    site = Site()
    site.take(two_procedures())

    assert told(site.order("P1")) == [("A3", "RP3", ["S3"]), ("A4", "RP4", ["S4"])]
    assert [each.value for each in site.order("P1").accessions] == ["A3", "A4"]


def test_what_the_orc_says_is_of_all_its_procedures() -> None:
    site = Site()
    site.take(two_procedures())

    steps = [each.steps[0] for each in site.order("P1").procedures]
    assert [(step.start_date, step.start_time) for step in steps] == [("20261126", "143000")] * 2
    site.take(two_procedures("CA", "202611260910"))
    assert [each.steps[0].status for each in site.order("P1").procedures] == ["cancelled", "cancelled"]


def test_procedures_without_ids_are_told_apart_by_accession_number() -> None:
    site = Site()
    site.take(two_procedures(first="A3||", second="A4||"))
    site.take(two_procedures("XO", "202611260910", first="A3||", second="A5||"))

    assert [accession for accession, _, _ in told(site.order("P1"))] == ["A3", "A5"]


def test_a_change_of_one_of_two_procedures_leaves_the_other() -> None:
    site = Site()
    site.take(two_procedures())
    site.take(order_message(control="XO", at="202611260910", accession="A4", procedure_id="", step_id="", start="20261127080000"))

    order = site.order("P1")
    assert told(order) == [("A3", "RP3", ["S3"]), ("A4", "RP4", ["S4"])]
    assert [each.steps[0].start_date for each in order.procedures] == ["20261126", "20261127"]


def test_a_further_obr_with_numbers_of_its_own_is_an_order_of_its_own() -> None:
    site = Site()
    site.take(two_procedures().replace("OBR|2|P1^HIS|F1^RIS", "OBR|2|P2^HIS|F2^RIS"))

    assert told(site.order("P1")) == [("A3", "RP3", ["S3"])]
    assert told(site.order("P2")) == [("A4", "RP4", ["S4"])]
    assert site.order("P2").procedures[0].steps[0].start_time == "143000"


def test_a_change_with_another_procedure_id_replaces_the_procedure_and_keeps_its_study() -> None:
    site = Site()
    site.take(order_message(accession="A1", procedure_id="RP1", step_id="S1"))
    offered = site.order("P1").procedures[0].study_instance_uid
    site.take(order_message(control="XO", at="202611260910", accession="A2", procedure_id="RP2", step_id="S2"))

    assert told(site.order("P1")) == [("A2", "RP2", ["S2"])]
    assert site.order("P1").procedures[0].study_instance_uid == offered


def test_a_procedure_id_that_is_taken_back_is_the_first_one_again() -> None:
    site = Site()
    site.take(order_message(procedure_id="RP1", step_id="S1"))
    site.take(order_message(control="XO", at="202611260910", procedure_id="RP2", step_id="S2"))
    site.take(order_message(control="XO", at="202611260920", procedure_id="RP1", step_id="S1"))

    assert told(site.order("P1")) == [("A1", "RP1", ["S1"])]


def test_it_is_the_same_if_the_change_comes_before_the_order() -> None:
    site = Site()
    site.take(order_message(control="XO", at="202611260910", procedure_id="RP2", step_id="S2"), "other")
    site.take(order_message(procedure_id="RP1", step_id="S1"))

    assert told(site.order("P1"))[0][:2] == ("A1", "RP2")
    assert len(site.order("P1").procedures) == 1


def test_the_steps_of_a_procedure_that_was_replaced_are_no_more() -> None:
    site = Site()
    site.take(order_message(procedure_id="RP1", step_id="S1"))
    site.take(order_message(control="XO", at="202611260905", procedure_id="RP1", step_id="S2"))
    site.take(order_message(control="XO", at="202611260910", procedure_id="RP2", step_id="S9"))

    assert told(site.order("P1")) == [("A1", "RP2", ["S9"])]


def test_a_cancellation_under_another_procedure_id_cancels_the_order() -> None:
    site = Site()
    site.take(order_message(procedure_id="RP1", step_id="S1"))
    site.take(order_message(control="CA", at="202611260910", procedure_id="RP2", step_id="S2"))

    assert site.order("P1").status == "cancelled"


def test_an_order_that_is_made_again_with_another_procedure_has_two() -> None:
    site = Site()
    site.take(order_message(procedure_id="RP1", step_id="S1"))
    site.take(order_message(at="202611260910", procedure_id="RP2", step_id="S2"))

    assert told(site.order("P1")) == [("A1", "RP1", ["S1"]), ("A1", "RP2", ["S2"])]


def test_a_change_of_an_unknown_one_of_several_procedures_goes_by_what_else_it_says() -> None:
    site = Site()
    site.take(two_procedures())
    site.take(order_message(control="XO", at="202611260910", accession="A4", procedure_id="RP5", step_id="S5"))

    assert told(site.order("P1")) == [("A3", "RP3", ["S3"]), ("A4", "RP5", ["S5"])]


def test_a_change_of_an_unknown_one_of_several_procedures_is_noted_if_nothing_says_which() -> None:
    site = Site()
    site.take(two_procedures())
    said = site.take(order_message(control="XO", at="202611260910", accession="", procedure_id="RP5", step_id="S5"))

    assert codes(said) == {"procedure-unclear"}
    assert len(site.order("P1").procedures) == 3


def test_a_number_without_its_authority_is_the_same_number() -> None:
    site = Site()
    site.take(order_message())
    site.take(order_message(control="CA", at="202611260910").replace("P1^HIS", "P1").replace("F1^RIS", "F1"))

    assert [order.status for order in site.orders()] == ["cancelled"]
    placer = site.order("P1").placer
    assert placer is not None
    assert placer.issuer == "HIS"


def test_it_is_the_same_number_also_if_the_authority_comes_later() -> None:
    site = Site()
    site.take(order_message(control="CA", at="202611260910").replace("P1^HIS", "P1").replace("F1^RIS", "F1"), "other")
    site.take(order_message())

    assert [order.status for order in site.orders()] == ["cancelled"]


def test_a_number_without_its_authority_of_another_patient_is_another_order() -> None:
    site = Site()
    site.take(order_message())
    other = order_message(control="CA", at="202611260910", accession="A9", patient="9999")
    said = site.take(other.replace("P1^HIS", "P1").replace("F1^RIS", "F1"))

    assert sorted(event.order.status for event in said if isinstance(event, OrderChanged)) == ["cancelled"]
    assert sorted(order.status for order in site.orders()) == ["cancelled", "scheduled"]


def test_a_number_without_its_authority_of_another_sender_is_another_order() -> None:
    site = Site()
    site.take(order_message())
    other = order_message(accession="A9", at="202611260910").replace("P1^HIS", "P1").replace("F1^RIS", "F1")
    site.take(other, "other")

    assert len(site.orders()) == 2


IDS = st.tuples(st.sampled_from(("RP1", "RP2", "RP3", "")), st.sampled_from(("S1", "S2", "")), st.sampled_from(("A1", "A2", "")))


@settings(max_examples=100, deadline=None)
@given(st.lists(IDS, min_size=1, max_size=6))
def test_however_often_an_order_is_changed_its_one_procedure_is_one_study(said: list[tuple[str, str, str]]) -> None:
    site = Site()
    uids = set()
    for minute, (procedure_id, step_id, accession) in enumerate(said):
        control = "XO" if minute else "NW"
        at = f"2026112609{minute:02}"
        site.take(order_message(control=control, at=at, procedure_id=procedure_id, step_id=step_id, accession=accession))
        uids |= {procedure.study_instance_uid for procedure in site.order("P1").procedures}

    (procedure,) = site.order("P1").procedures
    assert len(uids) == 1
    named = [each for each, _, _ in said if each]
    assert procedure.procedure_id == (named[-1] if named else procedure.procedure_id)
