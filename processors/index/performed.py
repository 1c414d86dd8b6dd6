"""Performed procedure steps in the index: each as the last event of it says, and the scheduled steps that it is for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg
from msgspec import Struct

from hilum.database.rows import Insert
from hilum.events import ProcedureStepChanged


class PerformedRow(Struct, frozen=True, kw_only=True):
    """A performed step."""

    sop_instance_uid: str
    revision: int
    state: str
    study_instance_uid: str | None
    step_id: str | None
    station_aet: str | None
    modality: str | None
    description: str | None
    start_date: str | None
    start_time: str | None
    end_date: str | None
    end_time: str | None
    reason_code: str | None
    wrong_entry: bool
    objects: int
    calling_aet: str
    began_at: datetime
    changed_at: datetime


class PerformedOfRow(Struct, frozen=True, kw_only=True):
    """A scheduled step that one is for."""

    sop_instance_uid: str
    number: int
    study_instance_uid: str
    step_id: str
    procedure_id: str
    accession_number: str


_NEW = tuple(column for column in PerformedRow.__struct_fields__ if column not in ("sop_instance_uid", "began_at"))
_NEWER = "excluded.revision > performed_step.revision"
_insert_performed = Insert(
    "performed_step",
    PerformedRow,
    "ON CONFLICT (sop_instance_uid) DO UPDATE SET began_at = least(performed_step.began_at, excluded.began_at), "
    + ", ".join(f"{column} = CASE WHEN {_NEWER} THEN excluded.{column} ELSE performed_step.{column} END" for column in _NEW),
)
_insert_performed_of = Insert("performed_of", PerformedOfRow, "ON CONFLICT DO NOTHING")


def write_performed(connection: psycopg.Connection, events: Sequence[ProcedureStepChanged]) -> None:
    """Write what modalities said. May be repeated, and in any order."""
    last: dict[str, ProcedureStepChanged] = {}
    began: dict[str, datetime] = {}
    for event in events:
        uid = event.sop_instance_uid
        if uid not in last or event.revision > last[uid].revision:
            last[uid] = event
        began[uid] = min(began.get(uid, event.changed_at), event.changed_at)
    _insert_performed(connection, [_performed(last[uid], began[uid]) for uid in sorted(last)])
    # What an N-CREATE said of the scheduled steps no N-SET may change.
    _insert_performed_of(connection, [row for uid in sorted(last) for row in _performed_of(last[uid])])


def _performed(event: ProcedureStepChanged, began_at: datetime) -> PerformedRow:
    return PerformedRow(
        sop_instance_uid=event.sop_instance_uid,
        revision=event.revision,
        state=event.state,
        study_instance_uid=event.study_instance_uid or None,
        step_id=event.step_id or None,
        station_aet=event.station_aet or None,
        modality=event.modality or None,
        description=event.description or None,
        start_date=event.start_date or None,
        start_time=event.start_time or None,
        end_date=event.end_date or None,
        end_time=event.end_time or None,
        reason_code=event.reason_code or None,
        wrong_entry=event.is_wrong_entry,
        objects=event.objects,
        calling_aet=event.calling_aet,
        began_at=began_at,
        changed_at=event.changed_at,
    )


def _performed_of(event: ProcedureStepChanged) -> list[PerformedOfRow]:
    return [
        PerformedOfRow(
            sop_instance_uid=event.sop_instance_uid,
            number=number,
            study_instance_uid=each.study_instance_uid,
            step_id=each.step_id,
            procedure_id=each.procedure_id,
            accession_number=each.accession_number,
        )
        for number, each in enumerate(event.scheduled)
    ]
