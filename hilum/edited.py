"""An object on its way out as another one than is stored: with attributes that its order sets right, de-identified, or both.

The stored object stays as it came, and is read and checked.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from itertools import chain
from mmap import ACCESS_READ, mmap
from typing import IO

from msgspec.structs import replace

from hilum.anonymizing import Cleaning, NotAnonymized
from hilum.dicom.edits import Edits, edited
from hilum.dicom.file_meta import SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID, VERSION, part10_head, read_meta
from hilum.dicom.recode import CannotRecode, pieces
from hilum.dicom.transcode import transcoded
from hilum.errors import HilumError, TryAgain
from hilum.making import making
from hilum.part10 import IN_MEMORY_BYTES, Part10, data_set_offset
from hilum.sink import Delivery, Settled
from hilum.store import ObjectStore

_PIECE_BYTES = 2**20


class NotEditable(HilumError):
    """The object cannot be written with its edits: a person decides whether it goes as it is."""


def part10_of(store: ObjectStore, delivery: Delivery, near: Callable[[], bytes | None] | None = None) -> Part10:
    """The object of a delivery, as its destination is to have it. `near` as for `Part10`."""
    if delivery.cleaning is not None:
        return AnonymizedPart10(store, delivery, delivery.cleaning, near)
    if delivery.edits is None:
        return Part10(store, delivery.object, near)
    return EditedPart10(store, delivery, delivery.edits, near)


def remarked(settled: Settled, delivery: Delivery, part10: Part10) -> Settled:
    """The outcome, with what was noticed about the object's order and what was made of it."""
    said = " ".join(each for each in (settled.comment, delivery.remark, part10.says if isinstance(part10, MadePart10) else "") if each)
    return settled if said == settled.comment else replace(settled, comment=said)


class MadePart10(Part10):
    """A Part 10 file that is made of another one when it is asked for. Everything of it may raise what `_pieces_of` raises as well."""

    #: Whether a large one is kept on the disk once it is made, as long as this lives.
    _keeps_large = False

    def __init__(self, store: ObjectStore, original: Part10) -> None:
        super().__init__(store, original.ref)
        self._original = original
        self._at = 0
        self._made: bytes | mmap | None = None
        self._size: int | None = None
        self._making: Future[bytes | mmap] | None = None
        self._file: IO[bytes] | None = None
        #: What was done, once it is done; values are not in it.
        self.says = ""

    def _pieces_of(self, original: bytes | mmap, at: int) -> Iterator[bytes | memoryview]:
        """The file that is made of the original, whose data set begins at `at`. Sets `_at` before the first piece."""
        raise NotImplementedError

    @property
    def size_bytes(self) -> int:
        """See `Part10.size_bytes`: as it was made."""
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
        self._made = self._making = self._file = None

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
            with making():
                whole = self._making.result() if self._making is not None else self._small()
            self._made = whole
            yield whole, self._at
            return
        with making():
            file = self._file if self._file is not None else self._written()
        if self._keeps_large:
            self._file = file
        view = mmap(file.fileno(), 0, access=ACCESS_READ)
        self._size = len(view)
        try:
            yield view, self._at
        finally:
            with suppress(BufferError):
                view.close()
            if not self._keeps_large:
                file.close()

    def _written(self) -> IO[bytes]:
        """A file without a name, with the file of an object that does not fit into memory."""
        with self._original.mapped() as (original, at):
            return _filed(self._pieces_of(original, at))

    def _small(self) -> bytes | mmap:
        """The file of an object that fits into memory; what was made of it may not, as of pixels that were compressed with loss."""
        if self._made is None:
            with self._original.mapped() as (original, at):
                self._made = _gathered(self._pieces_of(original, at))
            self._size = len(self._made)
        return self._made

    @staticmethod
    def _cut(whole: bytes | mmap, at: int, piece_bytes: int) -> Iterator[bytes | memoryview]:
        view = memoryview(whole)[at:]
        copied = isinstance(whole, mmap)  # which is closed while slices of it may still be held
        for begin in range(0, len(view), piece_bytes):
            piece = view[begin : begin + piece_bytes]
            yield bytes(piece) if copied else piece
        if copied:
            view.release()


def _gathered(pieces: Iterator[bytes | memoryview]) -> bytes | mmap:
    """The pieces one after the other, in memory if that is little, else in a file without a name."""
    first: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        first.append(piece)
        size += len(piece)
        if size > IN_MEMORY_BYTES:
            with _filed(chain(first, pieces)) as file:
                return mmap(file.fileno(), 0, access=ACCESS_READ)
    return b"".join(first)


