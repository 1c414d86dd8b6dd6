"""What the stage remembers: rows of orders and patients, made of facts of which each knows when it was said.

A fact gives way only to one that was said later by its sender's clock; so the rows are the same in whatever order the messages of
several senders come. Of facts that one sender said at the same time, the one that came last holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct, field


class Stamp(NamedTuple):
    """When something was said, in milliseconds since 1970, and by whom."""

    ms: int
    sender: str = ""


class Facts(Struct, array_like=True):
    """Values by name, with the stamp of each. A value None was deleted, or never said."""

    values: dict[str, Any] = field(default_factory=dict)
    #: The stamp of all that are not in `others`.
    stamp: Stamp = Stamp(0)
    others: dict[str, Stamp] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """The value, None if there is none."""
        return self.values.get(name)

    def stamp_of(self, name: str) -> Stamp | None:
        """When the value was said; None if it never was."""
        if name not in self.values:
            return None
        return self.others.get(name, self.stamp)

    def put(self, name: str, value: Any, stamp: Stamp) -> bool | None:
        """Take a value over. Whether it changed; None if a later one is here."""
        known = self.stamp_of(name)
        if known is not None and stamp < known:
            return None
        value = msgspec.to_builtins(value)
        if isinstance(value, tuple):  # as it comes back from Kafka
            value = list(value)
        changed: bool = self.values.get(name) != value
        if not self.values:
            self.stamp = stamp
        self.values[name] = value
        if stamp == self.stamp:
            self.others.pop(name, None)
        else:
            self.others[name] = stamp
        return changed

    def tell(self, facts: Mapping[str, Any], stamp: Stamp) -> Told:
        """Take over what is not older than what is here."""
        told = Told()
        for name, value in facts.items():
            told.add(self.put(name, value, stamp))
        return told

    def absorb(self, other: Facts) -> Told:
        """Take over what another row of the same thing knows."""
        told = Told()
        for name, value in other.values.items():
            stamp = other.stamp_of(name)
            assert stamp is not None
            told.add(self.put(name, value, stamp))
        return told


class Told(Struct):
    """What became of facts: how many there were, were too old, and changed something."""

    said: int = 0
    stale: int = 0
    changed: int = 0

    def add(self, changed: bool | None) -> None:
        """Count one fact."""
        self.said += 1
        self.stale += changed is None
        self.changed += changed is True

    def __iadd__(self, other: Told) -> Told:  # it changes itself
        self.said += other.said
        self.stale += other.stale
        self.changed += other.changed
        return self


class ProcedureRow(Struct, omit_defaults=True):
    """A requested procedure of an order."""

    facts: Facts = field(default_factory=Facts)
    #: By the step's own id; empty for the only one without.
    steps: dict[str, Facts] = field(default_factory=dict)
    #: StudyInstanceUIDs that were offered before.
    former: tuple[str, ...] = ()
    #: The id that it had when a StudyInstanceUID was made for it, if it got another one since: the UID stays.
    made_as: str | None = None


class OrderRow(Struct, kw_only=True, tag_field="t", tag="o", omit_defaults=True):
    """An order. Its patient is the fact `patient`, a patient's key; placer, filler and accession are facts, too."""

    version: int = 0
    facts: Facts = field(default_factory=Facts)
    procedures: dict[str, ProcedureRow] = field(default_factory=dict)
    #: When the newest of its facts was said, in milliseconds.
    said_ms: int = 0
    #: The order that it turned out to be.
    superseded_by: str = ""


class PatientRow(Struct, kw_only=True, tag_field="t", tag="p", omit_defaults=True):
    """A patient. Facts are `ids`, what PID says, `into` (who it was merged into) and `link/KEY`."""

    version: int = 0
    facts: Facts = field(default_factory=Facts)
    #: Patients whose `into` is this one.
    members: tuple[str, ...] = ()
    #: Orders that name it.
    orders: tuple[str, ...] = ()
    said_ms: int = 0


class NameRow(Struct, kw_only=True, tag_field="t", tag="n", omit_defaults=True):
    """Which orders have a number, or an admission: one, but where numbers are used twice."""

    orders: tuple[str, ...] = ()


class Performed(Struct, frozen=True, kw_only=True, array_like=True):
    """A performed procedure step: how far it is, and of which scheduled steps it is; an empty id is of one that nobody scheduled."""

    revision: int
    state: str
    #: When that was said, in milliseconds since 1970, by the receiver's clock.
    at_ms: int
    step_ids: tuple[str, ...]
    wrong_entry: bool = False


class PerformedRow(Struct, kw_only=True, tag_field="t", tag="m", omit_defaults=True):
    """What modalities perform of one study, by the SOPInstanceUID of the performed step."""

    steps: dict[str, Performed] = field(default_factory=dict)


Row: TypeAlias = OrderRow | PatientRow | NameRow | PerformedRow

#: So many orders of one patient or number are remembered together; of test patients there may be any number.
MOST_ORDERS = 500


def order_key(order_id: str) -> str:
    """The key of an order's row."""
    return f"o/{order_id}"


def patient_row_key(patient_key: str) -> str:
    """The key of a patient's row."""
    return f"p/{patient_key}"


def name_key(name: str) -> str:
    """The key of the row of a number, which is given as its pseudonym."""
    return f"n/{name}"


def performed_key(study_instance_uid: str) -> str:
    """The key of what is performed of a study."""
    return f"m/{study_instance_uid}"


def with_order(orders: tuple[str, ...], order_id: str) -> tuple[str, ...]:
    """`orders` with one more, the latest last."""
    return orders if order_id in orders else (*orders, order_id)[-MOST_ORDERS:]


def without(values: tuple[str, ...], value: str) -> tuple[str, ...]:
    """`values` without one."""
    return tuple(each for each in values if each != value)
