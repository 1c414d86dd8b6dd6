"""What a processor is: plain functions of events, state and time; it knows no Kafka.

A stateless processor is one function, and its signature is its wiring::

    @processor
    def validate(event: InstanceReceived) -> InstanceAccepted: ...

A stateful one is a class with `State`, `handle` and, if time matters to it, `due`; it is made with what it needs::

    class Route:
        State = Seen
        def handle(self, event: InstanceAccepted, memory: Memory[Seen]) -> Iterable[InstanceRouted]: ...
        def due(self, key: str, memory: Memory[Seen], now: datetime) -> Iterable[InstanceRouted]: ...
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, TypeVar

S = TypeVar("S")


class Memory(Protocol[S]):
    """What a stateful processor remembers, for the partition of the event at hand.

    Rows are values: `get` gives a fresh copy each time, and what a handler changed counts only once it has returned
    (if it raises, nothing was changed).
    """

    def get(self, key: str) -> S | None:
        """The row of `key`, None if there is none."""
        ...

    def put(self, key: str, row: S, *, due: datetime | None = None) -> None:
        """Remember `row`; with `due`, have the processor's `due` called for `key` once that time has come."""
        ...

    def forget(self, key: str) -> None:
        """Drop the row of `key` and its timer."""
        ...
