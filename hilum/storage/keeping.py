"""Whether an original is still kept, and why: the one place where that is decided, without database, store or clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from hilum.sections import Retention

Reason = Literal[
    "archived",
    "quarantined",
    "undecided",
    "waits",
    "open",
    "awaited",
    "promised",
    "rejected",
    "nowhere",
    "for-ever",
    "too-early",
]
#: Why an original is kept, in words; the first that holds is the reason.
REASONS: dict[Reason, str] = {
    "archived": "archived in place",
    "quarantined": "in quarantine, or an object with the same SOPInstanceUID is",
    "undecided": "on its way: not decided on, or a decision that is not in the ledger yet",
    "waits": "its study is not complete",
    "open": "deliveries pending or waiting for a person",
    "awaited": "storage commitment was asked for and is not decided",
    "promised": "promised to its sender by storage commitment",
    "rejected": "a destination rejected it",
    "nowhere": "no destination has it",
    "for-ever": "no term is set for it",
    "too-early": "its retention has not passed",
}
#: Decisions on objects that were here in another form.
REPEATS = frozenset({"duplicate", "returned"})


class Facts(Struct, frozen=True, kw_only=True):
    """What index and ledger know of one original, and of whatever else came under its SOPInstanceUID."""

    bucket: str
    object_key: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sha256: str = ""
    size_bytes: int = 0
    #: Its arrivals.
    receipts: tuple[str, ...] = ()
    #: What was decided on its arrivals.
    decisions: tuple[str, ...] = ()
    modality: str = ""
    senders: tuple[str, ...] = ()
    #: Whether anything under its SOPInstanceUID is undecided, or its decision not yet in the ledger.
    undecided: bool = False
    #: Whether anything under its SOPInstanceUID waits in quarantine.
    quarantined: bool = False
    #: Whether its study is open, or anything under its SOPInstanceUID waits for that to be complete.
    waits: bool = False
    #: Deliveries of anything under its SOPInstanceUID without a final state.
    open: int = 0
    #: Whether storage commitment was promised of anything under its SOPInstanceUID.
    promised: bool = False
    #: Of its own deliveries, whether any is to an archive in place and not given up, was rejected, or arrived.
    archived: bool = False
    rejected: bool = False
    arrived: bool = False
    #: Whether the index names it as the instance's object.
    first: bool = True
    received_at: datetime
    #: The last moment at which anything under its SOPInstanceUID came, was decided or settled.
    changed_at: datetime


class Term(Struct, frozen=True, kw_only=True):
    """By which term an original expires, and how many days that is."""

    policy: str
    days: int


def verdict(facts: Facts, retention: Retention, now: datetime, *, awaited: bool = False) -> Reason | Term:
    """Why an original is kept, or by which term it expires now.

    `awaited` is whether an open request for storage commitment names it.
    """
    if facts.archived:
        return "archived"
    if facts.quarantined:
        return "quarantined"
    if facts.undecided or not facts.decisions:
        return "undecided"
    if facts.waits:
        return "waits"
    if facts.open:
        return "open"
    if awaited:
        return "awaited"
    repeats = REPEATS.issuperset(facts.decisions) and not facts.first
    if facts.promised and not repeats and retention.promised == "keep":
        return "promised"
    if facts.rejected:
        return "rejected"
    if not facts.arrived and not repeats:
        return "nowhere"
    term = Term(policy=f"repeats_days = {retention.repeats_days}", days=retention.repeats_days) if repeats else term_of(facts, retention)
    if not term.days:
        return "for-ever"
    # What is not of the past is of a clock that was wrong.
    return term if facts.received_at <= facts.changed_at <= now - timedelta(days=term.days) else "too-early"


def term_of(facts: Facts, retention: Retention) -> Term:
    """The term of an original that destinations have: that of its modality or senders, the longest, where there is one."""
    terms = [
        Term(policy=f"senders.{each} = {retention.senders[each]}", days=retention.senders[each])
        for each in facts.senders
        if each in retention.senders
    ]
    if facts.modality in retention.modalities:
        days = retention.modalities[facts.modality]
        terms.append(Term(policy=f"modalities.{facts.modality} = {days}", days=days))
    if not terms:
        return Term(policy=f"originals_days = {retention.originals_days}", days=retention.originals_days)
    return max(terms, key=lambda term: term.days or float("inf"))
