"""The ledger as commands see it: which deliveries there are, what became of each, and what waits for what.

Comments may hold a peer's own words, about a patient, too: rows are shown, never logged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from hilum.database.deidentified import TAKEN_BACK as IS_BACK
from hilum.database.found import rows
from hilum.errors import NotFound
from hilum.events import following_id

#: The channel on which the workers of a destination are told that there is work; the payload is the destination's name.
CHANNEL = "delivery_ready"

#: Without a final state: `parked` ones wait for a person.
OPEN = ("pending", "parked")
FINAL = ("delivered", "already_there", "returned", "rejected", "cancelled")
STATES = OPEN + FINAL
#: In these the destination has, or had, the object.
THERE = ("delivered", "already_there", "returned")


def settled_id(delivery_id: str, round_: int = 0) -> str:
    """The id of the event that says how the delivery ended: the same whenever it is said. Each round has an end of its own."""
    return following_id(delivery_id, "deliver", round_)


class DeliveryRow(Struct, frozen=True, kw_only=True):
    """A delivery that is to be made. Its state, `pending`, and all that is about attempts are the table's defaults."""

    delivery_id: str
    destination: str
    receipt: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    bucket: str
    object_key: str
    size_bytes: int
    sha256: str
    rules: tuple[str, ...]
    priority: int
    config_version: str
    traceparent: str
    received_at: datetime | None
    run: str = ""
    #: The policy of its destination, if it has one.
    under_policy: str | None = None


class Selection(Struct, frozen=True, kw_only=True):
    """Some deliveries: all that fit everything that is given."""

    destination: str = ""
    #: StudyInstanceUID.
    study: str = ""
    #: Any of these; none: any.
    states: tuple[str, ...] = ()
    #: Last changed (settled, parked or entered) at or after this moment.
    since: datetime | None = None
    #: Last changed before this moment.
    until: datetime | None = None
    #: Delivery ids, or SOPInstanceUIDs, those under which something was sent included.
    ids: tuple[str, ...] = ()
    #: Only those that were entered to leave de-identified.
    under_policy: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """What `WHERE` asks for."""
        return {
            "destination": self.destination,
            "study": self.study,
            "states": list(self.states or STATES),
            "since": self.since,
            "until": self.until,
            "ids": list(self.ids) or None,
            "under_policy": self.under_policy,
        }


#: The rows `d` of a selection.
WHERE = """
    (%(destination)s = '' OR d.destination = %(destination)s) AND (%(study)s = '' OR d.study_instance_uid = %(study)s)
    AND d.state = ANY(%(states)s)
    AND (%(since)s::timestamptz IS NULL OR coalesce(d.settled_at, d.parked_at, d.created_at) >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR coalesce(d.settled_at, d.parked_at, d.created_at) < %(until)s)
    AND (%(ids)s::text[] IS NULL OR d.delivery_id = ANY(%(ids)s) OR d.sop_instance_uid = ANY(%(ids)s) OR d.sent_as = ANY(%(ids)s))
    AND (NOT %(under_policy)s OR d.under_policy IS NOT NULL)
"""
#: What a rejection note names goes nowhere again, whoever asks for it.
NOT_WITHDRAWN = """
    NOT EXISTS (SELECT FROM withdrawn AS w WHERE w.sop_instance_uid = d.sop_instance_uid AND w.study_instance_uid = d.study_instance_uid)
"""
#: Nor does the form of an object of which a corrected one was taken since.
NOT_CORRECTED = """
    NOT EXISTS (
        SELECT FROM receipt AS r
        WHERE r.sop_instance_uid = d.sop_instance_uid AND r.study_instance_uid = d.study_instance_uid AND r.decision = 'corrected'
            AND r.sha256 <> d.sha256
            AND NOT EXISTS (
                SELECT FROM receipt AS own
                WHERE own.sop_instance_uid = d.sop_instance_uid AND own.study_instance_uid = d.study_instance_uid
                    AND own.decision = 'corrected' AND own.sha256 = d.sha256
                    AND (own.received_at, own.receipt) > (r.received_at, r.receipt)))
"""
#: It was taken back from its destination since it was delivered there.
TAKEN_BACK = f"""
    (d.policy IS NOT NULL
    AND EXISTS (SELECT FROM deidentified AS known WHERE known.sent_as = d.sent_as AND known.delivery_id = d.delivery_id AND {IS_BACK})
    AND NOT EXISTS (
        SELECT FROM deidentified AS known
        WHERE known.sent_as = d.sent_as AND known.delivery_id = d.delivery_id AND known.sent_at IS NOT NULL AND NOT {IS_BACK}))
"""  # constants
#: In nobody's hands.
FREE = "(d.lease_until IS NULL OR d.lease_until < now())"


