"""The files of the spool, all in one folder, named by what they are.

    <receipt>.dcm        a whole object that waits to be published
    <owner>.<n>.part     an object on its way in, of the process that has locked `tmp/<owner>/`
    <owner>.<n>.new      a file that is made to be written later
    <name>.free          a file to be written, or to be written again
    <receipt>.done       published, on its way to be free
    <receipt>.torn       not what its seal says; kept for a person

Files change their names only, never the folder. A name need not be durable, since the seal tells what a file is: after a power cut
a file may be there under any name it ever had, and `Files.recover` and `Files.check` give it the right one.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hilum.disk import sync_folder

from . import seal

WAITING, PART, NEW, FREE, DONE, TORN = ".dcm", ".part", ".new", ".free", ".done", ".torn"
#: Files that are something by and by, and never mean an object by their name.
PASSING = (PART, NEW, FREE, DONE)
#: Larger files are not kept to be written again.
MAX_KEPT_BYTES = 4 * 2**20
#: Size of a file that is made ahead of need: a CT or MR slice fits.
SPARE_BYTES = 2**20


class Files:
    """The spool files in `path / "objects"`, and `tmp` beside them. Raises `OSError` if it cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path / "objects"
        self._tmp = path / "tmp"
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tmp.mkdir(exist_ok=True, mode=0o700)
        for folder in {path, path.parent, *(each.parent for each in made)}:
            sync_folder(folder)  # or a power cut takes the spool's own folder, with what was acknowledged in it
        self.directory = Directory(self.path)
        self._count = itertools.count()
        self._free: list[str] = []
        self._free_bytes = 0
        self._looks, self._counts, self._trims = Seldom(), Seldom(), Seldom()
        self._lock = threading.Lock()
        self._owner: Owner | None = None

    @property
    def owner(self) -> Owner:
        """This process, as one that writes; there is one."""
        with self._lock:
            self._owner = self._owner or Owner(self._tmp)
            return self._owner

    def waiting(self) -> list[str]:
        """The receipts of all objects that wait, oldest first."""
        return sorted(name.removesuffix(WAITING) for name in self._names(WAITING))

    def claim(self) -> tuple[Path, int, bool]:
        """A file to be written from its beginning, open for that; and whether its name is new, so that it must be synced too."""
        path = self.path / f"{self.owner.name}.{next(self._count)}{PART}"
        while (name := self._next_free()) is not None:
            try:
                (self.path / name).rename(path)
            except FileNotFoundError:
                continue  # another process has it
            if not self._look_at(path, given_back=_stem(name)):
                return path, os.open(path, os.O_RDWR | os.O_CLOEXEC), False
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), True

    def _next_free(self) -> str | None:
        with suppress(IndexError):
            return self._free.pop()
        if self._looks.is_due():
            with self._looks.one():
                self._free = list(self._names(FREE))
            with suppress(IndexError):
                return self._free.pop()
        return None

    def recover(self) -> None:
        """Bring to light what is whole, and remove what killed processes left unfinished. Raises `OSError`.

        Any process may do so at any time: it only renames and removes, and what others have meanwhile renamed stays as it is.
        """
        rescued = sum(self._look_at(self.path / name, given_back=_stem(name)) for name in list(self._names(FREE)))
        with self._dead() as dead:
            for name in [*self._names(PART), *self._names(NEW)]:
                if _stem(name) in dead or not (self._tmp / _stem(name)).exists():
                    rescued += self._kept_or_removed(name, given_back="")
            for owner in dead:
                shutil.rmtree(self._tmp / owner, ignore_errors=True)
        rescued += sum(self._kept_or_removed(name, given_back=_stem(name)) for name in list(self._names(DONE)))
        if rescued:
            self.directory.sync()  # the process that made one may have been killed before it did

    def _kept_or_removed(self, name: str, *, given_back: str) -> bool:
        path = self.path / name
        kept = self._look_at(path, given_back=given_back)
        if not kept:
            path.unlink(missing_ok=True)
        return kept

    def _look_at(self, path: Path, *, given_back: str) -> bool:
        """Whether the file holds a whole object other than the published one with the receipt `given_back`; if so, it now waits."""
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = seal.read_seal(fd)
                if found is None or str(found.receipt) == given_back or not seal.holds(fd, found):
                    return False
            except ValueError:  # no spool file
                return False
            finally:
                os.close(fd)
            with suppress(FileNotFoundError):  # another process did the same
                path.rename(self.path / f"{found.receipt}{WAITING}")
            return True
        return False

    def check(self, receipt: str) -> bool:
        """Whether the file of a receipt is what its name says: the whole object, as it was sealed. Else it gets its right name.

        After a power cut it may be published and given back, or even hold a later object. Raises `ValueError` if it is no spool file.
        """
        path = self.path / f"{receipt}{WAITING}"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = seal.read_seal(fd)
            if found is None:
                path.unlink()
            elif not seal.holds(fd, found):
                path.rename(self.path / f"{receipt}{TORN}")
            elif str(found.receipt) != receipt:
                path.rename(self.path / f"{found.receipt}{WAITING}")
            else:
                return True
            return False
        finally:
            os.close(fd)

    def damaged(self) -> list[str]:
        """Names of files that are not what they were, or that nobody knows."""
        return sorted(name for name in self._names("") if not name.endswith((WAITING, *PASSING)))

    @contextmanager
    def _dead(self) -> Iterator[set[str]]:
        """Processes that wrote here and are gone. Meanwhile one that has just made its folder cannot lock it, and then makes another."""
        with ExitStack() as locks:
            yield {path.name for path in self._tmp.iterdir() if _locked(path, locks)}

    def release(self, receipt: str, *, kept_bytes: int) -> int:
        """Give back the file of a published object, to be written again if it has no more than `kept_bytes`; the bytes kept."""
        done = self.path / f"{receipt}{DONE}"
        with suppress(FileNotFoundError):  # it was given back before, or a process that starts has removed it
            (self.path / f"{receipt}{WAITING}").rename(done)  # first, so that nobody else writes into it
            size_bytes = done.stat().st_size
            if size_bytes > min(MAX_KEPT_BYTES, kept_bytes):
                done.unlink()
                return 0
            fd = os.open(done, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, seal.FREE, 0)
            finally:
                os.close(fd)
            done.rename(self.path / f"{receipt}{FREE}")
            self._free_bytes += size_bytes
            return size_bytes
        return 0

    def trim(self) -> None:
        """Give the disk what is kept to be written again."""
        if self._trims.is_due():
            with self._trims.one():
                for name in list(self._names(FREE)):
                    self._kept_or_removed(name, given_back=_stem(name))

    def free_bytes(self) -> int:
        """Bytes in files that wait to be written again; counted now and then, and by what this process has given back since."""
        if self._counts.is_due():
            total = 0
            with self._counts.one(), os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.endswith(FREE):
                        with suppress(FileNotFoundError):
                            total += entry.stat().st_size
            self._free_bytes = total
        return self._free_bytes

    def spare(self) -> None:
        """Make one more file to be written later, so that an object need not wait for a new one. Raises `OSError`."""
        path = self.path / f"{self.owner.name}.{next(self._count)}{NEW}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, seal.FREE.ljust(SPARE_BYTES, b"\0"))
            os.fdatasync(fd)
            self.directory.sync()
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        path.rename(self.path / f"{secrets.token_hex(8)}{FREE}")
        self._free_bytes += SPARE_BYTES

    def unfinished(self) -> list[Path]:
        """Files of objects on their way in, and what their processes keep for them."""
        return [*(self.path / name for name in self._names(PART)), *(path for path in self._tmp.rglob("*") if path.is_file())]

    def _names(self, suffix: str) -> Iterator[str]:
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                    yield entry.name

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Be the only one who publishes from here; False if another process is."""
        fd = os.open(self._tmp.parent / "publisher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(fd)


class Seldom:
    """Keeps what takes long from being done all the time: it takes a fiftieth of the time at most."""

    def __init__(self) -> None:
        self._due = 0.0

    def is_due(self) -> bool:
        """Whether it may be done again."""
        return time.monotonic() >= self._due

    @contextmanager
    def one(self) -> Iterator[None]:
        """Do it."""
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._due = now + 50 * (now - began)


class Owner:
    """This process's folder for what it needs while objects come in. It is locked while the process lives."""

    def __init__(self, tmp: Path) -> None:
        while True:
            self.name = secrets.token_hex(8)
            self.path = tmp / self.name
            self.path.mkdir(mode=0o700)
            with suppress(FileNotFoundError):  # another process, just starting, takes it for a dead one's
                self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                if self.path.exists():
                    break
                os.close(self._fd)
        weakref.finalize(self, os.close, self._fd)


def _stem(name: str) -> str:
    """The receipt or owner that a file is named by."""
    return name.split(".", 1)[0]


def _locked(owner: Path, locks: ExitStack) -> bool:
    """Whether the folder's process is gone; then it is locked until `locks` end."""
    with suppress(OSError):
        fd = os.open(owner, os.O_RDONLY | os.O_CLOEXEC)
        locks.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its process lives
        return True
    return False


class Directory:
    """A directory whose syncs are shared by all who ask for one at the same time."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)
        self._asked = 0
        self._synced = 0
        self._count = threading.Lock()
        self._turn = threading.Lock()

    def sync(self) -> None:
        """Return once all names that were made in the directory before this call are on disk. Raises `OSError`."""
        with self._count:
            self._asked += 1
            mine = self._asked
        with self._turn:
            if self._synced >= mine:
                return  # a sync that began after our name was made is done
            covers = self._asked
            self._sync()
            self._synced = covers

    def _sync(self) -> None:
        os.fsync(self.fd)
