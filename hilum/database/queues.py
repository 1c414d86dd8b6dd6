"""The queues of the destinations at this moment, as what says why a delivery waits needs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from msgspec import Struct

from hilum.database.found import rows

#: The name of the connection that every process of the role `deliver` keeps open.
WATCHES = "hilum deliver watch"


class QueueNow(Struct, frozen=True, kw_only=True):
    """What waits for one destination."""

    destination: str
    #: Of those that are pending: due now and in nobody's hands, in a worker's hands, and put off until later.
    due: int
    in_hand: int
    put_off: int
    #: When the first of those that are put off is due.
    next_attempt_at: datetime | None
    #: Of those that are pending, by StudyInstanceUID: the ones that were asked for.
    of_studies: dict[str, int]


class Outage(Struct, frozen=True, kw_only=True):
    """Why a destination cannot be used at present, as the process says that delivers to it."""

    destination: str
    says: str
    since: datetime


class _Uid(Struct):
    study_instance_uid: str


class _Pending(Struct):
    destination: str
    pending: int


class Marked(Struct, frozen=True, kw_only=True):
    """A study that goes before all others."""

    study_instance_uid: str
    priority: int
    since: datetime


class StudyCount(Struct, frozen=True, kw_only=True):
    """What of a study is here, and what of it waits."""

    study_instance_uid: str
    objects: int
    pending: int


class _Refused(Struct, frozen=True, kw_only=True):
    destination: str
    study_instance_uid: str
    refused: int


class _Some(Struct, frozen=True, kw_only=True):
    some: bool


class _Count(Struct, frozen=True, kw_only=True):
    count: int


_QUEUES = """
    SELECT destination, sum(due)::bigint AS due, sum(in_hand)::bigint AS in_hand, sum(put_off)::bigint AS put_off,
        min(next_attempt_at) AS next_attempt_at,
        coalesce(jsonb_object_agg(study_instance_uid, pending) FILTER (WHERE study_instance_uid <> ''), '{}') AS of_studies
    FROM (
        SELECT destination, CASE WHEN study_instance_uid = ANY(%(studies)s) THEN study_instance_uid ELSE '' END AS study_instance_uid,
            count(*) AS pending, count(*) FILTER (WHERE not_before <= now() AND coalesce(lease_until < now(), true)) AS due,
            count(*) FILTER (WHERE lease_until >= now()) AS in_hand,
            count(*) FILTER (WHERE not_before > now() AND coalesce(lease_until < now(), true)) AS put_off,
            min(not_before) FILTER (WHERE not_before > now()) AS next_attempt_at
        FROM delivery WHERE state = 'pending' GROUP BY 1, 2) AS counted
    GROUP BY destination
"""
#: Whether all orders that the match `m` names are known: of several processes of the index one may read them later than another the match.
ORDERS_KNOWN = """NOT EXISTS (SELECT FROM unnest(m.order_ids) AS named
    WHERE NOT EXISTS (SELECT FROM scheduled_order AS o WHERE o.order_id = named))"""
#: Whether an order fits the study {study}, or a person has accepted it as it is: what destinations with `require_order = "hold"` wait for.
AN_ORDER_FITS = f"""EXISTS (SELECT FROM match AS m WHERE m.about = 'study' AND m.id = {{study}}
    AND (m.accepted_version = m.version OR (m.outcome = 'matched' OR m.coercible) AND {ORDERS_KNOWN}))"""
_WITHOUT_ORDER = "SELECT uid AS study_instance_uid FROM unnest(%(studies)s::text[]) AS uid WHERE NOT " + AN_ORDER_FITS.format(study="uid")
_WAITING_FOR_ORDERS = (
    """
    SELECT destination, count(*) AS pending FROM delivery AS d
    WHERE state = 'pending' AND destination = ANY(%(destinations)s) AND NOT """
    + AN_ORDER_FITS.format(study="d.study_instance_uid")
    + " GROUP BY 1"
)
_OUTAGES = "SELECT DISTINCT ON (destination) destination, says, since FROM v_destination_outage ORDER BY destination, since"
_WATCHED = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %(name)s AND datname = current_database()) AS some"
_REFUSED = """
    SELECT destination, study_instance_uid, count(*) AS refused FROM delivery
    WHERE study_instance_uid = ANY(%(studies)s) AND state = 'pending' AND attempts > 0 GROUP BY 1, 2
"""
_BEFORE = """
    SELECT count(*) AS count FROM delivery
    WHERE destination = %(destination)s AND state = 'pending' AND not_before <= now() AND study_instance_uid <> ALL(%(held)s)
        AND (priority > %(priority)s OR (priority = %(priority)s AND not_before < %(due_at)s))
"""
_STUDIES = """
    SELECT uid AS study_instance_uid, (SELECT count(*) FROM instance WHERE study_instance_uid = uid) AS objects,
        (SELECT count(*) FROM delivery WHERE study_instance_uid = uid AND state = 'pending') AS pending
    FROM unnest(%(studies)s::text[]) AS uid
"""
_URGENT = "SELECT study_instance_uid, priority, since FROM urgent_study ORDER BY since DESC LIMIT %(limit)s"


def queues(dsn: str, studies: Collection[str] = ()) -> dict[str, QueueNow]:
    """The queues by destination, with the part that these studies have in each. Raises as `rows`, like all here."""
    return {each.destination: each for each in rows(dsn, QueueNow, _QUEUES, {"studies": list(studies)})}


def outages(dsn: str) -> dict[str, Outage]:
    """Why destinations cannot be used at present, by destination."""
    return {each.destination: each for each in rows(dsn, Outage, _OUTAGES, {})}


def without_order(dsn: str, studies: Collection[str]) -> frozenset[str]:
    """Those of these studies which no order fits."""
    return (
        frozenset(each.study_instance_uid for each in rows(dsn, _Uid, _WITHOUT_ORDER, {"studies": list(studies)}))
        if studies
        else frozenset()
    )


def waiting_for_orders(dsn: str, destinations: Collection[str]) -> dict[str, int]:
    """How many pending deliveries are of studies which no order fits, by destination."""
    if not destinations:
        return {}
    return {each.destination: each.pending for each in rows(dsn, _Pending, _WAITING_FOR_ORDERS, {"destinations": list(destinations)})}


def is_watched(dsn: str) -> bool:
    """Whether any process that delivers is connected."""
    return rows(dsn, _Some, _WATCHED, {"name": WATCHES})[0].some


def refused(dsn: str, studies: Collection[str]) -> Mapping[tuple[str, str], int]:
    """How many pending deliveries of each study were tried without success, by destination and study."""
    found = rows(dsn, _Refused, _REFUSED, {"studies": list(studies)})
    return {(each.destination, each.study_instance_uid): each.refused for each in found}


def before(dsn: str, destination: str, priority: int, due_at: datetime, held: Collection[str]) -> int:
    """How many deliveries to a destination are due and come before one of this priority that is due since then."""
    values = {"destination": destination, "priority": priority, "due_at": due_at, "held": list(held)}
    return rows(dsn, _Count, _BEFORE, values)[0].count


def study_counts(dsn: str, studies: Collection[str]) -> dict[str, StudyCount]:
    """What is here of studies, those that are not known included."""
    return {each.study_instance_uid: each for each in rows(dsn, StudyCount, _STUDIES, {"studies": list(studies)})}


def urgent_studies(dsn: str, *, limit: int) -> list[Marked]:
    """The studies that go before all others, last marked first."""
    return rows(dsn, Marked, _URGENT, {"limit": limit})
