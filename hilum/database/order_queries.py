"""What commands ask the database of orders, patients and matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.rows import dict_row

from hilum.database import AWAY, away, connect
from hilum.database.found import rows
from hilum.database.hl7_messages import DocumentOfOrder, documents_of
from hilum.errors import Misconfigured, NotFound


class OrderSummary(Struct, frozen=True, kw_only=True):
    """An order in a line. `images` is what became of its images: `awaited`, `imaged`, `no-images` or `order-cancelled`."""

    order_id: str
    status: str
    accession_number: str | None
    accession_issuer: str | None
    placer_number: str | None
    filler_number: str | None
    patient_id: str
    #: Who assigned it, if that is known; as for the accession number.
    patient_issuer: str | None
    patient_name: str | None
    modality: str | None
    start_at: datetime | None
    description: str | None
    sender: str
    images: str
    noted: list[str]
    changed_at: datetime


class Performed(Struct, frozen=True, kw_only=True):
    """A performed procedure step (MPPS) that says that it is for a step of an order. Dates and times are the station's."""

    sop_instance_uid: str
    step_id: str
    state: str
    #: Whether the wrong entry of the worklist was chosen: it is of another patient.
    wrong_entry: bool
    station_aet: str | None
    modality: str | None
    start_date: str | None
    start_time: str | None
    end_date: str | None
    end_time: str | None
    objects: int


class OrderDetail(Struct, frozen=True, kw_only=True):
    """An order, whole. `detail` is as in `orders.order.changed.v1`."""

    summary: OrderSummary
    detail: dict[str, Any]
    notes: list[dict[str, str]]
    message_id: str | None
    superseded_by: str | None
    studies: list[str]
    #: Messages about documents (MDM) that name it.
    documents: list[DocumentOfOrder]
    performed: list[Performed]


class MatchOfStudy(Struct, frozen=True, kw_only=True):
    """How a study fits its orders."""

    study_instance_uid: str
    outcome: str
    by: str | None
    version: int
    order_ids: list[str]
    candidates: list[str]
    differences: list[dict[str, str]]
    coercible: bool
    notes: list[dict[str, str]] | None
    cause: str
    changed_at: datetime
    accepted_version: int | None
    accepted_by: str | None
    accepted_why: str | None

    @property
    def fits(self) -> bool:
        """Whether destinations that wait for its order have it."""
        return self.outcome == "matched" or self.coercible or self.accepted

    @property
    def accepted(self) -> bool:
        """Whether a person has accepted it as it is now."""
        return self.accepted_version == self.version


class KnownPatient(Struct, frozen=True, kw_only=True):
    """A patient as messages describe it."""

    patient_key: str
    patient_id: str
    issuer: str
    name: str | None
    birth_date: str | None
    sex: str | None
    #: Who it was merged into: identifier, and key.
    merged_into: str | None
    survivor_id: str | None
    #: Identifiers of those that were merged into it, and its orders.
    former: list[str]
    #: Identifiers of those with whom it is linked (A24): one person, under two records.
    linked: list[str]
    orders: int
    noted: list[str]
    changed_at: datetime


_SUMMARY = """
SELECT o.order_id, o.status, o.accession_number, o.accession_issuer, o.placer_number, o.filler_number, o.patient_id, o.patient_name,
       coalesce(o.detail #>> '{patient,ids,0,issuer}', o.detail #>> '{patient,ids,0,universal_id}') AS patient_issuer,
       first.modality, first.start_at, o.detail -> 'procedures' -> 0 ->> 'description' AS description, o.sender,
       coalesce(m.outcome, 'awaited') AS images, o.changed_at,
       ARRAY(SELECT DISTINCT note ->> 'code' FROM jsonb_array_elements(coalesce(o.notes, '[]')) AS note ORDER BY 1) AS noted
FROM scheduled_order AS o
LEFT JOIN LATERAL (
    SELECT modality, start_at FROM scheduled_step AS s WHERE s.order_id = o.order_id ORDER BY start_at NULLS LAST, step_number LIMIT 1
) AS first ON true
LEFT JOIN match AS m ON m.about = 'order' AND m.id = o.order_id
"""
_LIST = (
    _SUMMARY
    + """
WHERE o.superseded_by IS NULL
  AND (%(like)s = '' OR %(like)s IN (o.order_id, o.accession_number, o.placer_number, o.filler_number, o.patient_id)
       OR o.patient_name ILIKE '%%' || %(pattern)s || '%%'
       OR o.patient_key IN (
           SELECT coalesce(p.merged_into, p.patient_key) FROM patient_id JOIN patient AS p USING (patient_key) WHERE value = %(like)s))
  AND (%(status)s = '' OR o.status = %(status)s) AND (%(images)s = '' OR coalesce(m.outcome, 'awaited') = %(images)s)
  AND (NOT %(noted)s OR o.notes IS NOT NULL)
ORDER BY o.changed_at DESC, o.order_id LIMIT %(limit)s
"""
)
_NAMED = (
    _SUMMARY + " WHERE %(name)s IN (o.order_id, o.accession_number, o.placer_number, o.filler_number) ORDER BY o.changed_at DESC LIMIT 50"
)


class _Rest(Struct):
    detail: dict[str, Any]
    notes: list[dict[str, str]] | None
    message_id: str | None
    superseded_by: str | None


class _Uid(Struct):
    id: str


