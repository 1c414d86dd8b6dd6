"""What left de-identified, by policy: the table `deidentified`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import psycopg
from msgspec import Struct

from hilum.database.found import rows

State = Literal["left", "held", "perhaps", "withdrawn", "identified"]


class Output(Struct, frozen=True, kw_only=True):
    """An object that left under a policy, or was about to."""

    delivery_id: str
    destination: str
    policy: str
    policy_version: str
    key_id: str
    #: Of the stored object.
    study_instance_uid: str
    sop_instance_uid: str
    #: By which it left, and the digest of the data set that left.
    sent_study: str
    sent_series: str
    sent_as: str
    sent_sha256: str | None
    begun_at: datetime
    sent_at: datetime | None
    #: When it was taken back, the last time; if `begun_at` is later, it was tried again since.
    withdrawn_at: datetime | None
    #: The project, and the pseudonym of the patient as whose it left; null where nobody knows whether it did.
    project: str = ""
    sent_patient: str | None = None
    #: By which settings of `hilum deid settings list` it was made; null: an earlier release made it.
    settings_id: str | None = None
    #: When it was held before anything of it left, whenever it was tried.
    held_at: datetime | None = None
    #: `perhaps`: it was about to leave, and nobody knows whether it is there; `identified`: it left as it is, as somebody decided.
    state: State = "perhaps"


class Known(Struct, frozen=True, kw_only=True):
    """What left, or was about to, can be asked for by these."""

    policy: str
    policy_version: str
    destination: str


#: Of these SOP instance UIDs, those that only objects have which Hilum made on their way out: a row is written before they leave, so that
#: whoever sends one back sends it after that. Policies that retain UIDs make none.
MADE_HERE = "SELECT DISTINCT sent_as FROM deidentified WHERE sent_as = ANY(%(uids)s) AND sent_as <> sop_instance_uid"

#: Likewise of studies: what has such a UID, and is no object that left, was made of one (SQL).
STUDIES_MADE_HERE = "SELECT DISTINCT sent_study FROM deidentified WHERE sent_study = ANY(%(uids)s) AND sent_study <> study_instance_uid"
#: Of a row `known`: nothing of it is at its destination since it was taken back, for it was not tried again, or held (SQL).
TAKEN_BACK = "(known.withdrawn_at IS NOT NULL AND (known.withdrawn_at >= known.begun_at OR known.held_at IS NOT NULL))"
#: It may be there (SQL).
MAY_BE_THERE = "(known.held_at IS NULL AND (known.withdrawn_at IS NULL OR known.withdrawn_at < known.begun_at))"
#: Whether it is there, as `State` (SQL, of a row `known`).
STATE = f"""
    CASE WHEN known.sent_sha256 IS NULL AND EXISTS (
            SELECT FROM delivery AS d WHERE d.delivery_id = known.delivery_id AND d.identified AND d.policy IS NULL
                AND d.state IN ('delivered', 'already_there', 'returned')) THEN 'identified'
        WHEN {TAKEN_BACK} THEN 'withdrawn' WHEN sent_at IS NOT NULL THEN 'left' WHEN held_at IS NOT NULL THEN 'held'
        ELSE 'perhaps' END AS state
"""
_OUTPUTS = f"""
    SELECT *, {STATE} FROM deidentified AS known
    WHERE policy = %(policy)s AND (%(version)s = '' OR policy_version = %(version)s)
        AND (%(destination)s = '' OR destination = %(destination)s) AND (%(patient)s = '' OR sent_patient = %(patient)s)
    ORDER BY begun_at, delivery_id LIMIT %(limit)s
"""  # constants
_KNOWN = """
    SELECT policy, policy_version, destination FROM deidentified GROUP BY policy, policy_version, destination ORDER BY min(begun_at)
"""


def outputs(
    dsn: str, policy: str, version: str = "", destination: str = "", limit: int | None = None, *, patient: str = ""
) -> list[Output]:
    """What left under a policy, oldest first; `limit` None for all, `patient` is a pseudonym.

    Raises `TryAgain`, and `Misconfigured` without tables.
    """
    values = {"policy": policy, "version": version, "destination": destination, "patient": patient, "limit": limit}
    return rows(dsn, Output, _OUTPUTS, values)


def known(dsn: str) -> list[Known]:
    """By which policies and versions anything left, or was about to, for which destinations; oldest first. Raises as `outputs`."""
    return rows(dsn, Known, _KNOWN, {})


def studies_made_here(connection: psycopg.Connection[Any], study_instance_uids: Sequence[str]) -> set[str]:
    """Those of these studies that have a UID under which objects left de-identified. Raises one of `AWAY`."""
    return {uid for (uid,) in connection.execute(STUDIES_MADE_HERE, {"uids": list(study_instance_uids)}).fetchall()}


class Origin(Struct, frozen=True, kw_only=True):
    """What a study has to do with what left de-identified."""

    #: Policies by which objects left under its StudyInstanceUID, which is not their own.
    left_by: list[str]
    #: Of how many objects that came it is said in them that Hilum de-identified them (finding `deidentified-by-hilum`).
    stamped: int


_ORIGIN = """
    SELECT ARRAY(
        SELECT DISTINCT policy FROM deidentified WHERE sent_study = %(study)s AND sent_study <> study_instance_uid ORDER BY policy
    ) AS left_by, (
        SELECT count(DISTINCT sop_instance_uid) FROM receipt
        WHERE study_instance_uid = %(study)s AND findings @> '[{"code": "deidentified-by-hilum"}]') AS stamped
"""


def origin_of(dsn: str, study_instance_uid: str) -> Origin:
    """What a study has to do with what left de-identified. Raises `TryAgain`, `Misconfigured`."""
    [found] = rows(dsn, Origin, _ORIGIN, {"study": study_instance_uid})
    return found
