"""What becomes of an instance that arrives: new, here before, the same in another form, corrected, returned, or rejected by a note."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from hilum.database.known import Noted
from hilum.dicom import Header
from hilum.errors import Quarantine, Reason
from hilum.events import Decision, Finding, Instance, InstanceAccepted, InstanceRouted, RuleFailure, StudyChanged
from hilum.runtime.processor import NeedsWork
from hilum.settings import Sender

from .contents import Comparison
from .facts import Deciding
from .fitting import FINDINGS, Fitting
from .plan import Saying, Wanted, deliveries, failing_of, planned_before, row_of, wanted_now
from .rejections import KEY_OBJECT_SELECTION, Selection
from .returns import Origins, made_of
from .rows import InstanceRow, Rows, StudyRow
from .study import REMEMBERED, Studies, changed

#: So many instances that a rejection note names are in one event.
NAMED = 500


class Looked(Struct, kw_only=True):
    """What was looked up for a batch before it is handled."""

    #: Rows of instances that the index knows.
    rows: Mapping[str, InstanceRow] = {}
    #: Instances that a rejection note names, as the index knows: with the note.
    notes: Mapping[str, Noted] = {}
    #: Studies as the index knows them.
    studies: Mapping[str, StudyRow] = {}
    #: By receipt: headers that were read in the stored object.
    headers: Mapping[str, Header] = {}
    #: By receipt: what key object selections say.
    selections: Mapping[str, Selection] = {}
    #: SOP instance UIDs under which objects left de-identified.
    made_here: Collection[str] = ()
    #: StudyInstanceUIDs under which objects left de-identified.
    studies_made_here: Collection[str] = ()


class Arrivals:
    """Decides on instances as they come."""

    def __init__(self, rules: Deciding, origins: Origins, senders: Mapping[str, Sender], fitting: Fitting, studies: Studies) -> None:
        self._rules = rules
        self._origins = origins
        self._senders = senders
        self._fitting = fitting
        self._studies = studies

    def arrive(
        self, event: InstanceAccepted, rows: Rows, looked: Looked, compared: Comparison | None, saying: Saying
    ) -> Iterator[InstanceRouted | StudyChanged]:
        """Decide on one arrival; nothing if that was done before.

        Raises `Quarantine`, and `NeedsWork` if the contents of two objects must be compared first.
        """
        instance = event.instance
        uid = instance.sop_instance_uid
        known = rows.instance(uid)
        if known is None or not known.receipts:
            known = _told(uid, instance.study_instance_uid, known or InstanceRow(), looked)
        if instance.receipt in known.receipts:
            return
        if uid in looked.made_here:  # whoever sends it: rules are about patients' objects, and the original went where they say
            yield saying.of_arrival(event, "returned")
            return
        origins = self._origins.of_source(instance.source)
        if origins and self._is_made_of_ours(instance, rows, looked):
            yield saying.of_arrival(event, "returned")
            return
        if known.object is not None:
            yield from self._again(event, known, origins, rows, looked, compared, saying)
        else:
            yield from self._new(event, known, origins, rows, looked, saying)

    def _is_made_of_ours(self, instance: Instance, rows: Rows, looked: Looked) -> bool:
        """Whether it is what Hilum made of an image that is here, compressed with loss for a destination."""
        source = made_of(instance, looked.headers.get(instance.receipt) or instance.header)
        original = self._known(source, rows, looked) if source else None
        return original is not None and original.object is not None

    # New

    def _new(
        self, event: InstanceAccepted, told: InstanceRow, origins: tuple[str, ...], rows: Rows, looked: Looked, saying: Saying
    ) -> Iterator[InstanceRouted | StudyChanged]:
        instance = event.instance
        findings = self._fitting.findings(event)
        if instance.study_instance_uid in looked.studies_made_here:
            findings += (Finding(code="study-deidentified", sentence=FINDINGS["study-deidentified"]),)
        matched = self._rules.matched(event, looked.headers.get(instance.receipt))
        failing = None if told.note else failing_of(matched, saying)
        failed = matched.failed if failing else ()
        row = replace(row_of(event), note=told.note, failing=failing)
        selection = looked.selections.get(instance.receipt)
        wanted = {} if row.note else wanted_now(matched)
        if selection is not None and selection.rejects:
            if selection.elsewhere:
                findings += (Finding(code="rejects-elsewhere", sentence=FINDINGS["rejects-elsewhere"]),)
            # Whoever got the images must learn that they are rejected, whatever the rules say of notes.
            for destination in self._destinations_of(selection, rows, looked):
                wanted.setdefault(destination, Wanted(rules=("rejection-note",)))
        wanted = {name: each for name, each in wanted.items() if name not in origins}
        planned = deliveries(row, instance.sop_instance_uid, wanted)
        row = replace(row, to=tuple(wanted))
        if row.note:
            yield saying.of_arrival(event, "withdrawn", findings=findings)
        elif planned:
            yield saying.of_arrival(event, "deliver", planned, findings=findings, failed=failed)
        else:
            decision: Decision = "waits" if self._rules.any_of_study else "held" if failed else "no-rule"
            yield saying.of_arrival(event, decision, findings=findings, failed=failed)
        study = self._study(instance.study_instance_uid, rows, looked)
        yield from self._studies.grow(instance.sop_instance_uid, row, instance, matched.study_rules, origins, rows, study, saying)
        if selection is not None:
            yield from self._selected(instance.study_instance_uid, instance.sop_instance_uid, selection, rows, looked, saying)

    def _study(self, uid: str, rows: Rows, looked: Looked) -> StudyRow:
        return rows.study(uid) or looked.studies.get(uid) or StudyRow()

    # Here before

    def _again(
        self,
        event: InstanceAccepted,
        known: InstanceRow,
        origins: tuple[str, ...],
        rows: Rows,
        looked: Looked,
        compared: Comparison | None,
        saying: Saying,
    ) -> Iterator[InstanceRouted | StudyChanged]:
        instance = event.instance
        uid, sha256 = instance.sop_instance_uid, instance.object.sha256
        assert known.object is not None
        if any(origin in known.to for origin in origins):
            yield saying.of_arrival(event, "returned")
            return
        if known.study and (known.study, known.series) != (instance.study_instance_uid, instance.series_instance_uid):
            raise Quarantine(
                Reason.INSTANCE_ELSEWHERE,
                f"Instance {uid} is here in study {known.study}, series {known.series} (receipt {known.receipts[0]}),"
                f" and came again in study {instance.study_instance_uid}, series {instance.series_instance_uid}.",
                found=sha256,
                expected=known.object.sha256,
            )
        if sha256 == known.object.sha256:
            yield from self._same(event, known, origins, rows, looked, saying)
        elif sha256 in known.also:
            yield saying.of_arrival(event, "duplicate")
        elif compared is None:
            raise NeedsWork((known.object, instance.object))
        elif compared.result == "same":
            rows.put_instance(uid, replace(known, also=(*known.also, sha256)), saying.now + REMEMBERED)
            yield saying.of_arrival(event, "duplicate")
        elif compared.result == "header":
            yield from self._corrected(event, known, compared, origins, rows, looked, saying)
        else:
            raise _conflict(event, known, compared)

    def _same(
        self, event: InstanceAccepted, known: InstanceRow, origins: tuple[str, ...], rows: Rows, looked: Looked, saying: Saying
    ) -> Iterator[InstanceRouted]:
        """The same bytes again: they go where the rules of now send them and they were never to go, and nowhere twice."""
        instance = event.instance
        if known.held and not set(origins) <= set(known.held.origins):  # a destination that sends it has it: what waits need not go there
            known = replace(known, held=replace(known.held, origins=tuple(dict.fromkeys((*known.held.origins, *origins)))))
            rows.put_instance(instance.sop_instance_uid, known, saying.now + REMEMBERED)
        wanted: dict[str, Wanted] = {}
        failing = known.failing
        failed: tuple[RuleFailure, ...] = ()
        if not known.note:
            matched = self._rules.matched(event, looked.headers.get(instance.receipt))
            if failing is None:  # else that is decided in its own time
                failing, failed = failing_of(matched, saying), matched.failed
            wanted = {
                name: each
                for name, each in wanted_now(matched).items()
                if name not in known.to and name not in origins and not (known.held and name in known.held.origins)
            }
        if not wanted and not failed:
            yield saying.of_arrival(event, "duplicate")
            return
        row = replace(known, receipts=(*known.receipts, instance.receipt), to=(*known.to, *wanted), failing=failing)
        rows.put_instance(instance.sop_instance_uid, row, saying.now + REMEMBERED)
        planned = deliveries(row, instance.sop_instance_uid, wanted)
        yield saying.of_arrival(event, "deliver" if planned else "held", planned, failed=failed)

    def _corrected(
        self,
        event: InstanceAccepted,
        known: InstanceRow,
        compared: Comparison,
        origins: tuple[str, ...],
        rows: Rows,
        looked: Looked,
        saying: Saying,
    ) -> Iterator[InstanceRouted | StudyChanged]:
        """Another header with the same pixels: what its sender's settings say."""
        instance = event.instance
        uid = instance.sop_instance_uid
        assert known.object is not None
        policy = self._senders.get(instance.source.calling_aet, _DEFAULT).corrections
        if policy == "quarantine":
            raise _conflict(event, known, compared)
        if policy == "ignore" or known.note:
            rows.put_instance(uid, replace(known, also=(*known.also, instance.object.sha256)), saying.now + REMEMBERED)
            yield saying.of_arrival(event, "ignored")
            return
        matched = self._rules.matched(event, looked.headers.get(instance.receipt))
        # Whoever got the first is to have the corrected one, and whoever the rules name now.
        wanted = {name: Wanted(rules=("correction",)) for name in known.to}
        wanted |= wanted_now(matched)
        wanted = {name: each for name, each in wanted.items() if name not in origins}
        row = replace(
            row_of(event),
            receipts=(*known.receipts, instance.receipt),
            to=tuple(wanted),
            also=(*known.also, known.object.sha256),
            failing=failing_of(matched, saying),
        )
        yield saying.of_arrival(
            event,
            "corrected",
            deliveries(row, uid, wanted),
            cancels=planned_before(known, uid),
            failed=matched.failed,
            mended=known.failing is not None and not matched.failed,
        )
        study = self._study(instance.study_instance_uid, rows, looked)
        yield from self._studies.grow(uid, row, instance, matched.study_rules, origins, rows, study, saying)

    # What others say of it

    def _destinations_of(self, selection: Selection, rows: Rows, looked: Looked) -> tuple[str, ...]:
        """Every destination to which an instance that the note names was ever to go."""
        named = (self._known(uid, rows, looked) for uid in selection.sop_instance_uids)
        return tuple(dict.fromkeys(name for row in named if row is not None for name in row.to))

    def _known(self, uid: str, rows: Rows, looked: Looked) -> InstanceRow | None:
        known = rows.instance(uid)
        return looked.rows.get(uid, known) if known is None or not known.receipts else known

    def _selected(
        self, study_uid: str, uid: str, selection: Selection, rows: Rows, looked: Looked, saying: Saying
    ) -> Iterator[InstanceRouted | StudyChanged]:
        """A rejection note takes back what it names, now or once it comes; a manifest says what the study has."""
        study = rows.study(study_uid)
        assert study is not None
        if not selection.rejects:
            self._studies.expect(study_uid, "manifest", selection.sop_instance_uids, looked.rows.keys(), rows, study, saying.now)
            return
        own = rows.instance(uid)
        study.notes += own is not None and not own.note
        named = []
        for sop_instance_uid in selection.sop_instance_uids:
            row = self._known(sop_instance_uid, rows, looked) or InstanceRow()
            if row.note_in(study_uid) or (row.object is not None and row.study != study_uid):
                continue
            named.append(sop_instance_uid)
            rows.put_instance(sop_instance_uid, replace(row, note=uid, note_study=study_uid), saying.now + REMEMBERED)
            if row.object is not None:
                study.withdrawn += 1
                study.notes -= bool(study.notes) and row.sop_class_uid == KEY_OBJECT_SELECTION
                yield saying.of_row(row, sop_instance_uid, "withdrawn", cancels=planned_before(row, sop_instance_uid))
        self._studies.keep(study_uid, rows, study, saying.now)
        for at in range(0, len(named), NAMED):
            yield changed(
                study_uid,
                study,
                "withdrawn",
                saying,
                revision=study.revision + study.open,
                note=uid,
                code=selection.code,
                sop_instance_uids=tuple(named[at : at + NAMED]),
            )


