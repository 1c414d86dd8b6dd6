"""Messages of one destination on their way, in the order in which they were made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import psycopg

from hilum.database import AWAY, away, connect
from hilum.errors import HilumError
from hilum.notices import Outgoing
from hilum.part10 import Part10
from hilum.sink import Delivery, NotYet, Outage, Park, Session, Settled

#: How soon messages that wait for an older one are looked at again, in seconds.
AGAIN_S = 0.5
#: Messages that were settled here of late.
_REMEMBER = 1000
_MESSAGES = """
    SELECT delivery_id, number, control_id, text, content, bucket, object_key FROM hl7_outgoing
    WHERE delivery_id = ANY(%s) ORDER BY number
"""
_OLDER = """
    SELECT delivery_id FROM hl7_outgoing JOIN delivery USING (delivery_id)
    WHERE hl7_outgoing.destination = %s AND number < %s AND delivery.state = 'pending' AND NOT (delivery_id = ANY(%s)) LIMIT 1
"""

Outcome = Settled | HilumError


class Queued:
    """The messages in the database, on a connection of its own that is opened again after an outage."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection | None = None

    def messages(self, delivery_ids: Sequence[str]) -> list[Outgoing]:
        """These messages, oldest first. Raises `TryAgain`."""
        rows = self._rows(_MESSAGES, (list(delivery_ids),))
        return [Outgoing(**dict(zip(Outgoing.__struct_fields__, row, strict=True))) for row in rows]

    def has_older(self, destination: str, number: int, but: Iterable[str]) -> bool:
        """Whether an older message than the one with that number is pending for the destination, others than `but`. Raises `TryAgain`."""
        return bool(self._rows(_OLDER, (destination, number, list(but))))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rows(self, query: str, values: tuple[object, ...]) -> list[tuple]:  # type: ignore[type-arg]  # rows of two queries
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._dsn, name="hilum hl7 out")
            return self._connection.execute(query.encode(), values).fetchall()
        except AWAY as error:
            self.close()
            raise away(self._dsn, error) from None


class InOrder(Session):
    """Sends what is claimed together in the order of the messages' numbers, whatever the order of the rows.

    So the first `deliver` of a batch sends all of it; the others only say what became of theirs. What comes after one that could
    not be sent waits, and so does a batch that a pending older message is not in. The worker gives back untouched what an outage left
    over, so that it keeps its place.
    """

    def __init__(self, queued: Queued, clock: Callable[[], float] = time.monotonic) -> None:
        self._queued = queued
        self._clock = clock
        self._batch: Sequence[Delivery] = ()
        self._outcomes: dict[str, Outcome] | None = None
        #: What the batch was broken off by.
        self._outage: HilumError | None = None
        #: Settled here, perhaps not yet recorded.
        self._done: dict[str, None] = {}
        #: The message that is rejected at present, and since when.
        self._rejected = ""
        self._rejected_at = 0.0

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """See `Session.begin`."""
        self._batch, self._outcomes, self._outage = deliveries, None, None

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """See `Session.deliver`. Sending again what was taken before is harmless: it has the same id."""
        del part10
        if self._outcomes is None:
            self._outcomes = self._send_all()
        outcome = self._outcomes.pop(delivery.delivery_id, None)
        if outcome is None:
            if self._outage is not None and not self._outcomes:
                raise self._outage
            raise NotYet("It waits for an older message.", after_s=AGAIN_S)
        if isinstance(outcome, Settled):
            return outcome
        raise outcome

    def rest(self) -> None:
        """See `Session.rest`."""
        self._done.clear()

    def close(self) -> None:
        """See `Session.close`."""
        self._queued.close()

    def _send_all(self) -> dict[str, Outcome]:
        """Send the batch; what became of each of it, up to an outage. Raises `TryAgain` while the database is away."""
        found: dict[str, Outcome] = {}
        destination = self._batch[0].destination
        messages = {message.delivery_id: message for message in self._queued.messages([each.delivery_id for each in self._batch])}
        for delivery in self._batch:
            if delivery.delivery_id not in messages:
                found[delivery.delivery_id] = Park("The message is not there any more.", fix="Cancel the delivery.")
        in_order = sorted(messages.values(), key=lambda each: each.number)
        mine = [*messages, *self._done]
        if in_order and self._queued.has_older(destination, in_order[0].number, mine):
            return found
        for message in in_order:
            try:
                outcome = self._send(message)
            except HilumError as outage:
                self._outage = outage  # what was sent is recorded first
                return found
            found[message.delivery_id] = outcome
            self._done[message.delivery_id] = None
            if len(self._done) > _REMEMBER:
                del self._done[next(iter(self._done))]
        return found

    def _send(self, message: Outgoing) -> Outcome:
        """Send one message; what became of it. Raises `Outage` if the destination is away, or nobody knows."""
        raise NotImplementedError

    def _rejected_for_now(self, message: Outgoing, outage: Outage, patience_s: float) -> None:
        """Raise `outage`, unless the message was rejected again and again for so long that it is to be put aside; 0: it never is."""
        if self._rejected != message.delivery_id:
            self._rejected, self._rejected_at = message.delivery_id, self._clock()
        if not patience_s or self._clock() - self._rejected_at < patience_s:
            raise outage
