"""The spool: Part 10 files in which what was received survives a power cut before it is acknowledged.

A file is claimed, written, sealed (`seal`) and synced; only then is the sender answered. Files are written again and again: where
the file system need not find room, nor make names durable, an object costs one sync (`docs/decisions/0016-recycled-spool.md`). A
waiting file tells all: its seal holds the receipt (which holds the time), its File Meta who sent it and how. Whoever publishes gives
it back.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from hilum.errors import Misconfigured, TryAgain
from hilum.settings import Settings

from . import seal
from .arrival import Arrival, head_of, read_arrival
from .files import PASSING, SPARE_BYTES, WAITING, Files
from .receipts import Receipts, received_at

__all__ = ["Arrival", "Incoming", "Spool", "SpoolFull", "SpoolTooLarge", "is_spool_file", "mapped", "read_arrival", "received_at"]


#: No more than this part of the disk is kept in files to be written again.
SPARE_PART_OF_DISK = 16


class SpoolFull(TryAgain):
    """The spool takes nothing more for now; what was written of the object is gone."""


class SpoolTooLarge(SpoolFull):
    """The object is larger than its sender may send."""


class Spool:
    """The spool in `path`; used by many threads and processes at once. `spare_bytes` in files are kept to be written again.

    Raises `Misconfigured` if the directory cannot be made or written.
    """

    def __init__(
        self, path: Path, *, min_free_bytes: int = 0, spare_bytes: int = 0, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._min_free_bytes = min_free_bytes
        self._now = now
        self._receipts = Receipts()
        try:
            self._files = Files(path)
            self._files.recover()
            disk = os.fstatvfs(self._files.directory.fd)
            #: On a small disk the room is for objects.
            self._spare_bytes = min(spare_bytes, disk.f_blocks * disk.f_frsize // SPARE_PART_OF_DISK)
        except OSError as error:
            raise Misconfigured(
                "spool-unusable", f"The spool {path} cannot be used: {error.strerror}.", fix="Correct spool.path or its rights."
            ) from None

    @classmethod
    def of(cls, settings: Settings) -> Spool:
        """The spool that `settings` name."""
        return cls(settings.spool_dir, min_free_bytes=settings.spool.min_free_bytes, spare_bytes=settings.spool.spare_bytes)

    # Writing

    def open(self, arrival: Arrival, *, max_bytes: int | None = None) -> Incoming:
        """Begin to write an object. Raises `SpoolFull` if less than the settings' space is free."""
        if self.nearly_full():
            self._files.trim()
        if self.nearly_full():
            raise SpoolFull("The spool's disk is nearly full.", fix="Free some space, or let Kafka and the object store come back.")
        return Incoming(self._files, lambda: self._receipts.make(self._now()), arrival, max_bytes)

    def prepare(self, stop: threading.Event) -> None:
        """Make the spare files, if they are not there; for a thread of its own. What the disk has no room for is not made."""
        with suppress(OSError):  # a disk that fails or is full is told to whoever sends
            for _ in range(self._spare_bytes // SPARE_BYTES):
                there = self._files.free_bytes() + SPARE_BYTES > self._spare_bytes  # other receivers make them too
                if there or stop.is_set() or not self._has_room():
                    return
                self._files.spare()

    def _has_room(self) -> bool:
        """Whether files may be kept to be written again: that must never be why objects are refused."""
        return self.free_bytes() > 2 * self._min_free_bytes + SPARE_BYTES

    def nearly_full(self) -> bool:
        """Whether so little space is left that nothing new is taken."""
        return self.free_bytes() < self._min_free_bytes

    def free_bytes(self) -> int:
        """Space left on the spool's disk, for Hilum's user."""
        disk = os.fstatvfs(self._files.directory.fd)
        return disk.f_bavail * disk.f_frsize

    @property
    def scratch(self) -> Path:
        """This process's folder on the spool's disk, for what is needed while an object comes in. It is removed after the process's end."""
        return self._files.owner.path

    def commit(self, together: Sequence[Incoming]) -> list[str]:
        """Make objects durable that came together; their receipts, in the same order.

        Raises `SpoolFull` if the disk fails; then nothing of any of them is left.
        """
        admitted: list[str] = []
        try:
            for incoming in together:
                incoming.sync()
            for incoming in together:
                admitted.append(incoming.admit())
        except SpoolFull:
            for incoming in together:
                incoming.discard()
            self.remove(admitted)
            raise
        return admitted

    # Reading

    @property
    def folder(self) -> Path:
        """Where the objects are; its time of change tells whether `waiting` may have changed."""
        return self._files.path

    def waiting(self) -> list[str]:
        """The receipts of all objects that wait, oldest first."""
        return self._files.waiting()

    def check(self, receipt: str) -> bool:
        """Whether the object of a receipt is there, whole, before it is published. Raises as `read` does.

        A power cut may bring a file back under a name that it had before: if it waits under its right name, `waiting` says so.
        """
        return self._files.check(receipt)

    def damaged(self) -> list[str]:
        """Files that are not what was written into them (`*.torn`), or that somebody put there; kept for a person to look at."""
        return self._files.damaged()

    def path(self, receipt: str) -> Path:
        """The file of a receipt. What is behind the object's end (`mapped`) means nothing."""
        return self._files.path / (receipt + WAITING)

    def read(self, receipt: str) -> bytes:
        """The whole object, a Part 10 file with an empty preamble. Raises as `mapped` does."""
        with mapped(self.path(receipt)) as content:
            return bytes(seal.PREAMBLE_BYTES) + content[seal.PREAMBLE_BYTES :]

    def remove(self, receipts: Iterable[str]) -> None:
        """Give back what is published. After a power cut some may be here again: then they are published again, with the same id."""
        kept_bytes = self._spare_bytes - self._files.free_bytes()
        if not self._has_room():
            self._files.trim()
            kept_bytes = 0
        for receipt in receipts:
            kept_bytes -= self._files.release(receipt, kept_bytes=kept_bytes)

    def unfinished(self) -> list[Path]:
        """What is on its way in: spool files, and what is needed for them."""
        return self._files.unfinished()

    def sole_publisher(self) -> AbstractContextManager[bool]:
        """Be the one who publishes from here; False if another process is."""
        return self._files.locked()


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The object in a spool file, and nothing of what else is in the file.

    Raises `OSError` if it cannot be read, and `ValueError` if it is no spool file with an object.
    """
    with path.open("rb") as file:
        found = seal.read_seal(file.fileno())
        if found is None or found.size_bytes > os.fstat(file.fileno()).st_size:
            raise ValueError("no object in this spool file")
        with mmap.mmap(file.fileno(), found.size_bytes, access=mmap.ACCESS_READ) as content:
            yield content


def is_spool_file(path: Path) -> bool:
    """Whether a file of the spool's folder is what its name says, as far as its beginning tells; true also if it is gone by now."""
    if not path.name.endswith((WAITING, *PASSING)):
        return False
    try:
        with path.open("rb") as file:
            return not path.name.endswith(WAITING) or seal.read_seal(file.fileno()) is not None
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


class Incoming:
    """An object on its way into the spool: `write` its data set, then `commit`, or `discard` it. Not shared between threads."""

    def __init__(self, files: Files, receipt: Callable[[], UUID], arrival: Arrival, max_bytes: int | None) -> None:
        self.size_bytes = 0  #: of data set written so far
        self._files = files
        self._receipt = receipt
        self._seal: seal.Seal | None = None
        self._checksum = seal.Checksum()
        self._left = max_bytes
        try:
            self._path, self._fd, self._is_new = files.claim()
        except OSError as error:
            raise _refused(error) from None
        head = head_of(arrival)
        self._data_set_at = len(head)
        self._checksum.update(head[seal.PREAMBLE_BYTES :])
        self._write(seal.FREE + head[seal.PREAMBLE_BYTES :])

    def write(self, data: bytes | memoryview) -> None:
        """Append to the data set. Raises `SpoolFull` (then nothing of the object is left) if the disk is full or it grows too large."""
        self.size_bytes += len(data)
        if self._left is not None and self.size_bytes > self._left:
            self.discard()
            raise SpoolTooLarge(f"The object is larger than {self._left} bytes.", fix="Raise dicom.max_object_bytes.")
        self._checksum.update(data)
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
        size = self._data_set_at + self.size_bytes
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
            yield content, self._data_set_at

    def commit(self) -> str:
        """Make the object durable; its receipt. Raises `SpoolFull` if the disk fails; then nothing of it is left."""
        self.sync()
        return self.admit()

    def sync(self) -> None:
        """Bring all to the disk, and write no more; for objects that are committed together (`Spool.commit`). Raises `SpoolFull`."""
        if self._seal is not None:
            return
        try:
            found = self._checksum.seal(self._receipt())
            seal.write_seal(self._fd, found)
            os.fdatasync(self._fd)
            if self._is_new:
                self._files.directory.sync()
            self._seal = found
        except OSError as error:
            self.discard()
            raise _refused(error) from None

    def admit(self) -> str:
        """Show a synced object to whoever publishes; its receipt. Raises `SpoolFull`; then nothing of it is left."""
        assert self._seal is not None
        receipt = str(self._seal.receipt)
        try:
            self._path.rename(self._files.path / (receipt + WAITING))
        except OSError as error:
            self.discard()
            raise _refused(error) from None
        self._close()
        return receipt

    def discard(self) -> None:
        """Leave nothing of it. May be called at any time, also again; changes nothing once it is committed."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _refused(error: OSError) -> SpoolFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFull("The spool's disk is full.", fix="Free some space.")
    return SpoolFull(f"The spool's disk fails: {error.strerror}.", fix="Check the disk.")
