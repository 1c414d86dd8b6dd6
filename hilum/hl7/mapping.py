"""What a message says of orders and patients, by a profile and with the sender's defaults for what messages leave out.

Nothing here knows what was said before: `processors/orders` puts facts together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from hilum.order_events import Identifier

from .extract import Defaults, Extract, repetitions_of, value_of
from .facts import Kind, Mapped, Merge, OrderFacts, PatientFacts, ProcedureFacts, StepFacts
from .fieldmaps import ORDER, PATIENT, PROCEDURE, STEP, FieldMap, Places
from .message import Message, Segment
from .values import identifier_cx, moment_of

ORDERS = frozenset({("ORM", "O01"), ("OMI", "O23"), ("OMG", "O19")})
PATIENTS = frozenset({"A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A11", "A12", "A13", "A28", "A31"})
MERGES = frozenset({"A18", "A34", "A40", "A47"})
APPOINTMENTS = frozenset({"S12", "S13", "S14", "S15"})

_MOST_GROUPS = 500


def map_message(message: Message, profile: FieldMap, defaults: Defaults) -> Mapped:
    """What `message` says. Never raises for its content: what cannot be read is a note."""
    return _Mapping(message, profile, defaults).mapped()


class _Mapping:
    """One message on its way to facts."""

    def __init__(self, message: Message, profile: FieldMap, defaults: Defaults) -> None:
        self._message = message
        self._profile = profile
        self._extract = Extract(profile, defaults)
        self._defaults = defaults
        self._places: Places = profile.places(message.code)

    def mapped(self) -> Mapped:
        code, trigger = self._message.code, self._message.trigger
        kind: Kind = "other"
        patients: list[PatientFacts] = []
        orders: list[OrderFacts] = []
        merges: list[Merge] = []
        admissions: list[Identifier] = []
        if (code, trigger) in ORDERS or (code == "ORM" and not trigger):
            kind, orders = "order", self._orders()
        elif code == "ORU" and trigger in ("R01", ""):
            kind, orders = "result", self._results()
        elif code == "SIU" and trigger in APPOINTMENTS:
            kind, orders = "appointment", self._appointments(trigger)
        elif code == "ADT" and trigger in PATIENTS:
            kind = "patient"
        elif code == "ADT" and trigger in MERGES:
            kind, merges = "merge", self._merges()
        elif code == "ADT" and trigger in ("A24", "A37"):
            kind = "link" if trigger == "A24" else "unlink"
        elif code == "ADT" and trigger == "A45":
            kind, admissions = "move", self._moved()
        if kind != "other":
            patients = [self._patient(segments) for segments in self._patient_segments()]
            patients = [each for each in patients if each.ids]
            if not patients:
                self._extract.note("patient-id-missing", "The message has no patient identifier (PID-3): nothing follows from it.")
                kind = "other"
        if kind in ("order", "result", "appointment") and not orders:
            self._extract.note("order-number-missing", "No order of the message has a placer, filler or accession number: none is taken.")
        return Mapped(
            kind=kind,
            message=f"{code}^{trigger}" if trigger else code,
            said_at=self._said_at(),
            patients=tuple(patients),
            orders=tuple(orders) if kind != "other" else (),
            merges=tuple(merges),
            admissions=tuple(admissions),
            notes=self._extract.notes,
        )

    # What a message is about

    def _orders(self) -> list[OrderFacts]:
        found: dict[tuple[Identifier | None, Identifier | None, str], OrderFacts] = {}
        for group in self._groups():
            control = value_of(group, "ORC-1") or ("NW" if not any(s.name == "ORC" for s in group) else "")
            change = self._profile.control.get(control, "")
            if not change:
                self._extract.note(
                    "order-control-unknown", f"ORC-1 {control[:8]!r} is no order control code that the profile knows: taken as a change."
                )
                change = "changed"
            said = value_of(group, "ORC-5")
            status = self._profile.status.get(said, "")
            if said and not status:
                self._extract.note("order-status-unknown", f"ORC-5 {said[:8]!r} is no order status that the profile knows.")
            if change in ("cancelled", "discontinued", "on-hold"):
                status = change
            elif change == "scheduled" or change == "new":
                status = status or "scheduled"
            order = self._order(group, control, change, status)
            if order is None:
                continue
            key = (order.placer, order.filler, change)
            known = found.get(key)
            found[key] = order if known is None else _joined(known, order)
        return list(found.values())

    def _results(self) -> list[OrderFacts]:
        """Of a result only what it says of its order's progress: what it repeats of the order is the order's own matter."""
        found = []
        for group in self._groups():
            said = value_of(group, "OBR-25")
            status = self._profile.result.get(said, "")
            order = self._order(group, value_of(group, "ORC-1"), "status", status)
            if order is not None:
                found.append(
                    OrderFacts(
                        control=order.control,
                        change="status",
                        status=status,
                        placer=order.placer,
                        filler=order.filler,
                        accession=order.accession,
                    )
                )
        return found

    def _appointments(self, trigger: str) -> list[OrderFacts]:
        change = {"S12": "new", "S15": "cancelled"}.get(trigger, "changed")
        status = {"S12": "scheduled", "S15": "cancelled"}.get(trigger, "")
        order = self._order(list(self._message.all), trigger, change, status)
        return [order] if order is not None else []

    def _merges(self) -> list[Merge]:
        """MRG-1 says which identifier is no more, PID-3 whose it is now. A34 and A18 have one of each, A40 may have several pairs."""
        found: list[Merge] = []
        for segments in self._patient_segments():
            survivors = self._ids(segments)
            priors = [
                identifier
                for segment in segments
                if segment.name == "MRG"
                for field in (1, 4)  # MRG-4: prior patient id, of old versions
                for repetition in segment.field(field)
                if (identifier := identifier_cx(repetition, self._defaults.issuer_of_patient_id)) is not None
            ]
            if survivors and not priors:
                self._extract.note("merge-without-prior", "MRG-1 is empty: nobody knows which patient is to be merged.")
            for prior in priors:
                surviving = _of_the_same(prior, survivors)
                if surviving is not None and not _same(prior, surviving):
                    found.append(Merge(prior=prior, surviving=surviving))
        return found

    def _moved(self) -> list[Identifier]:
        return [
            identifier
            for segment in self._message.segments("MRG")
            for repetition in segment.field(5)
            if (identifier := identifier_cx(repetition)) is not None
        ]

    def _said_at(self) -> datetime | None:
        """EVN-6 says when it happened, but many senders leave it; EVN-2 and ORC-9 when it was entered; MSH-7 when it was sent."""
        for path in ("EVN-2", "ORC-9", "MSH-7"):
            found = moment_of(self._message.get(path), self._defaults.zone)
            if found is not None and found.at is not None:
                return found.at
        self._extract.note("time-missing", "The message says in none of EVN-2, ORC-9 and MSH-7 when it was made: when it came counts.")
        return None

    # Segments

    def _patient_segments(self) -> Iterator[list[Segment]]:
        """Each PID with what follows it, but for orders."""
        open_now: list[Segment] = []
        for segment in self._message.all:
            if segment.name == "PID":
                if open_now:
                    yield open_now
                open_now = [segment]
            elif segment.name in ("ORC", "OBR"):
                break
            elif open_now:
                open_now.append(segment)
        if open_now:
            yield open_now

    def _groups(self) -> list[list[Segment]]:
        """The segments of each order: from an ORC, or an OBR that has none, to the next. What is before the first is of all."""
        before: list[Segment] = []
        groups: list[list[Segment]] = []
        for segment in self._message.all:
            begins = segment.name == "ORC" or (segment.name == "OBR" and (not groups or any(s.name == "OBR" for s in groups[-1])))
            if begins and len(groups) == _MOST_GROUPS:
                self._extract.note(
                    "orders-too-many", f"The message has more than {_MOST_GROUPS} orders: the first {_MOST_GROUPS} are taken."
                )
                break
            if begins:
                groups.append([segment])
            elif groups:
                groups[-1].append(segment)
            else:
                before.append(segment)
        uid = self._message.first("ZDS")  # IHE: one for all orders of the message
        shared = [*before, *([uid] if uid is not None else [])]
        return [[*group, *shared] for group in groups]

    # Things

    def _patient(self, segments: list[Segment]) -> PatientFacts:
        facts: dict[str, Any] = {}
        for target in PATIENT:
            if target != "ids":
                self._extract.put(facts, target, self._places.patient.get(target, ()), segments)
        return PatientFacts(ids=self._ids(segments), facts=facts)

    def _ids(self, segments: Sequence[Segment]) -> tuple[Identifier, ...]:
        found: dict[tuple[str, str], Identifier] = {}
        for path in self._places.patient.get("ids", ()):
            for repetition in repetitions_of(segments, path):
                identifier = identifier_cx(repetition, self._defaults.issuer_of_patient_id)
                if identifier is not None:
                    self._extract.check_length("patient_id", path, identifier)
                    found.setdefault((identifier.value, identifier.issuer or identifier.universal_id), identifier)
            if found:
                break
        return tuple(found.values())

    def _order(self, group: list[Segment], control: str, change: str, status: str) -> OrderFacts | None:
        facts: dict[str, Any] = {}
        for target in ORDER:
            self._extract.put(facts, target, self._places.order.get(target, ()), group)
        placer, filler = facts.pop("placer", None), facts.pop("filler", None)
        accession = facts.get("accession")
        if placer is None and filler is None and accession is None:
            return None
        return OrderFacts(
            control=control,
            change=change,
            status=status,
            placer=placer,
            filler=filler,
            accession=accession,
            facts=facts,
            procedures=self._procedures(group),
        )

    def _procedures(self, group: list[Segment]) -> tuple[ProcedureFacts, ...]:
        """One step for each IPC, or one; those of one requested procedure together."""
        rest = [segment for segment in group if segment.name != "IPC"]
        ipcs = [segment for segment in group if segment.name == "IPC"]
        found: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {}
        for number, ipc in enumerate(ipcs or [None]):
            segments = rest if ipc is None else [ipc, *rest]
            facts: dict[str, Any] = {}
            for target in PROCEDURE:
                self._extract.put(facts, target, self._places.procedure.get(target, ()), segments)
            step: dict[str, Any] = {}
            for target in STEP:
                self._extract.put(step, target, self._places.step.get(target, ()), segments)
            known, steps = found.setdefault(facts.get("procedure_id") or "", ({}, {}))
            known |= facts
            if step:
                steps[step.get("step_id") or (str(number) if number else "")] = step
        return tuple(
            ProcedureFacts(key=key, facts=facts, steps=tuple(StepFacts(key=each, facts=step) for each, step in steps.items()))
            for key, (facts, steps) in found.items()
        )


def _joined(first: OrderFacts, second: OrderFacts) -> OrderFacts:
    """Two groups of one message that are of one order: each is a step of it (IHE RAD TF-2 4.4)."""
    procedures: dict[str, ProcedureFacts] = {each.key: each for each in first.procedures}
    for each in second.procedures:
        known = procedures.get(each.key)
        if known is None:
            procedures[each.key] = each
            continue
        steps = {step.key: step for step in known.steps}
        for step in each.steps:
            key = step.key
            while not step.facts.get("step_id") and key in steps:
                key = str(int(key or 0) + 1)
            steps[key] = StepFacts(key=key, facts=step.facts)
        procedures[each.key] = ProcedureFacts(key=each.key, facts=known.facts | each.facts, steps=tuple(steps.values()))
    return OrderFacts(
        control=first.control,
        change=first.change,
        status=first.status or second.status,
        placer=first.placer,
        filler=first.filler,
        accession=first.accession or second.accession,
        facts=first.facts | second.facts,
        procedures=tuple(procedures.values()),
    )


def _same(first: Identifier, second: Identifier) -> bool:
    return (first.value, first.issuer or first.universal_id) == (second.value, second.issuer or second.universal_id)


def _of_the_same(prior: Identifier, survivors: Sequence[Identifier]) -> Identifier | None:
    """Of several identifiers of who stays, the one of the same issuer and type; else the first. None if there is none."""
    issuer = prior.issuer or prior.universal_id
    of_issuer = [each for each in survivors if (each.issuer or each.universal_id) == issuer]
    of_type = [each for each in of_issuer if each.type == prior.type]
    return next(iter((*of_type, *of_issuer, *survivors)), None)
