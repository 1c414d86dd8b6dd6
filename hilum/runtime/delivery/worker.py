"""One worker: claims what is due for its destination, delivers it, and records what became of it."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

from hilum import telemetry
from hilum.anonymizing import NotAnonymized
from hilum.database import AWAY
from hilum.database.let_out import Door
from hilum.desired import Desired
from hilum.edited import NotEditable, part10_of, remarked
from hilum.errors import HilumError, TryAgain
from hilum.loosened import LetsOut
from hilum.making import Attempt
from hilum.notices import Notified
from hilum.part10 import Missing, Part10, Unsound
from hilum.runtime.delivery.breaker import Breaker
from hilum.runtime.delivery.cleans import Cleans, as_made, cleans_of, door_of, refuse_uncleaned, waiting, with_what_left
from hilum.runtime.delivery.coercions import Coercions
from hilum.runtime.delivery.failing import Failing
from hilum.runtime.delivery.identified import refuse_identified
from hilum.runtime.delivery.near import near_by
from hilum.runtime.delivery.orders import Orders
from hilum.runtime.delivery.outcomes import REPLACES, Outcome, Parked, PutOff
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.suspects import STRIKES, Suspects
from hilum.settings import Settings
from hilum.sink import URGENT, Delivery, Later, Park, Session, Settled, Sink, Waits
from hilum.storage.gone import why_gone
from hilum.store import ObjectStore

#: An outcome is recorded after at most so long, together with those that came meanwhile.
RECORD_AFTER_S = 0.15
#: Objects that are read while the one before them is on its way.
READ_AHEAD = 3
#: A worker that waits for nothing in particular looks again after so long.
POLL_S = 1.0
#: No more is claimed than so many seconds of work, so that what is more urgent does not wait for what is in a worker's hands.
AHEAD_S = 2.0
#: What was claimed so often by workers that were never heard of again is tried alone, and after so often put aside: it may be what
#: ended them.
ALONE_AFTER, PARKED_AFTER = 2, 5
#: What failed so often in a way nobody foresaw is put aside.
UNFORESEEN_ATTEMPTS = 5
#: What is under way for so long is told of, and again after each step.
QUIET_S, QUIET_STEP_S = 10.0, 5
_FIRST_RETRY_S = 1.0

log = telemetry.logger("deliver")


class Shared:
    """What the workers of one destination share, and what others may know of them."""

    def __init__(self, name: str, sink: Sink, orders: Orders | None = None, failing: Failing | None = None) -> None:
        """`failing` is why the workers before these could not go on."""
        self.name = name
        self.sink = sink
        self.failing = failing or Failing()
        self.breaker = Breaker()
        self.suspects = Suspects()
        #: Set when there may be something to do.
        self.wake = threading.Event()
        #: Claimed ids by worker, for the keeper of leases.
        self.claimed: dict[str, frozenset[str]] = {}
        #: What each worker has under way.
        self.under_way: dict[str, Attempt] = {}
        self.database_away = False
        #: What holds now; replaced as a whole.
        self.orders = orders or Orders.of(name, sink, Desired())

    def says(self) -> str:
        """Why nothing, or only what is urgent, is delivered now, in words; empty if all is."""
        return "paused" if self.orders.paused else self.away() or self.orders.closed()

    def away(self) -> str:
        """Why the destination cannot be used now, or that it keeps a worker waiting; empty if it can, and does not."""
        if self.failing.says:
            return self.failing.says
        if self.breaker.says:
            return self.breaker.says
        longest_s = max((each.silent_s() for each in list(self.under_way.values())), default=0.0)
        if longest_s < QUIET_S:
            return ""
        return f"{self.name} has given no answer for {int(longest_s // QUIET_STEP_S * QUIET_STEP_S)} s to what is under way."


class Worker:
    """Delivers for one destination in one thread, over connections of its own."""

    def __init__(self, shared: Shared, queue: Queue, store: ObjectStore, settings: Settings, settled: threading.Event) -> None:
        """`settled` is set whenever there is something new in the outbox."""
        self._shared = shared
        sink = self._sink = shared.sink
        self._queue = queue
        self._store = store
        self._settings = settings
        self._settled = settled
        #: Whether what could not be delivered must be the next again: messages are in order.
        self._in_order = isinstance(shared.sink, Notified)
        self._coercions = Coercions.of_settings(settings, warns=sink.require_order == "warn", character_sets=sink.character_sets)
        self._outcomes: list[tuple[Delivery, Outcome]] = []
        self._first_outcome_at = 0.0
        self._cleans: Cleans | None = None
        self._door, self._goes_on = Door(LetsOut()), False
        #: How long an object took of late, in seconds; 0: not known yet.
        self._object_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Raises `Misconfigured` if the sink cannot work with its settings."""
        self._cleans = cleans_of(self._shared.name, self._sink, self._settings)
        self._door = door_of(self._shared.name, self._sink, self._cleans, self._settings)
        session = self._sink.open(self._settings)
        seat: int | None = None
        with ThreadPoolExecutor(2, thread_name_prefix=f"{self._shared.name} reads") as reads:
            try:
                while not stop.is_set():
                    batch = self._batch(session, stop)
                    if self._queue.sits != seat and seat is not None:  # somebody else may have the seat for which it was opened
                        session.close()
                        session = self._sink.open(self._settings)
                    seat = self._queue.sits
                    if batch:
                        self._work(batch, session, reads, stop)
            finally:
                session.close()
                self._queue.close()

    def _batch(self, session: Session, stop: threading.Event) -> list[Delivery]:
        """What to deliver next; nothing, after a short wait, if there is nothing or it may not be delivered now."""
        shared, orders = self._shared, self._shared.orders
        if self._cleans is not None:
            self._cleans.renew()
        pause = POLL_S if orders.paused else shared.breaker.wait_s()
        if pause and self._goes_on:  # else it is still to be told whether it can
            session.rest()
            stop.wait(min(pause, POLL_S))
            return []
        shared.wake.clear()
        limit = 1 if shared.breaker.tried else self._limit(orders)
        try:
            self._queue.check_may_leave(self._door, self._cleans.key_id if self._cleans else "", self._settings.deid)
            if not self._goes_on:
                self._goes_on = True
                shared.failing.ended(shared.name)
            may_begin = (
                not pause
                and (not orders.max_associations or self._queue.seat(orders.max_associations) is not None)
                and not (orders.limited and self._paced(session, stop))
            )
            batch = self._claim(limit, URGENT if orders.closed() else -(2**31), orders) if may_begin else []
            suspects = [each for each in batch if each.abandoned >= ALONE_AFTER]
            if suspects and len(batch) > 1:
                chosen = [each for each in batch if each.abandoned < ALONE_AFTER] or suspects[:1]
                self._queue.release([each for each in batch if each not in chosen])
                batch = chosen
            batch = self._queue.with_orders(self._coercions, batch) if batch else batch
            if batch and self._cleans is not None:
                batch = self._cleans.of(batch, self._queue)
                self._queue.about_to_leave(batch)
            if batch and orders.limited:
                self._wait_for_turn(self._queue.book(sum(orders.cost_s(each.object.size_bytes) for each in batch)), batch, stop)
        except (*AWAY, TryAgain):
            self._database_away(stop)
            return []
        shared.database_away = False
        if not batch:
            session.rest()
            shared.wake.wait(POLL_S)
        elif len(batch) == limit:
            shared.wake.set()  # for another worker of this destination
        return batch

    def _claim(self, limit: int, least: int, orders: Orders) -> list[Delivery]:
        """What is due and not of a study that rests. After an outage, one object of another study than those that were not taken."""
        suspects, policy = self._shared.suspects, self._sink.policy
        if not self._shared.breaker.tried:
            return self._queue.claim(limit, least_priority=least, held=orders.held | suspects.resting(), policy=policy)
        for avoided in suspects.avoided():
            if batch := self._queue.claim(limit, least_priority=least, held=orders.held | avoided, policy=policy):
                suspects.tries(batch[0].study_instance_uid)
                return batch
        return []

    def _limit(self, orders: Orders) -> int:
        most = max(1, int(AHEAD_S / self._object_s)) if self._object_s else self._sink.batch
        return orders.batch(min(most, self._sink.batch))

    def _paced(self, session: Session, stop: threading.Event) -> bool:
        """Wait a while for the destination's rate to allow more. Whether it does not yet."""
        wait_s = self._queue.wait_s()
        if wait_s > 0:
            session.rest()
            stop.wait(min(wait_s, POLL_S))
        return wait_s > POLL_S

    def _wait_for_turn(self, wait_s: float, batch: Sequence[Delivery], stop: threading.Event) -> None:
        self._shared.claimed[self._queue.worker] = frozenset(each.delivery_id for each in batch)  # their leases are kept meanwhile
        stop.wait(wait_s)

    def _work(self, batch: Sequence[Delivery], session: Session, reads: Executor, stop: threading.Event) -> None:
        self._shared.claimed[self._queue.worker] = frozenset(each.delivery_id for each in batch)
        try:
            self._deliver(batch, session, reads, stop)
        finally:
            self._shared.claimed.pop(self._queue.worker, None)

    def _deliver(self, batch: Sequence[Delivery], session: Session, reads: Executor, stop: threading.Event) -> None:
        left, began, allowed_s = list(batch), time.monotonic(), 0.0
        suspects, again = self._shared.suspects, self._shared.breaker.tried
        tried: Delivery | None = None
        try:
            session.begin(batch)
            for delivery, part10 in self._read_ahead(batch, reads):
                orders = self._shared.orders
                if orders.limited:
                    stop.wait(max(0.0, began + allowed_s - time.monotonic()))
                    allowed_s += orders.cost_s(delivery.object.size_bytes)
                if stop.is_set() or orders.paused:
                    break
                uid = delivery.origin.study_instance_uid
                if uid in orders.held or (suspects.rests(uid) and not again):
                    continue
                tried, tried_at = delivery, time.monotonic()
                outcome = self._timed_attempt(session, delivery, part10)
                left.remove(delivery)
                tried = None
                at_fault = self._note(delivery, outcome, time.monotonic() - tried_at)
                if time.monotonic() - self._first_outcome_at >= RECORD_AFTER_S:
                    self._record(stop)
                if at_fault and isinstance(outcome, PutOff):
                    raise TryAgain(f"Nothing was taken of {STRIKES} studies in a row; the last: {outcome.comment}")
        except HilumError as error:  # the destination, the store, or a setting that only a person can change: the queue waits
            if self._shared.breaker.outage(error):
                log.warning("destination_away", destination=self._shared.name, says=str(error))
        self._record(stop)
        self._release(left, tried)

    def _read_ahead(self, batch: Sequence[Delivery], reads: Executor) -> Iterator[tuple[Delivery, Part10]]:
        coming: deque[tuple[Delivery, Part10]] = deque()
        for delivery in batch:
            part10 = part10_of(self._store, delivery, partial(near_by, self._settings.spool_dir, delivery.origin))
            if self._sink.reads:
                part10.read_ahead(reads)
            coming.append((delivery, part10))
            if len(coming) > READ_AHEAD:
                yield coming.popleft()
        while coming:
            yield coming.popleft()

    def _timed_attempt(self, session: Session, delivery: Delivery, part10: Part10) -> Outcome:
        began, attempt = time.monotonic(), Attempt()
        self._shared.under_way[self._queue.worker] = attempt
        try:
            outcome = attempt.during(self._attempt, session, delivery, part10)  # how long an outage takes says nothing about objects
        finally:
            self._shared.under_way.pop(self._queue.worker, None)
        took = time.monotonic() - began
        self._object_s = 0.8 * self._object_s + 0.2 * took if self._object_s else took
        return outcome

    def _attempt(self, session: Session, delivery: Delivery, part10: Part10) -> Outcome:
        """Deliver one object. Raises `HilumError` if the destination as a whole cannot be used now."""
        refuse_uncleaned(self._sink, delivery)
        if delivery.abandoned >= PARKED_AFTER:
            sentence = f"{delivery.abandoned} workers took it and were never heard of again: it may be what ended them."
            return Parked(attempts=0, comment=f"{sentence} Look at the logs of these processes, then retry it.")
        if delivery.replaces and self._sink.asks_before_replacing(self._settings):
            return Parked(attempts=0, comment=REPLACES)
        try:
            if not (awaits := session.awaits(delivery)):  # what the peer has, and has yet to commit to, leaves no more
                refuse_identified(delivery, part10, self._store, self._queue, self._settings)
            made = delivery if awaits else as_made(delivery, part10)
            return with_what_left(remarked(session.deliver(made, part10), delivery, part10), delivery, self._queue.noted)
        except Park as park:
            return Parked(peer_status=park.peer_status, comment=str(park), peer_comment=park.peer_comment)
        except Waits as waits:
            return waiting(waits, delivery)
        except Later as later:
            return self._put_off(delivery, later.sentence, self._sink.max_attempts, later.peer_status, later.peer_comment)
        except (NotEditable, NotAnonymized) as error:
            return Parked(held=True, comment=str(error))
        except Missing as missing:
            if not (expired := why_gone(self._settings.postgres.dsn, delivery.object)):
                return self._unsound(delivery, missing)
            return Settled(state="rejected", comment=f"{expired} Have the object sent to Hilum again.")
        except Unsound as unsound:
            return self._unsound(delivery, unsound)
        except HilumError:
            raise
        except Exception as error:
            failed = telemetry.described(error)
            log.error("delivery_failed", destination=delivery.destination, instance=delivery.origin.sop_instance_uid, error=failed)
            sentence = f"The delivery failed in a way nobody foresaw ({type(error).__name__})."
            return self._put_off(delivery, sentence, min(UNFORESEEN_ATTEMPTS, self._sink.max_attempts))

    def _unsound(self, delivery: Delivery, unsound: Unsound) -> Settled:
        """What the store does not have as it was received is not sent."""
        log.error("object_unsound", destination=delivery.destination, instance=delivery.origin.sop_instance_uid, says=str(unsound))
        return Settled(state="rejected", comment=str(unsound))

    def _put_off(
        self, delivery: Delivery, sentence: str, max_attempts: int, peer_status: str = "", peer_comment: str = ""
    ) -> PutOff | Parked:
        if delivery.attempts + 1 >= max_attempts:
            given_up = f"Given up after {delivery.attempts + 1} attempts: {sentence}"
            return Parked(peer_status=peer_status, comment=given_up, peer_comment=peer_comment)
        pause = min(self._sink.retry_max_s, _FIRST_RETRY_S * 2 ** min(delivery.attempts, 30))
        after_s = pause * random.uniform(0.75, 1.0)  # noqa: S311  # only spreads the load
        return PutOff(after_s=after_s, peer_status=peer_status, comment=sentence, peer_comment=peer_comment)

    def _note(self, delivery: Delivery, outcome: Outcome, took_s: float) -> bool:
        """Keep the outcome. Whether it is the destination's fault that the object was put off, and not the object's or its study's."""
        if not self._outcomes:
            self._first_outcome_at = time.monotonic()
        self._outcomes.append((delivery, outcome))
        if isinstance(outcome, PutOff) and outcome.counted:
            telemetry.DELIVERY_RETRIES.labels(delivery.destination).inc()
            log.warning(
                "delivery_put_off",
                destination=delivery.destination,
                instance=delivery.origin.sop_instance_uid,
                status=outcome.peer_status,
                attempts=delivery.attempts + 1,
                says=outcome.comment,
            )
            return self._shared.suspects.put_off(delivery.origin, took_s)
        if isinstance(outcome, Parked):  # says nothing about the destination
            log.warning(
                "delivery_parked",
                destination=delivery.destination,
                instance=delivery.origin.sop_instance_uid,
                status=outcome.peer_status,
                says=outcome.comment,
            )
            return False
        if isinstance(outcome, PutOff) and not outcome.asked:
            return False
        self._shared.suspects.success(delivery.origin)
        if self._shared.breaker.success():
            log.info("destination_back", destination=self._shared.name)
        return False

    def _record(self, stop: threading.Event) -> None:
        """Write the outcomes down. While PostgreSQL is away they are kept, and written when it is back."""
        while self._outcomes:
            try:
                settled = self._queue.record(self._outcomes)
            except (*AWAY, TryAgain):
                if stop.is_set():
                    return  # others claim these rows once the lease is over, and deliver them again
                self._database_away(stop)
                continue
            self._shared.database_away = False
            self._count(settled)
            self._outcomes = []
            if settled:
                self._settled.set()

    def _count(self, settled: set[str]) -> None:
        now = datetime.now(UTC)
        for delivery, outcome in self._outcomes:
            if delivery.delivery_id in settled and isinstance(outcome, Settled):
                telemetry.DELIVERIES.labels(delivery.destination, outcome.state).inc()
                if outcome.state == "rejected":
                    log.warning(
                        "delivery_rejected",
                        destination=delivery.destination,
                        instance=delivery.origin.sop_instance_uid,
                        status=outcome.peer_status,
                        says=outcome.comment,
                    )
                if delivery.received_at is not None:
                    telemetry.DELIVERY_SECONDS.labels(delivery.destination).observe((now - delivery.received_at).total_seconds())

    def _release(self, left: Sequence[Delivery], tried: Delivery | None) -> None:
        """Give back what was not delivered. What the outage was met with is due a little after it, so that it is not always this one
        that the destination is tried again with: it may be the cause. Unless what is delivered must be in order.
        """
        try:
            if tried is not None and not self._in_order:
                self._queue.defer(tried, 0.2 + 1.1 * self._shared.breaker.wait_s())
            self._queue.release([each for each in left if each is not tried or self._in_order])
        except (*AWAY, TryAgain):
            self._queue.close()  # the lease runs out by itself

    def _database_away(self, stop: threading.Event) -> None:
        self._queue.close()
        if not self._shared.database_away:
            self._shared.database_away = True
            log.warning("database_away", destination=self._shared.name)
        stop.wait(random.uniform(0.25, 0.75))  # noqa: S311  # only spreads the load
