"""What the commands ask of the database. Rows about studies and quarantine hold patient data: they are shown, never logged.

Each function opens a connection of its own and raises `TryAgain` while PostgreSQL does not answer.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from hilum.database.counting import COUNTS
from hilum.database.deidentified import Origin
from hilum.database.deliveries import TAKEN_BACK
from hilum.database.found import rows
from hilum.database.merges import current, is_of, same_person
from hilum.database.ordered import Ordered
from hilum.database.troubles import FailedRule, failed_rules
from hilum.errors import NotFound


class StudySummary(Struct, frozen=True, kw_only=True):
    """A study in a line. `pending` deliveries have no final state, `rejected` ones were not taken, `parked` ones and
    `quarantined` events wait for a person.

    `unrouted` objects came in and no rule sends them anywhere.
    """

    study_instance_uid: str
    patient_id: str | None
    patient_name: str | None
    accession_number: str | None
    study_date: str | None
    study_description: str | None
    modalities: list[str]
    series: int
    instances: int
    size_bytes: int
    #: When the first instance of it came in.
    received_at: datetime
    pending: int
    rejected: int
    unrouted: int
    quarantined: int
    #: `open` or `complete`, since the last complete revision (0: none) and why; None if nothing is known.
    state: str | None = None
    revision: int | None = None
    reason: str | None = None
    completed_at: datetime | None = None
    #: Instances that were announced and have not come, and those that rejection notes name.
    missing: int | None = None
    withdrawn: int | None = None
    parked: int = 0
    #: Why it is not complete although its time has come.
    says: str | None = None
    #: Of the patient that its patient was merged into; None: into nobody.
    current_patient_id: str | None = None
    current_patient_name: str | None = None
    #: How it fits its order, as in `orders.match.changed.v1`; None: it was held against none.
    order_outcome: str | None = None


class SeriesOfStudy(Struct, frozen=True, kw_only=True):
    """A series of which an instance was accepted."""

    series_instance_uid: str
    series_number: str | None
    modality: str | None
    series_description: str | None
    instances: int
    size_bytes: int


class Arrivals(Struct, frozen=True, kw_only=True):
    """What came from one sender with one outcome: `deliver`, `duplicate`, `no-rule`, `quarantined` or `undecided`."""

    calling_aet: str | None
    peer: str | None
    adapter: str | None
    outcome: str
    receipts: int
    first_received_at: datetime | None
    last_received_at: datetime | None


class DeliveriesOfStudy(Struct, frozen=True, kw_only=True):
    """Deliveries to one destination in one state. `attempts` is the most of any; answer and comment are the latest.

    `next_attempt_at` of pending ones is the first, in the past if it is due; `waits_because` is what commands fill in (`hilum.waiting`).
    """

    destination: str
    state: str
    deliveries: int
    attempts: int
    peer_status: str | None
    comment: str | None
    next_attempt_at: datetime | None
    last_settled_at: datetime | None
    waits_because: str | None = None
    #: The highest of any, and how many of them are in a worker's hands.
    priority: int = 0
    in_hand: int = 0
    #: How many of them were taken back from it since.
    withdrawn: int = 0


class QuarantinedEvent(Struct, frozen=True, kw_only=True):
    """An event that waits, or waited, for a person. `found` and `expected` may hold values of the object."""

    event_id: str
    receipt: str | None
    state: str
    stage: str
    reason: str
    sentence: str
    fix: str
    found: str
    expected: str
    quarantined_at: datetime
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    calling_aet: str | None
    peer: str | None
    bucket: str | None
    object_key: str | None


class Expired(Struct, frozen=True, kw_only=True):
    """Originals of a study that expired on one day by one term."""

    objects: int
    size_bytes: int
    policy: str
    decided_by: str
    first_at: datetime
    last_at: datetime


class Study(Struct, frozen=True, kw_only=True):
    """A study, whole: what came, from whom, where it went, what waits and why."""

    summary: StudySummary
    series: list[SeriesOfStudy]
    arrivals: list[Arrivals]
    deliveries: list[DeliveriesOfStudy]
    quarantined: list[QuarantinedEvent]
    #: Rules that could not be evaluated on objects of it.
    failed: list[FailedRule] = []
    #: Originals that are no longer kept.
    expired: list[Expired] = []
    #: What orders and modalities say of it; None where nobody looked (`hilum.database.ordered`).
    ordered: Ordered | None = None
    #: What it has to do with what left de-identified; None where nobody looked.
    origin: Origin | None = None


class RejectedDelivery(Struct, frozen=True, kw_only=True):
    """A delivery that its destination did not take in the end. `comment` may hold the destination's own words, about a patient, too."""

    delivery_id: str
    destination: str
    study_instance_uid: str
    sop_instance_uid: str
    attempts: int
    peer_status: str | None
    comment: str | None
    settled_at: datetime | None


