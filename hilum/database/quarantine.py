"""The rows of `quarantine`: written by the index for every stage, and by the loops into PostgreSQL for themselves."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from hilum.database.rows import Insert


class QuarantineRow(Struct, frozen=True, kw_only=True):
    """One event that waits for a person. `event_id` is the id of the fact that it was set aside: equal on every repeat."""

    event_id: str
    receipt: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    stage: str
    reason: str
    sentence: str
    fix: str
    found: str = ""
    expected: str = ""
    quarantined_at: datetime
    input_type: str
    input_id: str
    input: bytes


insert_quarantine = Insert("quarantine", QuarantineRow, "ON CONFLICT (event_id) DO NOTHING")
