"""The loop that runs a processor on Kafka: what it says, what it remembers and how far it read, in one transaction.

`ProcessorRole` is the role; a `Session` is one life of its Kafka clients, from joining the group to leaving it.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from confluent_kafka import KafkaException, TopicPartition

from hilum import bus, telemetry
from hilum.bundle import Following
from hilum.desired import Follower, Taking
from hilum.errors import Misconfigured, Stopped, TryAgain
from hilum.role import Health
from hilum.runtime.inputs import Inputs, Of, metadata_of
from hilum.runtime.pace import Pace
from hilum.runtime.processor import NeedsWork, Processor
from hilum.runtime.stage import Incoming, Stage
from hilum.runtime.state import Changes, Codec, milliseconds
from hilum.runtime.transaction import BeginAnew, Transactions
from hilum.runtime.work import Pool
from hilum.settings import Settings
from hilum.words import counted

#: A batch that is not through after this time is cut there and committed, well before the broker ends its transaction.
LONGEST_S = 1.5

TIMERS = 500  # that fire in one transaction
POLL_S = 0.1
REPORT_S = 1.0

log = telemetry.logger("runtime")


class ProcessorRole:
    """A processor as a role: `ProcessorRole(settings, validate).run(stop)`.

    `slot` names this process among those that run the same role (`HILUM_SLOT` in the environment; none: a random name). A process
    that is started again with its slot goes on at once where the former one was, and ends that one if it still lives.
    """

    def __init__(
        self, settings: Settings, processor: Processor, *, slot: str | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._settings = settings
        self._stage = Stage(settings, processor, now)
        self._slot = os.environ.get("HILUM_SLOT", "") if slot is None else slot
        self._now = now
        self._health = Health(ready=False, says="not started")

    @property
    def name(self) -> str:
        """The processor's name."""
        return self._stage.name

    def health(self) -> Health:
        """As of the loop's last turn."""
        return self._health

    def run(self, stop: threading.Event) -> None:
        """Process events until `stop` is set. Outages are waited out.

        Raises `Stopped` (its slot is taken by another process, its input was deleted before it was read, nearly every event
        fails) and `Misconfigured` (topics are missing or do not fit together).
        """
        if not self._stage.follows:
            self._run(stop, lambda: False)
        else:
            ended = threading.Event()
            follower = Follower(self._settings)
            heard = threading.Thread(target=follower.run, args=(ended,), name=f"{self.name} desired state", daemon=True)
            heard.start()
            try:
                with Following(self._settings, self.name) as following:
                    taking = Taking(following, follower)
                    self._run(stop, lambda: taking.take(self._stage.configure))
            finally:
                ended.set()
                heard.join(5.0)
        self._say(Health(ready=False, says="stopped"))

    def _run(self, stop: threading.Event, configure: Callable[[], bool]) -> None:
        while not stop.is_set():
            try:
                with Session(self._settings, self._stage, self._slot, self._now, self._say, stop, configure) as session:
                    session.run()
            except BeginAnew as why:
                telemetry.RESTARTS.labels(self.name).inc()
                log.warning("stage_begins_anew", stage=self.name, says=str(why))
                self._say(Health(ready=False, says=str(why)))
                stop.wait(0.5)
            except TryAgain as outage:
                self._say(Health(ready=False, says=str(outage)))
                stop.wait(outage.after_s)

    def _say(self, health: Health) -> None:
        if health.says != self._health.says and not health.ready:
            log.info("stage_waits", stage=self.name, says=health.says)
        self._health = health