class Kind(Struct, frozen=True, kw_only=True):
    """A kind of object, as a peer must take it."""

    sop_class_uid: str
    transfer_syntax_uid: str


class DestinationCount(Struct, frozen=True, kw_only=True):
    """How many deliveries to a destination are in each state, since when the oldest pending one waits, and why all of them do."""

    destination: str
    pending: int
    delivered: int
    already_there: int
    returned: int
    rejected: int
    cancelled: int
    oldest_pending: datetime | None
    waits_because: str | None
    waits_since: datetime | None
    #: Those that wait for a person.
    parked: int = 0


class _Count(Struct, frozen=True):
    count: int


class _Sample(Struct, frozen=True):
    percent: float


# Counts are made for the studies that are shown only. A study may have no row of its own yet: all that came of it is in quarantine.
_SUMMARY = """
SELECT shown.study_instance_uid, study.patient_id, study.patient_name, study.accession_number, study.study_date, study.study_description,
       series.modalities, series.series, instance.instances, instance.size_bytes,
       coalesce(study.received_at, receipt.received_at, '-infinity') AS received_at,
       delivery.pending, delivery.rejected, receipt.unrouted, quarantine.quarantined, delivery.parked,
       study_state.state, study_state.revision, study_state.reason, study_state.completed_at, study_state.missing, study_state.withdrawn,
       study_state.says, nullif(merged.patient_id, '') AS current_patient_id, merged.name AS current_patient_name,
       match.outcome AS order_outcome
FROM ({shown}) AS shown
LEFT JOIN study USING (study_instance_uid)
LEFT JOIN study_state USING (study_instance_uid)
LEFT JOIN match ON match.about = 'study' AND match.id = shown.study_instance_uid
LEFT JOIN LATERAL ({merged}) AS merged ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS series, coalesce(array_agg(DISTINCT modality) FILTER (WHERE modality IS NOT NULL), '{{}}') AS modalities
    FROM series WHERE series.study_instance_uid = shown.study_instance_uid) AS series
CROSS JOIN LATERAL (
    SELECT count(*) AS instances, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
    FROM instance WHERE instance.study_instance_uid = shown.study_instance_uid AND {counts}) AS instance
CROSS JOIN LATERAL (
    SELECT min(received_at) AS received_at, count(*) FILTER (WHERE decision = 'no-rule') AS unrouted
    FROM receipt WHERE receipt.study_instance_uid = shown.study_instance_uid) AS receipt
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'rejected') AS rejected,
           count(*) FILTER (WHERE state = 'parked') AS parked
    FROM delivery WHERE delivery.study_instance_uid = shown.study_instance_uid) AS delivery
CROSS JOIN LATERAL (
    SELECT count(*) AS quarantined FROM quarantine
    WHERE quarantine.study_instance_uid = shown.study_instance_uid AND state = 'waiting') AS quarantine
ORDER BY received_at DESC, study_instance_uid
"""

_MERGED = current("study.patient_id", "study.issuer_of_patient_id")
_LATEST = _SUMMARY.format(
    counts=COUNTS,
    merged=_MERGED,
    shown=f"""
    SELECT study_instance_uid FROM study
    WHERE (%(like)s = '' OR study_instance_uid = %(like)s OR accession_number = %(like)s OR patient_id = %(like)s
       OR patient_name ILIKE '%%' || %(pattern)s || '%%'
       OR study_instance_uid IN (
           SELECT of_same.study_instance_uid FROM ({same_person("%(like)s")}) AS known
           JOIN study AS of_same ON {is_of("of_same.patient_id", "of_same.issuer_of_patient_id")}))
      AND (%(order)s = '' OR study_instance_uid IN (SELECT id FROM match WHERE about = 'study' AND outcome = %(order)s))
    ORDER BY received_at DESC LIMIT %(limit)s""",
)

