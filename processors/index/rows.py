"""The rows of the index, and how they are written: whichever event of a receipt or an instance is read first makes its row."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from msgspec import Raw, Struct

from hilum.database.rows import Insert


class ReceiptRow(Struct, kw_only=True):
    """What is known of one arrival; None is not known yet.

    Any two events of it agree where both say something, but for what is decided: a later decision goes further, and adds deliveries.
    """

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
    study_findings: Raw | None = None
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
        if _further(other.decision) > _further(self.decision):
            self.decision = other.decision
        if self.delivery_ids is not None and other.delivery_ids is not None and not set(other.delivery_ids) <= set(self.delivery_ids):
            self.delivery_ids = tuple(sorted({*self.delivery_ids, *other.delivery_ids}))
        self.received = self.received or other.received
        for column in _PLAIN:
            if getattr(self, column) is None:
                setattr(self, column, getattr(other, column))


_QUARANTINE = ("quarantined_at", "quarantine_stage", "quarantine_reason")
_PLAIN = tuple(column for column in ReceiptRow.__struct_fields__ if column not in ("receipt", "received", *_QUARANTINE))
#: Decisions: of two on one arrival, the one that stands further back here holds.
_DECISIONS = ("held", "waits", "no-rule", "duplicate", "returned", "ignored", "deliver", "corrected", "withdrawn")


def _further(decision: str | None) -> int:
    return _DECISIONS.index(decision) if decision in _DECISIONS else -1


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


class StudyStateRow(Struct, frozen=True, kw_only=True):
    """Whether a study is complete."""

    study_instance_uid: str
    step: int
    state: str
    revision: int
    reason: str | None
    instances: int
    new: int
    missing: int
    withdrawn: int
    changed_at: datetime
    completed_at: datetime | None
    says: str | None = None


class WithdrawnRow(Struct, frozen=True, kw_only=True):
    """An instance that a rejection note names."""

    sop_instance_uid: str
    study_instance_uid: str
    note: str
    code: str
    withdrawn_at: datetime


class FailedRuleRow(Struct, frozen=True, kw_only=True):
    """An instance on which rules could not be evaluated."""

    sop_instance_uid: str
    study_instance_uid: str
    receipt: str
    rules: tuple[str, ...]
    says: str
    config_version: str
    failed_at: datetime


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
    adapter: str
    requests: int


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


insert_study = _first_received("study", StudyRow, "study_instance_uid")
insert_series = _first_received("series", SeriesRow, "series_instance_uid")
insert_instance = _first_received("instance", InstanceRow, "sop_instance_uid")
_STATE = tuple(column for column in StudyStateRow.__struct_fields__ if column not in ("study_instance_uid", "completed_at"))
_NEWER = "(excluded.step, excluded.changed_at) > (study_state.step, study_state.changed_at)"
insert_study_state = Insert(
    "study_state",
    StudyStateRow,
    "ON CONFLICT (study_instance_uid) DO UPDATE SET completed_at = greatest(study_state.completed_at, excluded.completed_at), "
    + ", ".join(f"{column} = CASE WHEN {_NEWER} THEN excluded.{column} ELSE study_state.{column} END" for column in _STATE),
)
insert_failed_rule = Insert(
    "failed_rule",
    FailedRuleRow,
    "ON CONFLICT (sop_instance_uid) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in FailedRuleRow.__struct_fields__[1:]),
)
insert_withdrawn = Insert("withdrawn", WithdrawnRow, "ON CONFLICT DO NOTHING")
insert_association = Insert("association", AssociationRow, "ON CONFLICT DO NOTHING")
_LATER = (
    "coalesce((excluded.quarantined_at, excluded.quarantine_stage, excluded.quarantine_reason)"
    " > (receipt.quarantined_at, receipt.quarantine_stage, receipt.quarantine_reason), receipt.quarantined_at IS NULL)"
)
_DECIDED = ("decision", "delivery_ids")
_RANK = "array_position(ARRAY[" + ", ".join(f"'{decision}'" for decision in _DECISIONS) + "], {})"
_FURTHER = f"coalesce({_RANK.format('excluded.decision')}, 0) > coalesce({_RANK.format('receipt.decision')}, 0)"
_ALL_DELIVERIES = (
    "CASE WHEN receipt.delivery_ids IS NULL OR excluded.delivery_ids IS NULL"
    " THEN coalesce(receipt.delivery_ids, excluded.delivery_ids)"
    " WHEN receipt.delivery_ids @> excluded.delivery_ids THEN receipt.delivery_ids"
    " ELSE (SELECT array_agg(DISTINCT id ORDER BY id) FROM unnest(receipt.delivery_ids || excluded.delivery_ids) AS id) END"
)
insert_receipt = Insert(
    "receipt",
    ReceiptRow,
    "ON CONFLICT (receipt) DO UPDATE SET received = receipt.received OR excluded.received, "
    + ", ".join(f"{column} = coalesce(receipt.{column}, excluded.{column})" for column in _PLAIN if column not in _DECIDED)
    + f", decision = CASE WHEN {_FURTHER} THEN excluded.decision ELSE receipt.decision END, delivery_ids = {_ALL_DELIVERIES}"
    + "".join(f", {column} = CASE WHEN {_LATER} THEN excluded.{column} ELSE receipt.{column} END" for column in _QUARANTINE),
)
