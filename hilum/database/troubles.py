"""What somebody should look at: studies and objects that wait for better rules, studies and orders that do not fit."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from hilum.database.found import rows


class FailedRule(Struct, frozen=True, kw_only=True):
    """Why rules could not be evaluated, on how many objects, and since when."""

    says: str
    objects: int
    studies: int
    since: datetime


class StuckStudy(Struct, frozen=True, kw_only=True):
    """A study that is not complete although its time has come, and why."""

    study_instance_uid: str
    says: str
    since: datetime


_STUCK = """
SELECT study_instance_uid, says, changed_at AS since FROM study_state WHERE says IS NOT NULL ORDER BY changed_at LIMIT %(limit)s
"""


def stuck_studies(dsn: str, *, limit: int = 1000) -> list[StuckStudy]:
    """The studies that wait for a better rule, those that have waited longest first. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, StuckStudy, _STUCK, {"limit": limit})


_FAILED = """
SELECT says, count(*) AS objects, count(DISTINCT study_instance_uid) AS studies, min(failed_at) AS since
FROM failed_rule WHERE %(study)s = '' OR study_instance_uid = %(study)s GROUP BY says ORDER BY objects DESC, says LIMIT %(limit)s
"""


def failed_rules(dsn: str, *, study: str = "", limit: int = 20) -> list[FailedRule]:
    """What is to be decided again by other rules, of all studies or of one. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, FailedRule, _FAILED, {"study": study, "limit": limit})


class _WithFailed(Struct, frozen=True, kw_only=True):
    study_instance_uid: str


def studies_with_failed_rules(dsn: str, version: str) -> list[str]:
    """The studies with objects on which rules of another version than this one failed. Raises `TryAgain`, `Misconfigured`."""
    statement = "SELECT DISTINCT study_instance_uid FROM failed_rule WHERE config_version <> %(version)s"
    return [each.study_instance_uid for each in rows(dsn, _WithFailed, statement, {"version": version})]


class Misfit(Struct, frozen=True, kw_only=True):
    """How many studies or orders (`about`) have an outcome that somebody should look at, and when the last one got it."""

    about: str
    outcome: str
    count: int
    latest: datetime


_MISFITS = """
SELECT about, outcome, count(*) AS count, max(changed_at) AS latest FROM match
WHERE outcome IN ('mismatched', 'no-order', 'order-cancelled', 'no-images') AND changed_at > now() - make_interval(hours => %(hours)s)
    AND (about = 'study' OR outcome = 'no-images') AND NOT coercible AND accepted_version IS DISTINCT FROM version
GROUP BY about, outcome ORDER BY about DESC, outcome
"""


def misfits_of_late(dsn: str, *, hours: int = 24) -> list[Misfit]:
    """What came not to fit in the last `hours`, unless it is accepted or set right on the way out. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, Misfit, _MISFITS, {"hours": hours})
