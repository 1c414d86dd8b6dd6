from __future__ import annotations

from datetime import UTC, datetime

from hilum.events import OrderChanged
from hilum.hl7_sections import Hl7Sender
from tests.processors.orders.ris import Site, adt, codes, order_message, settings_for


def test_a_new_order_is_told_with_patient_procedure_and_step() -> None:
    site = Site()
    site.take(order_message(uid="1.2.3.4"))

    order = site.order("P1")
    step = order.procedures[0].steps[0]
    assert order.status == "scheduled"
    assert order.accession is not None
    assert (order.accession.value, order.patient.ids[0].value, order.patient.name) == ("A1", "4711", "Meier^Anna")
    assert (order.procedures[0].study_instance_uid, order.procedures[0].uid_made) == ("1.2.3.4", False)
    assert (step.step_id, step.modality, step.start_date, step.start_time) == ("S1", "CT", "20261126", "143000")
    assert step.start_at == datetime(2026, 11, 26, 13, 30, tzinfo=UTC)


def test_a_study_uid_is_made_once_and_is_the_same_in_every_change() -> None:
    site = Site()
    site.take(order_message())
    made = site.order("P1").procedures[0].study_instance_uid
    site.take(order_message(control="XO", at="202611260910", start="20261126150000"))

    assert made.startswith("2.25.")
    assert site.order("P1").procedures[0].study_instance_uid == made


def test_a_study_uid_that_was_offered_is_remembered_when_the_ris_gives_its_own() -> None:
    site = Site()
    site.take(order_message())
    made = site.order("P1").procedures[0].study_instance_uid
    site.take(order_message(control="XO", at="202611260910", uid="1.2.3.4"))

    assert site.order("P1").procedures[0].study_instance_uid == "1.2.3.4"
    assert site.order("P1").procedures[0].former_uids == (made,)


def test_a_cancelled_order_is_told_as_such() -> None:
    site = Site()
    site.take(order_message())
    said = site.take(order_message(control="CA", at="202611260910"))

    assert [event.change for event in said if isinstance(event, OrderChanged)] == ["cancelled"]
    assert site.order("P1").status == "cancelled"
    assert site.order("P1").procedures[0].steps[0].status == "cancelled"


def test_what_is_said_again_holds_from_then_on() -> None:
    site = Site()
    site.take(order_message(at="202611260900"))
    site.take(order_message(control="XO", at="202611260930"))
    site.take(order_message(at="202611260920"))  # says nothing that is not so
    site.take(order_message(control="CA", at="202611260910"))

    assert site.order("P1").status == "scheduled"


def _replaced_by(placer: str) -> str:
    """A message by which P1 is replaced: its ORC with RP, then the new order with RO (HL7 v2.5.1 4.5.1.1)."""
    *header, orc, obr = (line.strip() for line in order_message(at="202611260910").strip().splitlines())
    return "\n".join(
        [*header, orc.replace("NW", "RP"), orc.replace("NW", "RO").replace("P1^", f"{placer}^"), obr.replace("P1^", f"{placer}^")]
    )


def test_an_order_that_is_replaced_counts_as_cancelled_and_the_new_one_is_scheduled() -> None:
    site = Site()
    site.take(order_message(filler=""))
    site.take(_replaced_by("P2").replace("F1^RIS", ""))

    assert (site.order("P1").status, site.order("P2").status) == ("cancelled", "scheduled")


def test_an_order_that_is_replaced_under_its_own_number_is_scheduled() -> None:
    site = Site()
    site.take(order_message())
    site.take(_replaced_by("P1"))

    assert site.order("P1").status == "scheduled"


def test_cancelling_one_of_two_steps_leaves_the_other() -> None:
    site = Site()
    site.take(order_message(step_id="S1"))
    site.take(order_message(control="XO", at="202611260905", step_id="S2"))
    site.take(order_message(control="CA", at="202611260910", step_id="S2"))

    assert [step.status for step in site.order("P1").procedures[0].steps] == ["scheduled", "cancelled"]
    assert site.order("P1").status == "scheduled"


def test_a_status_message_of_the_ris_completes_the_order() -> None:
    site = Site()
    site.take(order_message())
    site.take(order_message(control="SC", status="CM", at="202611261000"))

    assert site.order("P1").status == "completed"


def test_a_message_older_than_what_is_known_changes_nothing_and_is_noted() -> None:
    site = Site()
    site.take(order_message(at="202611260910", start="20261126160000"))
    said = site.take(order_message(control="XO", at="202611260905"), sender="ris")

    assert "stale-message" in codes(said)
    assert site.order("P1").procedures[0].steps[0].start_time == "160000"


def test_what_a_message_leaves_empty_stays_and_what_it_deletes_goes() -> None:
    site = Site()
    site.take(order_message())
    site.take(adt(at="202611260930", name='""', born=""))

    assert site.order("P1").patient.name == ""
    assert site.order("P1").patient.birth_date == "19700203"