_NAMED = _SUMMARY.format(
    counts=COUNTS,
    merged=_MERGED,
    shown="""
    SELECT study_instance_uid FROM study WHERE study_instance_uid = %(study)s OR accession_number = %(study)s
    UNION SELECT study_instance_uid FROM receipt WHERE study_instance_uid = %(study)s""",
)

_SERIES = f"""
SELECT series.series_instance_uid, series_number, modality, series_description,
       count(instance.sop_instance_uid) AS instances, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
FROM series LEFT JOIN instance ON instance.series_instance_uid = series.series_instance_uid AND {COUNTS}
WHERE series.study_instance_uid = %(study)s
GROUP BY series.series_instance_uid
ORDER BY lpad(series_number, 12), series.series_instance_uid
"""

_ARRIVALS = """
SELECT calling_aet, peer, adapter, outcome, count(*) AS receipts,
       min(received_at) AS first_received_at, max(received_at) AS last_received_at
FROM v_receipt WHERE study_instance_uid = %(study)s
GROUP BY calling_aet, peer, adapter, outcome
ORDER BY first_received_at, outcome
"""

_DELIVERIES = f"""
SELECT destination, state, count(*) AS deliveries, max(attempts) AS attempts,
       (array_agg(peer_status ORDER BY settled_at DESC NULLS FIRST, attempts DESC) FILTER (WHERE peer_status <> ''))[1] AS peer_status,
       (array_agg(comment ORDER BY settled_at DESC NULLS FIRST, attempts DESC) FILTER (WHERE comment <> ''))[1] AS comment,
       min(not_before) FILTER (WHERE state = 'pending') AS next_attempt_at, max(settled_at) AS last_settled_at, max(priority) AS priority,
       count(*) FILTER (WHERE state = 'pending' AND lease_until > now()) AS in_hand,
       count(*) FILTER (WHERE state IN ('delivered', 'already_there') AND {TAKEN_BACK}) AS withdrawn
FROM delivery AS d WHERE study_instance_uid = %(study)s
GROUP BY destination, state
ORDER BY destination, state
"""  # constants

_EXPIRED = """
SELECT count(*) AS objects, sum(size_bytes)::bigint AS size_bytes, policy, decided_by,
    min(decided_at) AS first_at, max(decided_at) AS last_at
FROM expiry WHERE study_instance_uid = %(study)s GROUP BY policy, decided_by, decided_at::date ORDER BY first_at, policy
"""

_QUARANTINED = """
SELECT event_id, q.receipt, q.state, stage, reason, sentence, fix, found, expected, q.quarantined_at,
       q.study_instance_uid, q.series_instance_uid, q.sop_instance_uid, calling_aet, peer, bucket, object_key
FROM quarantine AS q LEFT JOIN receipt USING (receipt)
"""
_WAITING_OF_STUDY = "WHERE q.study_instance_uid = %(study)s AND q.state = 'waiting' ORDER BY q.quarantined_at, event_id"

_REJECTED = """
SELECT delivery_id, destination, study_instance_uid, sop_instance_uid, attempts, peer_status, comment, settled_at
FROM delivery WHERE state = 'rejected' AND (%(destination)s = '' OR destination = %(destination)s)
ORDER BY settled_at DESC, delivery_id LIMIT %(limit)s
"""

# Of many instances a part is enough: the pages that are read hold about 200,000 rows.
_KINDS = """
SELECT sop_class_uid, transfer_syntax_uid FROM instance TABLESAMPLE SYSTEM (%(percent)s)
GROUP BY sop_class_uid, transfer_syntax_uid ORDER BY count(*) DESC LIMIT %(limit)s
"""
_PERCENT = "SELECT least(100, 100 * 200000 / greatest(1, reltuples))::float4 AS percent FROM pg_class WHERE oid = 'instance'::regclass"

