"""The spool: a maildir of Part 10 files in which what was received survives a power cut before it is acknowledged.

A file is written in `tmp/<process>/`, synced, renamed into `new/`, and `new/` is synced; only then is the sender answered. A
file in `new/` tells all: its name is the receipt (which holds the time), its File Meta who sent it and how. Whoever publishes
removes it. Syncs of the directory are shared: one serves every file that was renamed before it began.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import shutil
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from hilum.dicom import file_meta
from hilum.errors import Misconfigured, TryAgain
from hilum.settings import Settings

SUFFIX = ".dcm"
#: Names the private information in File Meta as Hilum's (PS3.10 7.1, (0002,0100)).
_PRIVATE_CREATOR = b"2.25.65675523194859300406767503550941765082"


class SpoolFull(TryAgain):
    """The spool takes nothing more for now; what was written of the object is gone."""


class SpoolTooLarge(SpoolFull):
    """The object is larger than its sender may send."""


class Arrival(Struct, frozen=True, kw_only=True):
    """How an object came in, as its spool file says it."""

    adapter: Literal["dicom", "stow", "folder", "media", "hl7"]
    transfer_syntax_uid: str
    #: What the sender announced, such as the Affected SOP Class and Instance UID of a C-STORE.
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    calling_aet: str = ""
    called_aet: str = ""
    #: Network address of the sender, without port.
    peer: str = ""
    association: str = ""


class _Private(Struct, frozen=True, kw_only=True):
    adapter: Literal["dicom", "stow", "folder", "media", "hl7"]
    association: str = ""


class Spool:
    """The spool in `path`; used by many threads and processes at once.

    Raises `Misconfigured` if the directory cannot be made or written.
    """

    def __init__(self, path: Path, *, min_free_bytes: int = 0, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.new = path / "new"
        self._tmp = path / "tmp"
        self._min_free_bytes = min_free_bytes
        self._now = now
        self._receipts = _Receipts()
        try:
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            self.new.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._tmp.mkdir(exist_ok=True, mode=0o700)
            for folder in {path, path.parent, *(each.parent for each in made)}:
                _sync_directory(folder)  # or a power cut takes the spool's own folder, with what was acknowledged in it
            self._directory = _Directory(self.new)
        except OSError as error:
            raise Misconfigured(
                "spool-unusable", f"The spool {path} cannot be used: {error.strerror}.", fix="Correct spool.path or its rights."
            ) from None

    @classmethod
    def of(cls, settings: Settings) -> Spool:
        """The spool that `settings` name."""
        return cls(settings.spool_dir, min_free_bytes=settings.spool.min_free_bytes)

    # Writing

    def open(self, arrival: Arrival, *, max_bytes: int | None = None) -> Incoming:
        """Begin to write an object. Raises `SpoolFull` if less than the settings' space is free."""
        if self.nearly_full():
            raise SpoolFull("The spool's disk is nearly full.", fix="Free some space, or let Kafka and the object store come back.")
        return Incoming(self, self._staging, arrival, max_bytes)

    def sweep(self) -> None:
        """Remove what killed processes left unfinished, now and not with the first object."""
        with suppress(OSError):  # a disk that fails or is full is told to whoever sends
            _ = self._staging

    def nearly_full(self) -> bool:
        """Whether so little space is left that nothing new is taken."""
        return self.free_bytes() < self._min_free_bytes

    def free_bytes(self) -> int:
        """Space left on the spool's disk, for Hilum's user."""
        disk = os.fstatvfs(self._directory.fd)
        return disk.f_bavail * disk.f_frsize

    @property
    def scratch(self) -> Path:
        """This process's folder on the spool's disk, for what is needed while an object comes in. It is removed after the process's end."""
        return self._staging.path

    @cached_property
    def _staging(self) -> _Staging:
        return _Staging(self._tmp)

    def commit(self, together: Sequence[Incoming]) -> list[str]:
        """Make objects durable that came together, with one sync of the directory; their receipts, in the same order.

        Raises `SpoolFull` if the disk fails; then nothing of any of them is left.
        """
        try:
            for incoming in together:
                incoming.sync()
            return self._admit([incoming.path for incoming in together])
        except (OSError, SpoolFull) as error:
            for incoming in together:
                incoming.discard()
            raise (error if isinstance(error, SpoolFull) else _refused(error)) from None

    def _admit(self, written: Sequence[Path]) -> list[str]:
        """Make synced files visible and durable; their receipts."""
        receipts = [self._receipts.make(self._now()) for _ in written]
        try:
            for path, receipt in zip(written, receipts, strict=True):
                path.rename(self.path(receipt))
            self._directory.sync()
        except OSError:
            self.remove(receipts)
            raise
        return receipts

    # Reading

    def waiting(self) -> list[str]:
        """The receipts of all objects that wait, oldest first."""
        with os.scandir(self.new) as entries:
            return sorted(entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX))

    def path(self, receipt: str) -> Path:
        """The file of a receipt."""
        return self.new / (receipt + SUFFIX)

    def remove(self, receipts: Iterable[str]) -> None:
        """Remove what is published. After a power cut some may be here again: then they are published again, with the same id."""
        for receipt in receipts:
            self.path(receipt).unlink(missing_ok=True)


