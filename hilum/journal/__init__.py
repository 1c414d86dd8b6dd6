"""A journal: small things that survive a power cut before they are acknowledged, and are read again in their order.

All that waits to be written is written at once and brought to the disk by one sync (group commit). Files of a fixed size are
written again and again, so that a sync need not find room nor make names durable (`docs/decisions/0028-the-journal-of-messages.md`).
One process at a time has a journal; any of its threads may write, one thread reads and says how far it is done.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

from hilum.disk import sync_folder
from hilum.errors import Misconfigured

from . import segment

__all__ = ["Entry", "Journal", "JournalFull", "Position"]

SEGMENT_BYTES = 8 * 2**20
#: Kinds of records: of who writes, and how far who reads is done.
_ENTRY, _DONE = 1, 2
#: Left in each file for a record of the second kind.
_ROOM = 128
#: Without anything to write, how far the reader is done is written so long after it said so.
DONE_AFTER_S = 0.25
_SUFFIX = ".journal"


class Position(NamedTuple):
    """A place in the journal: the life of a file, and bytes in it. Later is greater."""

    life: int
    offset: int


class Entry(Struct, frozen=True):
    """What was written; `end` is the position behind it."""

    receipt: UUID
    payload: bytes
    end: Position


class JournalFull(Exception):  # it is what is so
    """The disk takes nothing more, or fails: in words, and what to do."""


class _File:
    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.life = 0
        #: Behind the last record that is durable.
        self.end = segment.HEADER_BYTES

    def close(self) -> None:
        os.close(self.fd)


class _Waiting(Struct):
    receipt: UUID
    payload: bytes
    done: Callable[[JournalFull | None], None]


class Journal:
    """The journal in `path`. Raises `Misconfigured` if the folder cannot be used; `False` from `opened` if another process has it."""

    def __init__(self, path: Path, *, history_bytes: int, min_free_bytes: int = 0, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._path = path
        self._history_bytes = history_bytes
        self._min_free_bytes = min_free_bytes
        self._segment_bytes = segment_bytes
        #: In the order of their lives; the last is written to, if it is this process that began it.
        self._files: list[_File] = []
        self._free: list[_File] = []
        self._current: _File | None = None
        self._lock = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._done = Position(0, 0)
        #: As far as the disk knows; and what was last tried to be written of it.
        self._done_written = Position(0, 0)
        self._done_tried = Position(0, 0)
        self._behind = 0
        self._stopping = False
        self._writer: threading.Thread | None = None
        self._names = 0

    @contextmanager
    def opened(self, restored: Callable[[bytes], None] = lambda _: None) -> Iterator[bool]:
        """Have the journal. `restored` gets every payload that is still there, in its order. False if another process has it."""
        try:
            made = [folder for folder in (self._path, *self._path.parents) if not folder.exists()]
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in made:
                sync_folder(folder.parent)
            lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(
                "journal-unusable", f"The journal {self._path} cannot be used: {error.strerror}.", fix="Correct spool.path or its rights."
            ) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            self._recover(restored)
            self._writer = threading.Thread(target=self._write_until_closed, name="journal", daemon=True)
            self._writer.start()
            try:
                yield True
            finally:
                self._close()
        finally:
            os.close(lock)

    # Writing

    @property
    def waiting_bytes(self) -> int:
        """What waits to be written."""
        return self._waiting_bytes

    def append(self, receipt: UUID, payload: bytes, done: Callable[[JournalFull | None], None]) -> None:
        """Have `payload` written; `done` is called, from another thread and in the order of the calls, once it is durable, or cannot be."""
        with self._lock:
            self._waiting.append(_Waiting(receipt, payload, done))
            self._waiting_bytes += len(payload)
            self._lock.notify()

    def free_bytes(self) -> int:
        """Space left on the disk, for Hilum's user."""
        disk = os.statvfs(self._path)
        return disk.f_bavail * disk.f_frsize

    # Reading

    @property
    def lag(self) -> int:
        """Durable entries that the reader is not done with."""
        return self._behind

    @property
    def done(self) -> Position:
        """How far the reader is done."""
        return self._done

    def read(self, after: Position, *, most_bytes: int = 2**20) -> list[Entry]:
        """Durable entries behind `after`, in their order; at least one if there is one, and hardly more than `most_bytes` of them."""
        found: list[Entry] = []
        left = most_bytes
        with self._lock:
            files = [(file, file.life, file.end) for file in self._files if file.life >= after.life]
        for file, life, end in files:
            begin = max(after.offset, segment.HEADER_BYTES) if life == after.life else segment.HEADER_BYTES
            for each in segment.records(file.fd, life, begin, end):
                if each.kind == _ENTRY:
                    found.append(Entry(each.receipt, each.payload, Position(life, each.end)))
                    left -= len(each.payload)
                    if left <= 0:
                        return found
        return found

    def finish(self, upto: Position, count: int) -> None:
        """Say that all up to `upto`, `count` more entries, need not be read again. A crash within the next moment makes them read again."""
        with self._lock:
            self._done = max(self._done, upto)
            self._behind -= count
            self._lock.notify()

    # Inside

    def _recover(self, restored: Callable[[bytes], None]) -> None:
        for path in sorted(self._path.iterdir()):
            if path.suffix == ".new":
                path.unlink(missing_ok=True)
            if path.suffix != _SUFFIX:
                continue
            file = _File(path, path.stat().st_size)
            self._names = max(self._names, int(path.stem) + 1 if path.stem.isdigit() else 0)
            file.life = segment.read_life(file.fd)
            (self._files if file.life else self._free).append(file)
        self._files.sort(key=lambda file: file.life)
        for file in self._files:
            for each in segment.records(file.fd, file.life, segment.HEADER_BYTES, file.size_bytes):
                file.end = each.end
                if each.kind == _ENTRY:
                    restored(each.payload)
                elif each.kind == _DONE:
                    self._done = max(self._done, Position(*_numbers(each.payload)))
        self._done_written = self._done_tried = self._done
        self._behind = sum(
            each.kind == _ENTRY and Position(file.life, each.end) > self._done
            for file in self._files
            if file.life >= self._done.life
            for each in segment.records(file.fd, file.life, segment.HEADER_BYTES, file.end)
        )
        # A file of before is not written on: behind what a power cut tore there may be records that were never acknowledged.
        self._current = None

    def prepare(self) -> None:
        """Make the files that the history will need, if they are not there; for a thread of its own."""
        with suppress(OSError, JournalFull):  # a disk that fails or is full is told to whoever sends
            while not self._stopping:
                with self._lock:
                    there = sum(file.size_bytes for file in (*self._files, *self._free))
                if there >= self._history_bytes + self._segment_bytes or self.free_bytes() < 2 * self._min_free_bytes + self._segment_bytes:
                    return
                made = self._made(self._segment_bytes)
                with self._lock:
                    self._free.append(made)

    def _write_until_closed(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._stopping and self._done == self._done_tried:
                    self._lock.wait()
                if not self._waiting and not self._stopping:
                    self._lock.wait(DONE_AFTER_S)
                together = list(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
            if not together and self._done != self._done_tried:
                self._write([])
            while together:
                together = together[self._write(together) :]
            if self._stopping and not self._waiting and self._done == self._done_tried:
                return

    def _write(self, together: list[_Waiting]) -> int:
        """Write what of `together` fits into one file, and sync it; how many that were."""
        count = 0
        with self._lock:
            done = self._done_tried = self._done
        try:
            file = self._file_for(segment.size_of(together[0].payload) if together else 0)
            at = file.end
            pieces = []
            for each in together:
                raw = segment.record(file.life, at, _ENTRY, each.receipt, each.payload)
                if at + len(raw) + _ROOM > file.size_bytes:
                    break
                pieces.append(raw)
                at += len(raw)
                count += 1
            if done != self._done_written:
                raw = segment.record(file.life, at, _DONE, UUID(int=0), b"%d %d" % done)
                pieces.append(raw)
                at += len(raw)
            _write_all(file.fd, b"".join(pieces), file.end)
            os.fdatasync(file.fd)
        except (OSError, JournalFull) as error:
            told = error if isinstance(error, JournalFull) else _refused(error)
            if isinstance(error, OSError):
                self._current = None  # nobody knows what of it is on the disk: nothing is added to it any more
            for each in together:
                each.done(told)
            return len(together)
        with self._lock:
            file.end = at
            self._done_written = done
            self._behind += count
        for each in together[:count]:
            each.done(None)
        return count

    def _file_for(self, size: int) -> _File:
        """The file that `size` more bytes go to. Raises `JournalFull`, and `OSError` if what there is cannot be written."""
        current = self._current
        if current is not None and current.end + size + _ROOM <= current.size_bytes:
            return current
        need = max(self._segment_bytes, segment.HEADER_BYTES + size + _ROOM)
        file = self._recycled(need, self._done_written, self._history_bytes)
        if file is None:
            try:
                file = self._made(need)
            except JournalFull:
                # Rather than refuse, give up history, and the order of what a power cut in this moment would have told again.
                file = self._recycled(need, self._done, 0)
                if file is None:
                    raise
        # In part by chance: a life whose beginning a power cut took must not be begun a second time over what else it left.
        life = ((max((each.life for each in self._files), default=0) >> 16) + 1) << 16 | secrets.randbits(16)
        _write_all(file.fd, segment.header(life), 0)  # it is synced with the first records
        file.life, file.end = life, segment.HEADER_BYTES
        with self._lock:
            self._files.append(file)
        self._current = file
        return file

    def _recycled(self, need: int, done: Position, history_bytes: int) -> _File | None:
        """A file that nobody needs any more, if the reader is done up to `done`; others that nobody needs are removed."""
        with self._lock:
            spare = [file for file in self._free if file.size_bytes >= need]
            if spare:
                self._free.remove(spare[0])
                return spare[0]
            kept = sum(file.size_bytes for file in self._files)
            old: list[_File] = []
            # `done` should itself be on the disk, or a power cut would bring what is read and not what says so.
            while self._files and self._files[0].life < done.life and kept - self._files[0].size_bytes >= history_bytes:
                old.append(self._files.pop(0))
                kept -= old[-1].size_bytes
        again = next((file for file in old if need <= file.size_bytes <= 2 * self._segment_bytes), None)
        for file in old:
            if file is not again:
                file.path.unlink(missing_ok=True)
                file.close()
        return again

    def _made(self, size_bytes: int) -> _File:
        if self.free_bytes() < self._min_free_bytes + size_bytes:
            raise JournalFull("The spool's disk is nearly full. Free some space, or let Kafka come back.")
        with self._lock:
            path = self._path / f"{self._names:012d}{_SUFFIX}"
            self._names += 1
        try:
            segment.make(path, -(-size_bytes // 4096) * 4096)
            sync_folder(self._path)
            return _File(path, path.stat().st_size)
        except OSError as error:
            raise _refused(error) from None

    def _close(self) -> None:
        with self._lock:
            self._stopping = True
            self._lock.notify()
        if self._writer is not None:
            self._writer.join()
        for file in [*self._files, *self._free]:
            file.close()


def _write_all(fd: int, data: bytes, offset: int) -> None:
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def _numbers(payload: bytes) -> tuple[int, int]:
    life, _, offset = payload.partition(b" ")
    return int(life), int(offset)


def _refused(error: OSError) -> JournalFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JournalFull("The spool's disk is full. Free some space.")
    return JournalFull(f"The spool's disk fails: {error.strerror}. Check the disk.")
