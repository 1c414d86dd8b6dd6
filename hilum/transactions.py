"""What Hilum has asked destinations to commit, and what they have reported: small files beside the spool.

A destination may report on an association of its own, hours later, to Hilum's receiver, which is another process than the worker that
asked. The receiver needs neither Kafka nor PostgreSQL for that, so the two meet in files: `sent/<transaction UID>.json`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hilum.dicom.commitment import Report
from hilum.disk import sync_folder
from hilum.errors import Misconfigured
from hilum.services.files import private_folder, write_atomically
from hilum.settings import Settings

_SUFFIX = ".json"
_TICK_NS = 50_000_000
#: An outcome is in the ledger after so long, or its worker was ended.
_IN_THE_LEDGER_S = 60.0
#: What nobody came for is removed after so long.
KEPT = timedelta(days=7)


class Transaction(Struct, frozen=True, kw_only=True):
    """One request for storage commitment to a destination."""

    transaction_uid: str
    destination: str
    asked_at: datetime
    #: SOP instance UID by delivery id: that under which the destination has the object.
    deliveries: dict[str, str]
    #: Who was asked: one of several that a delivery may go to. Empty in files of before.
    peer: str = ""
    #: Whether the peer took the request. If not, whoever asked was ended before he knew.
    taken: bool = True
    reported_at: datetime | None = None
    #: SOP instance UIDs that are committed; failure reason of those that are not.
    committed: frozenset[str] = frozenset()
    failed: dict[str, int] = {}


class Promise(Struct, frozen=True, kw_only=True):
    """How a delivery's commitment stands: `asked`, `committed` or `failed`."""

    state: str
    asked_at: datetime
    #: The SOP instance UID that is committed, or not; who was asked; and whether he took the request, as in `Transaction`.
    sop_instance_uid: str
    peer: str = ""
    taken: bool = True
    #: Of one that failed: why (PS3.3 C.14.1.1); 0 if the report does not name the instance.
    reason: int = 0


def new_uid() -> str:
    """A transaction UID, unique for ever (PS3.5 B.2)."""
    return f"2.25.{secrets.randbits(122)}"


