"""A hospital around the stage `route`, without Kafka and PostgreSQL: real rows and timers, an index and a ledger in memory, a clock.

What was said counts only once its transaction is committed; the index learns of it when it is told to catch up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from hilum.database.known import Decided, IndexedStudy, Noted, Person
from hilum.dicom import Header
from hilum.errors import NotFound, Quarantine
from hilum.events import (
    CommandOutcome,
    Event,
    Instance,
    InstanceAccepted,
    InstanceRouted,
    ObjectRef,
    StudyChanged,
    StudyCommand,
    StudyExpected,
)
from hilum.runtime.processor import NeedsWork
from hilum.runtime.state import Changes, Codec, PartitionState, milliseconds
from hilum.settings import Settings
from hilum.testing import Clock, an_instance
from processors.route import Route
from processors.route.contents import Comparison
from processors.route.facts import Deciding, Matched, StudyFacts, StudyRoute
from processors.route.rows import InstanceRow, Row, StudyRow, study_key
from processors.route.rules import Rules

STUDY, OTHER_STUDY = "2.25.1", "2.25.9"
CODEC = Codec(Row)

#: Deliveries end in one of these, or are `pending`.
STATES = ("delivered", "already_there", "returned", "rejected", "cancelled", "pending")


class FixedRules:
    """Every instance goes to `now`; of a complete study `routes` hold; the rule `ct` holds for CT."""

    tags: frozenset[str] = frozenset()

    def __init__(self, now: Sequence[str] = (), routes: Sequence[StudyRoute] = ()) -> None:
        self.now = now
        self.routes = tuple(routes)
        self.asked: list[tuple[StudyFacts, dict[str, int]]] = []

    @property
    def any_of_study(self) -> bool:
        return bool(self.routes)

    def matched(self, event: InstanceAccepted, header: Header | None = None) -> Matched:
        ct = event.instance.header.text("Modality") == "CT"
        return Matched(destinations=dict.fromkeys(self.now, ("always",)), study_rules=("ct",) if ct else ())

    def of_study(self, facts: StudyFacts, matched: Mapping[str, int]) -> tuple[StudyRoute, ...]:
        self.asked.append((facts, dict(matched)))
        return self.routes


class Index:
    """What the index makes of events, in whatever order they come."""

    def __init__(self) -> None:
        self.accepted: dict[str, Instance] = {}
        self.routed: dict[str, list[InstanceRouted]] = {}
        self.states: dict[str, StudyChanged] = {}
        self.notes: dict[str, Noted] = {}
        #: What it is said to know besides.
        self.known: dict[str, Decided] = {}
        #: UIDs under which objects left de-identified.
        self.made: set[str] = set()
        self.studies_that_left: set[str] = set()
        #: How often it was asked for instances.
        self.asked = 0
        #: Patients that messages told of, by identifier and issuer; how studies fit their orders.
        self.patients: dict[tuple[str, str], Person] = {}
        self.order_matches: dict[str, str] = {}
        #: When the oldest object came that lies in a spool.
        self.spooled_at: datetime | None = None

    def learn(self, event: Event) -> None:
        if isinstance(event, InstanceAccepted):
            self.accepted.setdefault(event.instance.sop_instance_uid, event.instance)
        elif isinstance(event, InstanceRouted):
            self.routed.setdefault(event.sop_instance_uid, []).append(event)
        elif isinstance(event, StudyChanged) and event.change == "completed":
            self.states[event.study_instance_uid] = event
        elif isinstance(event, StudyChanged):
            noted = Noted(note=event.note, study_instance_uid=event.study_instance_uid)
            self.notes |= dict.fromkeys(event.sop_instance_uids, noted)

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Decided]:
        self.asked += 1
        return {uid: found for uid in sop_instance_uids if (found := self.known.get(uid) or self._decided(uid)) is not None}

    def _decided(self, uid: str) -> Decided | None:
        own = [each for each in self.routed.get(uid, ()) if each.decision not in ("duplicate", "returned", "ignored")]
        if not own:
            return None
        now = next((each for each in reversed(own) if each.decision == "corrected"), own[0])
        return Decided(
            receipts=tuple(dict.fromkeys(each.receipt for each in own)),
            sha256=now.object.sha256,
            deliveries=tuple(delivery.delivery_id for each in own for delivery in each.deliveries),
            object=now.object,
            study_instance_uid=now.study_instance_uid,
            series_instance_uid=now.series_instance_uid,
            sop_class_uid=now.sop_class_uid,
            transfer_syntax_uid=now.transfer_syntax_uid,
            received_at=now.received_at,
            before=tuple({each.object.sha256 for each in own} - {now.object.sha256}),
        )

    def studies(self, study_instance_uids: Sequence[str]) -> Mapping[str, IndexedStudy]:
        known = {
            uid: IndexedStudy(
                revision=said.revision, instances=said.instances + said.withdrawn, withdrawn=said.withdrawn, notes=self._notes(uid)
            )
            for uid in study_instance_uids
            if (said := self.states.get(uid)) is not None
        }
        matches = {uid: self.order_matches[uid] for uid in study_instance_uids if uid in self.order_matches}
        return known | {uid: replace(known.get(uid, IndexedStudy()), order_match=outcome) for uid, outcome in matches.items()}

    def _notes(self, study: str) -> int:
        return len({noted.note for noted in self.notes.values() if noted.study_instance_uid == study} - self.notes.keys())

    def persons(self, ids: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Person]:
        return {each: self.patients[each] for each in ids if each in self.patients}

    def unpublished(self) -> datetime | None:
        return self.spooled_at

    def withdrawn(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Noted]:
        return {uid: self.notes[uid] for uid in sop_instance_uids if uid in self.notes}

    def failed(self) -> dict[str, InstanceRouted]:
        """The instances on which rules failed that have decided on none since, each with that decision."""
        told = [event for events in self.routed.values() for event in events if event.failed or event.mended]
        return {uid: event for uid, event in {event.sop_instance_uid: event for event in told}.items() if event.failed}

    def studies_made_here(self, study_instance_uids: Sequence[str]) -> Collection[str]:
        return [uid for uid in study_instance_uids if uid in self.studies_that_left]

    def made_here(self, sop_instance_uids: Sequence[str]) -> Collection[str]:
        return self.made & set(sop_instance_uids)

    def failing(self, sop_instance_uids: Sequence[str], config_version: str, limit: int) -> Mapping[str, InstanceAccepted]:
        found = {uid: event for uid, event in self.failed().items() if uid in sop_instance_uids and event.config_version != config_version}
        return {uid: InstanceAccepted(instance=self.accepted[uid]) for uid in list(found)[:limit]}

    def failing_of(self, study_instance_uids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        failed = self.failed().values()
        return {study: [event.sop_instance_uid for event in failed if event.study_instance_uid == study] for study in study_instance_uids}

    def of_study(self, study_instance_uid: str, after: str, limit: int) -> Sequence[str]:
        found = sorted(uid for uid, instance in self.accepted.items() if instance.study_instance_uid == study_instance_uid)
        return [uid for uid in found if uid > after][:limit]


class Stored:
    """The headers of stored objects; what is `gone` is there no more."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        assert not instance.header_cut, "no header is cut here"
        if instance.sop_instance_uid in self.gone:
            raise NotFound(f"There is no object {instance.object.key}.")
        return instance.header


