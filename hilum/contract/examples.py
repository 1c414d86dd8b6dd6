"""One made-up event of each type: the files in `schemas/examples/`. Nobody's data; every value in one event is another."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from hilum.contract.hl7_examples import HL7_EXAMPLES
from hilum.contract.order_examples import ORDER_EXAMPLES
from hilum.errors import HilumError, Reason
from hilum.events import (
    AssociationEnded,
    CommandOutcome,
    ConfigApplied,
    ContextResult,
    DeliverySettled,
    Event,
    Finding,
    InputEvent,
    Instance,
    InstanceAccepted,
    InstanceExpired,
    InstanceQuarantined,
    InstanceReceived,
    InstanceRouted,
    Limits,
    ObjectRef,
    PlannedDelivery,
    ProcedureStepChanged,
    ResourceWanted,
    Source,
    StepPerformed,
    StudyChanged,
    StudyCommand,
    StudyExpected,
    delivery_id_for,
    encode,
)
from hilum.procedure_events import PerformedOf, PerformedReference, PerformedSeries
from hilum.study_events import InstanceDeidentified, PatientLinked

RECEIVED_AT = datetime(2026, 1, 2, 10, 10, 10, 123000, tzinfo=UTC)
RECEIPT = "0b6f6f0a-53a1-4c6e-8f5e-6a8f3f1f6a01"
STUDY, SERIES, INSTANCE = "2.25.3201", "2.25.3202", "2.25.3203"
SOP_CLASS, TRANSFER_SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
SHA256 = "c5a7d6f0" * 8
OBJECT = ObjectRef(bucket="hilum-originals", key=f"{STUDY}/{SERIES}/{INSTANCE}/{SHA256}.dcm", size_bytes=528_894, sha256=SHA256)

HEADER: dict[str, Any] = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
    "00080016": {"vr": "UI", "Value": [SOP_CLASS]},
    "00080018": {"vr": "UI", "Value": [INSTANCE]},
    "00080020": {"vr": "DA", "Value": ["20260102"]},
    "00080050": {"vr": "SH", "Value": ["SYN0001"]},
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Synthetic^Sam"}]},
    "00100020": {"vr": "LO", "Value": ["SYNTH0001"]},
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "0020000E": {"vr": "UI", "Value": [SERIES]},
}


def example_of(kind: type[Event]) -> Event:
    """The example of `kind`. Raises `HilumError` if nobody wrote one."""
    make = EXAMPLES.get(kind)
    if make is None:
        raise HilumError(f"{kind.__name__} has no example.", fix="Add one to hilum/contract/examples.py.")
    return make()


def example_text(kind: type[Event]) -> str:
    """The example's message value, indented for people."""
    return json.dumps(json.loads(encode(example_of(kind))), indent=2, ensure_ascii=False) + "\n"


def _instance() -> Instance:
    return Instance(
        receipt=RECEIPT,
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
        sop_instance_uid=INSTANCE,
        sop_class_uid=SOP_CLASS,
        transfer_syntax_uid=TRANSFER_SYNTAX,
        object=OBJECT,
        source=Source(adapter="dicom", calling_aet="CT01", called_aet="HILUM", peer="192.0.2.17", association="a-000017"),
        received_at=RECEIVED_AT,
        announced_sop_class_uid=SOP_CLASS,
        announced_sop_instance_uid=INSTANCE,
        header_json=msgspec.Raw(msgspec.json.encode(HEADER)),
    )


def _received() -> InstanceReceived:
    return InstanceReceived(instance=_instance())


def _accepted() -> InstanceAccepted:
    finding = Finding(
        code="uid-leading-zero", sentence="A UID has a component with a leading zero (PS3.5 9.1); strict systems may refuse the object."
    )
    return InstanceAccepted.following(_received(), [finding])


def _quarantined() -> InstanceQuarantined:
    return InstanceQuarantined(
        receipt=RECEIPT,
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
        sop_instance_uid=INSTANCE,
        stage="validate",
        reason=Reason.SOP_CLASS_MISMATCH,
        sentence="The SOP class of the C-STORE command differs from the data set's.",
        fix=Reason.SOP_CLASS_MISMATCH.fix,
        found=SOP_CLASS,
        expected="1.2.840.10008.5.1.4.1.1.4",
        quarantined_at=RECEIVED_AT + timedelta(milliseconds=40),
        input=InputEvent(type=InstanceReceived.topic.name, id=RECEIPT, data=msgspec.Raw(encode(_received()))),
    )


