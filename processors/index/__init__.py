"""Keep the index: what arrived, what was decided on it, what waits for a person, which studies there are, and what modalities perform.

Its topics are not ordered among each other, so whichever event of a receipt is read first makes its row, and the others
add to it. A study and a series are described by the first received of their instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import psycopg
from msgspec import Raw
from msgspec.structs import replace

from hilum.database.deidentified import MADE_HERE
from hilum.database.hl7_messages import write_messages
from hilum.database.orders import write_matches, write_orders, write_patients
from hilum.database.quarantine import QuarantineRow, insert_quarantine
from hilum.dicom import Header, tag_of
from hilum.dicom.lossy import may_be_made
from hilum.events import (
    AssociationEnded,
    Instance,
    InstanceAccepted,
    InstanceQuarantined,
    InstanceReceived,
    InstanceRouted,
    MatchChanged,
    MessageReceived,
    MessageRefused,
    MessageValidated,
    OrderChanged,
    PatientChanged,
    ProcedureStepChanged,
    StudyChanged,
)
from hilum.role import Role
from hilum.runtime.tables import Envelope, TableRole
from hilum.settings import Settings

from .performed import write_performed
from .rows import (
    AssociationRow,
    FailedRuleRow,
    InstanceRow,
    ReceiptRow,
    SeriesRow,
    StudyRow,
    StudyStateRow,
    WithdrawnRow,
    insert_association,
    insert_failed_rule,
    insert_instance,
    insert_receipt,
    insert_series,
    insert_study,
    insert_study_state,
    insert_withdrawn,
)

#: Texts longer than this are cut: an index of PostgreSQL takes 2,704 bytes. The standard's longest here are three times 64 characters.
LONGEST_TEXT = 400


class Index:
    """Reads what is said of all but deliveries, and of instances until they are routed; the rest stands in the ledger."""

    name = "index"
    apart_s = 0.25  # nobody waits for it, and the events of an instance come shortly after each other

    def apply(
        self,
        connection: psycopg.Connection,
        events: Sequence[
            tuple[
                InstanceReceived
                | InstanceAccepted
                | InstanceQuarantined
                | InstanceRouted
                | StudyChanged
                | AssociationEnded
                | OrderChanged
                | PatientChanged
                | MatchChanged
                | ProcedureStepChanged
                | MessageReceived
                | MessageRefused
                | MessageValidated,
                Envelope,
            ]
        ],
    ) -> None:
        """See `hilum.runtime.tables.Tables`."""
        associations: dict[str, AssociationRow] = {}
        receipts: dict[str, ReceiptRow] = {}
        quarantined: dict[str, QuarantineRow] = {}
        accepted: list[Instance] = []
        changes: list[StudyChanged] = []
        write_orders(connection, [event for event, _ in events if isinstance(event, OrderChanged)])
        write_patients(connection, [event for event, _ in events if isinstance(event, PatientChanged)])
        write_matches(connection, [event for event, _ in events if isinstance(event, MatchChanged)])
        write_performed(connection, [event for event, _ in events if isinstance(event, ProcedureStepChanged)])
        write_messages(connection, [event for event, _ in events if isinstance(event, MessageReceived | MessageRefused | MessageValidated)])
        failed: dict[str, FailedRuleRow | None] = {}
        for event, envelope in events:
            if isinstance(event, OrderChanged | PatientChanged | MatchChanged | ProcedureStepChanged):
                continue
            if isinstance(event, MessageReceived | MessageRefused | MessageValidated):
                continue
            if isinstance(event, AssociationEnded):
                associations[event.association] = _association(event)
                continue
            if isinstance(event, StudyChanged):
                changes.append(event)
                continue
            if isinstance(event, InstanceRouted) and (event.failed or event.mended):
                failed[event.sop_instance_uid] = _failed_rule(event)
            row = _receipt(event, envelope)
            known = receipts.setdefault(row.receipt, row)
            if known is not row:
                known.add(row)
            if isinstance(event, InstanceAccepted):
                accepted.append(event.instance)
            elif isinstance(event, InstanceQuarantined):
                quarantined[envelope.id] = _quarantine_row(event, envelope)
        insert_association(connection, [associations[association] for association in sorted(associations)])
        insert_receipt(connection, [receipts[receipt] for receipt in sorted(receipts)])
        insert_quarantine(connection, [quarantined[event_id] for event_id in sorted(quarantined)])
        _write_changes(connection, changes)
        _write_failed(connection, failed)
        accepted = _of_here(connection, accepted)
        accepted.sort(key=lambda instance: (instance.received_at, instance.receipt), reverse=True)
        described = [(instance, _Attributes(instance)) for instance in accepted]
        # Of each, the first received comes last and stays. They are written by key, so that no two workers wait for each other.
        studies = {instance.study_instance_uid: (instance, attributes) for instance, attributes in described}
        series = {instance.series_instance_uid: (instance, attributes) for instance, attributes in described}
        instances = {instance.sop_instance_uid: (instance, attributes) for instance, attributes in described}
        insert_study(connection, [_study(*studies[uid]) for uid in sorted(studies)])
        insert_series(connection, [_series(*series[uid]) for uid in sorted(series)])
        insert_instance(connection, [_instance(*instances[uid]) for uid in sorted(instances)])


def _of_here(connection: psycopg.Connection, accepted: Sequence[Instance]) -> list[Instance]:
    """Without what left de-identified and was sent back: its receipt says so, and there is no study of a patient of that name."""
    maybe = [each.sop_instance_uid for each in accepted if may_be_made(each.sop_instance_uid)]
    made = {uid for (uid,) in connection.execute(MADE_HERE, {"uids": maybe})} if maybe else ()
    return [each for each in accepted if each.sop_instance_uid not in made]


def role(settings: Settings) -> Role:
    """The role `index`."""
    return TableRole(settings, Index())


def _failed_rule(event: InstanceRouted) -> FailedRuleRow | None:
    """The rules that could not be evaluated; None if all are decided now."""
    if not event.failed:
        return None
    return FailedRuleRow(
        sop_instance_uid=event.sop_instance_uid,
        study_instance_uid=event.study_instance_uid,
        receipt=event.receipt,
        rules=tuple(each.rule for each in event.failed),
        says=" ".join(each.says for each in event.failed),
        config_version=event.config_version,
        failed_at=event.decided_at,
    )


def _write_failed(connection: psycopg.Connection, failed: Mapping[str, FailedRuleRow | None]) -> None:
    """Keep what is to be decided again, and forget what was. Of one instance the decisions are on one partition, in their order."""
    if mended := sorted(uid for uid, row in failed.items() if row is None):
        connection.execute("DELETE FROM failed_rule WHERE sop_instance_uid = ANY(%s)", (mended,))
    insert_failed_rule(connection, [row for _, row in sorted(failed.items()) if row is not None])


def _receipt(event: InstanceReceived | InstanceAccepted | InstanceQuarantined | InstanceRouted, envelope: Envelope) -> ReceiptRow:
    """What this one event says of its receipt."""
    if isinstance(event, InstanceQuarantined):
        return ReceiptRow(
            receipt=event.receipt,
            study_instance_uid=_short(event.study_instance_uid),
            series_instance_uid=_short(event.series_instance_uid),
            sop_instance_uid=_short(event.sop_instance_uid),
            quarantine_reason=event.reason,
            quarantine_stage=event.stage,
            quarantined_at=event.quarantined_at,
        )
    of = event if isinstance(event, InstanceRouted) else event.instance
    row = ReceiptRow(
        receipt=of.receipt,
        study_instance_uid=_short(of.study_instance_uid),
        series_instance_uid=_short(of.series_instance_uid),
        sop_instance_uid=_short(of.sop_instance_uid),
        sop_class_uid=_short(of.sop_class_uid),
        transfer_syntax_uid=_short(of.transfer_syntax_uid),
        bucket=of.object.bucket,
        object_key=of.object.key,
        size_bytes=of.object.size_bytes,
        sha256=of.object.sha256,
        received_at=of.received_at,
    )
    if isinstance(event, InstanceRouted):
        row.decision, row.decided_at, row.config_version = event.decision, event.decided_at, event.config_version
        row.delivery_ids = tuple(delivery.delivery_id for delivery in event.deliveries)
        if event.findings:
            row.study_findings = Raw(msgspec.json.encode(event.findings))
        return row
    source = event.instance.source
    row.adapter, row.peer, row.association = source.adapter, source.peer, source.association
    row.calling_aet, row.called_aet = source.calling_aet, source.called_aet
    if isinstance(event, InstanceReceived):
        row.received, row.traceparent = True, envelope.traceparent
    else:
        row.accepted_at, row.findings = envelope.time, Raw(msgspec.json.encode(event.findings))
    return row


def _write_changes(connection: psycopg.Connection, changes: Sequence[StudyChanged]) -> None:
    """What became of studies. Openings and completions say which state a study is in; a withdrawal names instances."""
    states: dict[str, StudyStateRow] = {}
    withdrawn: dict[str, WithdrawnRow] = {}
    for event in changes:
        if event.change == "withdrawn":
            for uid in event.sop_instance_uids:
                row = WithdrawnRow(
                    sop_instance_uid=uid,
                    study_instance_uid=event.study_instance_uid,
                    note=event.note,
                    code=event.code,
                    withdrawn_at=event.changed_at,
                )
                if uid not in withdrawn or row.withdrawn_at >= withdrawn[uid].withdrawn_at:
                    withdrawn[uid] = row
            continue
        state, last = _state(event), states.get(event.study_instance_uid)
        if last is not None:
            completed = [each.completed_at for each in (last, state) if each.completed_at is not None]
            newest = max(last, state, key=lambda each: (each.step, each.changed_at))
            state = replace(newest, completed_at=max(completed, default=None))
        states[event.study_instance_uid] = state
    insert_study_state(connection, [states[uid] for uid in sorted(states)])
    insert_withdrawn(connection, [withdrawn[uid] for uid in sorted(withdrawn)])


def _state(event: StudyChanged) -> StudyStateRow:
    complete = event.change == "completed"
    return StudyStateRow(
        study_instance_uid=event.study_instance_uid,
        step=2 * event.revision + complete,
        state="complete" if complete else "open",
        revision=event.revision if complete else event.revision - 1,
        reason=event.reason or None,
        instances=event.instances,
        new=event.new,
        missing=event.missing,
        withdrawn=event.withdrawn,
        changed_at=event.changed_at,
        completed_at=event.changed_at if complete else None,
        says=event.says or None,
    )


def _association(event: AssociationEnded) -> AssociationRow:
    return AssociationRow(
        association=event.association,
        calling_aet=event.calling_aet,
        called_aet=event.called_aet,
        peer=event.peer,
        implementation_class_uid=_short(event.implementation_class_uid),
        implementation_version_name=_short(event.implementation_version_name),
        max_pdu_bytes=event.max_pdu_bytes,
        certificate=_short(event.certificate),
        contexts=Raw(msgspec.json.encode(event.contexts)),
        refused=_short(event.refused),
        ended=event.ended,
        objects=event.objects,
        size_bytes=event.size_bytes,
        statuses=Raw(msgspec.json.encode(event.statuses)),
        opened_at=event.opened_at,
        ended_at=event.ended_at,
        adapter=event.adapter,
        requests=event.requests,
    )


def _quarantine_row(event: InstanceQuarantined, envelope: Envelope) -> QuarantineRow:
    return QuarantineRow(
        event_id=envelope.id,
        receipt=event.receipt,
        study_instance_uid=_short(event.study_instance_uid),
        series_instance_uid=_short(event.series_instance_uid),
        sop_instance_uid=_short(event.sop_instance_uid),
        stage=event.stage,
        reason=event.reason,
        sentence=event.sentence,
        fix=event.fix,
        found=event.found,
        expected=event.expected,
        quarantined_at=event.quarantined_at,
        input_type=event.input.type,
        input_id=event.input.id,
        input=bytes(event.input.data),
    )


def _study(instance: Instance, attributes: _Attributes) -> StudyRow:
    return StudyRow(
        receipt=instance.receipt,
        received_at=instance.received_at,
        study_instance_uid=instance.study_instance_uid,
        patient_id=attributes.text("PatientID"),
        issuer_of_patient_id=attributes.text("IssuerOfPatientID"),
        patient_name=attributes.text("PatientName"),
        patient_birth_date=attributes.text("PatientBirthDate"),
        patient_sex=attributes.text("PatientSex"),
        accession_number=attributes.text("AccessionNumber"),
        study_id=attributes.text("StudyID"),
        study_date=attributes.text("StudyDate"),
        study_time=attributes.text("StudyTime"),
        study_description=attributes.text("StudyDescription"),
        referring_physician_name=attributes.text("ReferringPhysicianName"),
        institution_name=attributes.text("InstitutionName"),
    )


def _series(instance: Instance, attributes: _Attributes) -> SeriesRow:
    return SeriesRow(
        receipt=instance.receipt,
        received_at=instance.received_at,
        series_instance_uid=instance.series_instance_uid,
        study_instance_uid=instance.study_instance_uid,
        modality=attributes.text("Modality"),
        series_number=attributes.text("SeriesNumber"),
        series_description=attributes.text("SeriesDescription"),
        body_part_examined=attributes.text("BodyPartExamined"),
        protocol_name=attributes.text("ProtocolName"),
        manufacturer=attributes.text("Manufacturer"),
        manufacturer_model_name=attributes.text("ManufacturerModelName"),
        station_name=attributes.text("StationName"),
        header=instance.header_json,
    )


def _instance(instance: Instance, attributes: _Attributes) -> InstanceRow:
    return InstanceRow(
        receipt=instance.receipt,
        received_at=instance.received_at,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        study_instance_uid=instance.study_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        instance_number=attributes.text("InstanceNumber"),
        number_of_frames=attributes.text("NumberOfFrames"),
        rows=attributes.number("Rows"),
        columns=attributes.number("Columns"),
        content_date=attributes.text("ContentDate"),
        content_time=attributes.text("ContentTime"),
        bucket=instance.object.bucket,
        object_key=instance.object.key,
        size_bytes=instance.object.size_bytes,
        sha256=instance.object.sha256,
    )


class _Attributes:
    """The header of an instance, of which only what is asked for is decoded: that is most of what an event costs."""

    _decoder = msgspec.json.Decoder(dict[str, Raw])

    def __init__(self, instance: Instance) -> None:
        self._raw = self._decoder.decode(instance.header_json)
        self._cut = frozenset(instance.header_cut)

    def text(self, keyword: str) -> str | None:
        """The value; None if absent, empty, or cut from the event: the index is for finding, the object has it all."""
        tag = tag_of(keyword)
        raw = self._raw.get(tag)
        return _short(Header({tag: msgspec.json.decode(raw)}).text(keyword)) if raw is not None and tag not in self._cut else None

    def number(self, keyword: str) -> int | None:
        """The value if it is a whole number that a column holds, else None."""
        text = self.text(keyword) or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _short(text: str) -> str | None:
    return text[:LONGEST_TEXT] or None
