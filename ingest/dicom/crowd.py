"""Connections that ask for nothing: which one gives way to a newcomer when there are too many, and who is told of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from hilum.words import counted

#: Closed connections are told of for so long, and logged once in that time.
WINDOW_S = 60.0


class Waiting(Protocol):
    """A connection, as far as it matters here."""

    @property
    def peer(self) -> str:
        """Network address of the peer."""
        ...

    @property
    def requested(self) -> bool:
        """Whether it has asked for an association."""
        ...


W = TypeVar("W", bound=Waiting)


def one_to_give_way(connections: Iterable[W], newcomer: str, limit: int) -> W | None:
    """Which of `connections`, oldest first, gives way to one more from the address `newcomer`; None if all stay.

    Only those that have not asked for an association yet may be chosen: the oldest of all once there are `limit` connections or more,
    and the oldest of the newcomer's address once half of `limit` are such of that address, so that one host takes no more.
    """
    everyone = list(connections)
    silent = [connection for connection in everyone if not connection.requested]
    own = [connection for connection in silent if connection.peer == newcomer]
    if own and len(own) >= limit // 2:
        return own[0]
    return silent[0] if silent and len(everyone) >= limit else None


class Crowd:
    """Counts connections that were closed for want of room; for many threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` tells seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._closed: Counter[str] = Counter()
        self._began_at = clock()

    def closed(self, peer: str) -> bool:
        """Count a connection from the address `peer` that was closed; whether it is the first for a while, and to be logged."""
        with self._lock:
            if self._clock() - self._began_at >= WINDOW_S:
                self._closed.clear()
            if first := not self._closed:
                self._began_at = self._clock()
            self._closed[peer] += 1
            return first

    def says(self) -> str:
        """A sentence for people about the last minute, empty if there was room for all."""
        with self._lock:
            if not self._closed or self._clock() - self._began_at >= WINDOW_S:
                return ""
            [(peer, most)] = self._closed.most_common(1)
            total = self._closed.total()
        closed = counted(total, "connection")
        return f"Within a minute {closed} without a request for an association had to make room, {most} of them from {peer}."
