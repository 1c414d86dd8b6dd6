"""The rows of orders, steps, patients and matches, as events write them: of each thing the event with the highest version holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Raw, Struct

from hilum.database.rows import Insert, as_json
from hilum.events import MatchChanged, OrderChanged, PatientChanged

#: Longer texts are cut where they are looked for; `detail` has all of them. An index of PostgreSQL takes 2,704 bytes.
LONGEST_TEXT = 400


class PatientRow(Struct, frozen=True, kw_only=True):
    """A patient."""

    patient_key: str
    version: int
    patient_id: str
    issuer: str
    name: str | None
    birth_date: str | None
    sex: str | None
    merged_into: str | None
    detail: Raw
    notes: Raw | None
    said_at: datetime
    changed_at: datetime


class PatientIdRow(Struct, frozen=True, kw_only=True):
    """One of a patient's identifiers."""

    value: str
    issuer: str
    patient_key: str
    type: str
    universal_id: str


class OrderRow(Struct, frozen=True, kw_only=True):
    """An order."""

    order_id: str
    version: int
    status: str
    superseded_by: str | None
    accession_number: str | None
    accession_issuer: str | None
    placer_number: str | None
    filler_number: str | None
    patient_key: str
    patient_id: str
    patient_name: str | None
    sender: str
    detail: Raw
    notes: Raw | None
    message_id: str | None
    said_at: datetime
    created_at: datetime
    changed_at: datetime


class StepRow(Struct, frozen=True, kw_only=True):
    """A scheduled procedure step."""

    order_id: str
    procedure_number: int
    step_number: int
    status: str
    study_instance_uid: str
    procedure_id: str
    step_id: str
    accession_number: str | None
    patient_id: str
    patient_name: str | None
    modality: str | None
    station_ae_titles: tuple[str, ...]
    station_name: str | None
    start_date: str | None
    start_time: str | None
    start_at: datetime | None
    performing_physician: str | None
    changed_at: datetime


class MatchRow(Struct, frozen=True, kw_only=True):
    """How a study fits its orders, or what became of an order's images."""

    about: str
    id: str
    version: int
    outcome: str
    by: str | None
    study_instance_uid: str
    order_ids: tuple[str, ...]
    candidates: tuple[str, ...]
    differences: Raw
    coercible: bool
    notes: Raw | None
    cause: str
    changed_at: datetime


def _later(table: str, key: str, columns: Iterable[str], *, kept: Sequence[str] = ()) -> str:
    """What of a row that is there is replaced. Notes of former events stay: they are what a person looks for."""
    sets = [f'"{column}" = excluded."{column}"' for column in columns if column not in (*key.split(", "), "notes", *kept)]
    new = f"excluded.notes IS NULL OR {table}.notes @> excluded.notes"  # what is there is not told twice
    notes = f"notes = CASE WHEN {new} THEN {table}.notes ELSE coalesce({table}.notes, '[]') || excluded.notes END"
    return f"ON CONFLICT ({key}) DO UPDATE SET {', '.join(sets)}, {notes} WHERE {table}.version < excluded.version"


_insert_patient = Insert("patient", PatientRow, _later("patient", "patient_key", PatientRow.__struct_fields__))
_insert_patient_id = Insert("patient_id", PatientIdRow, "ON CONFLICT DO NOTHING")
_insert_order = Insert("scheduled_order", OrderRow, _later("scheduled_order", "order_id", OrderRow.__struct_fields__, kept=("created_at",)))
_insert_step = Insert("scheduled_step", StepRow, "ON CONFLICT DO NOTHING")
_insert_match = Insert("match", MatchRow, _later("match", "about, id", MatchRow.__struct_fields__))


class _Version(Struct):
    id: str
    version: int


def write_patients(connection: psycopg.Connection, events: Sequence[PatientChanged]) -> None:
    """Write patients with their identifiers."""
    last, notes = _last([(event.patient.key, event) for event in events])
    _insert_patient(connection, [_patient(event, notes[key]) for key, event in last])
    won = _won(connection, "patient", "patient_key", [_Version(id=key, version=event.version) for key, event in last])
    connection.execute("DELETE FROM patient_id WHERE patient_key = ANY(%s)", (list(won),))
    rows = {
        (key, each.value, each.issuer): PatientIdRow(
            value=each.value[:LONGEST_TEXT],
            issuer=each.issuer[:LONGEST_TEXT],
            patient_key=key,
            type=each.type,
            universal_id=each.universal_id,
        )
        for key, event in last
        if key in won
        for each in event.patient.ids
    }
    _insert_patient_id(connection, [rows[key] for key in sorted(rows)])


