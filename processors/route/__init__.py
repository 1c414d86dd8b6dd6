"""Decide, once for each accepted instance, where it goes, and know of each study when it is complete.

Reads `imaging.instance.accepted.v1`, what is announced of studies (`imaging.study.expected.v1`) and commands
(`control.command.v1`); writes `imaging.instance.routed.v1`, `imaging.study.changed.v1`, `orders.match.requested.v1` and
`control.outcome.v1`. It remembers which object each SOP instance was and where it was to go, so that the same object again goes
nowhere twice, and another one under the same UID is compared with the first. What has left its memory is looked up in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from hilum import telemetry
from hilum.anonymizing import policies_of
from hilum.database.known import Decided, IndexedInstances, IndexedStudy, Noted
from hilum.dicom import CutValue, Header
from hilum.dicom.lossy import may_be_made
from hilum.errors import NotFound, Quarantine
from hilum.events import (
    CommandOutcome,
    Instance,
    InstanceAccepted,
    InstanceRouted,
    MatchRequested,
    ObjectRef,
    StudyChanged,
    StudyCommand,
    StudyExpected,
)
from hilum.pseudonyms import Pseudonyms, pseudonyms
from hilum.role import Role
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.processor import Memory
from hilum.settings import Settings
from hilum.storage.gone import why_gone
from hilum.store import open_store

from .again import SOON, Again, put_off
from .arrivals import Arrivals, Looked
from .claims import Claims
from .completeness import Thresholds
from .contents import Comparison, StoredContents
from .facts import Deciding
from .fitting import Fitting
from .headers import Headers, StoredHeaders
from .persons import Persons, Registry
from .plan import Saying, row_of_indexed
from .rejections import KEY_OBJECT_SELECTION, TAGS, Selection, selection_of
from .returns import Origins, made_of, tags_of
from .rows import InstanceRow, Row, Rows, StudyRow, study_of_key
from .rules import Rules
from .study import REMEMBERED, STEP, Studies

__all__ = ["REMEMBERED", "Contents", "Headers", "Known", "Route", "StoredHeaders", "role"]

log = telemetry.logger("route")

#: When the index is asked again whether it has a row that is to leave memory.
ASKED_AGAIN = timedelta(hours=1)
#: So many instances on which a rule failed are read in the object store at once.
AGAIN_AT_ONCE = 100


class Known(Registry, Protocol):
    """What the index says of instances that were decided on before, and of studies. Each method raises `TryAgain`."""

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Decided]:
        """What was decided on these instances."""
        ...

    def studies(self, study_instance_uids: Sequence[str]) -> Mapping[str, IndexedStudy]:
        """What is known of these studies."""
        ...

    def withdrawn(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Noted]:
        """Those of these instances that a rejection note names, with the note."""
        ...

    def made_here(self, sop_instance_uids: Sequence[str]) -> Collection[str]:
        """Those of these instances that left de-identified, under these UIDs."""
        ...

    def studies_made_here(self, study_instance_uids: Sequence[str]) -> Collection[str]:
        """Those of these studies that have a UID under which objects left de-identified."""
        ...

    def failing(self, sop_instance_uids: Sequence[str], config_version: str, limit: int) -> Mapping[str, InstanceAccepted]:
        """Those of these instances on which rules of another version than this one failed, as they came, without their headers."""
        ...

    def failing_of(self, study_instance_uids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """For each of these studies, its instances on which rules failed."""
        ...

    def of_study(self, study_instance_uid: str, after: str, limit: int) -> Sequence[str]:
        """The study's instances, in the order of their UIDs, from behind `after`."""
        ...

    def unpublished(self) -> datetime | None:
        """When the oldest object came that lies in a spool and is not published; None if no spool is behind."""
        ...


class Contents(Protocol):
    """Compares objects of the object store."""

    def compare(self, first: ObjectRef, second: ObjectRef) -> Comparison:
        """Compare two objects. Raises `TryAgain` while the store does not answer."""
        ...


