"""Storage commitment requests, from their acceptance to the report: small files beside the spool, so that neither Kafka nor
PostgreSQL need be up when one is accepted.

A request is one file in `open/`, which is replaced whole with each change of its state and moved to `done/` in the end. While the
association on which it came lives, the receiver holds a lock in `associations/`: as long as it is held the receiver alone reports
on that association, afterwards the role `commitment` alone does, on a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hilum.dicom.commitment import Failure, Reference
from hilum.disk import sync_folder
from hilum.errors import Misconfigured, NotFound
from hilum.services.files import private_folder, write_atomically
from hilum.settings import Settings

_SUFFIX = ".json"
#: Requests that may be open at once, and the bytes of their files, which are about 110 an object; one more is refused with 0213H.
MOST_OPEN = 10_000
MOST_OPEN_BYTES = 2**30

State = Literal["asked", "decided", "reported", "given-up"]
UNREPORTED: tuple[State, ...] = ("asked", "decided")
R = TypeVar("R", bound=Struct)


class Request(Struct, frozen=True, kw_only=True):
    """One request and what became of it, without its references: what is kept in memory of each open one."""

    id: str
    transaction_uid: str
    calling_aet: str
    called_aet: str
    #: Network address of the SCU, without port.
    peer: str
    #: The association on which the report may go out while it lives; empty: on a new one.
    association: str
    asked_at: datetime
    #: How many objects it asks for, and how many of them are not committed, once it is decided.
    objects: int
    failed: int = 0
    #: Whether its transaction UID was in use already: every reference fails with 0131H.
    duplicate: bool = False
    state: State = "asked"
    decided_at: datetime | None = None
    #: Reports that did not arrive.
    attempts: int = 0
    not_before: datetime | None = None
    #: What it waits for, or how it ended.
    says: str = ""
    ended_at: datetime | None = None


class Commitment(Request, frozen=True, kw_only=True):
    """One request, whole."""

    references: tuple[Reference, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def committed(self) -> list[Reference]:
        """What is committed, once it is decided."""
        failed = {failure.reference for failure in self.failures}
        return [reference for reference in self.references if reference not in failed]


class TooMany(Exception):
    """As many requests are open as may be, or the disk is nearly full."""


class Commitments:
    """The requests in `path`; used by many threads and processes at once. Raises `Misconfigured` if it cannot be made."""

    def __init__(self, path: Path, *, min_free_bytes: int = 0, most_open: int = MOST_OPEN, most_open_bytes: int = MOST_OPEN_BYTES) -> None:
        self._open, self._done, self._associations = (path / name for name in ("open", "done", "associations"))
        self._lock = path / "lock"
        self._min_free_bytes = min_free_bytes
        self._most_open, self._most_open_bytes = most_open, most_open_bytes
        self._worker = path / "worker"
        self._read: dict[str, tuple[int, int, Request]] = {}
        try:
            for folder in (self._open, self._done, self._associations):
                private_folder(folder)
                sync_folder(folder.parent)
        except OSError as error:
            raise Misconfigured(
                "commitments-unusable", f"{path} cannot be used: {error.strerror}.", fix="Correct spool.path or its rights."
            ) from None

    @classmethod
    def of(cls, settings: Settings) -> Commitments:
        """Those beside the spool that `settings` name."""
        return cls(settings.spool_dir / "commitments", min_free_bytes=settings.spool.min_free_bytes)

    # A request comes in

    def ask(self, new: Commitment) -> Commitment:
        """Make a request durable; it as it is kept. Raises `TooMany` and `OSError`; then nothing is kept.

        The same request again, before it has been reported on, is the one that is here; its report goes out on the association of
        the repetition, if the first one is gone. Any other use of a transaction UID that this SCU has used before is a `duplicate`.
        """
        disk = os.statvfs(self._open)
        if disk.f_bavail * disk.f_frsize < self._min_free_bytes:
            raise TooMany
        with self._locked():
            before = self.get(new.id)
            if before is not None and before.references == new.references and before.state in UNREPORTED:
                if new.association and not self.lives(before.association):
                    before = replace(before, association=new.association)
                    self._write(before)
                sync_folder(self._open)
                return before
            if before is not None or (self._done / (new.id + _SUFFIX)).exists():
                new = replace(new, id=f"{new.id}-{secrets.token_hex(4)}", duplicate=True)
            with os.scandir(self._open) as entries:
                sizes = [entry.stat().st_size for entry in entries]
            if len(sizes) >= self._most_open or sum(sizes) >= self._most_open_bytes:
                raise TooMany
            self._write(new)
            sync_folder(self._open)
        return new

    @staticmethod
    def id_of(calling_aet: str, transaction_uid: str) -> str:
        """The id of an SCU's first request with a transaction UID."""
        return hashlib.sha256(f"{calling_aet}\0{transaction_uid}".encode()).hexdigest()[:24]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    # It goes its way

    def change(self, id_: str, **changes: Any) -> Commitment | None:
        """Keep an open request's new state, of which the fields in `changes` are new; it, or None if it is gone. Raises `OSError`."""
        with self._locked():
            return self._change(id_, changes)

    def finish(self, id_: str, **changes: Any) -> Commitment | None:
        """Keep an open request's last state; then it is open no more. It, or None if it is gone. Raises `OSError`."""
        with self._locked():
            changed = self._change(id_, changes)
            if changed is not None:
                (self._open / (id_ + _SUFFIX)).replace(self._done / (id_ + _SUFFIX))
            return changed

    def retry(self, id_: str) -> bool:
        """Have a report that waits for its SCU tried at once, or one that was given up tried once more. Whether it is. Raises `OSError`."""
        with self._locked():
            commitment = self.get(id_)
            if commitment is not None:
                if commitment.state == "decided":
                    self._write(replace(commitment, not_before=None))
                return commitment.state == "decided"
            given_up = _decoded(self._done / (id_ + _SUFFIX), Commitment)
            if given_up is None or given_up.state != "given-up":
                return False
            self._write(replace(given_up, state="decided", attempts=0, not_before=None, ended_at=None, says="to be tried once more"))
            (self._done / (id_ + _SUFFIX)).unlink()
            return True

    def _change(self, id_: str, changes: dict[str, Any]) -> Commitment | None:
        before = self.get(id_)
        if before is None:
            return None
        changed = replace(before, **changes)
        self._write(changed)
        return changed

    def open(self) -> list[Request]:
        """Those without an end, oldest first. Not for several threads at once. Raises `OSError`."""
        found: dict[str, tuple[int, int, Request]] = {}
        with os.scandir(self._open) as entries:
            for entry in entries:
                if not entry.name.endswith(_SUFFIX):
                    continue
                with suppress(FileNotFoundError):
                    stat = entry.stat()
                    known = self._read.get(entry.name)
                    if known is not None and known[:2] == (stat.st_ino, stat.st_mtime_ns):
                        found[entry.name] = known
                    elif (request := _decoded(self._open / entry.name, Request)) is not None:
                        found[entry.name] = (stat.st_ino, stat.st_mtime_ns, request)
        self._read = found
        return sorted((request for *_, request in found.values()), key=lambda each: (each.asked_at, each.id))

    def get(self, id_: str) -> Commitment | None:
        """One of the open ones, whole."""
        return _decoded(self._open / (id_ + _SUFFIX), Commitment)

    def version(self, id_: str) -> int:
        """A number that changes with each state of an open one; 0 once it is gone."""
        try:
            return (self._open / (id_ + _SUFFIX)).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def done(self) -> list[Request]:
        """Those that have ended, oldest first."""
        found = [_decoded(path, Request) for path in self._done.glob("*" + _SUFFIX)]
        return sorted((each for each in found if each is not None), key=lambda each: (each.asked_at, each.id))

    def find(self, which: str) -> list[Commitment]:
        """Those with this id or transaction UID. Raises `NotFound`."""
        ids = [each.id for each in (*self.open(), *self.done()) if which in (each.id, each.transaction_uid)]
        either = (self.get(id_) or _decoded(self._done / (id_ + _SUFFIX), Commitment) for id_ in ids)
        found = [commitment for commitment in either if commitment is not None]
        if not found:
            raise NotFound(f"There is no storage commitment request {which}.", fix="See `hilum commitment list --all`.")
        return found

    def forget_before(self, moment: datetime) -> None:
        """Remove those that ended before `moment`, and what a crash has left of unfinished files."""
        for path in self._done.glob("*" + _SUFFIX):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < moment.timestamp():
                    path.unlink()
        with self._locked():  # nobody writes now
            for path in self._open.glob(".*"):
                path.unlink()

    def _write(self, commitment: Commitment) -> None:
        write_atomically(self._open / (commitment.id + _SUFFIX), msgspec.json.encode(commitment).decode())

    # One worker

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else works on these requests; then nobody will until the block ends. Raises `OSError`."""
        fd = os.open(self._worker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    # Associations that live

    def hold(self, association: str) -> Held:
        """Say that an association lives, until the `Held` is closed or its process ends. Raises `OSError`."""
        return Held(self._associations / association)

    def lives(self, association: str) -> bool:
        """Whether someone holds the association."""
        path = self._associations / association
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)  # its process was killed
            return False
        finally:
            os.close(fd)


class Held:
    """A living association."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def close(self) -> None:
        """It lives no more. May be repeated."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _decoded(path: Path, kind: type[R]) -> R | None:
    """None if it is gone; a file that is none of ours is left alone."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
