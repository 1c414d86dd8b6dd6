"""An object on its way out with attributes that its order sets right: the stored object stays as it came, and is read and checked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap

from msgspec.structs import replace

from hilum.dicom.edits import Edits, edited
from hilum.dicom.file_meta import SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID, VERSION, part10_head, read_meta
from hilum.dicom.recode import CannotRecode, pieces
from hilum.dicom.transcode import transcoded
from hilum.errors import HilumError, TryAgain
from hilum.part10 import IN_MEMORY_BYTES, Part10
from hilum.sink import Delivery, Settled
from hilum.store import ObjectStore

_PIECE_BYTES = 2**20


class NotEditable(HilumError):
    """The object cannot be written with its edits: a person decides whether it goes as it is."""


def part10_of(store: ObjectStore, delivery: Delivery, near: Callable[[], bytes | None] | None = None) -> Part10:
    """The object of a delivery, as its destination is to have it. `near` as for `Part10`."""
    if delivery.edits is None:
        return Part10(store, delivery.object, near)
    return EditedPart10(store, delivery, delivery.edits, near)


def remarked(settled: Settled, delivery: Delivery, part10: Part10) -> Settled:
    """The outcome, with what was noticed about the object's order and what was made of it."""
    said = " ".join(each for each in (settled.comment, delivery.remark, part10.says if isinstance(part10, EditedPart10) else "") if each)
    return settled if said == settled.comment else replace(settled, comment=said)


class EditedPart10(Part10):
    """A Part 10 file with edits. Everything of it may raise `NotEditable` besides what `Part10` raises."""

    def __init__(self, store: ObjectStore, delivery: Delivery, edits: Edits, near: Callable[[], bytes | None] | None = None) -> None:
        super().__init__(store, delivery.object)
        self._original = Part10(store, delivery.object, near)
        self._delivery = delivery
        self._edits = edits
        self._made: bytes | None = None
        self._size: int | None = None
        self._making: Future[bytes] | None = None
        #: What was done, once it is done; values are not in it.
        self.says = ""

    @property
    def size_bytes(self) -> int:
        """See `Part10.size_bytes`: as edited."""
        if self._size is None:
            with self.mapped():
                pass
        assert self._size is not None
        return self._size

    def read_ahead(self, executor: Executor) -> None:
        """See `Part10.read_ahead`."""
        if self._making is None and self._made is None and self.ref.size_bytes <= IN_MEMORY_BYTES:
            self._making = executor.submit(self._small)

    def forget(self) -> None:
        """See `Part10.forget`."""
        self._made = self._making = None

    def data_set(self, piece_bytes: int) -> Iterator[bytes | memoryview]:
        """See `Part10.data_set`."""
        with self.mapped() as (whole, at):
            yield from self._cut(whole, at, piece_bytes)

    def file(self) -> bytes:
        """See `Part10.file`."""
        with self.mapped() as (whole, _):
            return bytes(whole)

    def head(self, size_bytes: int) -> bytes:
        """See `Part10.head`."""
        with self.mapped() as (whole, _):
            return bytes(whole[:size_bytes])

    def pieces(self, piece_bytes: int) -> Iterator[bytes | memoryview]:
        """See `Part10.pieces`."""
        with self.mapped() as (whole, _):
            yield from self._cut(whole, 0, piece_bytes)

    @contextmanager
    def mapped(self) -> Iterator[tuple[bytes | mmap, int]]:
        """See `Part10.mapped`."""
        if self.ref.size_bytes <= IN_MEMORY_BYTES:
            whole = self._making.result() if self._making is not None else self._small()
            self._made = whole
            yield whole, self._at
            return
        with tempfile.TemporaryFile(prefix="hilum-") as file:
            try:
                with self._original.mapped() as (original, at):
                    for piece in self._edited(original, at):
                        file.write(piece)
                file.flush()
            except OSError as error:
                fix = "Make room there, or set TMPDIR to a folder on another disk."
                raise TryAgain(f"An object cannot be kept in {tempfile.gettempdir()} ({error.strerror}).", fix=fix) from None
            view = mmap(file.fileno(), 0, access=ACCESS_READ)
            self._size = len(view)
            try:
                yield view, self._at
            finally:
                with suppress(BufferError):
                    view.close()

    def _small(self) -> bytes:
        """The file of an object that fits into memory, edited."""
        if self._made is None:
            with self._original.mapped() as (original, at):
                self._made = b"".join(self._edited(original, at))
            self._size = len(self._made)
        return self._made

    def _edited(self, original: bytes | mmap, at: int) -> Iterator[bytes | memoryview]:
        head = bytes(memoryview(original)[:at])
        whole: bytes | mmap = original
        syntax = self._delivery.transfer_syntax_uid
        try:
            if self._edits.stored_as:
                whole, at = b"".join(transcoded(original, at, self._edits.stored_as, syntax)(_PIECE_BYTES)), 0
                head = _in_syntax(head, self._delivery)
            self._at = len(head)  # else preamble and File Meta stay as they are
            found = edited(whole, at, syntax, self._edits)
        except CannotRecode as error:
            raise NotEditable(
                f"The object is to have {', '.join(sorted(self._edits.values))} of its order, and cannot be edited: {error}.",
                fix="Take its sender's `coerce` back, or give the destination another of `character_sets`, then retry the delivery.",
            ) from None
        yield head
        if found is None:
            yield memoryview(whole)[at:]
            return
        self.says = f"With {', '.join(found.changed)} {self._edits.says}.".replace(" .", ".")
        if found.character_set:
            self.says += f" Its text was written in {found.character_set}."
        if found.signatures_dropped:
            self.says += " Its digital signatures were left out, since they would not hold."
        yield from pieces(found.parts, _PIECE_BYTES)

    @staticmethod
    def _cut(whole: bytes | mmap, at: int, piece_bytes: int) -> Iterator[bytes | memoryview]:
        view = memoryview(whole)[at:]
        for begin in range(0, len(view), piece_bytes):
            yield bytes(view[begin : begin + piece_bytes])
        view.release()


def _in_syntax(head: bytes, delivery: Delivery) -> bytes:
    """Preamble and File Meta, with the transfer syntax in which the object is delivered."""
    try:
        stored, _ = read_meta(head)
    except ValueError:
        stored = {}
    own = (VERSION, SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID)
    more = {element: value for element, value in stored.items() if element and element not in own}
    return part10_head(delivery.sop_class_uid, delivery.sop_instance_uid, delivery.transfer_syntax_uid, more)