class Incoming:
    """An object on its way into the spool: `write` its data set, then `commit`, or `discard` it. Not shared between threads."""

    def __init__(self, spool: Spool, staging: _Staging, arrival: Arrival, max_bytes: int | None) -> None:
        self.size_bytes = 0  #: of data set written so far
        self._spool = spool
        self._left = max_bytes
        self.path = staging.path / secrets.token_hex(8)  #: where it is until it is committed
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _refused(error) from None
        head = _head(arrival)
        self._data_set_at = len(head)
        self._write(head)

    def write(self, data: bytes | memoryview) -> None:
        """Append to the data set. Raises `SpoolFull` (then nothing of the object is left) if the disk is full or it grows too large."""
        self.size_bytes += len(data)
        if self._left is not None and self.size_bytes > self._left:
            self.discard()
            raise SpoolTooLarge(f"The object is larger than {self._left} bytes.", fix="Raise dicom.max_object_bytes.")
        self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            self.discard()
            raise _refused(error) from None

    @contextmanager
    def mapped(self) -> Iterator[tuple[mmap.mmap, int]]:
        """What is written so far, and where its data set begins: to look at all of an object before `commit`."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped, self._data_set_at

    def commit(self) -> str:
        """Make the object durable; its receipt. Raises `SpoolFull` if the disk fails; then nothing of it is left."""
        return self._spool.commit([self])[0]

    def sync(self) -> None:
        """Bring what is written to the disk, and write no more; for objects that are committed together. Raises `SpoolFull`."""
        if self._fd < 0:
            return
        try:
            os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1
        except OSError as error:
            self.discard()
            raise _refused(error) from None

    def discard(self) -> None:
        """Leave nothing of it. May be called at any time, also again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.path.unlink(missing_ok=True)


def _refused(error: OSError) -> SpoolFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFull("The spool's disk is full.", fix="Free some space.")
    return SpoolFull(f"The spool's disk fails: {error.strerror}.", fix="Check the disk.")


def _head(arrival: Arrival) -> bytes:
    more = {
        file_meta.PRIVATE_CREATOR_UID: _PRIVATE_CREATOR,
        file_meta.PRIVATE_INFORMATION: msgspec.json.encode(_Private(adapter=arrival.adapter, association=arrival.association)),
    }
    optional = {
        file_meta.SENDING_AET: arrival.calling_aet,
        file_meta.RECEIVING_AET: arrival.called_aet,
        file_meta.SENDING_ADDRESS: f"dicom://{arrival.peer}" if arrival.peer else "",
    }
    more |= {element: value.encode("latin-1", "replace") for element, value in optional.items() if value}
    return file_meta.part10_head(arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid, more)


def read_arrival(head: bytes) -> tuple[Arrival, int]:
    """What the first bytes of a spool file say of it, and where its data set begins. Raises `ValueError` if it is none."""
    meta, data_set_at = file_meta.read_meta(head)

    def text(element: int) -> str:
        return meta.get(element, b"").decode("latin-1")

    private = msgspec.json.decode(meta.get(file_meta.PRIVATE_INFORMATION, b"").rstrip(b"\0") or b'{"adapter":"folder"}', type=_Private)
    arrival = Arrival(
        adapter=private.adapter,
        association=private.association,
        transfer_syntax_uid=text(file_meta.TRANSFER_SYNTAX_UID),
        sop_class_uid=text(file_meta.SOP_CLASS_UID),
        sop_instance_uid=text(file_meta.SOP_INSTANCE_UID),
        calling_aet=text(file_meta.SENDING_AET),
        called_aet=text(file_meta.RECEIVING_AET),
        peer=text(file_meta.SENDING_ADDRESS).removeprefix("dicom://"),
    )
    return arrival, data_set_at


class _Receipts:
    """Makes receipts: UUIDs of version 7 (RFC 9562 5.7), which sort by time, and here in the order in which they are made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms = 0
        self._count = 0

    def make(self, moment: datetime) -> str:
        """A new one. If the clock goes back, the time stands still."""
        with self._lock:
            ms = max(int(moment.timestamp() * 1000), self._ms)
            count = self._count + 1 if ms == self._ms else 0
            if count > 0xFFF:
                ms, count = ms + 1, 0
            self._ms, self._count = ms, count
        return str(UUID(int=ms << 80 | 0x7 << 76 | count << 64 | 0b10 << 62 | secrets.randbits(62)))


def received_at(receipt: str) -> datetime:
    """When the object of `receipt` was complete, to the millisecond. Raises `ValueError` if it is no receipt."""
    return datetime.fromtimestamp((UUID(receipt).int >> 80) / 1000, UTC)


class _Directory:
    """A directory whose syncs are shared by all who ask for one at the same time."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)
        self._asked = 0
        self._synced = 0
        self._count = threading.Lock()
        self._turn = threading.Lock()

    def sync(self) -> None:
        """Return once all that was renamed into the directory before this call is on disk. Raises `OSError`."""
        with self._count:
            self._asked += 1
            mine = self._asked
        with self._turn:
            if self._synced >= mine:
                return  # a sync that began after our rename is done
            covers = self._asked
            self._sync()
            self._synced = covers

    def _sync(self) -> None:
        os.fsync(self.fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Staging:
    """This process's folder for unfinished files. It is locked while the process lives; those of dead processes are removed."""

    def __init__(self, tmp: Path) -> None:
        while True:
            self.path = tmp / secrets.token_hex(8)
            self.path.mkdir(mode=0o700)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self.path.exists():  # else another process, just starting, took it for a dead one's
                break
            os.close(self._fd)
        weakref.finalize(self, os.close, self._fd)
        for other in tmp.iterdir():
            if other != self.path:
                _remove_if_dead(other)


def _remove_if_dead(staging: Path) -> None:
    with suppress(OSError):
        fd = os.open(staging, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its process lives
            shutil.rmtree(staging)
        finally:
            os.close(fd)
