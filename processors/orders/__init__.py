"""Make orders and patients of HL7 messages: what each is by now, who is who, and what came too late.

Reads `hl7.message.received.v1`, commands (`patients.command.v1`) and what modalities perform (`orders.step.performed.v1`); writes
`orders.order.changed.v1`, `patients.patient.changed.v1` and `control.outcome.v1`. Its topics have one partition, so that one worker
sees everything in one order; a second one stands by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from hilum import telemetry
from hilum.events import CommandOutcome, MessageReceived, OrderChanged, PatientChanged, PatientCommand, StepPerformed
from hilum.hl7.extract import Defaults
from hilum.hl7.facts import Mapped, OrderFacts
from hilum.hl7.fieldmaps import FieldMap, fieldmap
from hilum.hl7.mapping import map_message
from hilum.hl7.message import NotHl7, parse
from hilum.hl7.senders import defaults_of
from hilum.order_events import Note
from hilum.pseudonyms import Pseudonyms, pseudonyms
from hilum.role import Role
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.processor import Memory
from hilum.runtime.state import milliseconds, moment
from hilum.settings import Settings

from .book import Book
from .patients import Patients
from .performed import Performances
from .rows import NameRow, OrderRow, PatientRow, PerformedRow, Row, Stamp, Told, name_key, order_key, patient_row_key, performed_key

log = telemetry.logger("orders")

#: A message from further ahead of its reception was made by a clock that is wrong: when it came counts.
MOST_AHEAD = timedelta(hours=1)


class Orders:
    """What messages say, put together."""

    name = "orders"
    State = Row

    def __init__(self, settings: Settings, names: Pseudonyms, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises `Misconfigured` if a sender's profile or time zone does not exist."""
        self._names = names
        self._now = now
        self._keep = timedelta(days=settings.orders.keep_days)
        self._others = (fieldmap("hl7"), defaults_of(settings, ""))
        self._senders: dict[str, tuple[FieldMap, Defaults]] = {
            name: (fieldmap(sender.profile), defaults_of(settings, name)) for name, sender in settings.hl7.senders.items()
        }

    def handle(
        self, event: MessageReceived | PatientCommand | StepPerformed, memory: Memory[Row]
    ) -> Iterable[OrderChanged | PatientChanged | CommandOutcome]:
        """Take over what a message says, and tell what is so now."""
        work = _Work(memory, self._names, self._now(), self._keep)
        if isinstance(event, PatientCommand):
            yield from work.command(event, self.name)
            return
        if isinstance(event, StepPerformed):
            yield from work.performed(event)
            return
        profile, defaults = self._senders.get(event.sender, self._others)
        try:
            message = parse(event.text)
        except NotHl7 as why:  # the receiver took it, so that this is a fault of ours
            log.error("message_unreadable", says=str(why))
            return
        mapped = map_message(message, profile, defaults)
        yield from work.message(mapped, event)

    def due(self, key: str, memory: Memory[Row], now: datetime) -> Iterable[OrderChanged | PatientChanged]:
        """Forget an order or a patient of whom nothing was heard for long."""
        row = memory.get(key)
        if isinstance(row, PerformedRow):
            memory.forget(key)
            return ()
        work = _Work(memory, self._names, now, self._keep)
        if isinstance(row, OrderRow):
            work.forget_order(key.removeprefix("o/"))
        elif isinstance(row, PatientRow):
            if row.orders or row.members or row.facts.get("into") is not None:
                memory.put(key, row, due=now + self._keep)
            else:
                memory.forget(key)
        return ()


