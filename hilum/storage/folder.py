"""The originals as files in a folder of this machine, and everything else in the object store.

A store that speaks S3 reads each object several times for its digests and sends it from server to server; a file costs one write. An
object is a file of its own, whole or not there. As in a store on one machine, it is durable once the disk was synced (`S3.synced`).
"""

from __future__ import annotations

import heapq
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from io import BytesIO, FileIO
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, cast

from hilum.errors import Misconfigured, NotFound, TryAgain
from hilum.store import KeepingStore, RetentionMode, StoredObject

#: Below this much free disk nothing more is stored, as in the embedded store: a full disk stops the servers that share it.
FREE_BYTES_KEPT = 512 * 2**20
#: What a killed process left unfinished is removed after so long.
UNFINISHED_S = 3600.0
#: Says that the folder is the one in which the originals are, and not the place of a share that is not mounted: its text is in the store.
MARK = ".originals"
MARK_KEY = "folder/mark"
_PIECE_BYTES = 2**20
#: Stands for the last `/` of a key: a folder for each instance would cost as much as a small object.
_JOINED = "@"
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class FolderStore:
    """Keeps the objects of `bucket` in `folder`; those of other buckets, and what came before there was a folder, are in `store`."""

    def __init__(self, store: KeepingStore, bucket: str, folder: Path, *, free_bytes_kept: int = FREE_BYTES_KEPT) -> None:
        self._store = store
        self._bucket = bucket
        self._folder = folder
        self._free_bytes_kept = free_bytes_kept

    def put(self, bucket: str, key: str, content: BinaryIO, size_bytes: int) -> None:
        """See `ObjectStore.put`."""
        if bucket != self._bucket:
            self._store.put(bucket, key, content, size_bytes)
            return
        path = self._path(key)
        part = self._folder / f".{secrets.token_hex(8)}.part"
        with self._explained():
            self._mark.stat()
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize < self._free_bytes_kept + size_bytes:
                raise TryAgain(f"The disk of {self._folder} is nearly full.", fix="Make room there.")
            try:
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", 0) as file:
                    _written(file, content, size_bytes, key)
                    if path.exists():  # what is there may be on the disk already: a power cut must not leave less of it
                        os.fsync(file.fileno())
                self._named(part, path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    @contextmanager
    def open(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`."""
        file = self._opened(bucket, key)
        if file is None:
            with self._store.open(bucket, key, offset, size_bytes) as stream:
                yield stream
            return
        with file:
            file.seek(offset)
            yield cast("BinaryIO", _Stream(file, size_bytes, self._explained))

    def get(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        file = self._opened(bucket, key)
        if file is None:
            return self._store.get(bucket, key, offset, size_bytes)
        with file, self._explained():
            file.seek(offset)
            return file.read(-1 if size_bytes is None else size_bytes)

    def stat(self, bucket: str, key: str) -> StoredObject:
        """See `ObjectStore.stat`."""
        if bucket == self._bucket:
            with suppress(*_ABSENT), self._explained():
                status = self._path(key).stat()
                if stat.S_ISREG(status.st_mode):
                    return self._stored(key, status)
        return self._store.stat(bucket, key)

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        """See `ObjectStore.copy`."""
        if self._bucket not in (bucket, to_bucket):
            self._store.copy(bucket, key, to_bucket, to_key)
            return
        size_bytes = self.stat(bucket, key).size_bytes
        with self.open(bucket, key) as stream:
            self.put(to_bucket, to_key, stream, size_bytes)

    def delete(self, bucket: str, key: str) -> None:
        """See `ObjectStore.delete`. What came before there was a folder may be in both places."""
        if bucket == self._bucket:
            path = self._path(key)
            with suppress(*_ABSENT), self._explained():
                path.unlink()
                with suppress(OSError):  # it is not empty, or somebody else was faster
                    for parent in path.parents[: len(path.relative_to(self._folder).parts) - 1]:
                        parent.rmdir()
        self._store.delete(bucket, key)

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """See `ObjectStore.list`."""
        if bucket != self._bucket:
            yield from self._store.list(bucket, prefix)
            return
        before = (found for found in self._store.list(bucket, prefix) if found.key != MARK_KEY)
        both = heapq.merge(self._files(prefix), before, key=lambda found: found.key)
        for _, same in groupby(both, key=lambda found: found.key):
            yield next(same)  # the file

    def ensure_bucket(self, bucket: str, *, object_lock: bool = False) -> bool:
        """See `ObjectStore.ensure_bucket`; the folder is made, and what was left unfinished removed.

        Raises `Misconfigured` if it is not the folder in which the originals are.
        """
        made = self._store.ensure_bucket(bucket, object_lock=object_lock)
        if bucket == self._bucket:
            with self._explained():
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._recognise()
                for part in self._folder.glob(".*.part"):
                    with suppress(FileNotFoundError):
                        if time.time() - part.stat().st_mtime > UNFINISHED_S:
                            part.unlink()
        return made

    def check(self, bucket: str) -> None:
        """See `ObjectStore.check`."""
        if bucket == self._bucket and not (os.access(self._folder, os.R_OK | os.W_OK | os.X_OK) and self._mark.exists()):
            raise Misconfigured(
                "s3-folder-unusable",
                f"{self._folder} is no folder of originals that Hilum may write.",
                fix="Make it with `hilum provision`, mount it, or correct its rights or s3.folder.",
            )
        self._store.check(bucket)

    def has_object_lock(self, bucket: str) -> bool:
        """See `KeepingStore.has_object_lock`. Files have none; what came before them may."""
        return self._store.has_object_lock(bucket)

    def retain(self, bucket: str, key: str, mode: RetentionMode, until: datetime) -> None:
        """See `KeepingStore.retain`. Raises `Misconfigured` for files."""
        if bucket == self._bucket:
            raise Misconfigured("s3-folder-lock", "Originals that are files cannot be retained.", fix="Retain copies in another bucket.")
        self._store.retain(bucket, key, mode, until)

    def is_retained(self, bucket: str, key: str) -> bool:
        """See `KeepingStore.is_retained`."""
        return self._store.is_retained(bucket, key)

    def expire_after(self, bucket: str, days: int) -> None:
        """See `KeepingStore.expire_after`. Raises `Misconfigured` for files."""
        if bucket == self._bucket:
            raise Misconfigured("s3-folder-expiry", "Files are not deleted by the store.", fix="Use [retention] for originals.")
        self._store.expire_after(bucket, days)

    @property
    def _mark(self) -> Path:
        return self._folder / MARK

    def _recognise(self) -> None:
        """Compare the folder's mark with the store's; the first time, make both. The store's is last: it is there only with the other."""
        try:
            known = self._store.get(self._bucket, MARK_KEY)
        except NotFound:
            known = b""
        if not known and not self._mark.exists():
            with os.fdopen(os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(secrets.token_hex(16).encode())
                file.flush()
                os.fsync(file.fileno())
        own = self._mark.read_bytes() if self._mark.exists() else b""
        if not known:
            self._store.put(self._bucket, MARK_KEY, BytesIO(own), len(own))
        elif known != own:
            raise Misconfigured(
                "s3-folder-another",
                f"{self._folder} is not the folder in which the originals are.",
                fix=f"Mount it, or correct s3.folder. If the originals were moved, move {MARK} with them.",
            )

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(not part or part.startswith(".") or _JOINED in part or "\0" in part for part in parts):
            raise ValueError("no key of an original")
        if len(parts) > 2:
            parts[-2:] = [_JOINED.join(parts[-2:])]
        return self._folder.joinpath(*parts)

    def _named(self, part: Path, path: Path) -> None:
        """Give the file its name. Its folder may go at that moment, with the last object of its series."""
        for _ in range(10):
            with suppress(FileNotFoundError):
                part.rename(path)
                return
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.rename(path)

    def _opened(self, bucket: str, key: str) -> BinaryIO | None:
        """The object's file; None if it is not one."""
        if bucket == self._bucket:
            with suppress(*_ABSENT), self._explained():
                return self._path(key).open("rb")
        return None

    def _files(self, prefix: str) -> Iterator[StoredObject]:
        """Objects that are files, by key. What is in one folder is in memory at once."""
        with self._explained():
            self._mark.stat()
            yield from self._files_in(self._folder, "", prefix)

    def _files_in(self, folder: Path, above: str, prefix: str) -> Iterator[StoredObject]:
        with suppress(FileNotFoundError), os.scandir(folder) as entries:  # its last object may go meanwhile
            keys = {above + entry.name.replace(_JOINED, "/") + "/" * entry.is_dir(): entry for entry in entries if entry.name[0] != "."}
            for key in sorted(keys):
                if key.endswith("/"):
                    if key.startswith(prefix) or prefix.startswith(key):
                        yield from self._files_in(Path(keys[key].path), key, prefix)
                elif key.startswith(prefix):
                    with suppress(FileNotFoundError):  # it was deleted
                        yield self._stored(key, keys[key].stat())

    def _stored(self, key: str, status: os.stat_result) -> StoredObject:
        modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
        return StoredObject(bucket=self._bucket, key=key, size_bytes=status.st_size, modified_at=modified_at)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise what the disk says as what can be done about it."""
        try:
            yield
        except _ABSENT:
            if self._mark.exists():
                raise
            raise TryAgain(
                f"{self._folder}, in which the originals are, is not there.", fix="Mount it, or make it with `hilum provision`."
            ) from None
        except PermissionError:
            raise Misconfigured("s3-folder-unusable", f"Hilum may not use {self._folder}.", fix="Correct its rights.") from None
        except OSError as error:
            raise TryAgain(f"The disk of {self._folder} fails ({error.strerror}).", fix="Look at the disk.") from None


class _Stream:
    """The rest of a file, or its next `left` bytes."""

    def __init__(self, file: BinaryIO, left: int | None, explained: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._left = left
        self._explained = explained

    def read(self, size_bytes: int = -1) -> bytes:
        if self._left is not None:
            size_bytes = self._left if size_bytes < 0 else min(size_bytes, self._left)
        with self._explained():
            data = self._file.read(size_bytes)
        if self._left is not None:
            self._left -= len(data)
        return data


def _written(file: FileIO, content: BinaryIO, size_bytes: int, key: str) -> None:
    while size_bytes:
        piece = memoryview(content.read(min(size_bytes, _PIECE_BYTES)))
        if not piece:
            raise ValueError(f"the content of {key} ends early")
        size_bytes -= len(piece)
        while piece:
            piece = piece[file.write(piece) :]