_DEFAULT = Sender()


def _told(uid: str, study_uid: str, told: InstanceRow, looked: Looked) -> InstanceRow:
    """What the index has of an instance that memory has not, or only was told of, and that comes in this study."""
    noted = looked.notes.get(uid)
    indexed = noted.note if noted is not None and noted.study_instance_uid == study_uid else ""
    return replace(looked.rows.get(uid) or told, note=told.note_in(study_uid) or indexed, note_study="")


def _conflict(event: InstanceAccepted, known: InstanceRow, compared: Comparison) -> Quarantine:
    """Why a second object under one UID waits for a person, with both digests."""
    instance = event.instance
    assert known.object is not None
    uid, digest, first = instance.sop_instance_uid, instance.object.sha256, known.object.sha256
    tags = ", ".join(f"({tag[:4]},{tag[4:]})" for tag in compared.tags[:20]) + (" and others" if len(compared.tags) > 20 else "")
    digests = f"first {first[:12]}… (receipt {known.receipts[0]}), now {digest[:12]}…"
    if compared.result == "header":
        sentence = f"Instance {uid} came again with the same pixels and another header: {digests}. What differs: {tags}."
        return Quarantine(Reason.INSTANCE_CORRECTED, sentence, found=digest, expected=first)
    why = f" {compared.says}" if compared.says else ""
    what = f" What differs in its header: {tags}." if tags else ""
    sentence = f"Instance {uid} came again with other content: {digests}.{why}{what}"
    return Quarantine(Reason.INSTANCE_CONFLICT, sentence, found=digest, expected=first)