def _routed() -> InstanceRouted:
    deliveries = tuple(
        PlannedDelivery(delivery_id=delivery_id_for(SHA256, INSTANCE, name), destination=name, rules=("everything",))
        for name in ("archive", "pacs")
    )
    return InstanceRouted(
        receipt=RECEIPT,
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
        sop_instance_uid=INSTANCE,
        sop_class_uid=SOP_CLASS,
        transfer_syntax_uid=TRANSFER_SYNTAX,
        object=OBJECT,
        received_at=RECEIVED_AT,
        decision="deliver",
        deliveries=deliveries,
        config_version="9f86d081884c",
        decided_at=RECEIVED_AT + timedelta(milliseconds=50),
    )


def _settled() -> DeliverySettled:
    return DeliverySettled(
        delivery_id=delivery_id_for(SHA256, INSTANCE, "pacs"),
        receipt=RECEIPT,
        destination="pacs",
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
        sop_instance_uid=INSTANCE,
        sha256=SHA256,
        state="delivered",
        attempts=1,
        peer_status="0x0000",
        config_version="9f86d081884c",
        settled_at=RECEIVED_AT + timedelta(milliseconds=180),
    )


def _association() -> AssociationEnded:
    return AssociationEnded(
        association="a-000017",
        calling_aet="CT01",
        called_aet="HILUM",
        peer="192.0.2.17",
        implementation_class_uid="2.25.3301",
        implementation_version_name="SYNTH_1",
        max_pdu_bytes=16_384,
        contexts=(
            ContextResult(id=1, abstract_syntax=SOP_CLASS, transfer_syntaxes=(TRANSFER_SYNTAX,), result=0, transfer_syntax=TRANSFER_SYNTAX),
            ContextResult(id=3, abstract_syntax="1.2.840.10008.5.1.4.31", transfer_syntaxes=(TRANSFER_SYNTAX,), result=3),
        ),
        ended="released",
        objects=200,
        size_bytes=105_778_800,
        statuses={"0x0000": 200},
        opened_at=RECEIVED_AT - timedelta(seconds=3),
        ended_at=RECEIVED_AT + timedelta(seconds=4),
    )


def _study_changed() -> StudyChanged:
    return StudyChanged(
        study_instance_uid=STUDY,
        change="completed",
        revision=1,
        reason="idle",
        instances=312,
        new=312,
        series=3,
        modalities=("CT", "SR"),
        config_version="4c1d5f9e0a7b",
        changed_at=RECEIVED_AT + timedelta(minutes=2),
    )


def _instance_expired() -> InstanceExpired:
    return InstanceExpired(
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
        sop_instance_uid=INSTANCE,
        bucket=OBJECT.bucket,
        object_key=OBJECT.key,
        size_bytes=OBJECT.size_bytes,
        sha256=OBJECT.sha256,
        policy="originals_days = 30",
        policy_version="5f1d2c7a90be",
        by="hilum-1/expire",
        decided_at=RECEIVED_AT + timedelta(days=30),
        expired_at=RECEIVED_AT + timedelta(days=30, seconds=1),
    )


def _study_expected() -> StudyExpected:
    return StudyExpected(study_instance_uid=STUDY, source="storage-commitment", sop_instance_uids=(INSTANCE,), said_at=RECEIVED_AT)


def _command() -> StudyCommand:
    return StudyCommand(
        id="7c1f0e9a-53a1-4c6e-8f5e-6a8f3f1f6a77",
        action="complete",
        study_instance_uid=STUDY,
        actor="sam",
        why="the scanner is switched off",
        expected_revision=0,
        asked_at=RECEIVED_AT + timedelta(minutes=1),
    )


def _outcome() -> CommandOutcome:
    return CommandOutcome(
        command="7c1f0e9a-53a1-4c6e-8f5e-6a8f3f1f6a77",
        stage="route",
        study_instance_uid=STUDY,
        done=True,
        sentence="Revision 1 is complete with 312 instances.",
        answered_at=RECEIVED_AT + timedelta(minutes=1, seconds=1),
    )