def write_orders(connection: psycopg.Connection, events: Sequence[OrderChanged]) -> None:
    """Write orders with their steps."""
    last, notes = _last([(event.order.order_id, event) for event in events])
    _insert_order(connection, [_order(event, notes[key]) for key, event in last])
    won = _won(connection, "scheduled_order", "order_id", [_Version(id=key, version=event.order.version) for key, event in last])
    connection.execute("DELETE FROM scheduled_step WHERE order_id = ANY(%s)", (list(won),))
    _insert_step(connection, [row for key, event in last if key in won and not event.superseded_by for row in _steps(event)])


def write_matches(connection: psycopg.Connection, events: Sequence[MatchChanged]) -> None:
    """Write how studies and orders fit."""
    last, notes = _last([((event.about, event.subject), event) for event in events])
    _insert_match(connection, [_match(event, notes[key]) for key, event in last])


def _last(events: Sequence[tuple[Any, Any]]) -> tuple[list[tuple[Any, Any]], dict[Any, Raw | None]]:
    """Of each thing its last event, by key, and the notes of all."""
    last: dict[Any, Any] = {}
    notes: dict[Any, list[Any]] = {}
    for key, event in events:
        if key not in last or _version(last[key]) <= _version(event):
            last[key] = event
        notes.setdefault(key, []).extend(event.notes)
    return sorted(last.items()), {key: Raw(msgspec.json.encode(each)) if each else None for key, each in notes.items()}


def _version(event: OrderChanged | PatientChanged | MatchChanged) -> int:
    return event.order.version if isinstance(event, OrderChanged) else event.version


def _won(connection: psycopg.Connection, table: str, key: str, versions: Sequence[_Version]) -> set[str]:
    """The things of which the row is that of this batch now."""
    query = f"""
        SELECT "{key}" FROM "{table}" JOIN json_to_recordset(%s::json) AS new (id text, version bigint)
        ON new.id = "{table}"."{key}" AND new.version = "{table}".version
    """
    return {row[0] for row in connection.execute(query.encode(), (as_json(versions),)).fetchall()} if versions else set()


def _patient(event: PatientChanged, notes: Raw | None) -> PatientRow:
    patient = event.patient
    first = patient.ids[0] if patient.ids else None
    return PatientRow(
        patient_key=patient.key,
        version=event.version,
        patient_id=first.value if first else "",
        issuer=(first.issuer or first.universal_id)[:LONGEST_TEXT] if first else "",
        name=_short(patient.name),
        birth_date=_short(patient.birth_date),
        sex=_short(patient.sex),
        merged_into=event.merged_into or None,
        detail=Raw(msgspec.json.encode(patient)),
        notes=notes,
        said_at=event.said_at,
        changed_at=event.changed_at,
    )


def _order(event: OrderChanged, notes: Raw | None) -> OrderRow:
    order = event.order
    ids = order.patient.ids
    return OrderRow(
        order_id=order.order_id,
        version=order.version,
        status=order.status,
        superseded_by=event.superseded_by or None,
        accession_number=order.accession.value if order.accession else None,
        accession_issuer=_short(order.accession.issuer or order.accession.universal_id) if order.accession else None,
        placer_number=order.placer.value if order.placer else None,
        filler_number=order.filler.value if order.filler else None,
        patient_key=order.patient.key,
        patient_id=ids[0].value if ids else "",
        patient_name=_short(order.patient.name),
        sender=order.sender[:LONGEST_TEXT],
        detail=Raw(msgspec.json.encode(order)),
        notes=notes,
        message_id=event.message_id or None,
        said_at=order.said_at,
        created_at=event.changed_at,
        changed_at=event.changed_at,
    )


def _steps(event: OrderChanged) -> list[StepRow]:
    order = event.order
    ids = order.patient.ids
    return [
        StepRow(
            order_id=order.order_id,
            procedure_number=number,
            step_number=place,
            status=step.status,
            study_instance_uid=procedure.study_instance_uid,
            procedure_id=procedure.procedure_id,
            step_id=step.step_id,
            accession_number=accession.value if (accession := order.accession_of(procedure)) else None,
            patient_id=ids[0].value if ids else "",
            patient_name=_short(order.patient.name),
            modality=_short(step.modality),
            station_ae_titles=step.station_ae_titles,
            station_name=_short(step.station_name),
            start_date=_short(step.start_date),
            start_time=_short(step.start_time),
            start_at=step.start_at,
            performing_physician=_short(step.performing_physician),
            changed_at=event.changed_at,
        )
        for number, procedure in enumerate(order.procedures)
        for place, step in enumerate(procedure.steps)
    ]


def _match(event: MatchChanged, notes: Raw | None) -> MatchRow:
    return MatchRow(
        about=event.about,
        id=event.subject,
        version=event.version,
        outcome=event.outcome,
        by=event.by or None,
        study_instance_uid=event.study_instance_uid,
        order_ids=event.order_ids,
        candidates=event.candidates,
        differences=Raw(msgspec.json.encode(event.differences)),
        coercible=event.coercible,
        notes=notes,
        cause=event.cause,
        changed_at=event.changed_at,
    )


def _short(text: str) -> str | None:
    return text[:LONGEST_TEXT] or None
