"""The configuration that `hilum apply` published: destinations and rules, with a version, on the topic `control.config.v1`.

Without any, those of the settings file hold. With one, its rules take the place of the settings file's, and its destinations stand
beside them; of two with one name the published one holds.

A role that uses rules or destinations follows it: `Following` reads in a thread of its own, and the role takes what is new
between two batches::

    with Following(settings, "deliver") as following:
        while not stop.is_set():
            following.take(self._configure)  # calls `_configure(settings)` when there is something new, and at first
            ...
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, Self

import msgspec
import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition
from msgspec import Struct

from hilum import bus, database, telemetry
from hilum.errors import HilumError, Misconfigured, TryAgain
from hilum.events import ConfigApplied, decode
from hilum.misfits import misfits, together
from hilum.rule_sections import Rule
from hilum.services.process import start_time
from hilum.settings import Settings

#: The roles that follow what is published: where they run, one of each must.
ROLES = ("publish", "route", "deliver")
#: How often a worker says that it is there; after what time without a word it is silent; and how long it is waited for all the same.
REPORT_S = 5.0
LIVE_S = 30.0
GONE_S = 3600.0
#: After so long a worker tries once more what it could not run.
AGAIN_S = 10.0
#: Instead of the version of what cannot even be read.
UNREADABLE = "unreadable"
_POLL_S = 0.5

_REPORT = """
    INSERT INTO worker AS here (worker, role, host, version, refuses, says) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (worker) DO UPDATE SET version = excluded.version, refuses = excluded.refuses, says = excluded.says, seen_at = now()
"""

log = telemetry.logger("config")


class Bundle(Struct, frozen=True, kw_only=True):
    """A configuration as it was published. `offset` is its place among all that were."""

    applied: ConfigApplied
    offset: int

    @property
    def version(self) -> str:
        """See `version_of`."""
        return self.applied.version


class InForce(Settings, frozen=True, kw_only=True):
    """Settings with the rules, destinations and policies of a bundle, whose version they have."""

    version: str
    #: By name, as `hilum.anonymizing.policy_table` gives them.
    policies: Mapping[str, dict[str, Any]] = {}
    #: The destinations of the bundle, which have their policies of it and of nowhere else.
    applied: frozenset[str] = frozenset()

    @property
    def config_version(self) -> str:
        """The version of the bundle."""
        return self.version


def version_of(
    destinations: Mapping[str, Mapping[str, Any]],
    rules: tuple[dict[str, Any], ...],
    policies: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Twelve hexadecimal digits of the digest of a configuration: equal ones have the same."""
    said = [destinations, rules, policies] if policies else [destinations, rules]
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()[:12]


def in_force(settings: Settings, bundle: Bundle | None) -> Settings:
    """`settings` as they are with `bundle`. Raises `Misconfigured` if this release cannot read its rules."""
    if bundle is None:
        return settings
    applied = bundle.applied
    if problems := list(misfits(list(applied.rules), tuple[Rule, ...], "rules")):
        raise together(problems, "the rules")
    own = {name: getattr(settings, name) for name in Settings.__struct_fields__}
    own |= {
        "rules": msgspec.convert(applied.rules, tuple[Rule, ...]),
        "destinations": settings.destinations | applied.destinations,
    }
    return InForce(**own, version=applied.version, policies=applied.policies, applied=frozenset(applied.destinations))


def since(known: Sequence[Bundle], destination: str) -> datetime | None:
    """When the destination took force that the last of these configurations has; None if it has none of that name."""
    at = None
    for each in reversed(known):
        if destination not in each.applied.destinations:
            break
        at = each.applied.applied_at
    return at


# Reading the topic


def history(settings: Settings, *, timeout_s: float = 10.0) -> list[Bundle]:
    """Every configuration that was ever published, oldest first. Raises `TryAgain` while Kafka is away, `Misconfigured` without topic."""
    return [each for each in _all(settings, 0, timeout_s) if isinstance(each, Bundle)]


def current(settings: Settings, *, timeout_s: float = 10.0) -> Bundle | None:
    """The configuration that is in force; None if none was ever published. Raises as `history` and `Misconfigured` if it cannot be read."""
    last = next(iter(_all(settings, -1, timeout_s)[-1:]), None)
    if isinstance(last, Misconfigured):
        raise last
    return last


def _all(settings: Settings, since: int, timeout_s: float) -> list[Bundle | Misconfigured]:
    """What there is from the offset `since` on, -1 for the last one alone; a broker that changes its leaders is waited for."""
    deadline = time.monotonic() + timeout_s
    with KafkaReader(settings) as reader:
        while True:
            try:
                return reader.all_until_end(since, deadline)
            except TryAgain:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)  # a topic that was just made has no leader yet