class AboutMessage(Struct, frozen=True, kw_only=True):
    """The message of a delivery that is of no object."""

    #: What it tells, such as `study-completed` or `message`, as `on` has it.
    kind: str
    #: MSH-10, and MSH-9 such as `ADT^A08`; of a step that a modality performs, its SOPInstanceUID, and `N-CREATE` or `N-SET`.
    control_id: str
    type: str
    #: The message that is passed on, as `hilum hl7 show` takes it.
    message_id: str
    study_instance_uid: str


class ListedDelivery(Struct, frozen=True, kw_only=True):
    """One delivery. `next_attempt_at` is set while it is pending, in the past if it is due; `in_hand` if a worker has it now."""

    delivery_id: str
    destination: str
    #: Which destination of a group has it.
    member: str | None
    #: The SOP instance UID under which the destination has it, if that is another.
    sent_as: str | None
    state: str
    study_instance_uid: str
    series_instance_uid: str | None
    sop_instance_uid: str
    priority: int
    attempts: int
    peer_status: str | None
    comment: str | None
    next_attempt_at: datetime | None
    in_hand: bool
    entered_at: datetime
    parked_at: datetime | None
    settled_at: datetime | None
    #: The run by which a person asked for it; empty if a rule did.
    run: str
    #: What it is, if it is of a message and not of an object.
    message: AboutMessage | None = None
    #: Why it waits, in words, while it is pending; commands fill it in (`hilum.waiting`).
    waits_because: str | None = None


class ShownDelivery(ListedDelivery, frozen=True, kw_only=True):
    """One delivery with all that the ledger knows of it."""

    receipt: str
    received_at: datetime | None
    rules: list[str] | None
    config_version: str | None
    sop_class_uid: str | None
    transfer_syntax_uid: str | None
    bucket: str | None
    object_key: str | None
    size_bytes: int | None
    sha256: str | None
    round: int
    abandoned: int
    claimed_by: str | None
    traceparent: str | None
    #: The policy by which it is to leave, whether or not its destination has one any more.
    under_policy: str | None = None
    #: That it leaves as it is where the destination has none, and who decided that, the last time.
    identified: bool = False
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_why: str | None = None


class Counted(Struct, frozen=True, kw_only=True):
    """How many deliveries of a selection are for one destination and in one state; `in_hand` of them have a worker."""

    destination: str
    state: str
    deliveries: int
    studies: int
    size_bytes: int
    in_hand: int
    #: Of these, those whose object a rejection note names: they are not tried again.
    withdrawn: int = 0
    #: Of the others, those of whose object a corrected form was taken since: they are not tried again.
    corrected: int = 0


class _Named(Struct, frozen=True):
    study_instance_uid: str