class _Work:
    """What follows from one event."""

    def __init__(self, memory: Memory[Row], names: Pseudonyms, now: datetime, keep: timedelta) -> None:
        self._memory = memory
        self._now = now
        self._keep = keep
        self._patients = Patients(memory, names)
        self._performances = Performances(memory)
        self._book = Book(memory, names, self._performances)

    def message(self, mapped: Mapped, event: MessageReceived) -> Iterator[OrderChanged | PatientChanged]:
        """Tell what a message changes."""
        if not mapped.patients:
            return
        said_at, notes = mapped.said_at or event.received_at, list(mapped.notes)
        if said_at > event.received_at + MOST_AHEAD:
            said_at = event.received_at
            notes.append(Note(code="time-in-future", sentence="The message was made in the future by its clock: when it came counts."))
        stamp = Stamp(milliseconds(said_at), event.sender or event.sending_application)
        told = Told()
        key = ""
        for patient in mapped.patients:
            key, of_patient = self._patients.tell(patient, stamp)
            told += of_patient
        for merge in mapped.merges:
            told += self._patients.merge(merge.prior, merge.surviving, stamp)
        if mapped.kind in ("link", "unlink") and len(mapped.patients) > 1:
            told += self._patients.link(mapped.patients[0], mapped.patients[1], mapped.kind == "link", stamp)
        for admission in mapped.admissions:
            for order_id in self._book.named(self._book.name_of("admission", admission)):
                self._move(order_id, key, stamp)
        for said in mapped.orders:
            self._order(said, key, stamp, told)
        if told.stale:
            what = "all" if told.stale == told.said else "some"
            notes.append(
                Note(code="stale-message", sentence=f"The message is older than what is known: {what} of what it says counts no more.")
            )
        if self._patients.circles & self._patients.touched.keys():
            notes.append(Note(code="merge-cycle", sentence="Merges go round in a circle: the oldest of them does not count."))
        yield from self._tell(notes, key, event.message_id)

    def command(self, command: PatientCommand, stage: str) -> Iterator[OrderChanged | PatientChanged | CommandOutcome]:
        """Do what a person asks for."""
        done = command.action == "unmerge" and self._patients.unmerge(command.patient_key, Stamp(milliseconds(command.asked_at), "~hand"))
        if done:
            yield from self._tell([], command.patient_key, "", actor=command.actor)
        sentence = "The patient stands for itself again." if done else "The patient is not merged into another: nothing was done."
        if command.action != "unmerge":
            sentence = f"This release knows no command {command.action}."
        yield CommandOutcome(command=command.id, stage=stage, study_instance_uid="", done=done, sentence=sentence, answered_at=self._now)

    def performed(self, event: StepPerformed) -> Iterator[OrderChanged | PatientChanged]:
        """Tell the orders of which a modality performs something, if that is news."""
        uids = dict.fromkeys(each.study_instance_uid for each in event.scheduled if each.study_instance_uid)
        order_ids = dict.fromkeys(self._book.now(each) for uid in uids for each in self._book.named(self._book.name_of_study(uid)))
        before = {order_id: self._book.progress(order_id) for order_id in order_ids}
        for uid, row in self._performances.tell(event).items():
            self._memory.put(performed_key(uid), row, due=self._now + self._keep)
        for order_id in order_ids:
            if self._book.progress(order_id) != before[order_id]:
                self._book.touched[order_id] = "performed"
                self._note_performed(order_id)
        if self._book.touched:
            yield from self._tell([], "", "")

    def _note_performed(self, order_id: str) -> None:
        if self._book.performed_after_all(order_id):
            self._book.note(order_id, "performed-after-all", "A modality performs it although it was called off before.")

    def forget_order(self, order_id: str) -> None:
        """Drop an order and what leads to it."""
        row = self._book.row(order_id)
        self._book.drop(order_id)
        self._memory.forget(order_key(order_id))
        key = row.facts.get("patient")
        if key:
            self._patients.drop_order(key, order_id)
            self._memory.put(patient_row_key(key), self._patients.row(key), due=self._now + self._keep)
        self._write_names()

    def _order(self, said: OrderFacts, key: str, stamp: Stamp, told: Told) -> None:
        order_id, former, of_order = self._book.tell(said, key, stamp)
        told += of_order
        if of_order.changed:
            self._note_performed(order_id)
        now = self._book.row(order_id).facts.get("patient")
        if former is not None and former != now:
            self._patients.drop_order(former, order_id)
        self._patients.add_order(now, order_id)
        others = self._book.others_with(order_id)
        if not others:
            return
        me = self._patients.root(self._book.row(order_id).facts.get("patient"))
        if any(self._patients.root(self._book.row(each).facts.get("patient")) != me for each in others):
            self._book.note(
                order_id,
                "accession-of-another-patient",
                "Its accession number is also that of an order of another patient.",
            )
        elif order_id in self._book.touched:
            self._book.note(order_id, "accession-shared", "Several orders of the patient have its accession number.")

    def _move(self, order_id: str, key: str, stamp: Stamp) -> None:
        """An admission is another patient's, and so are its orders."""
        row = self._book.row(order_id)
        self._book.told.add(order_id)
        before = row.facts.get("patient")
        if row.facts.put("patient", key, stamp):
            self._patients.drop_order(before, order_id)
            self._patients.add_order(key, order_id)
            self._book.touched[order_id] = "patient"

    def _tell(self, notes: list[Note], key: str, message_id: str, *, actor: str = "") -> Iterator[OrderChanged | PatientChanged]:
        """Write the rows, and say what changed: patients first, then their orders."""
        patients, book = self._patients, self._book
        for each in patients.touched:
            for order_id in patients.orders_of(each):
                book.touched.setdefault(order_id, "patient")
        # What was noticed about a message is told with the orders that it is about; if it is about none, with its patient.
        of_order = tuple(notes) if any(change != "patient" for change in book.touched.values()) else ()
        of_patient = () if of_order else tuple(notes)
        if of_patient:
            patients.touched.setdefault(key, "noted")
        version = int(self._now.timestamp() * 1_000_000)
        changed = dict(patients.touched)
        for each in changed:
            row = patients.row(each)
            row.version = max(row.version + 1, version)
        for each, row in list(patients.rows()):
            if row.facts.values:
                self._memory.put(patient_row_key(each), row, due=self._now + self._keep)
        for each, change in changed.items():
            root = patients.root(each)
            yield PatientChanged(
                patient=patients.patient(each),
                version=patients.row(each).version,
                change=change,
                merged_into=root if root != each else "",
                notes=of_patient if each == key else (),
                message_id=message_id,
                actor=actor,
                said_at=moment(patients.row(each).said_ms),
                changed_at=self._now,
            )
        for order_id in sorted(book.told - book.touched.keys()):
            self._memory.put(order_key(order_id), book.row(order_id), due=self._now + self._keep)
        for order_id, change in book.touched.items():
            order_row = book.row(order_id)
            order_row.version = max(order_row.version + 1, version)
            self._memory.put(order_key(order_id), order_row, due=self._now + self._keep)
            patient = patients.patient(patients.root(order_row.facts.get("patient")))
            telemetry.ORDERS_CHANGED.labels(change).inc()
            yield OrderChanged(
                order=book.order(order_id, patient),
                change=change,
                superseded_by=order_row.superseded_by,
                notes=(*(of_order if change != "patient" else ()), *book.notes.get(order_id, ())),
                message_id=message_id,
                changed_at=self._now,
            )
        self._write_names()

    def _write_names(self) -> None:
        for name in self._book.renamed:
            orders = self._book.named(name)
            if orders:
                self._memory.put(name_key(name), NameRow(orders=orders))
            else:
                self._memory.forget(name_key(name))


def role(settings: Settings) -> Role:
    """The role `orders`."""
    return ProcessorRole(settings, Orders(settings, pseudonyms(settings)))
