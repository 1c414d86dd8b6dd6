"""Studies: what came of each, when it is complete, and what is sent then. Knows no Kafka, no clock and no database.

A study is open from its first instance until it is complete; then that revision of it is sealed, and whatever comes later opens
the next one. What its rules ask for is written some instances at a time, from a cursor in its row, so that no transaction
holds all of a large study, and a worker that takes over goes on where the former one was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from msgspec.structs import replace

from hilum import telemetry
from hilum.dicom import CutValue
from hilum.errors import Quarantine
from hilum.events import Instance, InstanceRouted, StudyChanged

from .completeness import Reason, Thresholds, counted_from, verdict
from .facts import Deciding, StudyFacts
from .plan import RULE_TRIED_AGAIN, Saying, deliveries, wanted_by
from .rows import Closing, Held, InstanceRow, Rows, SeriesRow, StudyRow

log = telemetry.logger("route")

#: How long a row stays in memory after its last decision; afterwards the index answers.
REMEMBERED = timedelta(hours=24)
#: Instances that are decided on in one step of a complete study.
STEP = 500
#: When a study is looked at again whose objects may lie in a spool.
SPOOL_ASKED_AGAIN = timedelta(seconds=3)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_STEPS = 1_000_000

#: What is no image (PS3.3 A.35 and others): it comes after the images and tells of them.
_OBJECTS = (
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports, key objects
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registrations, segmentations
    "1.2.840.10008.5.1.4.1.1.104.",  # encapsulated PDF, CDA and others
    "1.2.840.10008.5.1.4.1.1.481.",  # radiotherapy; its images are among `_RT_IMAGES`
)
_RT_IMAGES = frozenset({"1.2.840.10008.5.1.4.1.1.481.1"})


def is_image(sop_class_uid: str) -> bool:
    """Whether an object is an image, rather than one that tells of images, such as a report."""
    return sop_class_uid in _RT_IMAGES or not sop_class_uid.startswith(_OBJECTS)


class OfStudy(Protocol):
    """What the index tells of a study's instances of former revisions."""

    def of_study(self, study_instance_uid: str, after: str, limit: int) -> Sequence[str]:
        """The study's instances, in the order of their UIDs, from behind `after`. Raises `TryAgain`."""
        ...

    def rows(self, sop_instance_uids: Sequence[str]) -> dict[str, InstanceRow]:
        """What was decided on these instances. Raises `TryAgain`."""
        ...

    def order_match(self, study_instance_uid: str) -> str:
        """How the study fits its orders, as was looked up before."""
        ...