def by_name(first: ObjectRef, second: ObjectRef) -> Comparison:
    """Objects whose digests begin with the same letter have the same pixels; the second letter is the header, the rest the encoding."""
    if first.sha256[0] != second.sha256[0]:
        return Comparison(result="pixels")
    return Comparison(result="same" if first.sha256[1] == second.sha256[1] else "header", tags=("00100010",))


class ByName:
    def compare(self, first: ObjectRef, second: ObjectRef) -> Comparison:
        return by_name(first, second)


class Hospital:
    """The stage, what it says, and the ledger that follows from it."""

    def __init__(self, rules: FixedRules | Rules | None = None, settings: Settings | None = None, *, step: int = 500) -> None:
        self.deciding: Deciding = rules or FixedRules(now=("archive",))
        self.settings = settings or Settings(destinations=DESTINATIONS)
        self.clock = Clock()
        self.version = "v1"
        self.stored = Stored()
        self.index = Index()
        self.step = step
        self.state = PartitionState(0)
        self.said: list[Event] = []
        self.untold: list[Event] = []
        self.arrivals: list[InstanceAccepted] = []
        self.quarantined: dict[str, Quarantine] = {}
        self.deliveries: dict[str, str] = {}
        self.start()

    @property
    def rules(self) -> FixedRules:
        """The rules, where they are fixed ones."""
        assert isinstance(self.deciding, FixedRules)
        return self.deciding

    def start(self) -> None:
        """The process begins anew with what is committed."""
        self.route = Route(
            self.deciding, self.index, self.stored, self.version, contents=ByName(), settings=self.settings, now=self.clock, step=self.step
        )

    def apply(self, version: str, rules: Rules | FixedRules) -> None:
        """Other rules are in force."""
        self.version, self.deciding = version, rules
        self.start()

    def catch_up(self) -> None:
        """The index has read everything."""
        for event in self.untold:
            self.index.learn(event)
        self.untold.clear()

    # What comes

    def arrive(self, sop: str = "2.25.3", *, crash: bool = False, **what: Any) -> list[Event]:
        """An instance comes; what follows at once. With `crash` the worker dies before the commit, and another does it."""
        what.setdefault("receipt", f"receipt-{len(self.arrivals)}")
        what.setdefault("received_at", self.clock())
        what["sha256"] = (what.get("sha256", "aa") * 32)[:64]
        event = InstanceAccepted.following(an_instance(SOPInstanceUID=sop, **what))
        self.arrivals.append(event)
        self.untold.append(event)
        if crash:
            self.take(event, crash=True)
            self.start()
        return self.take(event)

    def take(self, event: InstanceAccepted | StudyExpected | StudyCommand, *, crash: bool = False) -> list[Event]:
        """One event in one transaction; with `crash` it is undone."""
        self.route.prepare([event])
        changes = Changes(self.state, CODEC)
        try:
            try:
                said = list(self.route.handle(event, changes))
            except NeedsWork as first:
                changes.undo()
                said = list(self.route.handle(event, changes, self.route.work_on(first.asked)))
        except Quarantine as why:
            changes.undo()
            assert isinstance(event, InstanceAccepted)
            if not crash:
                self.quarantined[event.instance.receipt] = why
            return []
        return self._commit(changes, said) if not crash else []

    def announce(self, *sops: str, study: str = STUDY, source: str = "mpps") -> list[Event]:
        return self.take(StudyExpected(study_instance_uid=study, source=source, sop_instance_uids=sops, said_at=self.clock()))

    def count(self, instances: int, study: str = STUDY) -> list[Event]:
        """The study's sender says how many instances it has."""
        return self.take(
            StudyExpected(study_instance_uid=study, source="query", sop_instance_uids=(), instances=instances, said_at=self.clock())
        )

    def complete(self, study: str = STUDY, expected_revision: int = -1) -> CommandOutcome:
        command = StudyCommand(
            id="c", action="complete", study_instance_uid=study, expected_revision=expected_revision, asked_at=self.clock()
        )
        *_, outcome = self.take(command)
        assert isinstance(outcome, CommandOutcome)
        return outcome

    def look(self, study: str = STUDY) -> list[Event]:
        """Somebody asks that a study be looked at again."""
        return self.take(StudyCommand(id="c", action="look", study_instance_uid=study, asked_at=self.clock()))

    def wait(self, **time: float) -> list[Event]:
        """Let time pass, and do what is due at its end."""
        self.clock.forward(**time)
        said: list[Event] = []
        for _ in range(10_000):
            done, more = self.fire()
            said += more
            if not done:
                return said
            self.clock.forward(milliseconds=2)
        raise AssertionError("there is no end of it")

    def fire(self, *, limit: int = 500, crash: bool = False) -> tuple[bool, list[Event]]:
        """Timers that are due, in one transaction: whether there were any, and what was said."""
        timers = self.state.due(milliseconds(self.clock()), limit)
        changes = Changes(self.state, CODEC)
        if not timers:
            return False, []
        self.route.prepare_due([key for _, key in timers])
        said: list[Event] = []
        for due, key in timers:
            if changes.due_of(key) == due:
                said += self.route.due(key, changes, self.clock())
                if changes.due_of(key) == due:
                    changes.put(key, changes.get(key))
                changes.keep()
        return True, [] if crash else self._commit(changes, said)

    def _commit(self, changes: Changes, said: Iterable[Event]) -> list[Event]:
        changes.keep()
        changes.commit()
        events = list(said)
        self.said += events
        self.untold += events
        for event in events:
            if isinstance(event, InstanceRouted):
                for delivery in event.deliveries:
                    assert delivery.delivery_id not in self.deliveries, "a delivery is planned once"
                    self.deliveries[delivery.delivery_id] = "pending"
                for delivery_id in event.cancels:
                    if self.deliveries.get(delivery_id) == "pending":
                        self.deliveries[delivery_id] = "cancelled"
        return events

    # What is

    def study(self, study: str = STUDY) -> StudyRow:
        row = Changes(self.state, CODEC).get(study_key(study))
        assert isinstance(row, StudyRow)
        return row

    def instance(self, sop: str) -> InstanceRow | None:
        row: InstanceRow | None = Changes(self.state, CODEC).get(sop)
        return row


