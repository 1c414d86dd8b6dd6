"""Who opted out of what leaves de-identified, and who consented: the list. `persons` asks it before an object leaves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from hilum.database import AWAY, away, connect
from hilum.database.found import rows

Kind = Literal["opt-out", "consent"]


class Choice(Struct, frozen=True, kw_only=True):
    """What a patient said. It names the patient: for who keeps the list."""

    kind: Kind
    value: str
    issuer: str
    #: Of policies, by their `domain`; empty: of all.
    project: str
    since: datetime
    said_by: str
    why: str
    ended_at: datetime | None
    ended_by: str | None


_ADD = """
    INSERT INTO patient_choice (kind, value, issuer, project, said_by, why) VALUES (%s, btrim(%s), btrim(%s), %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_END = """
    UPDATE patient_choice SET ended_at = now(), ended_by = %s
    WHERE kind = %s AND value = btrim(%s) AND issuer = btrim(%s) AND project = %s AND ended_at IS NULL
"""
_LIST = """
    SELECT * FROM patient_choice WHERE (%(kind)s = '' OR kind = %(kind)s) AND (%(ended)s OR ended_at IS NULL)
        AND (%(project)s = '' OR project IN ('', %(project)s))
    ORDER BY since
"""


def add(dsn: str, kind: Kind, patients: Sequence[tuple[str, str]], project: str, by: str, why: str) -> int:
    """Add patients, by PatientID and issuer; how many are new. All or none. Raises `TryAgain`."""
    try:
        with connect(dsn, name="hilum choices") as connection, connection.transaction():
            return sum(connection.execute(_ADD, (kind, value, issuer, project, by, why)).rowcount for value, issuer in patients)
    except AWAY as error:
        raise away(dsn, error) from None


def end(dsn: str, kind: Kind, patients: Sequence[tuple[str, str]], project: str, by: str) -> int:
    """End what patients said, from now on; how many that were. The rows stay. Raises `TryAgain`."""
    try:
        with connect(dsn, name="hilum choices") as connection, connection.transaction():
            return sum(connection.execute(_END, (by, kind, value, issuer, project)).rowcount for value, issuer in patients)
    except AWAY as error:
        raise away(dsn, error) from None


def listed(dsn: str, kind: Kind | None = None, project: str = "", *, ended: bool = False) -> list[Choice]:
    """The list, oldest first, of one kind or both; with `ended` also what was ended. Raises `TryAgain`."""
    return rows(dsn, Choice, _LIST, {"kind": kind or "", "project": project, "ended": ended})
