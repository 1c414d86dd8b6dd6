"""Keep the index: what arrived, what was decided on it, what waits for a person, and which studies, series and instances there are.

Its topics are not ordered among each other, so whichever event of a receipt is read first makes its row, and the others
add to it. A study and a series are described by the first received of their instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
import psycopg
from msgspec import Raw, Struct

from hilum.database.quarantine import QuarantineRow, insert_quarantine
from hilum.database.rows import Insert
from hilum.dicom import Header, tag_of
from hilum.events import AssociationEnded, Instance, InstanceAccepted, InstanceQuarantined, InstanceReceived, InstanceRouted
from hilum.role import Role
from hilum.runtime.tables import Envelope, TableRole
from hilum.settings import Settings

#: Texts longer than this are cut: an index of PostgreSQL takes 2,704 bytes. The standard's longest here are three times 64 characters.
LONGEST_TEXT = 400


class ReceiptRow(Struct, kw_only=True):
    """What is known of one arrival; None is not known yet. Any two events of it agree where both say something."""

    receipt: str
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    sop_class_uid: str | None = None
    transfer_syntax_uid: str | None = None
    bucket: str | None = None
    object_key: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    adapter: str | None = None
    calling_aet: str | None = None
    called_aet: str | None = None
    peer: str | None = None
    association: str | None = None
    received_at: datetime | None = None
    received: bool = False
    accepted_at: datetime | None = None
    findings: Raw | None = None
    decision: str | None = None
    decided_at: datetime | None = None
    delivery_ids: tuple[str, ...] | None = None
    config_version: str | None = None
    quarantine_reason: str | None = None
    quarantine_stage: str | None = None
    quarantined_at: datetime | None = None
    traceparent: str | None = None

    def add(self, other: ReceiptRow) -> None:
        """Take over what `other` knows and this row does not; of two quarantines, the later one."""
        if _quarantine(other) > _quarantine(self):
            for column in _QUARANTINE:
                setattr(self, column, getattr(other, column))
        self.received = self.received or other.received
        for column in _PLAIN:
            if getattr(self, column) is None:
                setattr(self, column, getattr(other, column))


_QUARANTINE = ("quarantined_at", "quarantine_stage", "quarantine_reason")
_PLAIN = tuple(column for column in ReceiptRow.__struct_fields__ if column not in ("receipt", "received", *_QUARANTINE))


def _quarantine(row: ReceiptRow) -> tuple[str, str, str]:
    if row.quarantined_at is None:
        return ("", "", "")
    return (row.quarantined_at.isoformat(), row.quarantine_stage or "", row.quarantine_reason or "")


class _OfInstance(Struct, frozen=True, kw_only=True):
    """A row that the first received of several instances describes."""

    receipt: str
    received_at: datetime


class StudyRow(_OfInstance, frozen=True, kw_only=True):
    """A study, as one of its instances describes it."""

    study_instance_uid: str
    patient_id: str | None
    issuer_of_patient_id: str | None
    patient_name: str | None
    patient_birth_date: str | None
    patient_sex: str | None
    accession_number: str | None
    study_id: str | None
    study_date: str | None
    study_time: str | None
    study_description: str | None
    referring_physician_name: str | None
    institution_name: str | None


class SeriesRow(_OfInstance, frozen=True, kw_only=True):
    """A series, as one of its instances describes it, and that instance's header."""

    series_instance_uid: str
    study_instance_uid: str
    modality: str | None
    series_number: str | None
    series_description: str | None
    body_part_examined: str | None
    protocol_name: str | None
    manufacturer: str | None
    manufacturer_model_name: str | None
    station_name: str | None
    header: Raw


class AssociationRow(Struct, frozen=True, kw_only=True):
    """An association that is over, or was refused."""

    association: str
    calling_aet: str
    called_aet: str
    peer: str
    implementation_class_uid: str | None
    implementation_version_name: str | None
    max_pdu_bytes: int
    certificate: str | None
    contexts: Raw
    refused: str | None
    ended: str
    objects: int
    size_bytes: int
    statuses: Raw
    opened_at: datetime
    ended_at: datetime


