"""Orders: which one a message means, what is known of it, and how it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar
from uuid import UUID, uuid5

import msgspec

from hilum.hl7.extract import KEYWORDS, LONGEST
from hilum.hl7.facts import OrderFacts, ProcedureFacts
from hilum.order_events import Code, Identifier, Note, Order, Patient, RequestedProcedure, ScheduledStep
from hilum.pseudonyms import Pseudonyms
from hilum.runtime.processor import Memory
from hilum.runtime.state import moment

from .performed import Performances, folded, is_after_all, step_status
from .rows import Facts, NameRow, OrderRow, Performed, ProcedureRow, Row, Stamp, Told, name_key, order_key, with_order, without
from .shown import STEP_OF_ORDER, all_of, as_kind, scheduled_step, short_id, status_of

T = TypeVar("T")

#: Which of the numbers of an order name it: the first that it has (HL7 v2.5.1 4.5.1.2, 4.5.1.3).
_NUMBERS = ("placer", "filler")
_NOBODY = Patient(key="", ids=())
_ORDER_TEXTS = (
    "referring_physician",
    "requesting_physician",
    "requesting_service",
    "entered_by",
    "patient_location",
    "institution",
    "clinical_information",
    "comments",
)


class Book:
    """The orders of one memory. `touched` collects those of which something changed."""

    def __init__(self, memory: Memory[Row], names: Pseudonyms, performances: Performances) -> None:
        self._memory = memory
        self._names = names
        self._performances = performances
        self._rows: dict[str, OrderRow] = {}
        self._by_name: dict[str, tuple[str, ...]] = {}
        self.touched: dict[str, str] = {}
        #: Orders of which something was said: also if it changed nothing, they know since when it holds.
        self.told: set[str] = set()
        self.notes: dict[str, list[Note]] = {}
        #: Names whose rows changed.
        self.renamed: set[str] = set()

    def row(self, order_id: str) -> OrderRow:
        """The row of an order, an empty one for one that is not known."""
        if order_id not in self._rows:
            found = self._memory.get(order_key(order_id))
            self._rows[order_id] = found if isinstance(found, OrderRow) else OrderRow()
        return self._rows[order_id]

    def named(self, name: str) -> tuple[str, ...]:
        """The orders that have a number, which is given as its pseudonym."""
        if name not in self._by_name:
            found = self._memory.get(name_key(name))
            self._by_name[name] = found.orders if isinstance(found, NameRow) else ()
        return self._by_name[name]

    def name_of(self, kind: str, identifier: Identifier) -> str:
        """The pseudonym of a number."""
        return self._names.of(kind, identifier.issuer or identifier.universal_id, identifier.value)

    def names_of(self, order_id: str) -> Iterator[str]:
        """The pseudonyms of all by which an order may be meant."""
        row = self.row(order_id)
        for kind in (*_NUMBERS, "accession", "admission"):
            identifier = as_kind(row.facts.get(kind), Identifier)
            if identifier is not None:
                yield self.name_of(kind, identifier)
        for key, procedure in row.procedures.items() or {"": ProcedureRow()}.items():
            yield from (self.name_of_study(uid) for uid in _uids(order_id, key, procedure))

    def name_of_study(self, study_instance_uid: str) -> str:
        """The pseudonym of a study."""
        return self._names.of("study", study_instance_uid)

    def note(self, order_id: str, code: str, sentence: str) -> None:
        """Notice something about an order."""
        note = Note(code=code, sentence=sentence)
        if note not in self.notes.setdefault(order_id, []):
            self.notes[order_id].append(note)
        self.touched.setdefault(order_id, "noted")

    # Facts

    def tell(self, said: OrderFacts, patient_key: str, stamp: Stamp) -> tuple[str, str | None, Told]:
        """Take over what a message says of an order: its id, and whose it was before."""
        order_id = self._which(said)
        row = self.row(order_id)
        self.told.add(order_id)
        is_new, former, accession = not row.facts.values, row.facts.get("patient"), row.facts.get("accession")
        before = self._progress(order_id, said)
        was_said = (row.said_ms, row.facts.get("sender"))
        facts = {"patient": patient_key, **said.facts}
        facts |= {kind: number for kind in _NUMBERS if (number := getattr(said, kind)) is not None}
        if said.accession is not None:
            facts["accession"] = said.accession
        told = row.facts.tell(facts, stamp)
        for procedure in said.procedures:
            told += self._tell_procedure(row, procedure, stamp)
        if said.status:
            told += self._tell_status(row, said, stamp)
        row.said_ms = max(row.said_ms, stamp.ms)
        row.facts.put("sender", stamp.sender, stamp)
        if accession is not None and accession != row.facts.get("accession"):
            self._take(self.name_of("accession", msgspec.convert(accession, Identifier)), order_id)
        for name in self.names_of(order_id):
            self._give(name, order_id)
        is_other = told.changed or is_new or (row.said_ms, row.facts.get("sender")) != was_said
        # What is said again may be later than the end of what a modality broke off, and so schedule it anew.
        if is_other or self._progress(order_id, said) != before:
            self.touched[order_id] = _change_of(said, is_new=is_new)
        return order_id, former, told

    def drop(self, order_id: str) -> None:
        """Forget an order, and that numbers name it."""
        for name in self.names_of(order_id):
            self._take(name, order_id)

    def others_with(self, order_id: str) -> list[str]:
        """Other orders with the same accession number of the same issuer."""
        accession = as_kind(self.row(order_id).facts.get("accession"), Identifier)
        if accession is None:
            return []
        return [each for each in self.named(self.name_of("accession", accession)) if each != order_id]

    def _which(self, said: OrderFacts) -> str:
        """The order that a message means: by placer or filler number; by accession number, where it has neither."""
        numbers = [(kind, number) for kind in _NUMBERS if (number := getattr(said, kind)) is not None]
        if not numbers and said.accession is not None:
            known = self.named(self.name_of("accession", said.accession))
            return known[-1] if known else self.name_of("order-by-accession", said.accession)
        found: dict[str, None] = {}
        for kind, number in numbers:
            for order_id in self.named(self.name_of(kind, number)):
                found.setdefault(self.now(order_id))
        ids = list(found)
        if not ids:
            kind, number = numbers[0]
            return self.name_of(f"order-by-{kind}", number)
        for other in ids[1:]:  # one was told of by its placer number and another by its filler number: they are one
            self._join(ids[0], other)
        return ids[0]

    def now(self, order_id: str) -> str:
        """The order that has the facts of an order: itself, unless it turned out to be another one."""
        for _ in range(10):
            into = self.row(order_id).superseded_by
            if not into:
                break
            order_id = into
        return order_id

    def _join(self, order_id: str, other: str) -> None:
        row, gone = self.row(order_id), self.row(other)
        row.facts.absorb(gone.facts)
        for key, procedure in gone.procedures.items():
            mine = row.procedures.setdefault(key, ProcedureRow())
            mine.facts.absorb(procedure.facts)
            mine.former = tuple(dict.fromkeys((*mine.former, *procedure.former, _made_uid(other, key, procedure))))
            for step, facts in procedure.steps.items():
                mine.steps.setdefault(step, Facts()).absorb(facts)
        gone.superseded_by = order_id
        for name in self.names_of(other):
            self._by_name[name] = with_order(without(self.named(name), other), order_id)
            self.renamed.add(name)
        self.touched[other] = "superseded"
        self.touched[order_id] = "changed"

    def _take(self, name: str, order_id: str) -> None:
        self._by_name[name] = without(self.named(name), order_id)
        self.renamed.add(name)

    def _give(self, name: str, order_id: str) -> None:
        if order_id not in self.named(name):
            self._by_name[name] = with_order(self.named(name), order_id)
            self.renamed.add(name)

    def _tell_procedure(self, row: OrderRow, said: ProcedureFacts, stamp: Stamp) -> Told:
        named_now = bool(said.key) and set(row.procedures) == {""}
        procedure = _only_or(row.procedures, said.key, ProcedureRow)
        if named_now:
            procedure.made_as = ""
        before = procedure.facts.get("study_instance_uid")
        told = procedure.facts.tell(said.facts, stamp)
        after = procedure.facts.get("study_instance_uid")
        if before is not None and after != before:
            procedure.former = tuple(dict.fromkeys((*procedure.former, before)))
        for step in said.steps:
            told += _only_or(procedure.steps, step.key, Facts).tell(step.facts, stamp)
        return told

    def _tell_status(self, row: OrderRow, said: OrderFacts, stamp: Stamp) -> Told:
        """A status is the order's; but that of some of its steps, if only these are named and there are others."""
        told = Told()
        named = {(p.key, s.key) for p in said.procedures for s in p.steps if s.key}
        steps = {(key, step): facts for key, procedure in row.procedures.items() for step, facts in procedure.steps.items()}
        others = [each for each in steps if each not in named]
        if named and others and said.change != "new":
            for each in named:
                if each in steps:
                    told.add(steps[each].put("status", STEP_OF_ORDER.get(said.status, said.status), stamp))
            return told
        told.add(row.facts.put("status", said.status, stamp))
        for facts in steps.values():  # what was said of single steps before holds no more
            if facts.stamp_of("status") is not None:
                told.add(facts.put("status", None, stamp))
        return told

    # As others are told

    def order(self, order_id: str, patient: Patient) -> Order:
        """All of an order as it is now."""
        row = self.row(order_id)
        facts = row.facts
        unusable: dict[str, str] = {}

        def identifier(target: str) -> Identifier | None:
            found = as_kind(facts.get(target), Identifier)
            if found is not None and len(found.value) > LONGEST.get(target, 1 << 30):
                unusable[KEYWORDS[target]] = found.value
                return None
            return found

        status = facts.get("status") or "scheduled"
        procedures = tuple(
            self._procedure(order_id, key, procedure, status, unusable) for key, procedure in sorted(row.procedures.items())
        ) or (self._procedure(order_id, "", ProcedureRow(), status, unusable),)
        said_ms = _ms_of(facts)
        steps = [
            (step.status, max(said_ms, step_ms), self._performed(procedure, step))
            for procedure, times in zip(procedures, self._status_times(row), strict=True)
            for step, step_ms in zip(procedure.steps, times, strict=True)
        ]
        return Order(
            order_id=order_id,
            version=row.version,
            status=status_of(status, [step_status(*each) for each in steps]),
            performed=folded(each for _, _, performed in steps for each in performed),
            patient=patient,
            procedures=procedures,
            accession=identifier("accession"),
            placer=identifier("placer"),
            filler=identifier("filler"),
            group=as_kind(facts.get("group"), Identifier),
            admission=identifier("admission"),
            unusable=unusable,
            sender=facts.get("sender") or "",
            said_at=moment(row.said_ms),
            **{name: facts.get(name) or "" for name in _ORDER_TEXTS},
        )

    def progress(self, order_id: str) -> tuple[str, str]:
        """How far an order is: its status, and what modalities say of it."""
        order = self.order(order_id, _NOBODY)
        return order.status, order.performed

    def _progress(self, order_id: str, said: OrderFacts) -> tuple[str, str] | None:
        """None if nothing is performed of it, or nothing said of its status: then only a fact that changes changes it."""
        rows = self.row(order_id).procedures.items() if said.status else ()
        uids = (uid for key, procedure in rows for uid in _uids(order_id, key, procedure))
        return self.progress(order_id) if any(self._performances.row(uid).steps for uid in uids) else None

    def performed_after_all(self, order_id: str) -> bool:
        """Whether modalities perform it although messages said before that it is cancelled or discontinued."""
        facts = self.row(order_id).facts
        if facts.get("status") not in ("cancelled", "discontinued"):
            return False
        uids = [uid for key, procedure in self.row(order_id).procedures.items() for uid in _uids(order_id, key, procedure)]
        found = (each for uid in uids for each in self._performances.row(uid).steps.values() if not each.wrong_entry)
        return is_after_all(_ms_of(facts), found)

    def _performed(self, procedure: RequestedProcedure, step: ScheduledStep) -> list[Performed]:
        uids = (procedure.study_instance_uid, *procedure.former_uids)
        return self._performances.of_step(uids, step.step_id, only=len(procedure.steps) == 1)

    @staticmethod
    def _status_times(row: OrderRow) -> list[list[int]]:
        """When messages said each step's own status, in the order in which steps are told."""
        procedures = [procedure for _, procedure in sorted(row.procedures.items())] or [ProcedureRow()]
        return [[_ms_of(facts) for _, facts in sorted(each.steps.items())] or [0] for each in procedures]

    def _procedure(self, order_id: str, key: str, row: ProcedureRow, status: str, unusable: dict[str, str]) -> RequestedProcedure:
        facts = row.facts
        made = _made_uid(order_id, key, row)
        said = facts.get("study_instance_uid")
        steps = row.steps or {"": Facts()}
        procedure_id = facts.get("procedure_id") or ""
        if len(procedure_id) > LONGEST["procedure_id"]:
            unusable[KEYWORDS["procedure_id"]], procedure_id = procedure_id, ""
        return RequestedProcedure(
            procedure_id=procedure_id or f"P{short_id(order_id, key)}",
            study_instance_uid=said or made,
            uid_made=not said,
            former_uids=tuple(each for each in dict.fromkeys((*row.former, *([made] if said else []))) if each != (said or made)),
            description=facts.get("description") or "",
            codes=all_of(facts.get("codes"), Code),
            priority=facts.get("priority") or "",
            reason=facts.get("reason") or "",
            reason_codes=all_of(facts.get("reason_codes"), Code),
            comments=facts.get("comments") or "",
            transport=facts.get("transport") or "",
            steps=tuple(scheduled_step(order_id, key, each, of_step, status, unusable) for each, of_step in sorted(steps.items())),
        )