DESTINATIONS: dict[str, dict[str, Any]] = {
    "archive": {"type": "archive"},
    "pacs": {"type": "dicom", "host": "192.0.2.1", "port": 104, "aet": "PACS"},
    "viewer": {"type": "dicom", "host": "192.0.2.2", "port": 104, "aet": "VIEWER"},
}


def decisions(events: Iterable[Event]) -> list[tuple[str, tuple[str, ...]]]:
    """Each decision with its destinations."""
    return [
        (event.decision, tuple(delivery.destination for delivery in event.deliveries))
        for event in events
        if isinstance(event, InstanceRouted)
    ]


def changes_of(events: Iterable[Event]) -> list[tuple[str, int, str]]:
    """Each change of a study, with revision and reason."""
    return [(event.change, event.revision, event.reason) for event in events if isinstance(event, StudyChanged)]


def a_note(code: str, *sops: str, study: str = STUDY) -> dict[str, Any]:
    """The attributes of a key object selection with this title, about these instances."""
    reference = [{"00081155": {"vr": "UI", "Value": [sop]}} for sop in sops]
    series = [{"00081199": {"vr": "SQ", "Value": reference}}]
    return {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.59",
        "Modality": "KO",
        "SeriesInstanceUID": "2.25.88",
        "ConceptNameCodeSequence": [{"00080100": {"vr": "SH", "Value": [code]}, "00080102": {"vr": "SH", "Value": ["DCM"]}}],
        "CurrentRequestedProcedureEvidenceSequence": [
            {"0020000D": {"vr": "UI", "Value": [study]}, "00081115": {"vr": "SQ", "Value": series}}
        ],
    }
