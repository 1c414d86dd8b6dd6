"""What orders and modalities say of a study: how it fits its orders, which these are, and what was performed for it."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from hilum.database.found import rows
from hilum.database.order_queries import MatchOfStudy, match_of


class OrderOfStudy(Struct, frozen=True, kw_only=True):
    """An order that is, or might be, a study's; with the first of its steps that is for the study."""

    order_id: str
    study_instance_uid: str | None
    status: str
    accession_number: str | None
    placer_number: str | None
    description: str | None
    modality: str | None
    stations: list[str]
    start_at: datetime | None
    sender: str
    #: The HL7 message that said the last of it; `hilum hl7 show` has it.
    message_id: str | None
    changed_at: datetime


class PerformedForStudy(Struct, frozen=True, kw_only=True):
    """A step that a modality says it performs (MPPS)."""

    sop_instance_uid: str
    state: str
    station_aet: str | None
    modality: str | None
    description: str | None
    began_at: datetime
    changed_at: datetime
    #: How many objects it says there are.
    objects: int
    reason_code: str | None
    #: Whether the wrong entry of the worklist was chosen (110514).
    wrong_entry: bool


class _Study(Struct):
    id: str


class Ordered(Struct, frozen=True, kw_only=True):
    """All of that. `match` is None for a study that was not held against orders yet."""

    match: MatchOfStudy | None
    orders: list[OrderOfStudy]
    candidates: list[OrderOfStudy]
    performed: list[PerformedForStudy]


_ORDERS = """
    SELECT o.order_id, s.study_instance_uid, o.status, o.accession_number, o.placer_number,
           o.detail -> 'procedures' -> coalesce(s.procedure_number, 0) ->> 'description' AS description,
           s.modality, coalesce(s.station_ae_titles, '{}') AS stations, s.start_at, o.sender, o.message_id, o.changed_at
    FROM scheduled_order AS o LEFT JOIN LATERAL (
        SELECT * FROM scheduled_step AS of WHERE of.order_id = o.order_id
        ORDER BY of.study_instance_uid = %(study)s DESC, of.procedure_number, of.step_number LIMIT 1
    ) AS s ON true
"""
_BY_ID = _ORDERS + "WHERE o.order_id = ANY(%(ids)s) ORDER BY o.changed_at DESC, o.order_id"
_PLANNED = (
    _ORDERS
    + """
    WHERE o.superseded_by IS NULL AND (%(study)s IN (o.accession_number, o.placer_number, o.filler_number) OR o.order_id IN (
        SELECT order_id FROM scheduled_step WHERE study_instance_uid = %(study)s))
    ORDER BY o.changed_at DESC, o.order_id LIMIT 50
"""
)
_STUDIES = """
    SELECT m.id FROM match AS m JOIN scheduled_order AS o ON o.order_id = ANY(m.order_ids)
    WHERE m.about = 'study' AND %(number)s IN (o.accession_number, o.placer_number, o.filler_number)
    GROUP BY m.id ORDER BY m.id LIMIT 50
"""
_PERFORMED = """
    SELECT sop_instance_uid, state, station_aet, modality, description, began_at, changed_at, objects, reason_code, wrong_entry
    FROM performed_step AS p
    WHERE study_instance_uid = %(study)s
       OR sop_instance_uid IN (SELECT sop_instance_uid FROM performed_of WHERE study_instance_uid = %(study)s)
    ORDER BY began_at, sop_instance_uid LIMIT 50
"""


def ordered(dsn: str, study_instance_uid: str) -> Ordered:
    """What is known of a study beside its objects."""
    match = match_of(dsn, study_instance_uid)
    values: dict[str, object] = {"study": study_instance_uid}
    return Ordered(
        match=match,
        orders=rows(dsn, OrderOfStudy, _BY_ID, values | {"ids": match.order_ids}) if match is not None else [],
        candidates=rows(dsn, OrderOfStudy, _BY_ID, values | {"ids": match.candidates}) if match is not None else [],
        performed=rows(dsn, PerformedForStudy, _PERFORMED, values),
    )


def planned(dsn: str, study: str) -> Ordered | None:
    """The orders with this StudyInstanceUID or number, for a study of which nothing came; None if there are none."""
    orders = rows(dsn, OrderOfStudy, _PLANNED, {"study": study})
    if not orders:
        return None
    uids = dict.fromkeys(each.study_instance_uid for each in orders if each.study_instance_uid)
    performed = [each for uid in uids for each in rows(dsn, PerformedForStudy, _PERFORMED, {"study": uid})]
    return Ordered(match=None, orders=orders, candidates=[], performed=performed)


def studies_of(dsn: str, number: str) -> list[str]:
    """The studies whose order has this accession, placer or filler number, whatever number their images have."""
    return [each.id for each in rows(dsn, _Study, _STUDIES, {"number": number})]
