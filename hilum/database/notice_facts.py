"""What a message says of a study, of its orders and of its patient, as facts by the names of `hilum.hl7.outgoing.FACTS`.

Orders are those that the study was matched with, by whatever they were found; a modality's step is joined with its order by all that the
modality copied from the worklist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from hilum.database.merges import current, person
from hilum.order_events import Identifier, Order
from hilum.procedure_events import PerformedOf

Facts = Mapping[str, str]

_STUDY = """
    SELECT current_patient_id AS "PatientID", current_issuer AS "IssuerOfPatientID", current_patient_name AS "PatientName",
        current_patient_birth_date AS "PatientBirthDate", current_patient_sex AS "PatientSex", accession_number AS "AccessionNumber",
        study_date AS "StudyDate", study_time AS "StudyTime", study_description AS "StudyDescription",
        array_to_string(modalities_in_study, '\\') AS "ModalitiesInStudy", instance_count::text AS "Instances", revision::text AS "Revision"
    FROM v_study WHERE study_instance_uid = %s
"""
_OF_ORDER = """
    o.placer_number AS "PlacerOrderNumber", o.filler_number AS "FillerOrderNumber", o.accession_number AS "AccessionNumber",
    first.procedure_id AS "RequestedProcedureID", first.code ->> 'value' AS "ProcedureCode",
    first.code ->> 'meaning' AS "ProcedureMeaning", first.code ->> 'scheme' AS "ProcedureScheme"
"""
#: The requested procedure that comes first by a condition.
_FIRST = """
    LATERAL (
        SELECT s.procedure_id, o.detail #> ARRAY['procedures', s.procedure_number::text, 'codes', '0'] AS code
        FROM scheduled_step AS s WHERE s.order_id = o.order_id
        ORDER BY {by} DESC, s.procedure_number, s.step_number LIMIT 1) AS first ON true
"""
#: The orders that a study was matched with; those of which it has the StudyInstanceUID, while it was held against none.
_ORDERS = f"""
    SELECT o.order_id, {_OF_ORDER}
    FROM scheduled_order AS o LEFT JOIN {_FIRST.format(by="s.study_instance_uid = %(study)s")}
    WHERE o.superseded_by IS NULL AND o.order_id IN (
        SELECT unnest(order_ids) FROM match WHERE about = 'study' AND id = %(study)s
        UNION ALL SELECT s.order_id FROM scheduled_step AS s WHERE s.study_instance_uid = %(study)s
            AND NOT EXISTS (SELECT FROM match WHERE about = 'study' AND id = %(study)s AND order_ids <> '{{}}'))
    ORDER BY o.order_id LIMIT 20
"""  # constants
#: The order of a step: that of its scheduled step; of its study and accession number; or of one of them, if only one order is.
_ORDER_OF_STEP = f"""
    SELECT {_OF_ORDER}
    FROM scheduled_order AS o LEFT JOIN {_FIRST.format(by="(s.study_instance_uid = %(study)s AND s.step_id = %(step)s)")}
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_or(s.study_instance_uid = %(study)s), false) AS study,
            coalesce(bool_or(s.study_instance_uid = %(study)s AND s.step_id = %(step)s AND s.procedure_id = %(procedure)s), false) AS step
        FROM scheduled_step AS s WHERE s.order_id = o.order_id) AS fits
    WHERE o.superseded_by IS NULL AND o.order_id IN (
        SELECT order_id FROM scheduled_step WHERE study_instance_uid = %(study)s
        UNION SELECT order_id FROM scheduled_order WHERE accession_number = %(accession)s
        UNION SELECT unnest(order_ids) FROM match WHERE about = 'study' AND id = %(study)s)
      AND (%(accession)s = '' OR o.accession_number IS NULL OR o.accession_number = %(accession)s)
      AND (%(placer)s = '' OR o.placer_number IS NULL OR o.placer_number = %(placer)s)
      AND (%(filler)s = '' OR o.filler_number IS NULL OR o.filler_number = %(filler)s)
    ORDER BY fits.step DESC, fits.study DESC, o.changed_at DESC LIMIT 1