_COUNTS = """
SELECT counts.*, outage.says AS waits_because, outage.since AS waits_since
FROM (
    SELECT destination, count(*) FILTER (WHERE state = 'pending') AS pending,
           count(*) FILTER (WHERE state = 'delivered') AS delivered, count(*) FILTER (WHERE state = 'already_there') AS already_there,
           count(*) FILTER (WHERE state = 'returned') AS returned, count(*) FILTER (WHERE state = 'rejected') AS rejected,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled, count(*) FILTER (WHERE state = 'parked') AS parked,
           min(coalesce(received_at, created_at)) FILTER (WHERE state = 'pending') AS oldest_pending
    FROM delivery GROUP BY destination
) AS counts
LEFT JOIN LATERAL (
    SELECT says, since FROM v_destination_outage AS outage WHERE outage.destination = counts.destination ORDER BY since LIMIT 1
) AS outage ON true
ORDER BY destination
"""


def list_studies(dsn: str, *, like: str = "", order: str = "", limit: int = 50) -> list[StudySummary]:
    """The studies received last. `like` is a StudyInstanceUID, accession number or patient id, or part of a patient's name.

    With `order`, those that fit their order so.

    By the identifier of a patient, also the studies of those with whom merges make it one are found.
    """
    pattern = like.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return rows(dsn, StudySummary, _LATEST, {"like": like, "pattern": pattern, "order": order, "limit": limit})


def show_study(dsn: str, study: str) -> list[Study]:
    """The study with this StudyInstanceUID, or those with this accession number (it may be used again). Raises `NotFound`."""
    found = []
    for summary in rows(dsn, StudySummary, _NAMED, {"study": study}):
        uid = {"study": summary.study_instance_uid}
        found.append(
            Study(
                summary=summary,
                series=rows(dsn, SeriesOfStudy, _SERIES, uid),
                arrivals=rows(dsn, Arrivals, _ARRIVALS, uid),
                deliveries=rows(dsn, DeliveriesOfStudy, _DELIVERIES, uid),
                failed=failed_rules(dsn, study=summary.study_instance_uid),
                quarantined=rows(dsn, QuarantinedEvent, _QUARANTINED + _WAITING_OF_STUDY, uid),
                expired=rows(dsn, Expired, _EXPIRED, uid),
            )
        )
    if not found:
        raise NotFound("No study with that StudyInstanceUID or accession number is in the index.", fix="See `hilum study list`.")
    return found


def list_quarantined(dsn: str, *, reason: str = "", limit: int = 100) -> list[QuarantinedEvent]:
    """What waits for a person, oldest first; with `reason`, only for that one."""
    where = "WHERE q.state = 'waiting' AND (%(reason)s = '' OR reason = %(reason)s) ORDER BY q.quarantined_at, event_id LIMIT %(limit)s"
    return rows(dsn, QuarantinedEvent, _QUARANTINED + where, {"reason": reason, "limit": limit})


def count_quarantined(dsn: str) -> int:
    """How many events wait for a person."""
    [counted] = rows(dsn, _Count, "SELECT count(*) AS count FROM quarantine WHERE state = 'waiting'", {})
    return counted.count


def show_quarantined(dsn: str, which: str) -> list[QuarantinedEvent]:
    """The quarantined events of a receipt, an instance or an event's id, decided ones too. Raises `NotFound`."""
    where = "WHERE %(which)s IN (event_id, q.receipt, q.sop_instance_uid, input_id) ORDER BY q.quarantined_at, event_id"
    found = rows(dsn, QuarantinedEvent, _QUARANTINED + where, {"which": which})
    if not found:
        raise NotFound("Nothing in quarantine has that id.", fix="See `hilum quarantine list`.")
    return found


def rejected_deliveries(dsn: str, *, destination: str = "", limit: int = 100) -> list[RejectedDelivery]:
    """What was not taken in the end, latest first; with `destination`, only by that one. Reads the whole ledger."""
    return rows(dsn, RejectedDelivery, _REJECTED, {"destination": destination, "limit": limit})


def kinds_of_objects(dsn: str, *, limit: int) -> list[Kind]:
    """The kinds of objects in the index, the most frequent first; of a large index a sample, so that rare ones may be left out."""
    [sample] = rows(dsn, _Sample, _PERCENT, {})
    return rows(dsn, Kind, _KINDS, {"limit": limit, "percent": sample.percent})


def destination_counts(dsn: str) -> list[DestinationCount]:
    """How the deliveries to each destination stand; a destination to which nothing was ever to be delivered is not in it."""
    return rows(dsn, DestinationCount, _COUNTS, {})
