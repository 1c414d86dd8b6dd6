"""The role `query`: asks senders that allow it how many instances a study has, so that it is complete once all are here.

It looks at the studies that are open, and at nothing that is on its way: what it does not get to know changes nothing. What a sender
answers goes to the role `route` as `imaging.study.expected.v1`, by the outbox.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import psycopg
from msgspec import Struct

from hilum import bus, database, telemetry
from hilum.errors import Misconfigured, TryAgain
from hilum.events import StudyExpected, following_id
from hilum.peer import Peer
from hilum.role import Health, Role
from hilum.settings import Query, Settings
from ingest.commitment.report import tls_of

log = telemetry.logger("query")

#: How often open studies are looked at, and how many of them, the youngest first.
LOOK_S = 2.0
MOST_STUDIES = 1_000
#: A study is asked for so often while nothing more of it comes, after twice as long each time.
MOST_ASKED = 6
#: A sender that does not answer is left alone for so long at first, and for so long at most.
REST_S, LONGEST_REST_S = 30.0, 1800.0

_OPEN = "SELECT study_instance_uid FROM study_state WHERE state = 'open' ORDER BY changed_at DESC LIMIT %s"
#: Which of these senders sent what came last of each of these studies, how long ago anything came, and how much did.
_LAST = """
    SELECT study_instance_uid, coalesce((array_agg(calling_aet ORDER BY received_at DESC) FILTER (WHERE calling_aet = ANY (%s)))[1], ''),
        extract(epoch FROM now() - max(received_at))::float8, count(*)
    FROM receipt WHERE study_instance_uid = ANY (%s) AND received_at IS NOT NULL GROUP BY study_instance_uid
"""
_TELL = "INSERT INTO outbox (topic, key, headers, value) VALUES (%s, %s, %s::jsonb, %s)"


class OpenStudy(Struct, frozen=True, kw_only=True):
    """A study that is not complete: seconds for which nothing came of it, how many objects came, and who of those that may be asked
    sent one last; empty: none of them.
    """

    uid: str
    sender: str
    quiet_s: float
    arrivals: int


class Index(Protocol):
    """What the role needs of the database. Raises `TryAgain`."""

    def open(self) -> Sequence[str]:
        """The UIDs of studies that are open, youngest first."""
        ...

    def last(self, uids: Sequence[str], senders: Sequence[str]) -> Sequence[OpenStudy]:
        """What came last of these studies. `senders` are those that may be asked."""
        ...

    def tell(self, uid: str, instances: int) -> None:
        """Let route know how many instances a study has."""
        ...


class _Asked(Struct):
    """What is remembered of an open study. Moments are of the monotonic clock."""

    look_at: float
    arrivals: int = -1
    times: int = 0


class _Rest(Struct):
    """Why a sender is left alone, and until when."""

    until: float
    pause_s: float
    says: str


class Asker:
    """The role."""

    name = "query"

    def __init__(
        self,
        settings: Settings,
        index: Index,
        ask: Callable[[str, Query, str], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask(sender, query, study)` says how many instances the sender has, 0 if it does not say. Raises `TryAgain`, `Misconfigured`."""
        self._queries = {aet: each.query for aet, each in settings.senders.items() if each.query is not None and each.query.allowed}
        self._index = index
        self._ask = ask
        self._now = now
        self._asked: dict[str, _Asked] = {}
        self._rests: dict[str, _Rest] = {}
        #: Senders that are being asked, each in a thread of its own, so that none delays another.
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._says = ""

    def run(self, stop: threading.Event) -> None:
        """Look and ask until `stop`. Without a sender that may be asked it does nothing."""
        while not stop.is_set():
            if not self._queries:
                stop.wait()
                return
            self.step()
            stop.wait(LOOK_S)

    def health(self) -> Health:
        """A sender that cannot be asked is no fault of this process."""
        if not self._queries:
            return Health(ready=True, says="no sender may be asked")
        if self._says:
            return Health(ready=False, says=self._says)
        with self._lock:
            resting = [f"{aet}: {rest.says}" for aet, rest in self._rests.items()]
        return Health(ready=True, says=" ".join(resting) or f"may ask {len(self._queries)} senders")

    def step(self, *, in_threads: bool = True) -> None:
        """One look at the studies that are open; what is due of each sender is asked for."""
        try:
            due = self._due()
            self._says = ""
        except (TryAgain, Misconfigured) as error:
            self._says = str(error)
            return
        for sender, studies in due.items():
            with self._lock:
                if sender in self._busy:
                    continue
                self._busy.add(sender)
            if in_threads:
                threading.Thread(target=self._ask_for, args=(sender, studies), name=f"query {sender}", daemon=True).start()
            else:
                self._ask_for(sender, studies)

    def _due(self) -> dict[str, list[OpenStudy]]:
        """By sender, the studies of which it is to be asked now."""
        now = self._now()
        uids = self._index.open()
        with self._lock:
            self._asked = {uid: self._asked.get(uid) or _Asked(now) for uid in uids}
            looked_at = [uid for uid in uids if self._asked[uid].look_at <= now]
        found: dict[str, list[OpenStudy]] = {}
        for study in self._index.last(looked_at, list(self._queries)) if looked_at else ():
            query = self._queries.get(study.sender)
            known = self._asked[study.uid]
            if query is None:  # who sends next of it may be somebody else
                known.look_at = now + min((each.after_s for each in self._queries.values()), default=LOOK_S)
                continue
            if study.arrivals != known.arrivals:  # it grows
                known.arrivals, known.times = study.arrivals, 0
            if study.quiet_s < query.after_s:
                known.look_at = now + query.after_s - study.quiet_s
            elif known.times >= MOST_ASKED:
                known.look_at = now + query.after_s
            elif (rest := self._rests.get(study.sender)) is None or rest.until <= now:
                found.setdefault(study.sender, []).append(study)
        return found

    def _ask_for(self, sender: str, studies: Sequence[OpenStudy]) -> None:
        query = self._queries[sender]
        try:
            for study in studies:
                count = self._ask(sender, query, study.uid)
                if count:
                    self._index.tell(study.uid, count)
                log.info("sender_asked", uid=study.uid, calling_aet=sender, count=count)
                telemetry.QUERIES.labels(outcome="answered" if count else "unknown").inc()
                with self._lock:
                    self._rests.pop(sender, None)
                    if (known := self._asked.get(study.uid)) is not None:
                        known.look_at = self._now() + query.after_s * 2**known.times
                        known.times += 1
        except (TryAgain, Misconfigured) as error:
            self._rest(sender, str(error))
        except Exception as error:  # of a peer's that answers what nobody foresaw: it is left alone for a while
            self._rest(sender, telemetry.described(error))
        finally:
            with self._lock:
                self._busy.discard(sender)

    def _rest(self, sender: str, says: str) -> None:
        telemetry.QUERIES.labels(outcome="failed").inc()
        with self._lock:
            before = self._rests.get(sender)
            pause_s = min(LONGEST_REST_S, before.pause_s * 2) if before else REST_S
            self._rests[sender] = _Rest(until=self._now() + pause_s, pause_s=pause_s, says=says)
        if before is None or before.says != says:
            log.warning("sender_not_asked", calling_aet=sender, says=says)