def _wanted() -> ResourceWanted:
    return ResourceWanted(
        resource="destination/pacs",
        paused=True,
        limits=Limits(objects_per_s=20.0, max_associations=2, hours="Mo-Fr 18:00-07:00"),
        table={"type": "dicom", "host": "192.0.2.40", "port": 104, "aet": "PACS"},
        why="The archive is being moved until Monday.",
        by="operator",
        since=RECEIVED_AT,
    )


def _config() -> ConfigApplied:
    return ConfigApplied(
        version="4c1d5f9e0a7b",
        destinations={"pacs": {"type": "dicom", "host": "192.0.2.40", "port": 104, "aet": "PACS"}},
        rules=({"name": "ct", "when": 'Modality == "CT"', "to": ["pacs"]},),
        actor="sam",
        why="CT goes to the PACS",
        applied_at=RECEIVED_AT + timedelta(minutes=5),
    )


def _performed_step() -> ProcedureStepChanged:
    return ProcedureStepChanged(
        sop_instance_uid="2.25.3204",
        revision=2,
        state="completed",
        study_instance_uid=STUDY,
        scheduled=(
            PerformedOf(
                study_instance_uid=STUDY,
                accession_number="SYN0001",
                procedure_id="RP0001",
                procedure_description="CT of the thorax",
                step_id="SPS0001",
                step_description="Thorax, low dose",
            ),
        ),
        step_id="PPS0001",
        station_aet="CT1",
        modality="CT",
        description="Thorax without contrast",
        start_date="20260102",
        start_time="100500",
        end_date="20260102",
        end_time="101000",
        patient_id="SYNTH0001",
        patient_name="Synthetic^Sam",
        series=(
            PerformedSeries(
                series_instance_uid=SERIES,
                protocol_name="Thorax low dose",
                images=(PerformedReference(sop_class_uid=SOP_CLASS, sop_instance_uid=INSTANCE),),
                non_images=(PerformedReference(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.67", sop_instance_uid="2.25.3205"),),
            ),
        ),
        objects=2,
        said={"00400252": {"vr": "CS", "Value": ["COMPLETED"]}},
        calling_aet="CT1",
        called_aet="HILUM",
        peer="192.0.2.10",
        association="4f1c2d3e4a5b6c7d",
        changed_at=RECEIVED_AT,
    )


def _deidentified() -> InstanceDeidentified:
    return InstanceDeidentified(
        resource="study-x/2.25.4203",
        project="research",
        policy="research",
        policy_version="3f2a9c0d1e4b",
        key_id="9a8b7c6d5e4f",
        study_instance_uid="2.25.4201",
        series_instance_uid="2.25.4202",
        sop_instance_uid="2.25.4203",
        sop_class_uid=SOP_CLASS,
        transfer_syntax_uid=TRANSFER_SYNTAX,
        bucket="study-x",
        object_key="2.25.4201/2.25.4202/2.25.4203.dcm",
        size_bytes=526_990,
        sha256="d1e2f3a4" * 8,
        at=RECEIVED_AT + timedelta(minutes=6),
    )


def _linked() -> PatientLinked:
    return PatientLinked(
        resource="research/9a8b7c6d5e4f/0V7M3K9Q2R8T4X6Z/7H2N5P8S1W4Y0B3D",
        project="research",
        key_id="9a8b7c6d5e4f",
        prior="0V7M3K9Q2R8T4X6Z",
        surviving="7H2N5P8S1W4Y0B3D",
        state="linked",
        at=RECEIVED_AT + timedelta(minutes=7),
    )


EXAMPLES: dict[type[Event], Callable[[], Event]] = {
    InstanceReceived: _received,
    InstanceAccepted: _accepted,
    InstanceQuarantined: _quarantined,
    InstanceRouted: _routed,
    DeliverySettled: _settled,
    ResourceWanted: _wanted,
    AssociationEnded: _association,
    InstanceExpired: _instance_expired,
    StudyChanged: _study_changed,
    StudyExpected: _study_expected,
    ProcedureStepChanged: _performed_step,
    StepPerformed: lambda: StepPerformed.of(_performed_step()),
    StudyCommand: _command,
    CommandOutcome: _outcome,
    ConfigApplied: _config,
    InstanceDeidentified: _deidentified,
    PatientLinked: _linked,
    **ORDER_EXAMPLES,
    **HL7_EXAMPLES,
}