def _filed(pieces: Iterable[bytes | memoryview]) -> IO[bytes]:
    """A file without a name, with the pieces one after the other. Raises `TryAgain` if there is no room for it."""
    file = tempfile.TemporaryFile(prefix="hilum-")  # noqa: SIM115  # it outlives this
    try:
        for piece in pieces:
            file.write(piece)
        file.flush()
    except OSError as error:
        file.close()
        fix = "Make room there, or set TMPDIR to a folder on another disk."
        raise TryAgain(f"An object cannot be kept in {tempfile.gettempdir()} ({error.strerror}).", fix=fix) from None
    except BaseException:
        file.close()
        raise
    return file


class EditedPart10(MadePart10):
    """A Part 10 file with edits. Everything of it may raise `NotEditable` besides what `Part10` raises."""

    def __init__(self, store: ObjectStore, delivery: Delivery, edits: Edits, near: Callable[[], bytes | None] | None = None) -> None:
        super().__init__(store, Part10(store, delivery.object, near))
        self._delivery = delivery
        self._edits = edits

    def _pieces_of(self, original: bytes | mmap, at: int) -> Iterator[bytes | memoryview]:
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


class AnonymizedPart10(MadePart10):
    """A Part 10 file as a policy lets it out: edits come first, then the policy, then the second look.

    Everything of it may raise `NotAnonymized` and `NotEditable` besides what `Part10` raises, before the first byte of it.
    """

    _keeps_large = True

    def __init__(self, store: ObjectStore, delivery: Delivery, cleaning: Cleaning, near: Callable[[], bytes | None] | None = None) -> None:
        super().__init__(store, part10_of(store, cleaning.original, near))
        self._delivery = delivery
        self._cleaning = cleaning
        self._unedited = Part10(store, cleaning.original.object, near) if cleaning.original.edits is not None else None

    @property
    def sha256(self) -> str:
        """See `Part10.sha256`: of what was made, lest the original's lead back to it."""
        if not self._cleaning.sha256:
            with self.mapped():
                pass
        return self._cleaning.sha256

    def _pieces_of(self, original: bytes | mmap, at: int) -> Iterator[bytes | memoryview]:
        del at
        cleaning, expected = self._cleaning, self._delivery
        if self._unedited is None:
            made = cleaning.anonymizer.made(original, survivor_of=cleaning.survivor_of)
        else:
            with self._unedited.mapped() as (unedited, _):
                made = cleaning.anonymizer.made(original, unedited=unedited, survivor_of=cleaning.survivor_of)
        if made.reverse:
            if cleaning.keep is None:
                raise TryAgain("What leads back from its pseudonyms cannot be kept. It was not sent.", fix="Report it.")
            cleaning.keep(made.reverse)
        uids = made.sop_instance_uid, made.study_instance_uid, made.series_instance_uid
        if uids != (expected.sop_instance_uid, expected.study_instance_uid, expected.series_instance_uid):
            raise NotAnonymized(
                "uids-differ",
                "It does not have the UIDs of which its delivery tells. It was not sent.",
                fix="Have the object sent to Hilum again, then cancel this delivery.",
            )
        head = b"".join(made.parts[:1])
        cleaning.transfer_syntax_uid = _syntax_of(head)
        if cleaning.transfer_syntax_uid != expected.transfer_syntax_uid and not cleaning.anonymizer.may_change_syntax:
            raise NotAnonymized(
                "syntax-differs",
                "De-identified, it has another transfer syntax than its delivery tells of. It was not sent.",
                fix="Leave such objects out of what goes to this destination.",
            )
        self._at = start = data_set_offset(head)
        digest = hashlib.sha256()
        for part in made.parts:
            digest.update(memoryview(part)[min(start, len(part)) :])
            start -= min(start, len(part))
        cleaning.sha256, cleaning.patient = digest.hexdigest(), made.patient
        self.says = f"De-identified by {cleaning.anonymizer.policy} {cleaning.anonymizer.version}. {made.stated}".rstrip()
        yield from pieces(list(made.parts), _PIECE_BYTES)


def _syntax_of(head: bytes) -> str:
    try:
        meta, _ = read_meta(head)
    except ValueError:
        return ""
    return meta.get(TRANSFER_SYNTAX_UID, b"").rstrip(b"\0 ").decode("latin-1")


def _in_syntax(head: bytes, delivery: Delivery) -> bytes:
    """Preamble and File Meta, with the transfer syntax in which the object is delivered."""
    try:
        stored, _ = read_meta(head)
    except ValueError:
        stored = {}
    own = (VERSION, SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID)
    more = {element: value for element, value in stored.items() if element and element not in own}
    return part10_head(delivery.sop_class_uid, delivery.sop_instance_uid, delivery.transfer_syntax_uid, more)
