"""What a stateful processor remembers: rows of one partition, changed by transactions.

A row is held as the bytes that are in the changelog topic, and decoded on each `get`: a handler that changes what it got and
then raises has changed nothing. The changelog's key is the row's key, its value

    {"v": 1, "due": 1709208000000, "row": {…}}

with `due` in milliseconds since 1970, absent without a timer; a deleted row is a message without value. `v` grows only when an
older release could not read the rest. Within a version rows may gain members that have a default.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from msgspec import Struct

from hilum.errors import Stopped

VERSION = 1


class _Head(Struct):
    """What of a row is of interest without its content."""

    v: int
    due: int | None = None


_heads = msgspec.json.Decoder(_Head)


class Codec:
    """Encodes and decodes rows of one class, or of a union of classes with tags."""

    def __init__(self, state: Any) -> None:
        row = msgspec.defstruct("Row", [("row", state), ("v", int), ("due", int | None, None)], omit_defaults=True)
        self._row: Any = row
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(row)
        self._encoder = msgspec.json.Encoder()

    def encode(self, row: Struct, due_ms: int | None) -> bytes:
        """The row as it is kept."""
        return self._encoder.encode(self._row(row, VERSION, due_ms))

    def decode(self, value: bytes) -> Any:
        """A fresh copy of the row."""
        return self._decoder.decode(value).row


class PartitionState:
    """The committed rows and timers of one partition. Times are in milliseconds since 1970."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.rows: dict[str, bytes] = {}
        #: The changelog's offset up to which `rows` are known to be complete.
        self.position = 0
        self._dues: dict[str, int] = {}
        self._timers: list[tuple[int, str]] = []

    def apply(self, key: str, value: bytes | None) -> None:
        """Take over what the changelog says of `key`. Raises `Stopped` if a newer release wrote it in a way unknown here."""
        if value is None:
            self.rows.pop(key, None)
            self._dues.pop(key, None)
            return
        head = _heads.decode(value)
        if head.v > VERSION:
            raise Stopped(
                f"The state of partition {self.partition} was written by a newer Hilum: its rows are of version {head.v}, not {VERSION}.",
                fix="Run the newer release here too.",
            )
        self.rows[key] = value
        if head.due is None:
            self._dues.pop(key, None)
        elif self._dues.get(key) != head.due:
            self._dues[key] = head.due
            heapq.heappush(self._timers, (head.due, key))

    def next_due(self) -> int | None:
        """When the next timer is due."""
        while self._timers and self._dues.get(self._timers[0][1]) != self._timers[0][0]:
            heapq.heappop(self._timers)  # moved or dropped since
        return self._timers[0][0] if self._timers else None

    def due(self, now: int, limit: int) -> list[tuple[int, str]]:
        """At most `limit` timers that are due, earliest first. They stay until a commit has changed or dropped their rows."""
        found: list[tuple[int, str]] = []
        while len(found) < limit and (due := self.next_due()) is not None and due <= now:
            timer = heapq.heappop(self._timers)
            if not found or found[-1] != timer:
                found.append(timer)
        for timer in found:
            heapq.heappush(self._timers, timer)
        return found


class Changes:
    """A `Memory`: changes to one partition's rows that count once they are committed, and within them those of one event."""

    def __init__(self, state: PartitionState, codec: Codec) -> None:
        self._state = state
        self._codec = codec
        self._kept: dict[str, bytes | None] = {}
        self._open: dict[str, bytes | None] = {}

    def keep(self) -> None:
        """What the event at hand changed is to be committed."""
        if self._open:
            self._kept |= self._open
            self._open = {}

    def undo(self) -> None:
        """What the event at hand changed is void."""
        self._open = {}

    def items(self) -> Iterable[tuple[str, bytes | None]]:
        """What is to be committed: for each key its last value, None if it was dropped."""
        return self._kept.items()

    def commit(self) -> None:
        """The changes are in the changelog: they are the state now."""
        for key, value in self._kept.items():
            self._state.apply(key, value)
        self._kept = {}

    def due_of(self, key: str) -> int | None:
        """When `key` is due as of now, in milliseconds; None if it has no row or no timer."""
        value = self._value(key)
        return None if value is None else _heads.decode(value).due

    def _value(self, key: str) -> bytes | None:
        for changes in (self._open, self._kept):
            if key in changes:
                return changes[key]
        return self._state.rows.get(key)

    # hilum.runtime.processor.Memory

    def get(self, key: str) -> Any:
        """A fresh copy of the row of `key`, None if there is none."""
        value = self._value(key)
        return None if value is None else self._codec.decode(value)

    def put(self, key: str, row: Any, *, due: datetime | None = None) -> None:
        """Remember `row` as it is now; later changes to the object do not count."""
        self._open[key] = self._codec.encode(cast("Struct", row), None if due is None else milliseconds(due))

    def forget(self, key: str) -> None:
        """Drop the row of `key` and its timer."""
        self._open[key] = None


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware moment."""
    if moment.tzinfo is None:
        raise TypeError("a time without its zone cannot be compared with another")
    return int(moment.timestamp() * 1000)


def moment(milliseconds: int) -> datetime:
    """The moment in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