_REST = "SELECT detail, notes, message_id, superseded_by FROM scheduled_order WHERE order_id = %(id)s"
_STUDIES = "SELECT id FROM match WHERE about = 'study' AND order_ids @> ARRAY[%(id)s] ORDER BY id"
_PERFORMED = """
SELECT DISTINCT sop_instance_uid, p.step_id, t.state, t.wrong_entry, t.station_aet, t.modality, t.start_date, t.start_time, t.end_date,
       t.end_time, t.objects
FROM scheduled_step AS s JOIN performed_of AS p USING (study_instance_uid, step_id) JOIN performed_step AS t USING (sop_instance_uid)
WHERE s.order_id = %(id)s ORDER BY t.start_date, t.start_time, sop_instance_uid
"""
_MATCH = """
SELECT id AS study_instance_uid, outcome, "by", version, order_ids, candidates, differences, coercible, notes, cause, changed_at,
       accepted_version, accepted_by, accepted_why
FROM match WHERE about = 'study' AND id = %(study)s
"""
_PATIENTS = """
SELECT p.patient_key, p.patient_id, p.issuer, p.name, p.birth_date, p.sex, p.merged_into, s.patient_id AS survivor_id, p.changed_at,
       ARRAY(SELECT former ->> 'value' FROM jsonb_array_elements(coalesce(p.detail -> 'former_ids', '[]')) AS former) AS former,
       ARRAY(SELECT linked ->> 'value' FROM jsonb_array_elements(coalesce(p.detail -> 'linked_ids', '[]')) AS linked) AS linked,
       (SELECT count(*) FROM scheduled_order AS o WHERE o.patient_key = p.patient_key AND o.superseded_by IS NULL)::int AS orders,
       ARRAY(SELECT DISTINCT note ->> 'code' FROM jsonb_array_elements(coalesce(p.notes, '[]')) AS note ORDER BY 1) AS noted
FROM patient AS p LEFT JOIN patient AS s ON s.patient_key = p.merged_into
WHERE (p.patient_key = %(id)s OR p.patient_key IN (SELECT patient_key FROM patient_id WHERE value = %(id)s))
  AND (%(issuer)s = '' OR p.issuer = %(issuer)s)
ORDER BY p.patient_key LIMIT 50
"""


def list_orders(
    dsn: str, *, like: str = "", status: str = "", images: str = "", noted: bool = False, limit: int = 50
) -> list[OrderSummary]:
    """The orders that changed last. `like` is one of their numbers or a patient id, former ones too, or part of a name."""
    pattern = like.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    values = {"like": like, "pattern": pattern, "status": status, "images": images, "noted": noted, "limit": limit}
    return rows(dsn, OrderSummary, _LIST, values)


def show_order(dsn: str, name: str) -> list[OrderDetail]:
    """The orders with this id, accession, placer or filler number; numbers may be used by several. Raises `NotFound`."""
    found = []
    for summary in rows(dsn, OrderSummary, _NAMED, {"name": name}):
        (rest,) = rows(dsn, _Rest, _REST, {"id": summary.order_id})
        found.append(
            OrderDetail(
                summary=summary,
                detail=rest.detail,
                notes=rest.notes or [],
                message_id=rest.message_id,
                superseded_by=rest.superseded_by,
                studies=[each.id for each in rows(dsn, _Uid, _STUDIES, {"id": summary.order_id})],
                documents=_documents(dsn, summary, rest.detail),
                performed=rows(dsn, Performed, _PERFORMED, {"id": summary.order_id}),
            )
        )
    if not found:
        raise NotFound("No order with that id, accession, placer or filler number is known.", fix="See `hilum order list`.")
    return found


def _documents(dsn: str, summary: OrderSummary, detail: Mapping[str, Any]) -> list[DocumentOfOrder]:
    numbers = [each for each in (summary.accession_number, summary.placer_number, summary.filler_number) if each]
    kinds = ("ids", "former_ids", "linked_ids")
    patients = [each["value"] for kind in kinds for each in detail["patient"].get(kind, ())]
    return documents_of(dsn, numbers, patients) if numbers else []


def orders_by_id(dsn: str, order_ids: Sequence[str]) -> list[OrderSummary]:
    """These orders, in the order of their ids."""
    return rows(dsn, OrderSummary, _SUMMARY + " WHERE o.order_id = ANY(%(ids)s) ORDER BY o.order_id", {"ids": list(order_ids)})


def match_of(dsn: str, study_instance_uid: str) -> MatchOfStudy | None:
    """How a study fits its orders; None if it was not held against any yet."""
    return next(iter(rows(dsn, MatchOfStudy, _MATCH, {"study": study_instance_uid})), None)


def find_patients(dsn: str, identifier: str, issuer: str = "") -> list[KnownPatient]:
    """The patients with this identifier, or this key. Raises `NotFound`."""
    found = rows(dsn, KnownPatient, _PATIENTS, {"id": identifier, "issuer": issuer})
    if not found:
        raise NotFound("No patient with that identifier is known from messages.", fix="Give it as in PID-3, and its issuer with --issuer.")
    return found


def accept_match(dsn: str, study_instance_uid: str, version: int, *, by: str, why: str) -> bool:
    """Note that a person accepts a study as it is in `version`. False if it is another one by now."""
    statement = """
        UPDATE match SET accepted_version = version, accepted_by = %(by)s, accepted_why = %(why)s, accepted_at = now()
        WHERE about = 'study' AND id = %(study)s AND version = %(version)s
    """
    try:
        with connect(dsn, name="hilum accept") as connection, connection.cursor(row_factory=dict_row) as cursor:
            values = {"study": study_instance_uid, "version": version, "by": by, "why": why}
            return cursor.execute(statement, values).rowcount == 1
    except psycopg.errors.UndefinedTable:
        raise Misconfigured("database-tables", "The database has no tables of Hilum's.", fix="Make them with `hilum provision`.") from None
    except AWAY as error:
        raise away(dsn, error) from None