class Session:
    """One member of the group with its transactional producer. Used by one thread; a context that leaves the group."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        slot: str,
        now: Callable[[], datetime],
        say: Callable[[Health], None],
        stop: threading.Event,
        configure: Callable[[], bool] = lambda: False,
    ) -> None:
        """`configure` takes a configuration that is new, if there is one. Raises `TryAgain` while there is none to begin with."""
        self._stage = stage
        self._configure = configure
        self._now = now
        self._say = say
        self._stop = stop
        wiring = stage.wiring
        self._codec = Codec(wiring.state) if wiring.state else None
        self._changelog = settings.kafka.prefix + bus.state_topic(stage.name).name
        self._pool = Pool(stage.name, wiring.work, wiring.work_on) if wiring.takes_work else None
        identity = f"hilum.{settings.site.name}.{stage.name}.{slot or uuid.uuid4().hex[:12]}"
        self._inputs = Inputs(settings, stage, identity, static=bool(slot))
        self._transactions = Transactions(settings, identity, stop, self._waits)
        self._pace = Pace()
        self._next_report = 0.0

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.close()
        self._inputs.close()
        self._transactions.close()

    def run(self) -> None:
        """Join the group and process until `stop` is set."""
        self._inputs.check(self._stop.is_set, self._waits)
        self._transactions.init()
        self._inputs.join()
        self._say(Health(ready=False, says="joining its group"))
        while not self._stop.is_set():
            try:
                self._inputs.poll(0 if self._inputs.pending else POLL_S)
                if self._inputs.waiting:
                    self._say(Health(ready=False, says="beginning with new partitions"))
                    self._inputs.begin_new(self._stop.is_set)
                    self._next_report = 0.0
                self._report()
                self._process()
            except (TryAgain, KafkaException) as error:
                outage = error if isinstance(error, TryAgain) else bus.away(error)
                telemetry.RETRIES.labels(self._stage.name).inc()
                self._waits(outage)
                self._inputs.serve_until(time.monotonic() + outage.after_s, self._stop.is_set)

    def _process(self) -> None:
        """Deal with one batch and the timers that are due, if there are any. Raises `TryAgain`; all is as before then."""
        if not any(position.written for position in self._inputs.positions.values()):
            self._configure()  # never between two parts of what follows from one event
        self._inputs.limit = self._pace.limit
        batch = self._inputs.batch()
        if not batch and not self._timer_is_due():
            return
        began = time.monotonic()
        try:
            self._stage.read(batch)
            if self._pool:
                batch = self._worked_on(self._pool, batch)
            self._prepare(batch)
            done = self._transact(batch)
        except (TryAgain, KafkaException):
            self._pace.failed(len(batch))
            raise
        took = time.monotonic() - began
        telemetry.BATCH_SECONDS.labels(self._stage.name).observe(took)
        if done:
            self._pace.took(len(done), sum(incoming.size for incoming in done), took)

    def _worked_on(self, pool: Pool, batch: list[Incoming]) -> list[Incoming]:
        """The batch once its slow work is done, without what was taken away meanwhile."""
        futures = pool.start(batch)
        while not all(future.done() for future in futures):
            self._inputs.poll(0.02)
            if self._stop.is_set():
                for future in futures:
                    future.cancel()
                return []
        for future in futures:
            future.result()
        return [incoming for incoming in batch if not incoming.dropped]

    def _prepare(self, batch: Sequence[Incoming]) -> None:
        """Let the processor look things up for the batch; if it fails on the whole, for each event by itself, to find which it is."""
        try:
            self._stage.prepare(batch)
        except (TryAgain, Stopped, Misconfigured):
            raise
        except Exception as error:
            if len(batch) > 1:
                raise TryAgain(f"A look-up failed ({telemetry.described(error)}); fewer events are tried at once.", after_s=0) from None
            batch[0].problem = error

    def _transact(self, batch: Sequence[Incoming]) -> Sequence[Incoming]:
        """Handle the batch, or as much of it as fits into the time, in one transaction. Returns what is done."""
        changes = {partition: Changes(state, self._codec) for partition, state in self._inputs.states.items()} if self._codec else {}
        done = open_since = 0
        enough = time.monotonic() + LONGEST_S
        try:
            self._transactions.begin()
            for incoming in batch:
                chunks = self._stage.conclude(incoming, changes.get(incoming.partition))
                try:
                    said = self._transactions.say(next(chunks))
                except NeedsWork:  # what came before it is committed; it is the first of the next batch
                    break
                for chunk in chunks:  # more than one transaction shall hold
                    self._commit(batch[open_since:done], changes, partly=(incoming, incoming.written + said))
                    open_since = done
                    if self._stop.is_set():
                        return batch[:done]
                    self._transactions.begin()
                    said = self._transactions.say(chunk)
                incoming.event = None  # its decoded header is many small objects; the batch shall not hold them all
                done += 1
                if time.monotonic() > enough:
                    break
            timers_of = self._fire_timers(changes, done - open_since)
            if batch[open_since:done] or timers_of or not batch:
                self._commit(batch[open_since:done], changes, timers_of=timers_of)
            else:
                self._transactions.abort()
        except BaseException as error:
            self._stage.aborted()
            if not isinstance(error, BeginAnew):
                self._transactions.abort()
            raise
        return batch[:done]

    def _timer_is_due(self) -> bool:
        now = milliseconds(self._now())
        first = {partition: state.next_due() for partition, state in self._inputs.states.items()}
        return any(due is not None and due <= now and due <= self._time_of(partition, 0) for partition, due in first.items())

    def _time_of(self, partition: int, handled: int) -> int:
        """The moment up to which timers of a partition are due, in milliseconds: now, unless older events of it wait.

        What is still to be handled may have to do with what a timer is about, so a partition that is behind has the time of its
        last event. The first `handled` of what is pending are handled.
        """
        now = milliseconds(self._now())
        behind = self._inputs.behind(partition, handled)
        return now if behind is None else min(now, behind)

    def _fire_timers(self, changes: dict[int, Changes], handled: int) -> set[int]:
        """Call the processor for what is due. Returns the partitions in which something was."""
        fired: set[int] = set()
        due_of = {p: state.due(self._time_of(p, handled), TIMERS) for p, state in self._inputs.states.items()}
        # What an event of this batch has moved is not due any more.
        due_of = {p: [timer for timer in timers if changes[p].due_of(timer[1]) == timer[0]] for p, timers in due_of.items()}
        self._stage.prepare_due([key for timers in due_of.values() for _, key in timers])
        for partition, timers in due_of.items():
            memory = changes[partition]
            for due, key in timers:
                if self._transactions.age_s > LONGEST_S:
                    return fired
                if memory.due_of(key) == due:
                    self._transactions.say(self._stage.due(key, due, memory))
                    fired.add(partition)
        return fired

    def _commit(
        self,
        done: Sequence[Incoming],
        changes: dict[int, Changes],
        *,
        partly: tuple[Incoming, int] | None = None,
        timers_of: Iterable[int] = (),
    ) -> None:
        """Commit what was said with the changes of state and the offsets of `done`; of the event `partly`, how much was said so far.

        Offsets go along with timers too: a worker that has lost its partition cannot commit them, and so nothing.
        """
        ends: dict[Of, tuple[int, int]] = {}
        for of, position in self._inputs.positions.items():
            if of[1] in timers_of:
                ends[of] = (position.committed, position.written)
        ends |= {(incoming.topic, incoming.partition): (incoming.offset + 1, 0) for incoming in done}
        if partly:
            ends[partly[0].topic, partly[0].partition] = (partly[0].offset, partly[1])
        for partition, changed in changes.items():
            self._write(partition, changed)
        offsets = [TopicPartition(topic, p, offset, metadata_of(written)) for (topic, p), (offset, written) in ends.items()]
        self._transactions.commit(offsets, self._inputs.membership())

        self._inputs.done(len(done), ends)
        if partly:
            partly[0].written = partly[1]
        for changed in changes.values():
            changed.commit()
        self._stage.committed()
        telemetry.EVENTS_CONSUMED.labels(self._stage.name).inc(len(done))
        telemetry.EVENTS_PRODUCED.labels(self._stage.name).inc(self._transactions.said)
        telemetry.TRANSACTION_SECONDS.labels(self._stage.name).observe(self._transactions.age_s)

    def _write(self, partition: int, changes: Changes) -> None:
        """The changelog gets what changed; the state learns how far the changelog is then."""
        state = self._inputs.states[partition]

        def arrived(offset: int) -> None:
            state.position = offset + 1

        items = list(changes.items())
        for number, (key, value) in enumerate(items, 1):
            self._transactions.write(self._changelog, partition, key.encode(), value, arrived if number == len(items) else None)

    def _report(self) -> None:
        """Once a second: metrics and health."""
        if time.monotonic() < self._next_report:
            return
        self._next_report = time.monotonic() + REPORT_S
        inputs = self._inputs
        lag = inputs.lag()
        ages = [time.time() - position.seen_at for position in inputs.positions.values() if position.seen_at and lag]
        telemetry.LAG_EVENTS.labels(self._stage.name).set(lag or 0)
        telemetry.LAG_SECONDS.labels(self._stage.name).set(max(ages, default=0))
        telemetry.ROWS.labels(self._stage.name).set(sum(len(state.rows) for state in inputs.states.values()))
        if inputs.positions:
            self._say(Health(ready=True, says=f"processing {counted(len(inputs.positions), 'partition')}", lag=lag))
        elif inputs.waiting:
            self._say(Health(ready=False, says="waiting for the same partitions of every topic that it joins"))
        elif inputs.joined:
            self._say(Health(ready=True, says="spare: there are more workers than partitions", lag=0))

    def _waits(self, outage: TryAgain) -> None:
        self._say(Health(ready=False, says=str(outage), lag=self._inputs.lag()))
