"""Projects of policies, and what becomes of who opted out where a policy gets another one.

An opt-out of a project that a policy had at any time counts for each other one that it has, until somebody decides: either the opt-outs are
carried over, or they are said to hold nothing of the other project. Whichever the policy had first: workers of two configurations may run
at once, and policies of one machine's files come and go without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from hilum.database import AWAY, away, connect
from hilum.database.found import rows

#: Other projects that policies of `%(project)s` had, as long as nobody decided (SQL).
FORMER = """
    SELECT former.project FROM policy_project AS present JOIN policy_project AS former USING (policy)
    WHERE present.project = %(project)s AND former.project <> present.project AND NOT EXISTS (
        SELECT FROM project_decision AS decided
        WHERE decided.policy = present.policy AND decided.former = former.project AND decided.project = present.project)
"""
_RECORD = """
    INSERT INTO policy_project (policy, project)
    SELECT policy, project FROM json_to_recordset(%s::json) AS said(policy text, project text) ON CONFLICT DO NOTHING
"""
_PRESENT = """
    UPDATE policy_project AS known SET since = clock_timestamp()
    FROM json_to_recordset(%s::json) AS said(policy text, project text)
    WHERE known.policy = said.policy AND known.project = said.project
        AND EXISTS (SELECT FROM policy_project AS other WHERE other.policy = known.policy AND other.since > known.since)
"""
#: Who opted out of the former project and not of the present one anyway.
_UNDECIDED = """
    WITH had AS (
        SELECT present.policy, former.project AS former, present.project AS project, NOT EXISTS (
            SELECT FROM policy_project AS other WHERE other.policy = present.policy AND other.since > present.since) AS present
        FROM policy_project AS present JOIN policy_project AS former USING (policy)
        WHERE former.project <> present.project AND NOT EXISTS (
            SELECT FROM project_decision AS decided
            WHERE decided.policy = present.policy AND decided.former = former.project AND decided.project = present.project)),
    counted AS (
        SELECT had.*, (
            SELECT count(*) FROM patient_choice AS c WHERE c.project = had.former AND c.kind = 'opt-out' AND c.ended_at IS NULL
                AND NOT EXISTS (
                    SELECT FROM patient_choice AS own WHERE own.kind = 'opt-out' AND own.ended_at IS NULL AND own.value = c.value
                        AND own.issuer IN ('', c.issuer) AND own.project IN ('', had.project))) AS opted_out
        FROM had)
    SELECT policy, former, project, present, opted_out FROM counted WHERE opted_out > 0 ORDER BY policy, former, project
"""
_CHOSEN = """
    SELECT project, kind, count(*) AS choices FROM patient_choice
    WHERE ended_at IS NULL AND (%(project)s::text IS NULL OR project = %(project)s) GROUP BY project, kind
"""
_KNOWN = "SELECT project FROM policy_project UNION SELECT project FROM patient_choice WHERE project <> ''"
_CARRY = """
    INSERT INTO patient_choice (kind, value, issuer, project, said_by, why)
    SELECT kind, value, issuer, %(project)s, %(by)s, concat_ws('; ', 'carried over from ' || project, nullif(%(why)s, ''))
    FROM patient_choice WHERE project = %(former)s AND ended_at IS NULL AND kind = ANY(%(kinds)s)
    ON CONFLICT DO NOTHING
"""
_DECIDE = """
    INSERT INTO project_decision AS known (policy, former, project, carried, decided_by, why)
    SELECT present.policy, former.project, present.project, %(carried)s, %(by)s, %(why)s
    FROM policy_project AS present JOIN policy_project AS former USING (policy)
    WHERE present.project = %(project)s AND former.project = %(former)s
    ON CONFLICT (policy, former, project) DO UPDATE SET carried = excluded.carried, decided_at = now(), decided_by = excluded.decided_by,
        why = excluded.why
"""


class Undecided(Struct, frozen=True, kw_only=True):
    """A policy that had two projects: the opt-outs of the one count for the other until somebody decides."""

    policy: str
    former: str
    project: str
    #: Patients who opted out of the former project, and not of this one anyway.
    opted_out: int
    #: Whether this is the last that the policy had; of policies of this machine alone, the last of which anybody heard.
    present: bool


class _Project(Struct, frozen=True):
    project: str


class _Count(Struct, frozen=True):
    project: str
    kind: str
    choices: int


def note(dsn: str, pairs: Iterable[tuple[str, str]], *, present: bool = False) -> None:
    """Note which projects policies have, or have at `present`, as pairs of both names. May be repeated. Raises `TryAgain`."""
    said = [{"policy": policy, "project": project} for policy, project in dict.fromkeys(pairs) if project]
    if not said:
        return
    try:
        with connect(dsn, name="hilum projects") as connection, connection.transaction():
            for statement in (_RECORD, *[_PRESENT] * present):
                connection.execute(statement, (msgspec.json.encode(said).decode(),))
    except AWAY as error:
        raise away(dsn, error) from None


def undecided(dsn: str) -> list[Undecided]:
    """What waits for a decision. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, Undecided, _UNDECIDED, {})


def chosen(dsn: str, project: str | None = None) -> dict[tuple[str, str], int]:
    """How many choices there are, by project and kind, of one project or all. Raises `TryAgain`, `Misconfigured`."""
    return {(each.project, each.kind): each.choices for each in rows(dsn, _Count, _CHOSEN, {"project": project})}


def known(dsn: str) -> set[str]:
    """All projects that policies had, or about which anybody chose. Raises `TryAgain`, `Misconfigured`."""
    return {each.project for each in rows(dsn, _Project, _KNOWN, {})}


def choices(dsn: str, project: str) -> tuple[int, int]:
    """How many patients opted out of a project, and consented to it. Raises `TryAgain`, `Misconfigured`."""
    found = chosen(dsn, project)
    return found.get((project, "opt-out"), 0), found.get((project, "consent"), 0)


def decide(dsn: str, former: str, project: str, *, carry: Sequence[str], by: str, why: str) -> tuple[int, int]:
    """Decide about who opted out of a policy's former project: carry over these kinds of choices, or none.

    How many choices are new, and of how many policies it was decided. All or nothing. Raises `TryAgain`.
    """
    values = {"former": former, "project": project, "kinds": list(carry), "carried": bool(carry), "by": by, "why": why}
    try:
        with connect(dsn, name="hilum projects") as connection, connection.transaction():
            carried = connection.execute(_CARRY, values).rowcount if carry else 0
            return carried, connection.execute(_DECIDE, values).rowcount
    except AWAY as error:
        raise away(dsn, error) from None
