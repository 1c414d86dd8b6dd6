"""Hold studies and orders against each other, whichever comes first, and say what fits, what does not, and what is missing.

Reads `orders.match.requested.v1` and `orders.order.changed.v1`, each of one partition: an order is found by its accession number, a
StudyInstanceUID or a patient, and a merge spans two, so that one worker sees all; a second one stands by. Writes
`orders.match.changed.v1`, only when an outcome is another one. What it says follows from what is known, not from the order in which
that came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from hilum import telemetry
from hilum.coercing import may_be_coerced
from hilum.events import MatchChanged, MatchRequested, OrderChanged
from hilum.order_events import Difference, Identifier, MatchOutcome, Note
from hilum.pseudonyms import Pseudonyms, pseudonyms
from hilum.role import Role
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.processor import Memory
from hilum.settings import Settings

from .join import DAY_S, Found, Joined, Windows, join
from .rows import Id, NameRow, OrderRow, Row, StudyRow, added, order_key, study_key, uid_key, without

_DONE = ("completed", "discontinued", "cancelled")


class Match:
    """Orders and studies, joined."""

    name = "match"
    State = Row

    def __init__(self, settings: Settings, names: Pseudonyms, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        orders = settings.orders
        self._names = names
        self._now = now
        self._windows = Windows(
            order_within=orders.order_within_hours * 3600,
            images_within=orders.images_within_hours * 3600,
            candidate=orders.candidate_hours * 3600,
            accession=orders.accession_days * DAY_S,
        )
        self._keep_s = orders.match_days * DAY_S
        self._issuers = {
            aet: (
                sender.issuer_of_patient_id or orders.issuer_of_patient_id,
                sender.issuer_of_accession_number or orders.issuer_of_accession_number,
            )
            for aet, sender in settings.senders.items()
        }
        self._coerce = {aet: sender.coerce for aet, sender in settings.senders.items() if sender.coerce}
        self._issuer = (orders.issuer_of_patient_id, orders.issuer_of_accession_number)

    def handle(self, event: MatchRequested | OrderChanged, memory: Memory[Row]) -> Iterable[MatchChanged]:
        """Take over what is new, and say whose outcome is another one by that."""
        work = _Work(memory, self._names, self._windows, self._keep_s, self._now(), self._coerce)
        if isinstance(event, OrderChanged):
            return work.order(event)
        return work.study(event, self._issuers.get(event.sender, self._issuer))

    def due(self, key: str, memory: Memory[Row], now: datetime) -> Iterable[MatchChanged]:
        """Look at an order or a study again whose window is over, or forget it."""
        return _Work(memory, self._names, self._windows, self._keep_s, now, self._coerce).due(key)


class _Work:
    """What follows from one event."""

    def __init__(
        self,
        memory: Memory[Row],
        names: Pseudonyms,
        windows: Windows,
        keep_s: float,
        now: datetime,
        coerce: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._memory = memory
        self._coerce = coerce
        self._names = names
        self._windows = windows
        self._keep_s = keep_s
        self._now = now
        self._at = now.timestamp()

    # What came

    def order(self, event: OrderChanged) -> Iterator[MatchChanged]:
        """An order is another one now: look at it, and at all studies that it may be about."""
        order_id = event.order.order_id
        former = self._order(order_id)
        if former is not None and former.version >= event.order.version:
            return
        row = _order_row(event, former)
        names = set(self._order_names(row)) if not row.gone else set()
        before = set(self._order_names(former)) if former is not None else set()
        touched: dict[str, None] = dict.fromkeys(former.studies if former is not None else ())
        for name in sorted(names | before):
            found = self._name(name)
            if (name in names) != (order_id in found.orders):
                found.orders = added(found.orders, order_id) if name in names else without(found.orders, order_id)
                self._put_name(name, found)
            touched |= dict.fromkeys(found.studies)
        touched |= dict.fromkeys((*row.uids, *(former.uids if former is not None else ())))
        self._put_order(order_id, row)
        cause = "patient" if event.change == "patient" else "order"
        for uid in touched:
            study = self._study(uid)
            if study is not None:
                yield from self._look(uid, study, cause)
        yield from self._look_at_order(order_id, cause)

    def study(self, event: MatchRequested, issuers: tuple[str, str]) -> Iterator[MatchChanged]:
        """Images of a study say something new."""
        uid = event.study_instance_uid
        former = self._study(uid)
        row = _study_row(event, former, issuers)
        row.changed = int(self._at)
        names = set(self._study_names(row))
        for name in sorted(names | (set(self._study_names(former)) if former is not None else set())):
            found = self._name(name)
            if (name in names) != (uid in found.studies):
                found.studies = added(found.studies, uid) if name in names else without(found.studies, uid)
                self._put_name(name, found)
        yield from self._look(uid, row, "images")

    def due(self, key: str) -> Iterator[MatchChanged]:
        """A window is over, or a row is old."""
        row = self._memory.get(key)
        if isinstance(row, StudyRow):
            if self._at >= row.changed + self._keep_s:
                self._forget_study(key.removeprefix("s/"), row)
            else:
                yield from self._look(key.removeprefix("s/"), row, "time")
        elif isinstance(row, OrderRow):
            if self._at >= self._order_ends(row):
                self._forget_order(key.removeprefix("o/"), row)
            else:
                yield from self._look_at_order(key.removeprefix("o/"), "time")

    # Looking

    def _look(self, uid: str, row: StudyRow, cause: str) -> Iterator[MatchChanged]:
        """Join a study anew; tell what is other than before, of it and of its orders."""
        joined = join(uid, row, self._found(uid, row), self._windows, self._at)
        before = (row.outcome, row.by, row.orders, row.differences, row.candidates)
        after = (joined.outcome, joined.by, joined.orders, joined.differences, joined.candidates)
        changed_orders = set(row.orders) ^ set(joined.orders)
        if before != after:
            outcome, differing = row.outcome, {each[0] for each in row.differences}
            row.outcome, row.by, row.orders, row.differences, row.candidates = after
            row.told = self._version(row.told)
            yield self._told_of_study(uid, row, joined, outcome, differing, cause)
        elif cause in ("order", "patient"):  # it is remembered as it is, timer included
            return
        self._memory.put(study_key(uid), row, due=self._study_due(row))
        for order_id in sorted(changed_orders):
            order = self._order(order_id)
            if order is not None:
                mine = order_id in joined.orders and joined.outcome != "withdrawn"
                order.studies = added(order.studies, uid) if mine else without(order.studies, uid)
                self._put_order(order_id, order)
                yield from self._look_at_order(order_id, cause)

    def _look_at_order(self, order_id: str, cause: str) -> Iterator[MatchChanged]:
        row = self._order(order_id)
        if row is None:
            return
        outcome: MatchOutcome = "awaited"
        if row.studies:
            outcome = "imaged"
        elif row.status == "cancelled" or row.gone:
            outcome = "order-cancelled"
        elif self._at >= row.planned + self._windows.images_within:
            outcome = "no-images"
        if outcome != row.outcome:
            before, row.outcome = row.outcome, outcome
            row.told = self._version(row.told)
            telemetry.MATCHES_CHANGED.labels("order", outcome).inc()
            yield MatchChanged(
                about="order",
                study_instance_uid=row.studies[0] if row.studies else next(iter(row.uids), ""),
                order_ids=(order_id,),
                outcome=outcome,
                before=before,
                cause=cause,
                version=row.told,
                changed_at=self._now,
            )
        elif cause != "time":  # it is remembered as it is, timer included
            return
        self._put_order(order_id, row)

    def _found(self, uid: str, row: StudyRow) -> Found:
        by_accession: dict[str, OrderRow] = {}
        for accession in row.accessions:
            by_accession |= self._orders(self._name(self._names.of("accession", accession[0])).orders)
        return Found(
            by_accession=by_accession,
            by_uid=self._orders(self._name(uid_key(uid)).orders),
            by_patient=lambda: {
                key: order for each in row.ids for key, order in self._orders(self._name(self._names.of("patient", each[0])).orders).items()
            },
        )

    def _orders(self, order_ids: Iterable[str]) -> dict[str, OrderRow]:
        return {order_id: row for order_id in order_ids if (row := self._order(order_id)) is not None}

    def _told_of_study(self, uid: str, row: StudyRow, joined: Joined, before: str, differing: set[str], cause: str) -> MatchChanged:
        notes = []
        at = f"{self._now:%Y-%m-%d %H:%M} UTC"
        if cause in ("order", "patient") and before in ("unmatched", "no-order"):
            notes.append(Note(code="order-came-late", sentence=f"The order came after the images, at {at}."))
        elif cause in ("order", "patient") and before:
            what = ", ".join(sorted(differing ^ {each[0] for each in joined.differences})) or joined.outcome
            sentence = f"The order or its patient was changed after the images came, at {at}: {what}."
            notes.append(Note(code="order-corrected", sentence=sentence))
        if len(joined.orders) > 1:
            notes.append(Note(code="several-orders", sentence="Several orders have this one study."))
        telemetry.MATCHES_CHANGED.labels("study", joined.outcome).inc()
        return MatchChanged(
            about="study",
            study_instance_uid=uid,
            order_ids=joined.orders,
            outcome=joined.outcome,
            before=before,
            by=joined.by,
            differences=tuple(Difference(attribute=name, ordered=ordered, found=found) for name, ordered, found in joined.differences),
            coercible=self._coercible(row, joined),
            candidates=joined.candidates,
            cause=cause,
            version=row.told,
            notes=tuple(notes),
            changed_at=self._now,
        )

    def _coercible(self, row: StudyRow, joined: Joined) -> bool:
        """Whether what differs is set right on the way out. Several orders that ask for different values set nothing right."""
        differing = {each[0] for each in joined.differences}
        one_each = len({each[:2] for each in joined.differences}) == len(differing)
        return bool(differing) and one_each and may_be_coerced(joined.outcome, differing, self._coerce.get(row.sender, ()))

    # Rows

    def _order(self, order_id: str) -> OrderRow | None:
        row = self._memory.get(order_key(order_id))
        return row if isinstance(row, OrderRow) else None

    def _study(self, uid: str) -> StudyRow | None:
        row = self._memory.get(study_key(uid))
        return row if isinstance(row, StudyRow) else None

    def _name(self, name: str) -> NameRow:
        row = self._memory.get(name)
        return row if isinstance(row, NameRow) else NameRow()

    def _put_order(self, order_id: str, row: OrderRow) -> None:
        due = self._order_ends(row)
        if row.outcome == "awaited":
            due = min(due, row.planned + self._windows.images_within)
        self._memory.put(order_key(order_id), row, due=_moment(max(due, self._at + 1)))

    def _put_name(self, name: str, row: NameRow) -> None:
        if row.orders or row.studies:
            self._memory.put(name, row)
        else:
            self._memory.forget(name)

    def _order_names(self, row: OrderRow) -> Iterator[str]:
        if row.accession is not None:
            yield self._names.of("accession", row.accession[0])
        yield from (uid_key(uid) for uid in row.uids)
        yield from (self._names.of("patient", each[0]) for each in row.ids)

    def _study_names(self, row: StudyRow) -> Iterator[str]:
        yield from (self._names.of("accession", each[0]) for each in row.accessions)
        yield from (self._names.of("patient", each[0]) for each in row.ids)

    def _order_ends(self, row: OrderRow) -> float:
        """When an order is forgotten: some time after it is done; one for which no images came, likewise after its window."""
        since = max(row.said, row.planned if row.status not in _DONE else 0)
        open_s = 0.0 if row.studies or row.status in _DONE or row.gone else self._windows.images_within
        return since + open_s + self._keep_s

    def _study_due(self, row: StudyRow) -> datetime:
        due = row.changed + self._keep_s
        if row.outcome == "unmatched":
            due = min(due, row.first + self._windows.order_within)
        return _moment(max(due, self._at + 1))

    def _forget_study(self, uid: str, row: StudyRow) -> None:
        """Its orders keep in mind that they have images."""
        for name in set(self._study_names(row)):
            found = self._name(name)
            found.studies = without(found.studies, uid)
            self._put_name(name, found)
        self._memory.forget(study_key(uid))

    def _forget_order(self, order_id: str, row: OrderRow) -> None:
        for name in set(self._order_names(row)):
            found = self._name(name)
            found.orders = without(found.orders, order_id)
            self._put_name(name, found)
        self._memory.forget(order_key(order_id))

    def _version(self, before: int) -> int:
        return max(before + 1, int(self._at * 1_000_000))


def role(settings: Settings) -> Role:
    """The role `match`."""
    return ProcessorRole(settings, Match(settings, pseudonyms(settings)))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _id(identifier: Identifier, issuer: str = "") -> Id:
    return identifier.value.strip(), identifier.issuer or identifier.universal_id or issuer


def _order_row(event: OrderChanged, former: OrderRow | None) -> OrderRow:
    order = event.order
    patient = order.patient
    said = int(order.said_at.timestamp())
    steps = [step for procedure in order.procedures for step in procedure.steps]
    starts = [int(step.start_at.timestamp()) for step in steps if step.start_at is not None]
    uids = dict.fromkeys(uid for each in order.procedures for uid in (each.study_instance_uid, *each.former_uids))
    return OrderRow(
        version=order.version,
        status=order.status,
        accession=_id(order.accession) if order.accession is not None else None,
        uids=tuple(uids),
        ids=tuple(dict.fromkeys(map(_id, (*patient.ids, *patient.former_ids, *patient.linked_ids)))),
        name=patient.name,
        birth_date=patient.birth_date,
        sex=patient.sex,
        modalities=tuple(sorted({step.modality for step in steps if step.modality and step.status != "cancelled"})),
        planned=min(starts, default=said),
        said=said,
        studies=former.studies if former is not None else (),
        outcome=former.outcome if former is not None else "awaited",
        told=former.told if former is not None else 0,
        gone=event.change == "superseded",
    )


def _study_row(event: MatchRequested, former: StudyRow | None, issuers: tuple[str, str]) -> StudyRow:
    """What a study's images say by now: its numbers and modalities together; the patient as its first object has it."""
    first = int(event.first_received_at.timestamp())
    row = StudyRow(
        accessions=tuple(dict.fromkeys(_id(each, issuers[1]) for each in event.accessions if each.value.strip())),
        ids=tuple(dict.fromkeys(_id(each, issuers[0]) for each in event.patient_ids if each.value.strip())),
        name=event.patient_name,
        birth_date=event.patient_birth_date,
        sex=event.patient_sex,
        modalities=event.modalities,
        instances=event.instances,
        first=first,
        sender=event.sender.strip(),
    )
    if former is None:
        return row
    row.outcome, row.by, row.orders, row.told = former.outcome, former.by, former.orders, former.told
    row.differences, row.candidates = former.differences, former.candidates
    row.first = min(first, former.first)
    row.sender = former.sender or row.sender
    if not event.replaces:
        row.accessions = tuple(dict.fromkeys((*former.accessions, *row.accessions)))
        row.modalities = tuple(sorted({*former.modalities, *row.modalities}))
        row.ids, row.name, row.birth_date, row.sex = (
            former.ids or row.ids,
            former.name or row.name,
            former.birth_date or row.birth_date,
            former.sex or row.sex,
        )
    return row
