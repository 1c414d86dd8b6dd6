"""What left de-identified, as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

import msgspec
import psycopg

from hilum.anonymizing import Deidentified
from hilum.database import AWAY
from hilum.errors import TryAgain
from hilum.sink import Delivery

_ABOUT_TO = """
    WITH policies AS (
        INSERT INTO deid_policy (version, policy, content)
        SELECT * FROM json_to_recordset(%(policies)s::json) AS known(version text, policy text, content jsonb)
        ON CONFLICT DO NOTHING),
    projects AS (
        INSERT INTO policy_project (policy, project)
        SELECT DISTINCT policy, project FROM json_to_recordset(%(said)s::json) AS said(policy text, project text) WHERE project <> ''
        ON CONFLICT DO NOTHING)
    INSERT INTO deidentified AS known (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,
        sent_study, sent_series, sent_as, project, settings_id)
    SELECT * FROM json_to_recordset(%(said)s::json)
        AS said(delivery_id text, destination text, policy text, policy_version text, key_id text, study_instance_uid text,
            sop_instance_uid text, sent_study text, sent_series text, sent_as text, project text, settings_id text)
    ON CONFLICT (delivery_id, policy, policy_version, key_id, sent_as)
        DO UPDATE SET held_at = NULL, sent_at = NULL, settings_id = excluded.settings_id,
            begun_at = greatest(now(), known.withdrawn_at + interval '1 microsecond')
            WHERE known.held_at IS NOT NULL OR known.withdrawn_at >= known.begun_at
"""
_NOW = "SELECT now()"
#: What was held of the rows `said` that are `parked` now, if it was never tried before the moment `begun` (SQL).
HELD = """
    UPDATE deidentified AS known SET held_at = now() FROM said JOIN parked USING (delivery_id)
    WHERE said.held AND known.delivery_id = said.delivery_id AND known.begun_at = %(begun)s AND known.sent_at IS NULL
"""
#: What left of the rows `said` that are `settled` now (SQL).
LEFT_AS = """
    INSERT INTO deidentified AS known (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,
        sent_study, sent_series, sent_as, sent_sha256, sent_at, project, sent_patient, settings_id)
    SELECT delivery_id, settled.destination, policy, policy_version, key_id, settled.study_instance_uid, settled.sop_instance_uid,
        sent_study, sent_series, sent_as, sent_sha256, %(settled_at)s, project, sent_patient, settings_id
    FROM said JOIN settled USING (delivery_id) WHERE policy IS NOT NULL AND state IN ('delivered', 'already_there')
    ON CONFLICT (delivery_id, policy, policy_version, key_id, sent_as)
        DO UPDATE SET sent_sha256 = coalesce(excluded.sent_sha256, known.sent_sha256), sent_at = excluded.sent_at, held_at = NULL,
            sent_patient = coalesce(excluded.sent_patient, known.sent_patient),
            settings_id = coalesce(excluded.settings_id, known.settings_id),
            begun_at = CASE WHEN known.withdrawn_at >= known.begun_at
                THEN known.withdrawn_at + interval '1 microsecond' ELSE known.begun_at END
"""

#: What the destination has of the rows `said` that are `put_off` now, since it has yet to say its last word.
NOTED_AS = """
    UPDATE deidentified AS known
    SET sent_sha256 = nullif(deidentified ->> 'sha256', ''), sent_patient = nullif(deidentified ->> 'patient', '')
    FROM said JOIN put_off USING (delivery_id)
    WHERE known.delivery_id = said.delivery_id AND known.policy = deidentified ->> 'policy'
        AND known.policy_version = deidentified ->> 'policy_version' AND known.key_id = deidentified ->> 'key_id'
        AND known.sent_as = deidentified ->> 'sop_instance_uid'
"""
_NOTED = """
    SELECT policy, policy_version, key_id, sent_study, sent_series, sent_as, sent_sha256, project, coalesce(sent_patient, ''),
        coalesce(settings_id, '')
    FROM deidentified WHERE delivery_id = %s AND sent_sha256 IS NOT NULL AND sent_at IS NULL ORDER BY begun_at DESC LIMIT 1
"""


def noted(connection: psycopg.Connection[Any], delivery_id: str) -> Deidentified | None:
    """What was noted of a delivery whose destination has the object and did not settle it yet. Raises one of `AWAY`."""
    row = connection.execute(_NOTED, (delivery_id,)).fetchone()
    return Deidentified(**dict(zip(Deidentified.__struct_fields__, row, strict=True))) if row is not None else None


def write_about_to_leave(connection: psycopg.Connection[Any], deliveries: Sequence[Delivery]) -> datetime:
    """Write down by which policy and key, and as what, these are about to leave: a process that is killed after that leaves it behind.

    Returns the moment from which on they are tried, for `HELD`: what was tried before has an earlier one.
    """
    values, policies = [], {}
    for each in deliveries:
        if (cleaning := each.cleaning) is not None:
            values.append(
                {
                    "delivery_id": each.delivery_id,
                    "destination": each.destination,
                    "policy": cleaning.anonymizer.policy,
                    "policy_version": cleaning.anonymizer.version,
                    "key_id": cleaning.anonymizer.key_id,
                    "study_instance_uid": each.origin.study_instance_uid,
                    "sop_instance_uid": each.origin.sop_instance_uid,
                    "sent_study": each.study_instance_uid,
                    "sent_series": each.series_instance_uid,
                    "sent_as": each.sop_instance_uid,
                    "project": cleaning.anonymizer.domain,
                    "settings_id": cleaning.anonymizer.settings_id,
                }
            )
            version = cleaning.anonymizer.version
            policies[version] = {"version": version, "policy": cleaning.anonymizer.policy, "content": cleaning.anonymizer.said}
    said = {"said": msgspec.json.encode(values).decode(), "policies": msgspec.json.encode(list(policies.values())).decode()}
    with connection.transaction():  # in which now() is one moment
        connection.execute(_ABOUT_TO, said)
        [(begun,)] = connection.execute(_NOW).fetchall()
    return cast("datetime", begun)


def columns_of(left: Deidentified | None) -> dict[str, str | None]:
    """The columns that say what left; all NULL if it went as it is."""
    return {
        "policy": left.policy if left else None,
        "policy_version": left.policy_version if left else None,
        "key_id": left.key_id if left else None,
        "sent_study": left.study_instance_uid if left else None,
        "sent_series": left.series_instance_uid if left else None,
        "sent_sha256": (left.sha256 or None) if left else None,
        "project": left.project if left else None,
        "sent_patient": (left.patient or None) if left else None,
        "settings_id": (left.settings_id or None) if left else None,
    }


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Raise `TryAgain` that says so while PostgreSQL does not do this."""
    try:
        yield
    except AWAY:
        raise TryAgain(f"PostgreSQL does not {what}.", fix="Check that it runs.") from None