class Database:
    """The index, on a connection that is opened again after an outage, and only where a sender may be asked."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = settings.postgres.dsn
        self._writer = bus.Writer(settings, "query")
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None

    def open(self) -> Sequence[str]:
        """See `Index`."""
        return [uid for (uid,) in self._execute(_OPEN, (MOST_STUDIES,))]

    def last(self, uids: Sequence[str], senders: Sequence[str]) -> Sequence[OpenStudy]:
        """See `Index`."""
        found = self._execute(_LAST, (list(senders), list(uids)))
        return [OpenStudy(uid=uid, sender=sender, quiet_s=quiet_s, arrivals=count) for uid, sender, quiet_s, count in found]

    def tell(self, uid: str, instances: int) -> None:
        """See `Index`."""
        now = datetime.now(UTC)
        event = StudyExpected(study_instance_uid=uid, source="query", sop_instance_uids=(), instances=instances, said_at=now)
        record = self._writer.record(event, following_id(f"{uid}/{now.isoformat()}", "query", 0), time=bus.timestamp(now))
        headers = {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in record.headers}
        self._execute(_TELL, (record.topic, record.key.decode(), msgspec.json.encode(headers).decode(), record.value))

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = database.connect(self._dsn, name="hilum query")
                cursor = self._connection.execute(statement.encode(), values)
                return cursor.fetchall() if cursor.description else []
            except psycopg.errors.UndefinedTable:
                raise Misconfigured("database-tables", "The database lacks tables of this release.", fix="Run `hilum provision`.") from None
            except database.AWAY as error:
                self._connection = None
                raise database.away(self._dsn, error) from None


def asking(settings: Settings) -> Callable[[str, Query, str], int]:
    """Asks a sender by C-FIND."""

    def ask(sender: str, query: Query, study: str) -> int:
        from hilum.find import count_of_study  # takes a while, and most sites ask nobody

        peer = Peer(
            host=query.host,
            port=query.port,
            aet=query.aet or sender,
            calling_aet=query.calling_aet or settings.dicom.aet,
            connect_timeout_s=min(5.0, query.timeout_s),
            association_timeout_s=query.timeout_s,
            response_timeout_s=query.timeout_s,
            tls=tls_of(f"senders.{sender}.query", query),
        )
        return count_of_study(peer, study, within_s=query.timeout_s)

    return ask


def check(settings: Settings) -> None:
    """Raise `Misconfigured` if what the settings say of TLS to a sender cannot be used."""
    for aet, sender in settings.senders.items():
        if sender.query is not None and (tls := tls_of(f"senders.{aet}.query", sender.query)) is not None:
            tls.context()


def role(settings: Settings) -> Role:
    """The role `query`."""
    return Asker(settings, Database(settings), asking(settings))