_LISTED = """
    d.delivery_id, d.destination, d.member, d.sent_as, d.state, d.study_instance_uid, d.series_instance_uid, d.sop_instance_uid, d.priority,
    d.attempts, nullif(d.peer_status, '') AS peer_status, nullif(d.comment, '') AS comment,
    CASE WHEN d.state = 'pending' THEN d.not_before END AS next_attempt_at,
    coalesce(d.state = 'pending' AND d.lease_until > now(), false) AS in_hand,
    d.created_at AS entered_at, d.parked_at, d.settled_at, d.run, message.about AS message
"""
# MSH-9 stands between the eighth and the ninth field separator.
_MESSAGE = """
    LEFT JOIN LATERAL (
        SELECT jsonb_build_object('kind', o.kind, 'message_id', o.message_id, 'study_instance_uid', o.study_instance_uid,
            'control_id', CASE o.kind WHEN 'mpps' THEN substring(o.text FROM '"sop_instance_uid":"([0-9.]*)"') ELSE o.control_id END,
            'type', CASE o.kind WHEN 'mpps' THEN CASE WHEN o.text LIKE '%%"create":true%%' THEN 'N-CREATE' ELSE 'N-SET' END
                ELSE array_to_string((string_to_array(split_part(split_part(left(o.text, 4000), E'\\r', 1),
                    substr(o.text, 4, 1), 9), substr(o.text, 5, 1)))[1:2], '^') END) AS about
        FROM hl7_outgoing AS o WHERE o.delivery_id = d.delivery_id) AS message ON true
"""
_SHOWN = f"""
    SELECT {_LISTED}, d.receipt, d.received_at, d.rules, d.config_version, d.sop_class_uid, d.transfer_syntax_uid, d.bucket, d.object_key,
        d.size_bytes, d.sha256, d.round, d.abandoned, d.claimed_by, d.traceparent,
        d.under_policy, d.identified, decided.decided_by, decided.decided_at, decided.why AS decided_why
    FROM delivery d {_MESSAGE} LEFT JOIN LATERAL (
        SELECT said.decided_by, said.decided_at, said.why FROM identified_decision AS said
        WHERE said.delivery_id = d.delivery_id ORDER BY said.decided_at DESC LIMIT 1) AS decided ON true
    WHERE {WHERE} ORDER BY d.created_at, d.delivery_id
"""  # constants
_NEWEST = "ORDER BY coalesce(d.settled_at, d.parked_at, d.created_at) DESC, d.delivery_id LIMIT %(limit)s"
# Destination by destination, each from the end of its index, so that a ledger of years is not read to show its last lines.
LIST = f"""
    WITH RECURSIVE names AS (
        SELECT min(destination) AS name FROM delivery WHERE %(destination)s = '' OR destination = %(destination)s
        UNION ALL
        SELECT (SELECT min(destination) FROM delivery WHERE destination > names.name) FROM names
        WHERE names.name IS NOT NULL AND %(destination)s = '')
    SELECT {_LISTED} FROM names CROSS JOIN LATERAL (SELECT d.* FROM delivery d WHERE d.destination = names.name AND {WHERE} {_NEWEST}) AS d
    {_MESSAGE}
    {_NEWEST}
"""  # constants
_COUNT = f"""
    SELECT d.destination, d.state, count(*) AS deliveries, count(DISTINCT d.study_instance_uid) AS studies,
        coalesce(sum(d.size_bytes), 0)::bigint AS size_bytes, count(*) FILTER (WHERE d.state = 'pending' AND NOT {FREE}) AS in_hand,
        count(*) FILTER (WHERE NOT {NOT_WITHDRAWN}) AS withdrawn,
        count(*) FILTER (WHERE {NOT_WITHDRAWN} AND NOT {NOT_CORRECTED}) AS corrected
    FROM delivery d WHERE {WHERE} GROUP BY d.destination, d.state ORDER BY d.destination, d.state
"""  # constants
_STUDIES = """
    SELECT study_instance_uid FROM study WHERE study_instance_uid = %(name)s OR accession_number = %(name)s
    UNION SELECT study_instance_uid FROM delivery WHERE study_instance_uid = %(name)s
"""


def list_deliveries(dsn: str, selection: Selection, *, limit: int = 100) -> list[ListedDelivery]:
    """The deliveries of a selection, last changed first. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, ListedDelivery, LIST, {**selection.values, "limit": limit})


def show_deliveries(dsn: str, which: str) -> list[ShownDelivery]:
    """The delivery with this id, or all of the instance with this SOPInstanceUID. Raises `NotFound`, `TryAgain`, `Misconfigured`."""
    found = rows(dsn, ShownDelivery, _SHOWN, Selection(ids=(which,)).values)
    if not found:
        raise NotFound("No delivery has that id, and none is of an instance with that UID.", fix="See `hilum deliver list`.")
    return found


def count_deliveries(dsn: str, selection: Selection) -> list[Counted]:
    """How many deliveries of a selection there are, by destination and state. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, Counted, _COUNT, selection.values)


def study_named(dsn: str, name: str) -> str:
    """The StudyInstanceUID of the study with that UID or accession number.

    Raises `NotFound` if there is none or if several studies have that accession number, which is not repeated; `TryAgain`.
    """
    found = rows(dsn, _Named, _STUDIES, {"name": name})
    if not found:
        raise NotFound("No study with that StudyInstanceUID or accession number is known.", fix="See `hilum study list`.")
    if len(found) > 1:
        uids = ", ".join(sorted(each.study_instance_uid for each in found)[:5])
        raise NotFound(f"{len(found)} studies have that accession number.", fix=f"Name one by its StudyInstanceUID: {uids}.")
    return found[0].study_instance_uid
