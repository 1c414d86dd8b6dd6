"""What an event is: a fact, on one topic, in one order, about one thing. `hilum.events` has them all."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import Struct

Phi = Literal["full", "limited", "none"]
#: `full`: may identify a patient; `limited`: internal identifiers such as UIDs; `none`: neither.

DAY_MS = 24 * 3600 * 1000


class Topic(Struct, frozen=True, kw_only=True):
    """How a topic is made: everything that `hilum provision` needs to know of it."""

    name: str
    phi: Phi
    #: 0 stands for the site's `kafka.partitions`; topics that are joined must agree.
    partitions: int = 0
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = 30 * DAY_MS


EVENTS: dict[str, type[Event]] = {}
#: Every event class by its type (which is also its topic's name), filled as the classes are made.


class Event(Struct, frozen=True, kw_only=True):
    """A fact. Subclasses say on which topic (`topic`), in which order (`key`) and of what (`subject`)."""

    topic: ClassVar[Topic]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "topic" in cls.__dict__:
            EVENTS[cls.topic.name] = cls

    @property
    def key(self) -> str:
        """The Kafka key: facts with one key are read in the order in which they were written."""
        raise TypeError(f"{type(self).__name__} says no key")

    @property
    def subject(self) -> str:
        """CloudEvents `subject`: the thing that the fact is about, by UID or id."""
        raise TypeError(f"{type(self).__name__} says no subject")
