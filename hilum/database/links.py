"""Which pseudonyms are one patient since a merge: the table `deid_link`. What left is never rewritten; a row says what belongs together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import psycopg
from msgspec import Struct

from hilum import bus
from hilum.database.found import rows
from hilum.event_ids import following_id
from hilum.study_events import PatientLinked


class Link(Struct, frozen=True, kw_only=True):
    """What left under `prior` is of the patient whose objects leave under `surviving`, until the merge was taken back."""

    project: str
    key_id: str
    prior: str
    surviving: str
    since: datetime
    ended_at: datetime | None


_LISTED = """
    SELECT * FROM deid_link WHERE (%(project)s = '' OR project = %(project)s) AND (%(ended)s OR ended_at IS NULL)
    ORDER BY since, prior, surviving
"""
#: From one to the next by the index: of millions of outputs, few are read.
_UNDER = """
    WITH RECURSIVE each AS (
        (SELECT project, key_id FROM deidentified WHERE sent_patient IS NOT NULL ORDER BY project, key_id LIMIT 1)
        UNION ALL
        SELECT following.* FROM each, LATERAL (
            SELECT project, key_id FROM deidentified
            WHERE sent_patient IS NOT NULL AND (project, key_id) > (each.project, each.key_id)
            ORDER BY project, key_id LIMIT 1) AS following)
    SELECT project, key_id FROM each
"""
_MERGED = """
    SELECT DISTINCT known.value, known.issuer, known.universal_id
    FROM patient AS former JOIN patient_id AS known USING (patient_key) WHERE former.merged_into IS NOT NULL
"""
_LEFT = """
    SELECT DISTINCT sent_patient FROM deidentified
    WHERE project = %(project)s AND key_id = %(key_id)s AND sent_patient = ANY(%(among)s)
"""
_BEGIN = """
    INSERT INTO deid_link (project, key_id, prior, surviving)
    SELECT %(project)s, %(key_id)s, prior, surviving FROM unnest(%(priors)s::text[], %(survivings)s::text[]) AS link (prior, surviving)
    ON CONFLICT DO NOTHING RETURNING prior, surviving, since
"""
_END = """
    UPDATE deid_link SET ended_at = now()
    WHERE project = %(project)s AND key_id = %(key_id)s AND ended_at IS NULL
        AND (prior, surviving) NOT IN (SELECT * FROM unnest(%(priors)s::text[], %(survivings)s::text[]))
    RETURNING prior, surviving, since
"""
_TELL = "INSERT INTO outbox (topic, key, headers, value) VALUES (%s, %s, %s::jsonb, %s)"


def listed(dsn: str, project: str = "", *, ended: bool = False) -> list[Link]:
    """The links of a project, or of all, oldest first; with `ended` also those that were taken back. Raises `TryAgain`."""
    return rows(dsn, Link, _LISTED, {"project": project, "ended": ended})


def under(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Projects and keys under which anything left. Raises one of `AWAY`."""
    return [(project, key_id) for project, key_id in connection.execute(_UNDER)]


def merged(connection: psycopg.Connection[Any]) -> list[tuple[str, str, str]]:
    """`value`, `issuer` and `universal_id` of all who were merged into another patient. Raises one of `AWAY`."""
    return [(value, issuer, universal) for value, issuer, universal in connection.execute(_MERGED)]


def left_under(connection: psycopg.Connection[Any], project: str, key_id: str, among: Collection[str]) -> set[str]:
    """Under which of these pseudonyms anything left. Raises one of `AWAY`."""
    return {found for (found,) in connection.execute(_LEFT, {"project": project, "key_id": key_id, "among": list(among)})}


def hold(
    connection: psycopg.Connection[Any], writer: bus.Writer, project: str, key_id: str, links: Sequence[tuple[str, str]]
) -> tuple[int, int]:
    """Have exactly these links hold from now on, in one transaction with the events that say so; how many are new, and how many ended.

    May be repeated, also by several processes at once: each change is told once. Raises one of `AWAY`.
    """
    values = {
        "project": project,
        "key_id": key_id,
        "priors": [prior for prior, _ in links],
        "survivings": [surviving for _, surviving in links],
    }
    changes: tuple[tuple[str, Literal["linked", "ended"]], ...] = ((_END, "ended"), (_BEGIN, "linked"))
    counts = {}
    with connection.transaction():
        for statement, state in changes:
            found = connection.execute(statement.encode(), values).fetchall()
            counts[state] = len(found)
            for prior, surviving, since in found:
                event = PatientLinked(
                    resource=f"{project}/{key_id}/{prior}/{surviving}",
                    project=project,
                    key_id=key_id,
                    prior=prior,
                    surviving=surviving,
                    state=state,
                    at=datetime.now(UTC),
                )
                event_id = following_id(f"{event.key}/{since.isoformat()}", state, 0)
                record = writer.record(event, event_id)
                headers = {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in record.headers}
                connection.execute(_TELL, (record.topic, record.key.decode(), msgspec.json.encode(headers).decode(), record.value))
    return counts["linked"], counts["ended"]


#: The pseudonym of the patient with this PatientID, IssuerOfPatientID and universal id; empty if there is none.
PseudonymOf = Callable[[str, str, str], str]