def _change_of(said: OrderFacts, *, is_new: bool) -> str:
    if is_new:
        return "new"
    return said.change if said.change in ("cancelled", "discontinued", "status") else "changed"


def _only_or(rows: dict[str, T], key: str, make: type[T]) -> T:
    """The row of a procedure or step that a message means. One without id is the only one, if there is only one."""
    if key in rows:
        return rows[key]
    if not key and len(rows) == 1:
        return next(iter(rows.values()))
    if key and set(rows) == {""}:  # it had no id when it was told of first
        rows[key] = rows.pop("")
        return rows[key]
    return rows.setdefault(key, make())


def _made_uid(order_id: str, key: str, row: ProcedureRow) -> str:
    """The StudyInstanceUID of a requested procedure for which nobody gave one: always the same (PS3.5 B.2)."""
    made_as = key if row.made_as is None else row.made_as
    return f"2.25.{uuid5(UUID(order_id[:32]), f'study/{made_as}').int}"


def _uids(order_id: str, key: str, row: ProcedureRow) -> tuple[str, ...]:
    """All StudyInstanceUIDs under which a requested procedure is, or was, offered."""
    said = row.facts.get("study_instance_uid")
    return tuple(dict.fromkeys((*([said] if said else []), _made_uid(order_id, key, row), *row.former)))


def _ms_of(facts: Facts) -> int:
    """When a status was said, in milliseconds since 1970; 0: never."""
    stamp = facts.stamp_of("status")
    return stamp.ms if stamp is not None else 0
