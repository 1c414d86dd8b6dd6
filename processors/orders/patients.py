"""Patients: who each is, and which of them are one.

A merge is a fact of the patient that is no more: whose it is now, and since when. Who a patient is in the end follows from these facts
alone: one goes from each to the next. Where they go round in a circle, the oldest of its merges does not count, whichever came first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from hilum.hl7.facts import PatientFacts
from hilum.order_events import Identifier, Patient
from hilum.pseudonyms import Pseudonyms
from hilum.runtime.processor import Memory

from .rows import Facts, PatientRow, Row, Stamp, Told, patient_row_key, with_order, without

#: Patients that are followed from one merge to the next; more are a mistake somewhere.
_MOST_MERGED = 1000
_LONGEST_ID = 64
_NOTES = {"allergies": "Allergies", "alerts": "MedicalAlerts", "special_needs": "SpecialNeeds", "comments": "PatientComments"}


class Patients:
    """The patients of one memory. `touched` collects those of whom something changed."""

    def __init__(self, memory: Memory[Row], names: Pseudonyms) -> None:
        self._memory = memory
        self._names = names
        self._rows: dict[str, PatientRow] = {}
        self.touched: dict[str, str] = {}
        #: Patients whose merges go round in a circle.
        self.circles: set[str] = set()

    def key_of(self, identifier: Identifier) -> str:
        """By what a patient is known: the identifier and its issuer."""
        return self._names.of("patient", identifier.issuer or identifier.universal_id, identifier.value)

    def row(self, key: str) -> PatientRow:
        """The row of a patient, an empty one for who is not known."""
        if key not in self._rows:
            found = self._memory.get(patient_row_key(key))
            self._rows[key] = found if isinstance(found, PatientRow) else PatientRow()
        return self._rows[key]

    def rows(self) -> Iterable[tuple[str, PatientRow]]:
        """All rows that were looked at."""
        return self._rows.items()

    # Facts

    def tell(self, patient: PatientFacts, stamp: Stamp) -> tuple[str, Told]:
        """Take over what a message says of a patient; the patient's key."""
        key = self.key_of(patient.ids[0])
        row = self.row(key)
        ahead = self._way(key)[1:]
        was = [self._described_by(each) for each in ahead]
        told = row.facts.tell({"ids": patient.ids} | patient.facts, stamp)
        row.said_ms = max(row.said_ms, stamp.ms)
        if told.changed or [self._described_by(each) for each in ahead] != was:
            self._touch(key, "updated")
        return key, told

    def merge(self, prior: Identifier, surviving: Identifier, stamp: Stamp) -> Told:
        """The patient `prior` is `surviving` from now on."""
        before, now = self._known(prior, stamp), self._known(surviving, stamp)
        told = Told()
        if before == now:
            return told
        # One sender that turns a merge round within the precision of its clock means the later message.
        opposite = self.row(now).facts
        if opposite.get("into") == before and opposite.stamp_of("into") == stamp:
            stamp = Stamp(stamp.ms + 1, stamp.sender)
        were = self.root(before), self.root(now)
        told.add(self._say_into(before, now, stamp))
        # In a circle also a merge that was told before may be the one that counts, said again.
        if told.changed or (self.root(before), self.root(now)) != were:
            self._touch(now, "updated")
            self._touch(before, "merged")
        return told

    def unmerge(self, key: str, stamp: Stamp) -> bool:
        """The patient stands for itself again. Whether that changed something."""
        row = self.row(key)
        known = row.facts.stamp_of("into")
        if row.facts.get("into") is None:
            return False
        assert known is not None
        target = row.facts.get("into")
        self._say_into(key, None, max(stamp, Stamp(known.ms + 1, known.sender)))
        self._touch(key, "unmerged")
        self._touch(target, "updated")
        return True

    def link(self, first: PatientFacts, second: PatientFacts, linked: bool, stamp: Stamp) -> Told:
        """Two records are of one person, or are not after all."""
        one, other = self._known(first.ids[0], stamp), self._known(second.ids[0], stamp)
        told = Told()
        if one == other:
            return told
        for key, target in ((one, other), (other, one)):
            changed = self.row(key).facts.put(f"link/{target}", linked, stamp)
            told.add(changed)
            if changed:
                self._touch(key, "linked" if linked else "unlinked")
        return told

    def add_order(self, key: str, order_id: str) -> None:
        """The patient has this order."""
        self.row(key).orders = with_order(self.row(key).orders, order_id)

    def drop_order(self, key: str, order_id: str) -> None:
        """The patient has this order no more."""
        self.row(key).orders = without(self.row(key).orders, order_id)

    # Who is who

    def root(self, key: str) -> str:
        """Who a patient is in the end, following all merges."""
        way = self._way(key)
        target = self.row(way[-1]).facts.get("into")
        if target not in way:
            return way[-1]
        circle = way[way.index(target) :]
        self.circles.update(circle)
        return min(circle, key=lambda each: (self._since(each), each))

    def members(self, key: str) -> list[str]:
        """Everybody whom a merge leads to this one, this one first."""
        found = {key: None}
        waiting = [key]
        while waiting and len(found) < _MOST_MERGED:
            for member in self.row(waiting.pop()).members:
                if member not in found:
                    found[member] = None
                    waiting.append(member)
        return list(found)

    def patient(self, key: str) -> Patient:
        """Who a patient is by now, with the identifiers of all who were merged into it."""
        row = self.row(key)
        facts = self.row(self._described_by(key)).facts
        ids = self._ids(row.facts)
        own = {(each.value, each.issuer or each.universal_id) for each in ids}
        former = [each for member in self.members(key)[1:] for each in self._ids(self.row(member).facts)]
        linked = [
            each
            for name, value in row.facts.values.items()
            if value and name.startswith("link/")
            for each in self._ids(self.row(name.removeprefix("link/")).facts)
        ]
        return Patient(
            key=key,
            ids=tuple(each for each in ids if len(each.value) <= _LONGEST_ID),
            name=facts.get("name") or "",
            birth_date=facts.get("birth_date") or "",
            sex=facts.get("sex") or "",
            notes={keyword: facts.get(name) for name, keyword in _NOTES.items() if facts.get(name)},
            weight_kg=facts.get("weight_kg") or "",
            size_m=facts.get("size_m") or "",
            former_ids=tuple(each for each in dict.fromkeys(former) if (each.value, each.issuer or each.universal_id) not in own),
            linked_ids=tuple(dict.fromkeys(linked)),
        )

    def _described_by(self, key: str) -> str:
        """Whose name, birth date and so on a patient has: its own, or where only merges told of it, of the last who was named."""
        if self.row(key).facts.get("name"):
            return key
        named = [
            (stamp, each)
            for each in self.members(key)
            if self.row(each).facts.get("name") and (stamp := self.row(each).facts.stamp_of("name")) is not None
        ]
        return max(named)[1] if named else key

    def orders_of(self, key: str) -> Iterator[str]:
        """The orders of a patient and of all who were merged into it."""
        for member in self.members(key):
            yield from self.row(member).orders

    def _known(self, identifier: Identifier, stamp: Stamp) -> str:
        key = self.key_of(identifier)
        row = self.row(key)
        if row.facts.get("ids") is None:
            row.facts.put("ids", (identifier,), Stamp(0))
            row.said_ms = max(row.said_ms, stamp.ms)
        return key

    def _say_into(self, key: str, target: str | None, stamp: Stamp) -> bool | None:
        row = self.row(key)
        former = row.facts.get("into")
        changed = row.facts.put("into", target, stamp)
        if changed:
            if former is not None:
                self.row(former).members = without(self.row(former).members, key)
                self._touch(former, "updated")
            if target is not None:
                self.row(target).members = with_order(self.row(target).members, key)
        return changed

    def _way(self, key: str) -> list[str]:
        """From a patient on, whom each was merged into; it ends with who was merged into nobody, or before it goes round in a circle."""
        way = [key]
        while (target := self.row(way[-1]).facts.get("into")) is not None and target not in way and len(way) <= _MOST_MERGED:
            way.append(target)
        return way

    def _since(self, key: str) -> Stamp:
        return self.row(key).facts.stamp_of("into") or Stamp(0)

    def _touch(self, key: str, change: str) -> None:
        """Something about this patient changed, and so about all whom merges connect with it."""
        self.touched[key] = change
        for each in (*self._way(key), self.root(key), *self.members(key)):
            self.touched.setdefault(each, "updated")

    @staticmethod
    def _ids(facts: Facts) -> list[Identifier]:
        found: Any = facts.get("ids") or []
        return [msgspec.convert(each, Identifier) for each in found]