class Transactions:
    """The transactions in `path`; used by many processes at once, an object of this class by one thread. Raises `Misconfigured`."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path / "sent"
        self._lock = path / "sent.lock"
        self._read: dict[str, tuple[int, int, Transaction | None]] = {}
        self._seen_at = -1
        #: Deliveries of each transaction that were settled by it a moment ago.
        self._consumed: dict[str, set[str]] = {}
        #: When the last of them was.
        self._settled_at: dict[str, float] = {}
        self._clock = clock
        try:
            private_folder(self._path)
        except OSError as error:
            raise Misconfigured(
                "commitments-unusable", f"{path} cannot be used: {error.strerror}.", fix="Correct spool.path or its rights."
            ) from None

    @classmethod
    def of(cls, settings: Settings) -> Transactions:
        """Those beside the spool that `settings` name."""
        return cls(settings.spool_dir / "commitments")

    def keep(self, transaction: Transaction) -> None:
        """Make a transaction durable, before it is asked for. Raises `OSError`."""
        with self._locked():
            self._write(transaction)

    def find(self, transaction_uid: str) -> Transaction | None:
        """A transaction as it stands; None if it is settled, or none of ours. Raises `OSError`."""
        return _decoded(self._path / (transaction_uid + _SUFFIX))

    def taken(self, transaction_uid: str) -> None:
        """The destination took the request. Raises `OSError`."""
        with self._locked():
            transaction = _decoded(self._path / (transaction_uid + _SUFFIX))
            if transaction is not None and not transaction.taken:  # its report may have come before its answer
                self._write(replace(transaction, taken=True))

    def forget(self, transaction_uid: str) -> None:
        """It was not asked for after all, or all that it is of is settled."""
        (self._path / (transaction_uid + _SUFFIX)).unlink(missing_ok=True)

    def report(self, report: Report) -> bool:
        """Make a destination's report durable; whether its transaction is open here. Raises `OSError`."""
        path = self._path / (report.transaction_uid + _SUFFIX)
        with self._locked():
            transaction = _decoded(path)
            if transaction is None:
                return False
            self._write(
                replace(transaction, reported_at=datetime.now(UTC), committed=frozenset(report.committed), failed=report.failed, taken=True)
            )
        return True

    def promise(self, delivery_id: str, peer: str = "") -> Promise | None:
        """How the latest transaction of a delivery stands, with `peer` if one is named; None if there is none. Raises `OSError`."""
        found = [
            each
            for each in self._open()
            if delivery_id in each.deliveries
            and delivery_id not in self._consumed.get(each.transaction_uid, ())
            and (not peer or each.peer in ("", peer))
        ]
        if not found:
            return None
        latest = max(found, key=lambda each: each.asked_at)
        uid = latest.deliveries[delivery_id]
        state = "asked" if latest.reported_at is None else "committed" if uid in latest.committed else "failed"
        return Promise(
            state=state,
            asked_at=latest.asked_at,
            sop_instance_uid=uid,
            peer=latest.peer,
            taken=latest.taken,
            reason=latest.failed.get(uid, 0) if state == "failed" else 0,
        )

    def done_with(self, delivery_id: str, *, settled: bool = False) -> None:
        """Nobody will ask for this promise again: a later one of the same delivery is another one's. Raises `OSError`.

        What is `settled` by it is in the ledger a moment later only: until then the file has it, should this process be killed.
        """
        self.sweep()
        for transaction in self._open():
            if delivery_id in transaction.deliveries and settled:
                self._consumed.setdefault(transaction.transaction_uid, set()).add(delivery_id)
                self._settled_at[transaction.transaction_uid] = self._clock()
            elif delivery_id in transaction.deliveries:
                self._remove(transaction.transaction_uid, {delivery_id})

    def sweep(self) -> None:
        """Remove what is settled, and surely in the ledger. Raises `OSError`."""
        for uid in [uid for uid, at in self._settled_at.items() if self._clock() - at > _IN_THE_LEDGER_S]:
            self._remove(uid, self._consumed.pop(uid, set()))
            del self._settled_at[uid]

    def _remove(self, transaction_uid: str, delivery_ids: set[str]) -> None:
        """These deliveries are done with; the file goes with the last."""
        with self._locked():
            transaction = _decoded(self._path / (transaction_uid + _SUFFIX))
            if transaction is None:
                return
            left = {each: uid for each, uid in transaction.deliveries.items() if each not in delivery_ids}
            if left:
                self._write(replace(transaction, deliveries=left))
            else:
                self.forget(transaction_uid)

    def forget_old(self, now: datetime) -> None:
        """Remove what is older than `KEPT`."""
        for transaction in self._open():
            if now - transaction.asked_at > KEPT:
                self.forget(transaction.transaction_uid)

    def _open(self) -> list[Transaction]:
        changed_at = self._path.stat().st_mtime_ns
        if changed_at != self._seen_at:
            found: dict[str, tuple[int, int, Transaction | None]] = {}
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.name.endswith(_SUFFIX):
                        with suppress(FileNotFoundError):
                            stat = entry.stat()
                            known = self._read.get(entry.name)
                            if known is None or known[:2] != (stat.st_ino, stat.st_mtime_ns):
                                known = (stat.st_ino, stat.st_mtime_ns, _decoded(Path(entry.path)))
                            found[entry.name] = known
            # The file system's clock ticks a few times a second only: what changed just now may change again unseen.
            self._read, self._seen_at = found, changed_at if time.time_ns() - changed_at > _TICK_NS else -1
        return [transaction for *_, transaction in self._read.values() if transaction is not None]

    def _write(self, transaction: Transaction) -> None:
        write_atomically(self._path / (transaction.transaction_uid + _SUFFIX), msgspec.json.encode(transaction).decode())
        sync_folder(self._path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _decoded(path: Path) -> Transaction | None:
    """None if it is gone; a file that is none of ours is left alone."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Transaction)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
