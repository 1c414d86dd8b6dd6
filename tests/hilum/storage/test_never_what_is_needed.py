"""Whatever happens between two operations of expiry, and wherever it is killed: what is still needed is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hilum.errors import NotFound
from hilum.sections import Retention
from hilum.storage.expiring import Expirer
from hilum.storage.keeping import Facts
from hilum.storage.marker import LISTED_S, Marker, Watch
from hilum.storage.records import ExpiryRow, Undeleted
from hilum.store import StoredObject
from hilum.testing import MemoryStore

BUCKET = "originals"
KEYS = ("2.25.1", "2.25.2")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Killed(BaseException):
    """The process is no more."""


@dataclass
class Arrival:
    receipt: str
    key: str
    #: `put`, `checked` (it is told unless that takes long), `told`.
    phase: str = "put"
    decision: str = ""
    quarantined: bool = False
    at: datetime = NOON
    stored_at: datetime = NOON


@dataclass
class Planned:
    key: str
    archive: bool
    state: str = "pending"
    at: datetime = NOON


@dataclass
class World:
    """Store, tables and everybody else."""

    now: datetime = NOON
    arrivals: list[Arrival] = field(default_factory=list)
    deliveries: list[Planned] = field(default_factory=list)
    expiry: dict[str, ExpiryRow] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    awaited: set[str] = field(default_factory=set)
    modified: dict[str, datetime] = field(default_factory=dict)
    #: What others do before the next operations of expiry.
    between: dict[int, Callable[[], None]] = field(default_factory=dict)
    operations: int = 0
    store: MemoryStore = field(init=False)
    watch: Watch = field(init=False)
    marker: Marker = field(init=False)
    #: Seconds; days pass between steps only.
    elapsed: float = 0.0
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(self)
        self.watch = Watch(self.store, BUCKET, lambda: self.elapsed)
        self.marker = Marker(self.store, BUCKET, lambda: self.elapsed)

    def passes(self, days: int) -> None:
        self.now += timedelta(days=days)
        self.elapsed += days * 86400
        self.marker.tidy()

    def others(self) -> None:
        self.operations += 1
        self.between.pop(self.operations, lambda: None)()

    # Everybody else

    def put(self, key: str) -> None:
        MemoryStore.put(self.store, BUCKET, key, BytesIO(b"x"), 1)
        self.modified[key] = self.now
        self.arrivals.append(Arrival(receipt=f"r{len(self.arrivals)}", key=key, at=self.now, stored_at=self.now))

    def put_again(self, arrival: Arrival) -> None:
        MemoryStore.put(self.store, BUCKET, arrival.key, BytesIO(b"x"), 1)
        self.modified[arrival.key] = arrival.stored_at = self.now

    def check(self) -> None:
        """The publisher looks at the marker; what it names is stored again later."""
        for arrival in [each for each in self.arrivals if each.phase == "put"]:
            if arrival.stored_at < self.now or self.watch.listed({arrival.key}):
                self.put_again(arrival)
            else:
                arrival.phase = "checked"

    def put_and_check(self) -> None:
        self.put(KEYS[0])
        self.check()

    def tell(self) -> None:
        for arrival in self.arrivals:
            if arrival.phase == "checked" and arrival.stored_at < self.now:
                arrival.phase = "put"
                self.put_again(arrival)
            elif arrival.phase == "checked":
                arrival.phase = "told"

    def decide(self, decision: str) -> None:
        for arrival in self.told():
            if not arrival.decision and not arrival.quarantined:
                arrival.quarantined = decision == "quarantine"
                arrival.decision = "" if arrival.quarantined else decision
                if decision == "deliver":
                    self.plan(arrival.key, archive=False)

    def plan(self, key: str, *, archive: bool) -> None:
        if any(each.key == key for each in self.told()) and not self.expired(key):
            self.deliveries.append(Planned(key, archive, at=self.now))

    def settle(self, state: str) -> None:
        for each in self.deliveries:
            if each.state in ("pending", "parked"):
                each.state, each.at = state, self.now

    def kill(self) -> None:
        raise Killed

    # What is true

    def told(self) -> list[Arrival]:
        return [each for each in self.arrivals if each.phase == "told"]

    def expired(self, key: str) -> bool:
        row = self.expiry.get(key)
        return row is not None and all(each.receipt in row.receipts for each in self.told() if each.key == key)

    # The tables, as expiry sees them

    def page(self, after: str, before: datetime, limit: int) -> tuple[str, list[str]]:
        del after, before, limit
        return "", list(KEYS)

    def facts(self, sop_instance_uids: Sequence[str]) -> list[Facts]:
        self.others()
        return self._facts(sop_instance_uids)

    def _facts(self, keys: Sequence[str]) -> list[Facts]:
        found = []
        for key in keys:
            told = [each for each in self.told() if each.key == key]
            sent = [each for each in self.deliveries if each.key == key]
            if told and not self.expired(key):
                found.append(
                    Facts(
                        bucket=BUCKET,
                        object_key=key,
                        sop_instance_uid=key,
                        receipts=tuple(each.receipt for each in told),
                        decisions=tuple({each.decision for each in told} - {""}),
                        undecided=any(not each.decision and not each.quarantined for each in told),
                        quarantined=any(each.quarantined for each in told),
                        waits=any(each.decision == "waits" for each in told),
                        open=sum(each.state in ("pending", "parked") for each in sent),
                        archived=any(each.archive and each.state not in ("rejected", "cancelled") for each in sent),
                        rejected=any(each.state == "rejected" for each in sent),
                        arrived=any(each.state == "delivered" for each in sent),
                        received_at=min(each.at for each in told),
                        changed_at=max([each.at for each in told] + [each.at for each in sent]),
                    )
                )
        return found

    def decide_expiry(self, keys: Sequence[str], expires: Callable[[Facts], ExpiryRow | None]) -> int:
        rows = [row for facts in self._facts(keys) if (row := expires(facts)) is not None]
        self.expiry |= {row.object_key: row for row in rows}
        self.deleted -= {row.object_key for row in rows}
        return len(rows)

    def undeleted(self) -> list[Undeleted]:
        self.others()
        names = [name for name in Undeleted.__struct_fields__ if name not in ("decided_at", "came_again")]
        return [
            Undeleted(**{name: getattr(row, name) for name in names}, decided_at=self.now, came_again=not self.expired(row.object_key))
            for row in self.expiry.values()
            if row.object_key not in self.deleted
        ]


class Store(MemoryStore):
    """Before each of its operations, others may do something."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def put(self, bucket: str, key: str, content: Any, size_bytes: int) -> None:
        self.world.others()
        super().put(bucket, key, content, size_bytes)
        self.world.modified[key] = self.world.now

    def stat(self, bucket: str, key: str) -> StoredObject:
        self.world.others()
        if (bucket, key) not in self.objects:
            raise NotFound("gone")
        return StoredObject(bucket=bucket, key=key, size_bytes=1, modified_at=self.world.modified[key])

    def delete(self, bucket: str, key: str) -> None:
        self.world.others()
        super().delete(bucket, key)
        self.world.others()

    def has_object_lock(self, bucket: str) -> bool:
        return False


