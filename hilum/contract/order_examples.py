"""Made-up events of orders, patients and matching, for `hilum/contract/examples.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from hilum.events import Event, MatchChanged, MatchRequested, OrderChanged, PatientChanged, PatientCommand
from hilum.order_events import Code, Difference, Identifier, Note, Order, Patient, RequestedProcedure, ScheduledStep

SAID_AT = datetime(2026, 1, 2, 8, 30, tzinfo=UTC)
STUDY = "2.25.3211"
ORDER = "0d9b1f7c-51f6-5a0f-9a3c-6a8f3f1f6b21"
MESSAGE = "0b6f6f0a-53a1-4c6e-8f5e-6a8f3f1f6b01"
PATIENT_ID = Identifier(value="SYNTH0001", issuer="NORTH", universal_id="2.25.3210", universal_id_type="ISO", type="MR")


def _patient() -> Patient:
    return Patient(key="4f1c09c8a7d25b1e4f1c09c8a7d25b1e", ids=(PATIENT_ID,), name="Synthetic^Sam", birth_date="19700203", sex="O")


def _order() -> OrderChanged:
    step = ScheduledStep(
        step_id="SPS0001",
        modality="CT",
        station_ae_titles=("CT01",),
        station_name="CT-ROOM-1",
        start_date="20260102",
        start_time="101000",
        start_at=SAID_AT + timedelta(minutes=40),
        description="CT of the head",
        protocols=(Code(value="CTHEAD", meaning="CT of the head", scheme="99SYNTH"),),
    )
    procedure = RequestedProcedure(
        procedure_id="RP0001",
        study_instance_uid=STUDY,
        description="CT of the head",
        codes=(Code(value="CTH", meaning="Head CT", scheme="99SYNTH"),),
        priority="ROUTINE",
        steps=(step,),
    )
    order = Order(
        order_id=ORDER,
        version=1,
        status="scheduled",
        patient=_patient(),
        procedures=(procedure,),
        accession=Identifier(value="SYN0001", issuer="RIS"),
        placer=Identifier(value="PL0001", issuer="HIS"),
        filler=Identifier(value="FI0001", issuer="RIS"),
        referring_physician="Referring^Rita",
        sender="ris",
        said_at=SAID_AT,
    )
    return OrderChanged(order=order, change="new", message_id=MESSAGE, changed_at=SAID_AT + timedelta(seconds=1))


def _patient_changed() -> PatientChanged:
    return PatientChanged(
        patient=_patient(),
        version=2,
        change="updated",
        message_id="0b6f6f0a-53a1-4c6e-8f5e-6a8f3f1f6b02",
        said_at=SAID_AT,
        changed_at=SAID_AT + timedelta(seconds=2),
    )


def _requested() -> MatchRequested:
    return MatchRequested(
        study_instance_uid=STUDY,
        accessions=(Identifier(value="SYN0001"),),
        patient_ids=(Identifier(value="SYNTH0001"),),
        patient_name="Synthetic^Samuel",
        patient_birth_date="19700203",
        patient_sex="O",
        study_date="20260102",
        study_time="101010",
        modalities=("CT",),
        sender="CT01",
        station_name="CT-ROOM-1",
        instances=312,
        first_received_at=SAID_AT + timedelta(minutes=100),
        revision=1,
        requested_at=SAID_AT + timedelta(minutes=101),
    )


def _match() -> MatchChanged:
    return MatchChanged(
        about="study",
        study_instance_uid=STUDY,
        order_ids=(ORDER,),
        outcome="mismatched",
        before="unmatched",
        by="accession-number",
        differences=(Difference(attribute="PatientName", ordered="Synthetic^Sam", found="Synthetic^Samuel"),),
        cause="order",
        version=2,
        notes=(Note(code="order-came-late", sentence="The order came after the images."),),
        changed_at=SAID_AT + timedelta(minutes=102),
    )


def _command() -> PatientCommand:
    return PatientCommand(
        id="7c1f0e9a-53a1-4c6e-8f5e-6a8f3f1f6b77",
        action="unmerge",
        patient_key=_patient().key,
        actor="sam",
        why="the registration desk merged the wrong two",
        asked_at=SAID_AT + timedelta(hours=3),
    )


ORDER_EXAMPLES: Mapping[type[Event], Callable[[], Event]] = {
    OrderChanged: _order,
    PatientChanged: _patient_changed,
    PatientCommand: _command,
    MatchRequested: _requested,
    MatchChanged: _match,
}