def test_an_accession_number_that_is_too_long_is_a_finding_and_offered_to_nobody() -> None:
    site = Site()
    said = site.take(order_message(accession="A" * 17))

    assert "accession-too-long" in codes(said)
    assert site.order("P1").accession is None
    assert site.order("P1").unusable == {"AccessionNumber": "A" * 17}


def test_a_patient_id_that_is_too_long_is_a_finding_and_offered_to_nobody() -> None:
    site = Site()
    said = site.take(order_message(patient="4" * 65))

    assert "patient-id-too-long" in codes(said)
    assert site.order("P1").patient.ids == ()


def test_an_accession_number_of_another_patient_is_noted() -> None:
    site = Site()
    site.take(order_message())
    said = site.take(order_message(placer="P2", filler="F2", patient="9999", name="Huber^Hans"))

    assert codes(said) == {"accession-of-another-patient"}


def test_two_orders_of_a_patient_with_one_accession_number_are_a_group() -> None:
    site = Site()
    site.take(order_message())
    said = site.take(order_message(placer="P2", filler="F2"))

    assert codes(said) == {"accession-shared"}
    assert len(site.orders()) == 2


def test_an_order_told_of_by_placer_and_by_filler_number_is_one() -> None:
    site = Site()
    site.take(order_message(placer="P1", filler="", accession="A1"))
    site.take(order_message(placer="", filler="F1", accession="", control="SC", status="IP", at="202611260920"))
    site.take(order_message(placer="P1", filler="F1", accession="A1", control="XO", at="202611260930"))

    assert [order.status for order in site.orders()] == ["in-progress"]


def test_default_issuers_are_those_of_the_sender() -> None:
    site = Site(settings_for(ris=Hl7Sender(issuer_of_accession_number="NORTH-RIS", time_zone="UTC")))
    site.take(order_message())

    order = site.order("P1")
    assert order.accession is not None
    assert order.accession.issuer == "NORTH-RIS"
    assert order.procedures[0].steps[0].start_at == datetime(2026, 11, 26, 14, 30, tzinfo=UTC)


def test_a_message_from_the_future_counts_as_of_its_reception() -> None:
    site = Site()
    said = site.take(order_message(at="203001010000"))
    site.take(order_message(control="XO", at="202611261200", modality="MR"))
    site.now = datetime(2026, 11, 27, tzinfo=UTC)
    site.take(order_message(control="XO", at="202611270000", modality="MR"))

    assert "time-in-future" in codes(said)
    assert site.order("P1").procedures[0].steps[0].modality == "MR"


def test_a_result_moves_its_order_on_and_changes_nothing_else() -> None:
    site = Site()
    site.take(order_message())
    site.take("""
        MSH|^~\\&|RIS|NORTH|HILUM|NORTH|202611261500||ORU^R01|C9|P|2.5.1
        PID|||4711^^^NORTH||Meier^Anna
        ORC|RE|P1^HIS|F1^RIS
        OBR|1|P1^HIS|F1^RIS|CTH|||||||||||||||||||||F
        OBX|1|TX|||Nothing to see.
    """)

    order = site.order("P1")
    assert order.status == "completed"
    assert order.accession is not None
    assert order.procedures[0].description == "CT head"


def test_an_appointment_moves_the_step_of_its_order() -> None:
    site = Site()
    site.take(order_message())
    site.take("""
        MSH|^~\\&|RIS|NORTH|HILUM|NORTH|202611260930||SIU^S13|C9|P|2.5.1
        SCH|AP1|AP1|||||||||^^^20261127080000|||||||||||||||P1^HIS|F1^RIS
        PID|||4711^^^NORTH||Meier^Anna
        RGS|1
        AIS|1||CTH^CT head^L|20261127080000
    """)

    step = site.order("P1").procedures[0].steps[0]
    assert (step.start_date, step.start_time) == ("20261127", "080000")


def test_an_order_of_which_nothing_is_heard_is_forgotten_in_the_end() -> None:
    site = Site()
    site.take(order_message())
    site.pass_time(days=401)
    site.pass_time(days=401)

    assert not site.state.rows


def test_no_row_has_a_key_that_tells_a_number() -> None:
    site = Site()
    site.take(order_message(placer="PLACER", filler="FILLER", accession="ACCESS", patient="PATIENT"))

    keys = " ".join(site.state.rows)
    assert not any(word in keys for word in ("PLACER", "FILLER", "ACCESS", "PATIENT"))


def test_a_study_uid_that_was_made_stays_when_the_procedure_gets_its_id() -> None:
    site = Site()
    site.take(order_message(procedure_id="", step_id=""))
    made = site.order("P1").procedures[0].study_instance_uid
    site.take(order_message(control="XO", at="202611260905"))

    [procedure] = site.order("P1").procedures
    assert (procedure.procedure_id, procedure.study_instance_uid) == ("RP1", made)
