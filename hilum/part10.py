"""A stored object on its way out: its data set, as it was received, read once and checked against its digest."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, BinaryIO

from hilum.errors import HilumError, NotFound, TryAgain
from hilum.events import ObjectRef

if TYPE_CHECKING:
    from hilum.store import ObjectStore  # which brings all of S3's client along, and every `hilum` command comes by here

#: Objects up to this size are held in memory, so that they can be read ahead; larger ones are streamed.
IN_MEMORY_BYTES = 8 * 2**20
_READ_BYTES = 2**20
#: File Meta Information is a few hundred bytes; with private information in it, some kilobytes.
_MAX_META_BYTES = 2**20
_LONG_LENGTHS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


class Unsound(HilumError):
    """The object store does not have the object as it was received: nothing is sent, and a person must look."""


class Missing(Unsound):
    """The object store does not have the object at all."""


class Part10:
    """The object of one delivery. Nothing is read before it is asked for, or `read_ahead` is called."""

    def __init__(self, store: ObjectStore, ref: ObjectRef, near: Callable[[], bytes | None] | None = None) -> None:
        """`near` may give the file from nearer by than the store, right or wrong: its digest is checked as well. For small objects."""
        self.ref = ref
        self._near = near
        self._store = store
        self._ahead: Future[bytes] | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the Part 10 file that is sent."""
        return self.ref.size_bytes

    @property
    def sha256(self) -> str:
        """By which digest a destination knows it: of the stored object's data set, SHA-256 in hexadecimal."""
        return self.ref.sha256

    def read_ahead(self, executor: Executor) -> None:
        """Begin to read the object into memory in another thread, if it is small; errors show where it is used."""
        if self._ahead is None and self.ref.size_bytes <= IN_MEMORY_BYTES:
            self._ahead = executor.submit(self._whole)

    def forget(self) -> None:
        """Let go of what was read ahead; it is read again if need be."""
        self._ahead = None

    def data_set(self, piece_bytes: int) -> Iterator[bytes | memoryview]:
        """The data set, without preamble and File Meta, in pieces of `piece_bytes` bytes, the last one shorter.

        Raises `Unsound` at the latest instead of ending, if the object is not the one that was received, and `TryAgain` while
        the store does not answer. May be called again.
        """
        if self.ref.size_bytes > IN_MEMORY_BYTES:
            yield from self._streamed(piece_bytes)
            return
        whole = self._ahead.result() if self._ahead else self._whole()
        data = memoryview(whole)[data_set_offset(whole) :]
        for at in range(0, len(data), piece_bytes):
            yield data[at : at + piece_bytes]

    def file(self) -> bytes:
        """The whole Part 10 file in memory. Raises as `data_set` does."""
        if self._ahead:
            return self._ahead.result()
        return self._whole()

    def head(self, size_bytes: int) -> bytes:
        """At least the first `size_bytes` bytes of the Part 10 file, or all of it. Of a large object they are not checked."""
        if self.ref.size_bytes <= IN_MEMORY_BYTES:
            return self.file()
        try:
            return self._store.get(self.ref.bucket, self.ref.key, 0, size_bytes)
        except NotFound:
            raise self._missing() from None

    def pieces(self, piece_bytes: int) -> Iterator[bytes | memoryview]:
        """The whole Part 10 file in pieces of at most `piece_bytes` bytes. Raises as `data_set` does, before the last piece."""
        if self.ref.size_bytes <= IN_MEMORY_BYTES:
            whole = memoryview(self.file())
            for at in range(0, len(whole), piece_bytes):
                yield whole[at : at + piece_bytes]
            return
        digest, held = hashlib.sha256(), b""
        try:
            with self._store.open(self.ref.bucket, self.ref.key) as stream:
                while piece := _exactly(stream, piece_bytes):
                    digest.update(memoryview(piece)[0 if held else data_set_offset(piece) :])
                    if held:
                        yield held
                    held = piece
        except NotFound:
            raise self._missing() from None
        if digest.hexdigest() != self.ref.sha256:
            raise self._changed()
        yield held

    @contextmanager
    def mapped(self) -> Iterator[tuple[bytes | mmap, int]]:
        """The whole Part 10 file, to be read at will, and where its data set begins: a large one lies on the disk meanwhile.

        Raises as `data_set` does, and `TryAgain` while there is no room for it.
        """
        if self.ref.size_bytes <= IN_MEMORY_BYTES:
            whole = self.file()
            yield whole, data_set_offset(whole)
            return
        with tempfile.TemporaryFile(prefix="hilum-") as file:  # without a name: it ends with this process
            head = b""
            try:
                with self._store.open(self.ref.bucket, self.ref.key) as stream:
                    while piece := stream.read(_READ_BYTES):
                        head = head or piece
                        file.write(piece)
                file.flush()
            except NotFound:
                raise self._missing() from None
            except OSError as error:
                fix = "Make room there, or set TMPDIR to a folder on another disk."
                raise TryAgain(f"An object cannot be kept in {tempfile.gettempdir()} ({error.strerror}).", fix=fix) from None
            offset = data_set_offset(head)
            file.seek(offset)
            digest = hashlib.sha256()
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
            if digest.hexdigest() != self.ref.sha256:
                raise self._changed()
            view = mmap(file.fileno(), 0, access=ACCESS_READ)
            try:
                yield view, offset
            finally:
                with suppress(BufferError):  # a slice of it may outlive an error; its memory goes with that
                    view.close()

    def _whole(self) -> bytes:
        """The file, its digest checked."""
        if self._near is not None and (found := self._near()) is not None and self._is_sound(found):
            return found
        try:
            whole = self._store.get(self.ref.bucket, self.ref.key)
        except NotFound:
            raise self._missing() from None
        if not self._is_sound(whole):
            raise self._changed()
        return whole

    def _is_sound(self, whole: bytes) -> bool:
        return hashlib.sha256(memoryview(whole)[data_set_offset(whole) :]).hexdigest() == self.ref.sha256

    def _streamed(self, piece_bytes: int) -> Iterator[bytes]:
        digest = hashlib.sha256()
        try:
            with self._store.open(self.ref.bucket, self.ref.key) as stream:
                head = stream.read(_READ_BYTES)
                piece = head[data_set_offset(head) :]
                while True:
                    more = _exactly(stream, piece_bytes - len(piece)) if len(piece) < piece_bytes else b""
                    piece += more
                    if not piece:
                        break
                    now, piece = piece[:piece_bytes], piece[piece_bytes:]
                    digest.update(now)
                    yield now
        except NotFound:
            raise self._missing() from None
        if digest.hexdigest() != self.ref.sha256:
            raise self._changed()

    def _missing(self) -> Missing:
        sentence = f"Object {self.ref.key} is not in bucket {self.ref.bucket}: it was not sent."
        return Missing(sentence, fix="Restore the bucket from its backup, then send the object again.")

    def _changed(self) -> Unsound:
        sentence = f"Object {self.ref.key} in bucket {self.ref.bucket} is not what was received (its digest differs): it was not sent."
        return Unsound(sentence, fix="Find out what writes to the bucket, restore the object from a backup, then send it again.")


def data_set_offset(head: bytes) -> int:
    """Where the data set starts in a Part 10 file of which these are the first bytes (PS3.10 7.1).

    Raises `Unsound` if they are no such file's.
    """
    if head[128:132] != b"DICM":
        raise Unsound("A stored object is no DICOM file (PS3.10 7.1): it was not sent.", fix="Find out what writes to the bucket.")
    if head[132:140] == b"\x02\0\0\0UL\x04\0":
        return 144 + int.from_bytes(head[140:144], "little")
    at = 132
    while head[at : at + 2] == b"\x02\0" and at < _MAX_META_BYTES:
        long = head[at + 4 : at + 6] in _LONG_LENGTHS
        at += 12 + int.from_bytes(head[at + 8 : at + 12], "little") if long else 8 + int.from_bytes(head[at + 6 : at + 8], "little")
    return at


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes of the stream, fewer only at its end."""
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