"""  # constants
_MERGED = """
    SELECT patient_id AS "PatientID", issuer AS "IssuerOfPatientID", name AS "PatientName", birth_date AS "PatientBirthDate",
        sex AS "PatientSex"
    FROM ({person}) AS merged
""".replace("{person}", current("%(id)s", "%(issuer)s"))
#: The identifier as messages wrote it, of the one patient that has it.
_AS_WRITTEN = """
    SELECT own.issuer AS "IssuerOfPatientID", own.type AS "PatientIDType"
    FROM ({person}) AS person JOIN patient_id AS own USING (patient_key) WHERE own.value = %(id)s
    ORDER BY own.issuer = %(issuer)s DESC, own.issuer LIMIT 1
""".replace("{person}", person("%(id)s", "%(issuer)s"))


class OfOrder(NamedTuple):
    """An order of a study."""

    order_id: str
    facts: Facts


def of_study(connection: psycopg.Connection, study: str) -> Facts | None:
    """What the index says of a study; None if it has not heard of it."""
    found = _one(connection, _STUDY, (study,))
    return None if found is None else {"StudyInstanceUID": study, **found}


def orders_of(connection: psycopg.Connection, study: str) -> list[OfOrder]:
    """The orders of a study, always in the same order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_ORDERS.encode(), {"study": study}).fetchall()
    return [OfOrder(row.pop("order_id"), _said(row)) for row in rows]


def order_of_step(connection: psycopg.Connection, step: PerformedOf) -> Facts:
    """The order that a modality performs; nothing if nobody knows it."""
    values = {
        "study": step.study_instance_uid,
        "step": step.step_id,
        "procedure": step.procedure_id,
        "accession": step.accession_number,
        "placer": step.placer_number,
        "filler": step.filler_number,
    }
    return _one(connection, _ORDER_OF_STEP, values) or {}


def order_facts(order: Order) -> Facts:
    """The same of an order as its event has it, and who its patient is."""
    procedure, patient = order.procedures[0], order.patient
    first = patient.ids[0] if patient.ids else Identifier(value="")
    code = procedure.codes[0] if procedure.codes else None
    return _said(
        {
            "PatientID": first.value,
            "IssuerOfPatientID": first.issuer,
            "PatientIDType": first.type,
            "PatientName": patient.name,
            "PatientBirthDate": patient.birth_date,
            "PatientSex": patient.sex,
            "StudyDescription": procedure.description,
            "AccessionNumber": order.accession.value if order.accession else "",
            "PlacerOrderNumber": order.placer.value if order.placer else "",
            "FillerOrderNumber": order.filler.value if order.filler else "",
            "RequestedProcedureID": procedure.procedure_id,
            "ProcedureCode": code.value if code else "",
            "ProcedureMeaning": code.meaning if code else "",
            "ProcedureScheme": code.scheme if code else "",
        }
    )


def of_patient(connection: psycopg.Connection, facts: Facts) -> Facts:
    """Who the patient that is named there is after merges, and the identifier's authority and type as messages write them."""
    merged = _one(connection, _MERGED, {"id": facts.get("PatientID", ""), "issuer": facts.get("IssuerOfPatientID", "")}) or {}
    now = {**facts, **merged}
    values = {"id": now.get("PatientID", ""), "issuer": now.get("IssuerOfPatientID", "")}
    return {**merged, **(_one(connection, _AS_WRITTEN, values) or {})}


def matched(connection: psycopg.Connection, study: str) -> bool:
    """Whether it is known how the study fits its orders, or nobody holds studies against orders here."""
    query = "SELECT NOT EXISTS (SELECT FROM match) OR EXISTS (SELECT FROM match WHERE about = 'study' AND id = %s)"
    [(known,)] = connection.execute(query, (study,)).fetchall()
    return bool(known)


def _one(connection: psycopg.Connection, query: str, values: Any) -> Facts | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query.encode(), values).fetchone()
    return None if found is None else _said(found)


def _said(row: Mapping[str, Any]) -> Facts:
    return {name: value for name, value in row.items() if value}