class Tables:
    """What one process sees of the tables; nothing any more once it was killed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.killed = False

    def page(self, after: str, before: datetime, limit: int) -> tuple[str, list[str]]:
        return self.world.page(after, before, limit)

    def facts(self, sop_instance_uids: Sequence[str]) -> list[Facts]:
        return self.world.facts(sop_instance_uids)

    def decide(self, sop_instance_uids: Sequence[str], expires: Callable[[Facts], ExpiryRow | None]) -> int | None:
        return self.world.decide_expiry(sop_instance_uids, expires)

    def undeleted(self, limit: int) -> list[Undeleted]:
        return self.world.undeleted()[:limit]

    def take_back(self, row: Undeleted) -> None:
        self.world.others()
        del self.world.expiry[row.object_key]

    def deleted(self, rows: Sequence[Undeleted], now: datetime) -> None:
        if self.killed:
            return
        self.world.others()
        self.world.deleted |= {row.object_key for row in rows}
        self.world.events += [row.object_key for row in rows]


def others(world: World) -> dict[str, Callable[[], None]]:
    """Whatever may happen at any moment."""
    return {
        "nothing": lambda: None,
        "a comes": lambda: world.put(KEYS[0]),
        "b comes": lambda: world.put(KEYS[1]),
        "a comes and the publisher looks": world.put_and_check,
        "publisher looks": world.check,
        "publisher tells": world.tell,
        "route delivers": lambda: world.decide("deliver"),
        "route finds duplicates": lambda: world.decide("duplicate"),
        "route quarantines": lambda: world.decide("quarantine"),
        "study is awaited": lambda: world.decide("waits"),
        "a is sent by hand": lambda: world.plan(KEYS[0], archive=False),
        "b is archived": lambda: world.plan(KEYS[1], archive=True),
        "all is delivered": lambda: world.settle("delivered"),
        "all is parked": lambda: world.settle("parked"),
        "all is rejected": lambda: world.settle("rejected"),
        "it is killed": world.kill,
    }


NAMES = sorted(others(World()))


class Expiry(RuleBasedStateMachine):
    """Arrivals, deliveries and expiry, interleaved."""

    @initialize()
    def begin(self) -> None:
        self.world = World()

    @rule(name=st.sampled_from([name for name in NAMES if name != "it is killed"]))
    def something_happens(self, name: str) -> None:
        others(self.world)[name]()

    @rule(days=st.sampled_from([31, 6, 1]))
    def time_passes(self, days: int) -> None:
        self.world.passes(days)

    @rule(key=st.sampled_from(KEYS))
    def arrives_and_is_delivered(self, key: str) -> None:
        self.world.put(key)
        self.world.check()
        self.world.tell()
        self.world.decide("deliver")
        self.world.settle("delivered")

    @rule(between=st.dictionaries(st.integers(1, 14), st.sampled_from(NAMES), max_size=4))
    def an_original_expires(self, between: dict[int, str]) -> None:
        self.world.passes(31)
        self.originals_expire(between, "all is on")

    @rule(
        between=st.dictionaries(st.integers(1, 14), st.sampled_from(NAMES), max_size=4),
        mode=st.sampled_from(["all is on", "all is on", "awaited", "off"]),
    )
    def originals_expire(self, between: dict[int, str], mode: str) -> None:
        world = self.world
        tables = Tables(world)
        retention = Retention() if mode == "off" else Retention(originals_days=30, repeats_days=5)
        expirer = Expirer(
            tables,
            world.store,  # type: ignore[arg-type]  # what it needs of one that keeps
            world.marker,
            retention,
            "test",
            awaited=lambda: KEYS if mode == "awaited" else (),
            elapsed=lambda: world.elapsed,
        )
        world.between, world.operations = {at: others(world)[name] for at, name in between.items()}, 0
        try:
            expirer.step("", world.now)
        except Killed:
            tables.killed = True
            world.marker = Marker(world.store, BUCKET, lambda: world.elapsed)
        world.between = {}

    @invariant()
    def what_is_needed_is_there(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        for arrival in world.arrivals:
            row = world.expiry.get(arrival.key)
            if arrival.phase == "told" and (row is None or arrival.receipt not in row.receipts):
                assert (BUCKET, arrival.key) in world.store.objects, f"{arrival} was acknowledged, did not expire, and is gone"
            if arrival.quarantined or arrival.decision == "waits" or (arrival.phase == "told" and not arrival.decision):
                assert (BUCKET, arrival.key) in world.store.objects, f"{arrival} is undecided, and is gone"
        for planned in world.deliveries:
            if planned.archive and planned.state not in ("rejected", "cancelled"):
                assert (BUCKET, planned.key) in world.store.objects, f"{planned} is the archive, and is gone"
            if planned.state in ("pending", "parked", "rejected"):
                assert (BUCKET, planned.key) in world.store.objects, f"{planned} needs it, and it is gone"


TestExpiry = Expiry.TestCase
TestExpiry.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_what_came_before_the_marker_and_is_told_after_it_is_kept() -> None:
    state = Expiry()
    state.begin()
    state.arrives_and_is_delivered(KEYS[0])

    state.an_original_expires({4: "a comes and the publisher looks"})
    state.something_happens("publisher tells")

    state.what_is_needed_is_there()


def test_what_comes_after_the_marker_is_stored_again() -> None:
    state = Expiry()
    state.begin()
    state.arrives_and_is_delivered(KEYS[0])

    state.an_original_expires({7: "a comes"})
    state.something_happens("publisher looks")
    state.something_happens("publisher tells")

    assert state.world.events == [KEYS[0]], "the one before it expired"
    assert [each.phase for each in state.world.arrivals] == ["told", "put"], "while its key is listed it is stored again and again"
    state.world.elapsed += LISTED_S + 1
    state.world.marker.tidy()
    state.something_happens("publisher looks")
    state.something_happens("publisher tells")
    state.what_is_needed_is_there()
    assert [each.phase for each in state.world.arrivals] == ["told", "told"]
