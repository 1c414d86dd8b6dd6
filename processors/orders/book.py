"""Orders: which one a message means, what is known of it, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from hilum.hl7.extract import KEYWORDS, LONGEST
from hilum.hl7.facts import OrderFacts
from hilum.order_events import Code, Identifier, Note, Order, Patient, RequestedProcedure
from hilum.pseudonyms import Pseudonyms
from hilum.runtime.processor import Memory
from hilum.runtime.state import moment

from .performed import Performances, folded, is_after_all, step_status
from .procedures import same_procedure, tell_procedures
from .rows import Facts, NameRow, OrderRow, Performed, ProcedureRow, Row, Stamp, Told, name_key, order_key, with_order, without
from .shown import STEP_OF_ORDER, all_of, as_kind, made_uid, ms_of, scheduled_step, short_id, status_of, uids_of

#: Which of the numbers of an order name it: the first that it has (HL7 v2.5.1 4.5.1.2, 4.5.1.3).
_NUMBERS = ("placer", "filler")
#: So many of a patient's latest orders are looked at for a number that does not say who assigned it.
_MOST_ALIKE = 50
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
        for kind in (*_NUMBERS, "admission"):
            identifier = as_kind(row.facts.get(kind), Identifier)
            if identifier is not None:
                yield self.name_of(kind, identifier)
        yield from (self._accession_name(each) for each in _accessions_of(row))
        for key, procedure in row.procedures.items() or {"": ProcedureRow()}.items():
            yield from (self.name_of_study(uid) for uid in uids_of(order_id, key, procedure))

    def name_of_study(self, study_instance_uid: str) -> str:
        """The pseudonym of a study."""
        return self._names.of("study", study_instance_uid)

    def note(self, order_id: str, code: str, sentence: str) -> None:
        """Notice something about an order."""
        note = Note(code=code, sentence=sentence)
        if note not in self.notes.setdefault(order_id, []):
            self.notes[order_id].append(note)
        self.touched.setdefault(order_id, "noted")

    def note_once(self, order_id: str, code: str, sentence: str) -> None:
        """The same, but not again with each message."""
        row = self.row(order_id)
        if code not in row.noted:
            row.noted = (*row.noted, code)
            self.note(order_id, code, sentence)

    # Facts

    def tell(self, said: OrderFacts, patient_key: str, stamp: Stamp, of_patient: Iterable[str] = ()) -> tuple[str, str | None, Told]:
        """Take over what a message says of an order: its id, and whose it was before.

        `patient_key` is empty if the message does not say whose it is; `of_patient` are the orders of that patient.
        """
        said, order_id = self._which(said, of_patient, stamp.sender)
        row = self.row(order_id)
        self.told.add(order_id)
        is_new, former, accessions = not row.facts.values, row.facts.get("patient"), _accessions_of(row)
        before = self._progress(order_id, said)
        was_said = (row.said_ms, row.facts.get("sender"))
        facts = {**({"patient": patient_key} if patient_key else {}), **said.facts}
        facts |= {kind: number for kind in _NUMBERS if (number := getattr(said, kind)) is not None}
        if said.accession is not None:
            facts["accession"] = said.accession
        told = row.facts.tell(facts, stamp)
        meant = tell_procedures(row.procedures, said, stamp)
        told += meant.told
        if said.status:
            told += self._tell_status(row, said, meant.steps, stamp)
        row.said_ms = max(row.said_ms, stamp.ms)
        row.facts.put("sender", stamp.sender, stamp)
        kept = _accessions_of(row)
        for accession in accessions:
            if accession not in kept:
                self._take(self._accession_name(accession), order_id)
        for name in self.names_of(order_id):
            self._give(name, order_id)
        is_other = told.changed or is_new or (row.said_ms, row.facts.get("sender")) != was_said
        # What is said again may be later than the end of what a modality broke off, and so schedule it anew.
        if is_other or self._progress(order_id, said) != before:
            self.touched[order_id] = _change_of(said, is_new=is_new)
        if meant.unclear:
            self.note(
                order_id,
                "procedure-unclear",
                "A change names a procedure that the order does not have, and nothing says which of its procedures that was: it is added.",
            )
        return order_id, former, told

    def drop(self, order_id: str) -> None:
        """Forget an order, and that numbers name it."""
        for name in self.names_of(order_id):
            self._take(name, order_id)

    def others_with(self, order_id: str) -> list[str]:
        """Other orders with the same accession number of the same issuer."""
        names = [self._accession_name(each) for each in _accessions_of(self.row(order_id))]
        return [each for each in dict.fromkeys(each for name in names for each in self.named(name)) if each != order_id]

    def _accession_name(self, fact: Any) -> str:
        return self.name_of("accession", msgspec.convert(fact, Identifier))

    def _which(self, said: OrderFacts, of_patient: Iterable[str], sender: str) -> tuple[OrderFacts, str]:
        """The order that a message means, and the message with what is known of its numbers.

        It is found by placer or filler number; by accession number, where it has neither. A number that is said once with who assigned
        it, and once without, means one order if the accession number is the same, or sender and patient are.
        """
        order_id = self._found(said)
        if order_id is not None:
            return said, order_id
        alike = set([*of_patient][-_MOST_ALIKE:])
        if said.accession is not None:
            alike |= set(self.named(self.name_of("accession", said.accession)))
        alike = {each for each in map(self.now, alike) if self._is_like(each, said, sender)}
        found = {each: kinds for each in sorted(alike) if (kinds := self._half_named(each, said))}
        if len(found) == 1:
            ((order_id, kinds),) = found.items()
            known = {kind: as_kind(self.row(order_id).facts.get(kind), Identifier) for kind in kinds}
            said = msgspec.structs.replace(said, **{kind: each for kind, each in known.items() if each is not None and _issuer(each)})
            return said, order_id
        if said.placer is None and said.filler is None:
            assert said.accession is not None  # the mapping takes no order without any number
            return said, self.name_of("order-by-accession", said.accession)
        kind, number = next((kind, number) for kind in _NUMBERS if (number := getattr(said, kind)) is not None)
        return said, self.name_of(f"order-by-{kind}", number)

    def _is_like(self, order_id: str, said: OrderFacts, sender: str) -> bool:
        row = self.row(order_id)
        return msgspec.to_builtins(said.accession) in _accessions_of(row) or row.facts.get("sender") == sender

    def _half_named(self, order_id: str, said: OrderFacts) -> list[str]:
        """Which numbers of an order are those of the message, but for who assigned them, which only one of the two says."""
        facts = self.row(order_id).facts
        pairs = ((kind, getattr(said, kind), as_kind(facts.get(kind), Identifier)) for kind in _NUMBERS)
        both = [(kind, one, other) for kind, one, other in pairs if one is not None and other is not None]
        fit = all(one.value == other.value and "" in (_issuer(one), _issuer(other)) for _, one, other in both)
        return [kind for kind, _, _ in both] if fit else []

    def _found(self, said: OrderFacts) -> str | None:
        numbers = [(kind, number) for kind in _NUMBERS if (number := getattr(said, kind)) is not None]
        if not numbers and said.accession is not None:
            known = self.named(self.name_of("accession", said.accession))
            return known[-1] if known else None
        found: dict[str, None] = {}
        for kind, number in numbers:
            for order_id in self.named(self.name_of(kind, number)):
                found.setdefault(self.now(order_id))
        ids = list(found)
        if not ids:
            return None
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
            mine = row.procedures.setdefault(same_procedure(row.procedures, key, gone.procedures), ProcedureRow())
            mine.facts.absorb(procedure.facts)
            mine.former = tuple(dict.fromkeys((*mine.former, *procedure.former, made_uid(other, key, procedure))))
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

    def _tell_status(self, row: OrderRow, said: OrderFacts, named: set[tuple[str, str]], stamp: Stamp) -> Told:
        """A status is the order's; but that of some of its steps, if only these are named and there are others."""
        told = Told()
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

        def identifier(target: str, found: Identifier | None) -> Identifier | None:
            if found is not None and len(found.value) > LONGEST.get(target, 1 << 30):
                unusable[KEYWORDS[target]] = found.value
                return None
            return found

        status = facts.get("status") or "scheduled"
        rows = sorted(row.procedures.items()) or [("", ProcedureRow())]
        accessions = [as_kind(procedure.facts.get("accession") or facts.get("accession"), Identifier) for _, procedure in rows]
        usable = [identifier("accession", each) for each in accessions]
        own = usable if len(set(accessions)) > 1 else [None for _ in rows]
        procedures = tuple(
            self._procedure(order_id, key, procedure, accession, status, unusable)
            for (key, procedure), accession in zip(rows, own, strict=True)
        )
        said_ms = ms_of(facts)
        steps = [
            (step.status, max(said_ms, step_ms), self._performed(procedure, {step.step_id, *ids}))
            for procedure, known in zip(procedures, self._known_steps(row), strict=True)
            for step, (step_ms, ids) in zip(procedure.steps, known, strict=True)
        ]
        return Order(
            order_id=order_id,
            version=row.version,
            status=status_of(status, [step_status(*each) for each in steps]),
            performed=folded(each for _, _, performed in steps for each in performed),
            patient=patient,
            procedures=procedures,
            accession=usable[0],
            placer=identifier("placer", as_kind(facts.get("placer"), Identifier)),
            filler=identifier("filler", as_kind(facts.get("filler"), Identifier)),
            group=as_kind(facts.get("group"), Identifier),
            admission=identifier("admission", as_kind(facts.get("admission"), Identifier)),
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
        uids = (uid for key, procedure in rows for uid in uids_of(order_id, key, procedure))
        return self.progress(order_id) if any(self._performances.row(uid).steps for uid in uids) else None

    def performed_after_all(self, order_id: str) -> bool:
        """Whether modalities perform it although messages said before that it is cancelled or discontinued."""
        facts = self.row(order_id).facts
        if facts.get("status") not in ("cancelled", "discontinued"):
            return False
        uids = [uid for key, procedure in self.row(order_id).procedures.items() for uid in uids_of(order_id, key, procedure)]
        found = (each for uid in uids for each in self._performances.row(uid).steps.values() if not each.wrong_entry)
        return is_after_all(ms_of(facts), found)

    def _performed(self, procedure: RequestedProcedure, step_ids: set[str]) -> list[Performed]:
        uids = (procedure.study_instance_uid, *procedure.former_uids)
        return self._performances.of_step(uids, step_ids, only=len(procedure.steps) == 1)

    @staticmethod
    def _known_steps(row: OrderRow) -> list[list[tuple[int, set[str]]]]:
        """When messages said each step's own status, and by which ids they meant it, in the order in which steps are told."""
        procedures = [procedure for _, procedure in sorted(row.procedures.items())] or [ProcedureRow()]
        return [
            [
                (ms_of(facts), {key, *(said for said, known in each.steps_also.items() if known == key)})
                for key, facts in sorted(each.steps.items())
            ]
            or [(0, set())]
            for each in procedures
        ]

    def _procedure(
        self, order_id: str, key: str, row: ProcedureRow, accession: Identifier | None, status: str, unusable: dict[str, str]
    ) -> RequestedProcedure:
        facts = row.facts
        made = made_uid(order_id, key, row)
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
            accession=accession,
            description=facts.get("description") or "",
            codes=all_of(facts.get("codes"), Code),
            priority=facts.get("priority") or "",
            reason=facts.get("reason") or "",
            reason_codes=all_of(facts.get("reason_codes"), Code),
            comments=facts.get("comments") or "",
            transport=facts.get("transport") or "",
            steps=tuple(scheduled_step(order_id, key, each, step, status, unusable) for each, step in sorted(steps.items())),
        )


def _change_of(said: OrderFacts, *, is_new: bool) -> str:
    if is_new:
        return "new"
    return said.change if said.change in ("cancelled", "discontinued", "status") else "changed"


def _issuer(identifier: Identifier) -> str:
    return identifier.issuer or identifier.universal_id


def _accessions_of(row: OrderRow) -> list[Any]:
    """The accession numbers of an order and of its procedures, as facts have them, each once."""
    found: list[Any] = []
    for facts in (row.facts, *(procedure.facts for procedure in row.procedures.values())):
        accession = facts.get("accession")
        if accession is not None and accession not in found:
            found.append(accession)
    return found