class Reader(Protocol):
    """Reads published configurations in their order. A context that ends reading."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def begin(self, since: int) -> int:
        """Begin to read at the offset `since`, -1 for the last one that there is. Returns where the topic ends at present."""
        ...

    def more(self, timeout_s: float) -> Iterator[tuple[int, Bundle | Misconfigured]]:
        """What has come, with its offset; what cannot be read is an error in its place. Raises `TryAgain`."""
        ...


class KafkaReader:
    """Reads the one partition of the topic, without a group."""

    def __init__(self, settings: Settings) -> None:
        self._topic = bus.topic_of(settings, ConfigApplied)
        self._consumer: Consumer = bus.consumer(settings, "hilum.config", **{"queued.min.messages": 1, "fetch.wait.max.ms": 5000})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def all_until_end(self, since: int, deadline: float) -> list[Bundle | Misconfigured]:
        """What there is from the offset `since` on, -1 for the last one alone; what cannot be read is an error in its place."""
        end = self.begin(since, max(0.1, deadline - time.monotonic()))
        found: list[Bundle | Misconfigured] = []
        position = since if since >= 0 else max(0, end - 1)
        while position < end:
            for offset, each in self.more(0.2):
                found.append(each)
                position = offset + 1
            if time.monotonic() > deadline:
                raise TryAgain("Kafka does not give its configuration topic in time.", fix="Check that the broker runs.")
        return found

    def begin(self, since: int, timeout_s: float = 10.0) -> int:
        """See `Reader.begin`."""
        bus.partition_counts(self._consumer, [self._topic], timeout_s=timeout_s)
        try:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=min(5.0, timeout_s))
            self._consumer.assign([TopicPartition(self._topic, 0, since if since >= 0 else max(0, end - 1))])
        except KafkaException as error:
            raise bus.away(error) from None
        return int(end)

    def more(self, timeout_s: float) -> Iterator[tuple[int, Bundle | Misconfigured]]:
        """See `Reader.more`."""
        for message in bus.taken(self._consumer, 100, timeout_s):
            error = message.error()
            if error is not None:
                if error.retriable() or error.code() < 0:
                    continue
                raise bus.away(KafkaException(error))
            yield message.offset() or 0, _read(message.value() or b"", message.offset() or 0)


def _read(value: bytes, offset: int) -> Bundle | Misconfigured:
    try:
        return Bundle(applied=decode(ConfigApplied, value), offset=offset)
    except msgspec.MsgspecError as error:
        return Misconfigured(
            "config-unreadable",
            f"The published configuration at offset {offset} cannot be read by this release ({type(error).__name__}).",
            fix="Run the release that published it, or a later one; or publish another one with `hilum apply`.",
        )


# Following it


class Following:
    """What one role follows, and what it says of itself in the table `worker`. A context; `take` is for one thread."""

    def __init__(
        self, settings: Settings, role: str, open_reader: Callable[[Settings], Reader] = KafkaReader, *, again_s: float = AGAIN_S
    ) -> None:
        """`again_s` is how long what could not be run rests until it is tried again."""
        self._again_s = again_s
        self._again_at = 0.0
        self._settings = settings
        self._role = role
        self._open_reader = open_reader
        self.worker = f"{socket.gethostname()}/{role}/{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._known = False
        self._latest: Bundle | Misconfigured | None = None
        self._taken: Bundle | Misconfigured | None = None
        self._runs: str | None = None
        self._refuses = self._says = ""
        self._away = "it has not been read yet"
        self._ended = threading.Event()
        self._changed = threading.Event()
        self._threads = [threading.Thread(target=each, name=f"{role} {each.__name__}", daemon=True) for each in (self._read, self._report)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._changed.set()
        for thread in self._threads:
            thread.join(5.0)

    @property
    def version(self) -> str:
        """The version that the role runs; empty before it has taken one."""
        return self._runs or ""

    def take(self, apply: Callable[[Settings], None]) -> bool:
        """Call `apply` with the settings that are in force, if they are not those of the last call; whether it was called.

        Raises `TryAgain` until it is known what is in force, and while the role has none that it can run. A later one that it cannot
        run (`apply` raises `Misconfigured`) is said in the table `worker`, and the role goes on with what it has; it is tried again from
        time to time, for what is wrong may be a file of this machine. What is wrong with the settings file alone is raised as
        `Misconfigured`.
        """
        with self._lock:
            known, latest, away = self._known, self._latest, self._away
        if not known:
            raise TryAgain(f"The configuration is not known: {away}.", after_s=0.2)
        if latest is self._taken:
            if self._refuses and time.monotonic() < self._again_at:
                return self._goes_on()
            if self._runs is not None and not self._refuses:
                return False
        self._taken = latest
        try:
            if isinstance(latest, Misconfigured):
                raise latest
            settings = in_force(self._settings, latest)
            apply(settings)
        except Misconfigured as error:
            if latest is None:
                raise
            self._refuse(latest.version if isinstance(latest, Bundle) else UNREADABLE, error)
            return self._goes_on()
        self._runs, self._refuses, self._says = settings.config_version, "", ""
        log.info("config_taken", stage=self._role, version=self._runs)
        self._changed.set()
        return True

    def _refuse(self, version: str, error: Misconfigured) -> None:
        if self._refuses != version:
            log.error("config_refused", stage=self._role, version=version, reason=error.reason)
        self._refuses, self._says = version, str(error)
        self._again_at = time.monotonic() + self._again_s
        self._changed.set()

    def _goes_on(self) -> bool:
        """Go on with the version before. Raises `TryAgain` if there is none."""
        if self._runs is None:
            raise TryAgain(f"The configuration {self._refuses} cannot be run here: {self._says}", after_s=1.0)
        return False

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                with self._open_reader(self._settings) as reader:
                    end = reader.begin(-1)
                    self._learn(end == 0, None if end == 0 else self._latest)
                    while not self._ended.is_set():
                        for offset, each in reader.more(_POLL_S):
                            # The same again, after an outage, is nothing new; an older one is not in force.
                            same = isinstance(self._latest, Bundle) and isinstance(each, Bundle) and self._latest.offset == offset
                            self._learn(offset >= end - 1, self._latest if same else each)
            except (HilumError, KafkaException) as error:
                with self._lock:
                    self._away = str(error if isinstance(error, HilumError) else bus.away(error)).rstrip(".")
                self._ended.wait(1.0)
            except Exception as error:  # a role that no longer heard of anything new would not be noticed
                log.error("config_not_read", stage=self._role, error=error)
                self._ended.wait(1.0)

    def _learn(self, known: bool, latest: Bundle | Misconfigured | None) -> None:
        with self._lock:
            self._known = self._known or known
            self._latest = latest

    def _report(self) -> None:
        """Say in the database what the role runs. That it cannot be said stops nothing."""
        while not self._ended.is_set():
            try:
                with database.connect(self._settings.postgres.dsn, name=f"hilum {self._role} config") as connection:
                    _forget_dead(connection)
                    while not self._ended.is_set():
                        self._changed.clear()
                        values = (self.worker, self._role, socket.gethostname(), self._runs or "", self._refuses, self._says)
                        connection.execute(_REPORT, values)
                        self._changed.wait(REPORT_S)
                    connection.execute("DELETE FROM worker WHERE worker = %s OR seen_at < now() - interval '1 day'", (self.worker,))
            except (*database.AWAY, HilumError):
                self._ended.wait(REPORT_S)
            except Exception as error:  # no table yet, no right to it: a role must not end for a report
                log.warning("config_not_reported", stage=self._role, error=error)
                self._ended.wait(REPORT_S)


def _forget_dead(connection: psycopg.Connection) -> None:
    """Remove what workers of this machine said whose processes are no more. One that runs and is silent stays: it may wake."""
    for (worker,) in connection.execute("SELECT worker FROM worker WHERE host = %s", (socket.gethostname(),)).fetchall():
        pid = worker.rpartition("/")[2].partition("-")[0]
        if pid.isdecimal() and start_time(int(pid)) is None:
            connection.execute("DELETE FROM worker WHERE worker = %s", (worker,))


class Worker(Struct, frozen=True, kw_only=True):
    """A worker, and what it runs; `refuses` is a version that it cannot run, and `says` why."""

    worker: str
    role: str
    host: str
    version: str
    refuses: str
    says: str
    seen_at: datetime
    #: For how long it has said nothing, in seconds.
    unheard_s: float = 0.0

    @property
    def silent(self) -> bool:
        """Whether it does not answer: it is stuck, cut off, or died without a word."""
        return self.unheard_s > LIVE_S

    @property
    def gone(self) -> bool:
        """Whether it has been silent for so long that nobody waits for it any more."""
        return self.unheard_s > GONE_S


def workers(dsn: str) -> list[Worker]:
    """Every worker that was heard of within the last day and has not ended. Raises `TryAgain`."""
    from hilum.database.found import rows

    statement = """
        SELECT worker, role, host, version, refuses, says, seen_at,
               extract(epoch FROM now() - seen_at)::double precision AS unheard_s
        FROM worker WHERE seen_at > now() - interval '1 day' ORDER BY role, worker
    """
    return rows(dsn, Worker, statement, {})