class Studies:
    """The life of studies. Each method changes rows and gives what is to be said; whoever calls it keeps or undoes both together."""

    def __init__(self, rules: Deciding, thresholds: Thresholds, index: OfStudy, *, step: int = STEP) -> None:
        self._rules = rules
        self._thresholds = thresholds
        self._index = index
        self._step = step

    # Growing

    def grow(
        self,
        uid: str,
        row: InstanceRow,
        instance: Instance,
        matched: tuple[str, ...],
        origins: tuple[str, ...],
        rows: Rows,
        study: StudyRow,
        saying: Saying,
    ) -> Iterator[StudyChanged]:
        """Take a new instance, or a new object of one, into the open revision; its row is remembered. `study` is its study's row."""
        before = rows.instance(uid)
        new = before is None or not before.receipts
        now = saying.now
        thresholds = self._thresholds.of_sender(study.sender if study.open else instance.source.calling_aet)
        counts_from = counted_from(instance.received_at, now, thresholds)
        image = is_image(instance.sop_class_uid)
        opens = not study.open
        if opens:
            study.open, study.opened_at, study.sender = True, counts_from, instance.source.calling_aet
            study.last_at, study.new, study.new_images, study.matched, study.origins = counts_from, 0, 0, {}, ()
        assert study.last_at is not None
        study.last_at = max(study.last_at, counts_from)
        modality = _modality(instance)
        known = study.series.get(instance.series_instance_uid)
        last = max(counts_from.timestamp(), known.last_at if known else 0.0)
        study.series[instance.series_instance_uid] = SeriesRow(known.modality if known else modality, last)
        study.instances += new
        study.withdrawn += new and bool(row.note)
        study.missing -= before is not None and before.expected
        study.new += 1
        study.new_images += image
        study.origins = tuple(dict.fromkeys((*study.origins, *origins)))
        for rule in matched:
            study.matched[rule] = study.matched.get(rule, 0) + 1
        held = before.held if before is not None else None
        if self._rules.any_of_study and not row.note:
            if held is None:
                held, study.tail = Held(rules=matched, origins=origins, before=study.tail), uid
            else:  # it waits already, in another form
                held = replace(held, rules=matched, origins=tuple(dict.fromkeys((*held.origins, *origins))))
        rows.put_instance(uid, replace(row, held=held, revision=study.revision + 1, expected=False), now + REMEMBERED)
        self.keep(instance.study_instance_uid, rows, study, now)
        if opens:
            change = "reopened" if study.revision else "opened"
            reason = ("images" if image else "objects") if study.revision else ""
            yield changed(instance.study_instance_uid, study, change, saying, revision=study.revision + 1, reason=reason)

    def expect(
        self, uid: str, source: str, sop_instance_uids: Sequence[str], here: Collection[str], rows: Rows, study: StudyRow, now: datetime
    ) -> None:
        """Somebody, the `source`, announced these instances; those in `here` are known to the index."""
        for sop_instance_uid in sop_instance_uids:
            known = rows.instance(sop_instance_uid)
            if known is None and sop_instance_uid not in here:
                rows.put_instance(sop_instance_uid, InstanceRow(study=uid, expected=True), now + REMEMBERED)
                study.missing += 1
            elif known is not None and not known.receipts and not known.expected:
                rows.put_instance(sop_instance_uid, replace(known, expected=True), now + REMEMBERED)
                study.missing += 1
        study.awaited = True
        study.listed = study.listed or source in self._thresholds.of_sender(study.sender).lists
        self.keep(uid, rows, study, now)

    def count(self, uid: str, source: str, instances: int, rows: Rows, study: StudyRow, now: datetime) -> None:
        """Somebody, the `source`, said how many instances the study has, all revisions together; what was said last holds.

        It is about the open revision: an answer that comes when that is complete comes too late, and changes nothing.
        """
        if not study.open:
            return
        study.awaited, study.counted = True, instances
        study.counted_all = source in self._thresholds.of_sender(study.sender).lists
        self.keep(uid, rows, study, now)

    def keep(self, uid: str, rows: Rows, study: StudyRow, now: datetime) -> None:
        """Remember a study's row, with the moment at which it is to be looked at again."""
        study.changed_at = now
        rows.put_study(uid, study, self._due(study, now))

    def _due(self, study: StudyRow, now: datetime) -> datetime:
        if study.closing is not None:
            # At once, and each step at a moment of its own: the moment of a timer is in the ids of what it says.
            return _EPOCH + timedelta(milliseconds=study.revision * _MOST_STEPS + study.closing.step)
        if study.open:
            return verdict(study, self._thresholds.of_sender(study.sender)).at
        return now + REMEMBERED

    # Complete

    def look(
        self, uid: str, rows: Rows, study: StudyRow, saying: Saying, unpublished: datetime | None = None
    ) -> Iterator[InstanceRouted | StudyChanged]:
        """Time has come for a study: go on with what is to be written, or see whether it is complete.

        `unpublished` is when the oldest object came that lies in a spool.
        """
        if study.closing is not None:
            yield from self._write(uid, study.closing, rows, study, saying)
            return
        if not study.open:
            return
        found = verdict(study, self._thresholds.of_sender(study.sender), unpublished)
        if found.at <= saying.now:
            yield from self.complete(uid, found.reason, rows, study, saying)
        else:
            rows.put_study(uid, study, found.at if unpublished is None else min(found.at, saying.now + SPOOL_ASKED_AGAIN))

    def stick(self, uid: str, why: Quarantine, rows: Rows, study: StudyRow, saying: Saying) -> Iterator[StudyChanged]:
        """A rule could not be evaluated on a study whose time has come: it waits for a better one. Said once, not with each attempt."""
        says = str(why)
        if says != study.stuck:
            log.warning("study_waits_for_its_rule", uid=uid, says=says)
            yield changed(uid, study, "stuck", saying, revision=study.revision + 1, reason="rule-failed", says=says)
        study.stuck = says
        rows.put_study(uid, study, saying.now + RULE_TRIED_AGAIN)

    def complete(self, uid: str, reason: Reason, rows: Rows, study: StudyRow, saying: Saying, *, actor: str = "") -> Iterator[StudyChanged]:
        """Seal the open revision. What rules ask for is written from the next moment on. Not while another one is being written."""
        assert study.open
        assert study.closing is None
        now = saying.now
        facts = StudyFacts(
            instances=study.instances - study.withdrawn,
            series=len(study.series),
            modalities=_modalities(study),
            revision=study.revision + 1,
            reason=reason,
            order_match=self._index.order_match(uid),
        )
        routes = self._rules.of_study(facts, study.matched) if study.tail or study.matched else ()
        study.revision += 1
        study.open = study.awaited = study.listed = False
        study.stuck = ""
        # What tells of images never has a study sent whole again: its origin would get back all that it is about.
        whole = study.revision > 1 and study.new_images > 0 and any(route.send == "whole" for route in routes)
        if study.tail or whole:
            study.closing = Closing(cursor=study.tail, routes=routes, again=whole, config_version=saying.config_version)
        study.tail = ""
        said = changed(uid, study, "completed", saying, revision=study.revision, reason=reason, actor=actor)
        study.counted, study.counted_all = 0, False
        self.keep(uid, rows, study, now)
        yield said

    def _write(self, uid: str, closing: Closing, rows: Rows, study: StudyRow, saying: Saying) -> Iterator[InstanceRouted]:
        """Decide on some of a complete study's instances."""
        left = self._step
        cursor, after = closing.cursor, closing.after
        # What was sealed is written as it was sealed: the rules were asked once.
        saying = replace(saying, config_version=closing.config_version or saying.config_version)
        while left and cursor:
            left -= 1
            row = rows.instance(cursor)
            if row is None or row.held is None:
                cursor = ""
                break
            now_row = replace(row, held=None)
            if not row.note:
                wanted = wanted_by(closing.routes, row.held.rules)
                new = {name: each for name, each in wanted.items() if name not in row.to and name not in row.held.origins}
                if new or not row.to:
                    planned = deliveries(row, cursor, new)
                    yield saying.of_row(row, cursor, "deliver" if planned else "no-rule", planned, revision=row.revision)
                now_row = replace(now_row, to=(*row.to, *new))
            rows.put_instance(cursor, now_row, saying.now + REMEMBERED)
            cursor = row.held.before
        again = closing.again
        if not cursor and left and again:
            page = self._index.of_study(uid, after, left)
            yield from self._again(page, closing, rows, study, saying)
            after, again = (page[-1], True) if len(page) == left else ("", False)
        if cursor or again:
            study.closing = replace(closing, cursor=cursor, after=after, again=again, step=closing.step + 1)
        else:
            study.closing = None
        self.keep(uid, rows, study, saying.now)

    def _again(self, page: Sequence[str], closing: Closing, rows: Rows, study: StudyRow, saying: Saying) -> Iterator[InstanceRouted]:
        """Send instances of former revisions once more, where rules want the study whole."""
        indexed = self._index.rows(page)
        wanted = {name: each for name, each in wanted_by(closing.routes, (), whole=True).items() if name not in study.origins}
        for sop_instance_uid in page:
            row = rows.instance(sop_instance_uid) or indexed.get(sop_instance_uid)
            if row is None or row.object is None or row.note or row.revision >= study.revision or not wanted:
                continue
            planned = deliveries(row, sop_instance_uid, wanted, run=f"revision-{study.revision}")
            row = replace(
                row,
                to=tuple(dict.fromkeys((*row.to, *wanted))),
                again=(*row.again, *(delivery.delivery_id for delivery in planned)),
            )
            rows.put_instance(sop_instance_uid, row, saying.now + REMEMBERED)
            yield saying.of_row(row, sop_instance_uid, "deliver", planned, revision=study.revision)


def changed(
    uid: str,
    study: StudyRow,
    change: str,
    saying: Saying,
    *,
    revision: int,
    reason: str = "",
    actor: str = "",
    note: str = "",
    code: str = "",
    sop_instance_uids: tuple[str, ...] = (),
    says: str = "",
) -> StudyChanged:
    """The event by which others learn of a change."""
    return StudyChanged(
        study_instance_uid=uid,
        change=change,
        revision=revision,
        reason=reason,
        says=says,
        instances=study.instances - study.withdrawn,
        new=study.new,
        series=len(study.series),
        modalities=_modalities(study),
        missing=study.lacking,
        withdrawn=study.withdrawn,
        note=note,
        code=code,
        sop_instance_uids=sop_instance_uids,
        actor=actor,
        config_version=saying.config_version,
        changed_at=saying.now,
    )


def _modality(instance: Instance) -> str:
    try:
        return instance.header.text("Modality")[:16]
    except CutValue:
        return ""


def _modalities(study: StudyRow) -> tuple[str, ...]:
    return tuple(sorted({series.modality for series in study.series.values() if series.modality}))
