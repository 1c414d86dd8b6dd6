"""What modalities are told of an order, by PS3.4 Table K.6-1 and IHE's mapping."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from hilum.dicom import tag_of
from hilum.order_events import Code, Order
from ingest.worklist.items import items_of
from tests.ingest.worklist.steps import a_step, an_order


def values(order: Order, keyword: str) -> list[Any]:
    [(_, item)] = items_of(order)
    return list(item.get(tag_of(keyword), {}).get("Value", ()))


def test_of_several_codes_of_a_procedure_the_first_is_told() -> None:
    order = an_order("1", a_step("1", "202607050800"))
    codes = tuple(Code(value=value, meaning=value, scheme="L") for value in ("A", "B"))
    order = replace(order, procedures=(replace(order.procedures[0], codes=codes),))

    [told] = values(order, "RequestedProcedureCodeSequence")
    assert told[tag_of("CodeValue")]["Value"] == ["A"]


def test_clinical_information_is_an_alert_in_values_that_fit() -> None:
    text = "Renal insufficiency, on metformin. " * 4
    order = an_order("1", a_step("1", "202607050800"), clinical_information=text.strip())

    alerts = values(order, "MedicalAlerts")
    assert " ".join(alerts) == text.strip()
    assert max(map(len, alerts)) <= 64
    assert values(order, "AdditionalPatientHistory") == [text.strip()]


def test_alerts_of_the_patient_come_before_clinical_information() -> None:
    order = an_order("1", a_step("1", "202607050800"), clinical_information="Cough", patient={"notes": {"MedicalAlerts": "Pacemaker"}})

    assert values(order, "MedicalAlerts") == ["Pacemaker"]