class InstanceRow(_OfInstance, frozen=True, kw_only=True):
    """An instance, as its first receipt brought it."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str | None
    number_of_frames: str | None
    rows: int | None
    columns: int | None
    content_date: str | None
    content_time: str | None
    bucket: str
    object_key: str
    size_bytes: int
    sha256: str


R = TypeVar("R", bound=_OfInstance)


def _first_received(table: str, row: type[R], key: str) -> Insert[R]:
    """Insert, or replace what a later received instance had written.

    What is known already is left out first, so that the dearest, to read a header as jsonb, is done once a series.
    """
    columns = ", ".join(f'"{column}"' for column in row.__struct_fields__)
    excluded = ", ".join(f'excluded."{column}"' for column in row.__struct_fields__)
    return Insert(
        table,
        row,
        f"WHERE NOT EXISTS (SELECT FROM {table} AS known WHERE known.{key} = new.{key}"
        " AND (known.received_at, known.receipt) <= (new.received_at, new.receipt))"
        f" ON CONFLICT ({key}) DO UPDATE SET ({columns}) = ROW ({excluded})"
        f" WHERE (excluded.received_at, excluded.receipt) < ({table}.received_at, {table}.receipt)",
    )


_insert_study = _first_received("study", StudyRow, "study_instance_uid")
_insert_series = _first_received("series", SeriesRow, "series_instance_uid")
_insert_instance = _first_received("instance", InstanceRow, "sop_instance_uid")
_insert_association = Insert("association", AssociationRow, "ON CONFLICT DO NOTHING")
_LATER = (
    "coalesce((excluded.quarantined_at, excluded.quarantine_stage, excluded.quarantine_reason)"
    " > (receipt.quarantined_at, receipt.quarantine_stage, receipt.quarantine_reason), receipt.quarantined_at IS NULL)"
)
_insert_receipt = Insert(
    "receipt",
    ReceiptRow,
    "ON CONFLICT (receipt) DO UPDATE SET received = receipt.received OR excluded.received, "
    + ", ".join(f"{column} = coalesce(receipt.{column}, excluded.{column})" for column in _PLAIN)
    + "".join(f", {column} = CASE WHEN {_LATER} THEN excluded.{column} ELSE receipt.{column} END" for column in _QUARANTINE),
)


class Index:
    """Reads what is said of associations, and of instances until they are routed; what becomes of deliveries stands in the ledger."""

    name = "index"
    apart_s = 0.25  # nobody waits for it, and the events of an instance come shortly after each other

    def apply(
        self,
        connection: psycopg.Connection,
        events: Sequence[tuple[InstanceReceived | InstanceAccepted | InstanceQuarantined | InstanceRouted | AssociationEnded, Envelope]],
    ) -> None:
        """See `hilum.runtime.tables.Tables`."""
        associations: dict[str, AssociationRow] = {}
        receipts: dict[str, ReceiptRow] = {}
        quarantined: dict[str, QuarantineRow] = {}
        accepted: list[Instance] = []
        for event, envelope in events:
            if isinstance(event, AssociationEnded):
                associations[event.association] = _association(event)
                continue
            row = _receipt(event, envelope)
            known = receipts.setdefault(row.receipt, row)
            if known is not row:
                known.add(row)
            if isinstance(event, InstanceAccepted):
                accepted.append(event.instance)
            elif isinstance(event, InstanceQuarantined):
                quarantined[envelope.id] = _quarantine_row(event, envelope)
        _insert_association(connection, [associations[association] for association in sorted(associations)])
        _insert_receipt(connection, [receipts[receipt] for receipt in sorted(receipts)])
        insert_quarantine(connection, [quarantined[event_id] for event_id in sorted(quarantined)])
        accepted.sort(key=lambda instance: (instance.received_at, instance.receipt), reverse=True)
        described = [(instance, _Attributes(instance)) for instance in accepted]
        # Of each, the first received comes last and stays. They are written by key, so that no two workers wait for each other.
        studies = {instance.study_instance_uid: (instance, attributes) for instance, attributes in described}
        series = {instance.series_instance_uid: (instance, attributes) for instance, attributes in described}
        instances = {instance.sop_instance_uid: (instance, attributes) for instance, attributes in described}
        _insert_study(connection, [_study(*studies[uid]) for uid in sorted(studies)])
        _insert_series(connection, [_series(*series[uid]) for uid in sorted(series)])
        _insert_instance(connection, [_instance(*instances[uid]) for uid in sorted(instances)])


def role(settings: Settings) -> Role:
    """The role `index`."""
    return TableRole(settings, Index())


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
        return row
    source = event.instance.source
    row.adapter, row.peer, row.association = source.adapter, source.peer, source.association
    row.calling_aet, row.called_aet = source.calling_aet, source.called_aet
    if isinstance(event, InstanceReceived):
        row.received, row.traceparent = True, envelope.traceparent
    else:
        row.accepted_at, row.findings = envelope.time, Raw(msgspec.json.encode(event.findings))
    return row


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