class Route:
    """One decision per accepted instance, and one "complete" per revision of a study."""

    name = "route"
    State = Row

    def __init__(
        self,
        rules: Deciding,
        known: Known,
        headers: Headers,
        config_version: str,
        *,
        contents: Contents | None = None,
        settings: Settings | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        step: int = STEP,
        names: Pseudonyms | None = None,
    ) -> None:
        """`names` make what is remembered of patients tell nothing; the role's are the site's."""
        self._known = known
        self._headers = headers
        self._contents = contents
        self._now = now
        self._step = step
        self._names = names or Pseudonyms(b"")
        self._persons = Persons(known)
        self._fitting = Fitting(self._persons)
        self._order_match: Mapping[str, str] = {}
        self._looked = Looked()
        self._notes: Mapping[str, Noted] = {}
        self._failing_of: Mapping[str, Sequence[str]] = {}
        #: What was looked up of instances that are to be decided on again; None: its object is there no more.
        self._failing: Mapping[str, InstanceAccepted | None] = {}
        self._leaving: Mapping[str, Decided] = {}
        self._leaving_notes: Mapping[str, Noted] = {}
        self._leaving_studies: Mapping[str, IndexedStudy] = {}
        self._unpublished: datetime | None = None
        self._follow(settings or Settings(), rules, config_version)

    def configure(self, settings: Settings) -> None:
        """Go on with `settings`. Raises `Misconfigured` and changes nothing if a rule cannot work."""
        self._follow(settings, Rules.of(settings), settings.config_version)

    def _follow(self, settings: Settings, rules: Deciding, config_version: str) -> None:
        self._rules = rules
        self._config_version = config_version
        self._destinations = tuple(settings.destinations)
        self._policies = policies_of(settings.destinations)
        self._fitting.policy = settings.studies
        self._persons.follow(settings)
        self._studies = Studies(rules, Thresholds.of(settings), self, step=self._step)
        origins = Origins.of(settings)
        self._claims = Claims(self._names, self._studies)
        self._arrivals = Arrivals(rules, origins, settings.senders, self._fitting, self._studies)
        self._again = Again(rules, origins, self._studies)

    # Before a batch

    def prepare(self, events: Sequence[InstanceAccepted | StudyExpected | StudyCommand]) -> None:
        """Ask the index, once for the batch, what it knows, and the store for what a header leaves out.

        Raises `TryAgain` while one of them is away.
        """
        instances = [event.instance for event in events if isinstance(event, InstanceAccepted)]
        tags = self._rules.tags
        headers = {}
        selections: dict[str, Selection] = {}
        for instance in instances:
            needed = tags | tags_of(instance) | (TAGS if instance.sop_class_uid == KEY_OBJECT_SELECTION else frozenset())
            if not needed.isdisjoint(instance.header_cut):
                headers[instance.receipt] = self._headers.whole(instance, needed)
            try:
                selection = selection_of(instance, headers.get(instance.receipt) or instance.header)
            except CutValue:  # beyond what is read of an object: nobody makes such selections
                log.warning("selection_too_long", uid=instance.sop_instance_uid)
                selection = None
            if selection is not None:
                selections[instance.receipt] = selection
        uids = [instance.sop_instance_uid for instance in instances]
        told = [uid for selection in selections.values() for uid in selection.sop_instance_uids]
        told += [uid for each in instances if (uid := made_of(each, headers.get(each.receipt) or each.header))]
        told += [uid for event in events if isinstance(event, StudyExpected) for uid in event.sop_instance_uids]
        study_uids = list(dict.fromkeys(event.key for event in events))
        looked_at = [event.study_instance_uid for event in events if isinstance(event, StudyCommand) and event.action == "look"]
        self._failing_of = self._known.failing_of(looked_at) if looked_at else {}
        indexed = self._known.studies(study_uids)
        self._learn(indexed)
        self._persons.look_up(instances, self._fitting.patients_of(study_uids), tags)
        self._persons.overlaid(instances, headers)
        asked = list(dict.fromkeys((*uids, *told)))
        self._looked = Looked(
            rows=self.rows(asked),
            notes=self._notes,
            studies={uid: _indexed(study) for uid, study in indexed.items()},
            headers=headers,
            selections=selections,
            made_here=self._known.made_here([uid for uid in uids if may_be_made(uid)]),
            studies_made_here=self._known.studies_made_here([uid for uid in study_uids if may_be_made(uid)]),
        )

    def _learn(self, indexed: Mapping[str, IndexedStudy]) -> None:
        self._fitting.learn(indexed)
        self._order_match = {uid: study.order_match for uid, study in indexed.items()}

    def order_match(self, study_instance_uid: str) -> str:
        """See `hilum.processors.route.study.OfStudy`."""
        return self._order_match.get(study_instance_uid, "")

    def rows(self, sop_instance_uids: Sequence[str]) -> dict[str, InstanceRow]:
        """See `hilum.processors.route.study.OfStudy`."""
        decided = self._known.decided(sop_instance_uids)
        self._notes = self._known.withdrawn(sop_instance_uids)
        return {uid: row_of_indexed(uid, each, self._destinations, self._notes.get(uid)) for uid, each in decided.items()}

    def of_study(self, study_instance_uid: str, after: str, limit: int) -> Sequence[str]:
        """See `hilum.processors.route.study.OfStudy`."""
        return self._known.of_study(study_instance_uid, after, limit)

    def work_on(self, asked: tuple[ObjectRef, ObjectRef]) -> Comparison:
        """Compare the contents of two objects, in a thread beside the loop."""
        assert self._contents is not None
        return self._contents.compare(*asked)

    # Events

    def handle(
        self, event: InstanceAccepted | StudyExpected | StudyCommand, memory: Memory[Row], work: Comparison | None = None
    ) -> Iterable[InstanceRouted | StudyChanged | CommandOutcome | MatchRequested]:
        """Decide. The same event again gives nothing: its decision is made. Raises `Quarantine` on a conflict."""
        rows, saying = Rows(memory), self._saying(self._now())
        if isinstance(event, InstanceAccepted):
            arrived = []
            for said in self._arrivals.arrive(event, rows, self._looked, work, saying):
                yield said
                arrived.append(said)
            yield from self._claims.of_arrival(event, arrived, rows, saying)
            return
        uid = event.study_instance_uid
        study = rows.study(uid) or self._looked.studies.get(uid)
        if isinstance(event, StudyExpected):
            here = self._looked.rows.keys()
            if event.instances and study is not None:
                self._studies.count(uid, event.source, event.instances, rows, study, saying.now)
            if event.sop_instance_uids or not event.instances:
                self._studies.expect(uid, event.source, event.sop_instance_uids, here, rows, study or StudyRow(), saying.now)
        else:
            yield from self._command(event, rows, study, saying)

    def _command(
        self, command: StudyCommand, rows: Rows, study: StudyRow | None, saying: Saying
    ) -> Iterator[InstanceRouted | StudyChanged | CommandOutcome]:
        """Complete a study by hand, or look at one again of which a rule could not be evaluated."""
        uid = command.study_instance_uid
        done = False
        if command.action == "look":
            woken = [each for each in self._failing_of.get(uid, ()) if self._again.wake(each, rows, saying)]
            done, sentence = bool(woken) or (study is not None and study.open), "It is looked at."
            if study is not None and study.open:
                try:
                    yield from self._studies.look(uid, rows, study, saying)
                except Quarantine as why:  # of a rule: nothing was said or remembered yet
                    yield from self._studies.stick(uid, why, rows, study, saying)
        elif command.action != "complete":
            sentence = f"This release knows no command {command.action}."
        elif study is None:
            sentence = f"Nothing of study {uid} has come."
        elif command.expected_revision not in (-1, study.revision):
            sentence = f"Meanwhile revision {study.revision} of the study is complete: look at it again."
        elif study.closing is not None:
            sentence = f"Revision {study.revision} is still being written: ask again in a moment."
        elif not study.open:
            sentence = f"Nothing came since revision {study.revision} of the study was complete."
        else:
            try:
                yield from self._studies.complete(uid, "by-hand", rows, study, saying, actor=command.actor)
                done, sentence = True, f"Revision {study.revision} is complete with {study.instances - study.withdrawn:,} instances."
            except Quarantine as why:  # of a rule: nothing was said or remembered yet
                sentence = str(why)
        yield CommandOutcome(
            command=command.id, stage=self.name, study_instance_uid=uid, done=done, sentence=sentence, answered_at=saying.now
        )

    # Time

    def prepare_due(self, keys: Sequence[str]) -> None:
        """Ask the index, once for all rows whose time has come, what it knows of them. Raises `TryAgain`."""
        sop_instance_uids = [key for key in keys if not study_of_key(key)]
        self._leaving = self._known.decided(sop_instance_uids)
        self._leaving_notes = self._known.withdrawn(sop_instance_uids)
        studies = [uid for key in keys if (uid := study_of_key(key))]
        self._failing = self._looked_up(self._known.failing(sop_instance_uids, self._config_version, AGAIN_AT_ONCE))
        of_failing = {event.instance.study_instance_uid for event in self._failing.values() if event is not None}
        self._leaving_studies = self._known.studies([*studies, *of_failing])
        self._order_match = {uid: study.order_match for uid, study in self._leaving_studies.items()}
        self._unpublished = self._known.unpublished() if studies else None

    def _looked_up(self, failing: Mapping[str, InstanceAccepted]) -> dict[str, InstanceAccepted | None]:
        """With the headers of the stored objects."""
        found: dict[str, InstanceAccepted | None] = {}
        for uid, event in failing.items():
            try:
                header = self._headers.whole(event.instance, self._rules.tags)
            except NotFound:  # it has expired, or was deleted
                log.warning("decided_without_its_object", uid=uid)
                found[uid] = None
            else:
                found[uid] = replace(event, instance=_with_header(event.instance, header))
        there = [event.instance for event in found.values() if event is not None]
        self._persons.look_up(there, {}, self._rules.tags)
        for instance in there:
            if (header_now := self._persons.as_now(instance, instance.header)) is not None:
                event = failing[instance.sop_instance_uid]
                found[instance.sop_instance_uid] = replace(event, instance=_with_header(instance, header_now))
        return found

    def due(self, key: str, memory: Memory[Row], now: datetime) -> Iterable[InstanceRouted | StudyChanged]:
        """Go on with a study, or forget a row that the index has."""
        row = memory.get(key)
        if isinstance(row, StudyRow):
            uid = study_of_key(key)
            if row.open or row.closing is not None:
                try:
                    yield from self._studies.look(uid, Rows(memory), row, self._saying(now), self._unpublished)
                except Quarantine as why:  # of a rule: nothing was said or remembered yet
                    yield from self._studies.stick(uid, why, Rows(memory), row, self._saying(now))
                return
            indexed_study = self._leaving_studies.get(uid)
            gone = not row.revision or (indexed_study is not None and indexed_study.revision >= row.revision)
        elif isinstance(row, InstanceRow) and row.failing is not None:
            yield from self._decide_again(key, row, Rows(memory), self._saying(now))
            return
        elif isinstance(row, InstanceRow):
            indexed = self._leaving.get(key)
            known = not row.receipts or (indexed is not None and set(row.receipts) <= set(indexed.receipts))
            noted = self._leaving_notes.get(key)
            gone = row.held is None and known and (not row.note or (noted is not None and bool(row.note_in(noted.study_instance_uid))))
        else:
            return
        if gone:
            memory.forget(key)
        else:
            memory.put(key, row, due=now + ASKED_AGAIN)

    def _decide_again(self, uid: str, row: InstanceRow, rows: Rows, saying: Saying) -> Iterator[InstanceRouted | StudyChanged]:
        """Decide on an instance on which a rule failed, if there are other rules by now."""
        assert row.failing is not None
        if row.failing.version == self._config_version:
            put_off(uid, row, rows, saying)
        elif uid not in self._failing:  # there were many, or the index does not know of it yet
            put_off(uid, row, rows, saying, SOON)
        else:
            study = rows.study(row.study) or _indexed(self._leaving_studies.get(row.study))
            yield from self._again.decide(uid, row, self._failing[uid], rows, study, saying)

    def _saying(self, now: datetime) -> Saying:
        return Saying(config_version=self._config_version, now=now, policies=self._policies)


def _with_header(instance: Instance, header: Header) -> Instance:
    return replace(instance, header_json=Raw(msgspec.json.encode(header.json)), header_cut=tuple(header.cut))


def _indexed(study: IndexedStudy | None) -> StudyRow:
    if study is None:
        return StudyRow()
    return StudyRow(revision=study.revision, instances=study.instances, withdrawn=study.withdrawn, notes=study.notes)


def role(settings: Settings) -> Role:
    """The role `route`."""
    store = open_store(settings)
    route = Route(
        Rules.of(settings),
        IndexedInstances(settings),
        StoredHeaders(store),
        settings.config_version,
        contents=StoredContents(store, partial(why_gone, settings.postgres.dsn)),
        settings=settings,
        names=pseudonyms(settings),
    )
    return ProcessorRole(settings, route)
