"""What was noticed about messages is where somebody looks for it: with the orders that they are about."""

from __future__ import annotations

import json

import pytest

from hilum.events import OrderChanged, PatientChanged
from tests.processors.orders.ris import Site, order_message


def without_patient(message: str) -> str:
    return "\n".join(line for line in message.splitlines() if not line.strip().startswith("PID"))


def noted(site: Site) -> dict[str, set[str]]:
    """The codes of all notes of orders, by placer number."""
    found: dict[str, set[str]] = {}
    for event in site.said:
        if isinstance(event, OrderChanged) and event.order.placer is not None:
            found.setdefault(event.order.placer.value, set()).update(note.code for note in event.notes)
    return found


def test_a_cancellation_without_patient_cancels_its_order_whose_patient_stays() -> None:
    site = Site()
    site.take(order_message())
    site.take(without_patient(order_message(control="CA", at="202611260910")))

    order = site.order("P1")
    assert (order.status, order.patient.name) == ("cancelled", "Meier^Anna")
    assert noted(site) == {"P1": set()}


@pytest.mark.parametrize("message", ["OMI^O23", "OMG^O19", "ORM^O01"])
def test_a_new_order_without_patient_is_kept_and_noted(message: str) -> None:
    site = Site()
    site.take(without_patient(order_message()).replace("ORM^O01", message))

    assert site.order("P1").patient.ids == ()
    assert noted(site) == {"P1": {"patient-id-missing"}}


def test_an_order_has_its_patient_as_soon_as_a_message_says_it() -> None:
    site = Site()
    site.take(without_patient(order_message()))
    site.take(order_message(control="XO", at="202611260910"))

    assert site.order("P1").patient.name == "Meier^Anna"


def test_an_order_without_patient_is_forgotten_in_the_end() -> None:
    site = Site()
    site.take(without_patient(order_message()))
    site.pass_time(days=401)

    assert not site.state.rows


@pytest.mark.parametrize("control", ["XO", "NW"])
def test_a_stale_message_is_noted_with_its_order(control: str) -> None:
    site = Site()
    site.take(order_message(at="202611260910"))
    site.take(order_message(control=control, at="202611260905", start="20261126160000"))

    assert noted(site) == {"P1": {"stale-message"}}
    assert not any(event.notes for event in site.said if isinstance(event, PatientChanged))


def test_a_note_of_one_order_is_not_with_others_of_the_patient() -> None:
    site = Site()
    site.take(order_message())
    site.take(order_message(placer="P2", filler="F2", accession="A2", at="202611260910", name="Meier^Anne", modality="C/T"))

    assert noted(site) == {"P1": set(), "P2": {"modality-invalid"}}


def test_what_is_about_no_order_is_noted_with_the_patient() -> None:
    site = Site()
    said = site.take(order_message(placer="", filler="", accession="").replace("^HIS", "").replace("^RIS", ""))

    assert [[note.code for note in event.notes] for event in said if isinstance(event, PatientChanged)] == [["order-number-missing"]]


def test_an_accession_number_of_two_patients_is_noted_with_both_orders_once() -> None:
    site = Site()
    site.take(order_message())
    site.take(order_message(placer="P2", filler="F2", patient="9999", name="Huber^Hans"))
    said = site.take(order_message(control="XO", placer="P2", filler="F2", at="202611260910", patient="9999", name="Huber^Hans"))

    assert noted(site) == {"P1": {"accession-of-another-patient"}, "P2": {"accession-of-another-patient"}}
    assert not any(event.notes for event in said if isinstance(event, OrderChanged))


def test_an_order_may_share_its_accession_number_with_its_own_patient_and_with_another() -> None:
    site = Site()
    site.take(order_message())
    site.take(order_message(placer="P2", filler="F2", patient="9999", name="Huber^Hans"))
    site.take(order_message(placer="P3", filler="F3"))

    assert noted(site)["P3"] == {"accession-of-another-patient", "accession-shared"}


def test_what_is_about_nobody_is_in_the_log_by_the_id_of_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    site = Site()
    said = site.take(without_patient(order_message(placer="", filler="", accession="").replace("^HIS", "").replace("^RIS", "")))

    (line,) = capsys.readouterr().err.splitlines()
    assert said == []
    assert (json.loads(line)["event"], json.loads(line)["receipt"]) == ("message_about_nobody", "m1")
