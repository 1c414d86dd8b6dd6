"""What may be told to a destination that takes messages instead of objects, and what such a destination owes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from hilum.errors import Misconfigured
from hilum.hl7_events import MessageReceived
from hilum.procedure_events import PerformedOf, ProcedureStepChanged
from hilum.settings import Settings
from hilum.sink import sink_class, types


class Notice(Struct, frozen=True, kw_only=True):
    """Something that happened, on its way to become a message."""

    #: One of `hilum.hl7.outgoing.Kind`, or `mpps`.
    kind: str
    study_instance_uid: str = ""
    #: The control id that the message gets: the same whenever it is made.
    control_id: str
    #: What is known besides the study's own attributes, by the names of `hilum.hl7.outgoing.FACTS`.
    facts: Mapping[str, str] = {}
    #: The message that is passed on, if it is one.
    message: MessageReceived | None = None
    #: The step that a modality said something of, if it is to be said to others as it was.
    step: ProcedureStepChanged | None = None
    #: What is performed, if it is about a step.
    performs: PerformedOf | None = None


class Composed(Struct, frozen=True, kw_only=True):
    """A message that is to go out."""

    #: The message for people. What goes out, in the destination's character set, if neither `content` nor `object_key` says otherwise.
    text: str
    #: What goes out, byte for byte.
    content: bytes | None = None
    #: Where in the object store the bytes are that go out.
    bucket: str = ""
    object_key: str = ""


@runtime_checkable
class Notified(Protocol):
    """A sink that is told of what happens."""

    def wants(self, notice: Notice) -> bool:
        """Whether it is to be told of this."""
        ...

    def compose(self, notice: Notice, study: Mapping[str, str]) -> Composed | None:
        """The message; `study` has the attributes of its study, each empty if nobody knows. None if it cannot be passed on."""
        ...


def refuse_rules(name: str, settings: Settings) -> None:
    """Raise `Misconfigured` if objects are to go to the destination `name`, which takes messages only: by a rule, or in a group.

    Nor has a message an order that it could wait for.
    """
    fix = "Take it out; the destination's own settings say what it is told of."
    if settings.destinations.get(name, {}).get("require_order", "ignore") != "ignore":
        says = f"destinations.{name}.require_order is set, and {name!r} takes messages only."
        raise Misconfigured("destination-takes-messages", says, fix="Take it out; orders are asked for where objects go.")
    if settings.destinations.get(name, {}).get("character_sets"):
        says = f"destinations.{name}.character_sets is set, and {name!r} takes messages only."
        raise Misconfigured("destination-takes-messages", says, fix="Take it out; it is about objects.")
    for rule in settings.rules:
        if name in rule.to:
            says = f"Rule {rule.name!r} sends objects to {name!r}, which takes messages only."
            raise Misconfigured("destination-takes-messages", says, fix=fix)
    for group, table in settings.destinations.items():
        if table.get("type") == "group" and name in (table.get("members") or ()):
            says = f"destinations.{group} has the member {name!r}, which takes messages only."
            raise Misconfigured("destination-takes-messages", says, fix=fix)


def message_destinations(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of those that are told of what happens, and are sent no objects, whether or not they are configured as they should be."""
    kinds = {name: table.get("type") for name, table in tables.items()}
    return [name for name, kind in kinds.items() if isinstance(kind, str) and kind in types() and issubclass(sink_class(kind), Notified)]


class Outgoing(Struct, frozen=True, kw_only=True):
    """A message that waits in the ledger."""

    delivery_id: str
    #: Its place among all of its destination.
    number: int
    control_id: str
    #: As in `Composed`; empty if it cannot be passed on.
    text: str
    content: bytes | None = None
    bucket: str = ""
    object_key: str = ""
