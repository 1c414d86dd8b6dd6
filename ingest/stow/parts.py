"""What becomes of one part of a request: a file, DICOM JSON, bulk data, or something that is not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hilum.dicom import uid_is_usable
from hilum.dicom.dataset import read_header
from hilum.spool import Incoming, SpoolTooLarge
from ingest.dicom.answers import HEAD_BYTES, NO_DATA_SET, Answer, judge

from . import answers
from .answers import Outcome, Refused
from .bulk import BulkPart
from .file_meta import FileMeta, read_file_meta

if TYPE_CHECKING:
    from .transaction import Transaction

SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID = "00080016", "00080018", "0020000D"


class Part(Protocol):
    """One part on its way in."""

    def write(self, data: memoryview) -> None:
        """Take its next bytes. Raises `Refused` and `SpoolFull`, which end the request."""
        ...

    def end(self) -> None:
        """It is complete."""
        ...

    def drop(self) -> None:
        """Leave nothing of it."""
        ...


class FilePart:
    """A DICOM file: its data set goes into the spool as it comes, with a File Meta of Hilum's own in front."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._head = bytearray()  # of the file, then of its data set
        self._size_bytes = 0
        self._meta: FileMeta | None = None
        self._incoming: Incoming | None = None
        self._answer: Answer | None = None

    def write(self, data: memoryview) -> None:
        """Take some bytes of the file."""
        self._size_bytes += len(data)
        if self._answer is not None:
            return
        if self._meta is None:
            self._head += data
            self._begin(whole=False)
        else:
            self._append(data)

    def _begin(self, *, whole: bool) -> None:
        head = bytes(self._head)
        try:
            meta = read_file_meta(head, whole=whole)
        except ValueError:
            self._answer = answers.NOT_PART_10 if self._size_bytes else NO_DATA_SET
            return
        if meta is None:
            return
        self._meta = meta
        self._head.clear()
        if not meta.transfer_syntax_uid:
            self._answer = answers.NOT_PART_10
        elif not uid_is_usable(meta.transfer_syntax_uid):
            self._answer = answers.TRANSFER_SYNTAX
        else:
            self._incoming = self._transaction.begin(meta)
            self._append(memoryview(head)[meta.data_set_at :])

    def _append(self, data: memoryview) -> None:
        assert self._incoming is not None
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        try:
            self._incoming.write(data)
        except SpoolTooLarge:
            self._incoming, self._answer = None, answers.TOO_LARGE

    def end(self) -> None:
        """The file is complete."""
        if self._meta is None and self._answer is None:
            self._begin(whole=True)
        meta, incoming = self._meta, self._incoming
        sop_class = usable(meta.sop_class_uid) if meta else ""
        sop_instance = usable(meta.sop_instance_uid) if meta else ""
        if meta is not None and incoming is not None and self._answer is None:
            if not incoming.size_bytes:
                self._answer = NO_DATA_SET
            else:
                syntax, head = meta.transfer_syntax_uid, bytes(self._head)
                if not sop_class or not sop_instance:
                    header = read_header(head, syntax)
                    sop_class, sop_instance = (
                        sop_class or usable(header.uid(SOP_CLASS_UID)),
                        sop_instance or usable(header.uid(SOP_INSTANCE_UID)),
                    )
                self._answer = self._transaction.refused(sop_class, sop_instance)
                if self._answer is None and self._transaction.request.study not in ("", self._study(incoming, syntax)):
                    self._answer = answers.OTHER_STUDY
                if self._answer is None:
                    self._answer = answers.of_file(judge(head, incoming.size_bytes, syntax, sop_class, sop_instance))
                    self._incoming = None
                    self._transaction.keep(incoming)
        self.drop()
        assert self._answer is not None
        self._transaction.outcomes.append(Outcome(answer=self._answer, sop_class_uid=sop_class, sop_instance_uid=sop_instance))

    def _study(self, incoming: Incoming, transfer_syntax: str) -> str:
        """The StudyInstanceUID: it may stand behind private elements of any size, so the whole file is looked at."""
        with incoming.mapped() as (content, start):
            header = read_header(content, transfer_syntax, start=start, keep=frozenset({STUDY_INSTANCE_UID}))
        return header.uid(STUDY_INSTANCE_UID)

    def drop(self) -> None:
        """Leave nothing of it."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None


class JsonPart:
    """DICOM JSON: held in memory, and read when all bulk data is there."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._document = bytearray()

    def write(self, data: memoryview) -> None:
        """Take some bytes of it."""
        self._transaction.json_bytes += len(data)
        if self._transaction.json_bytes > self._transaction.settings.max_json_bytes:
            raise Refused(answers.REQUEST_TOO_LARGE)
        self._document += data

    def end(self) -> None:
        """It is complete."""
        self._transaction.documents.append(bytes(self._document))

    def drop(self) -> None:
        """Leave nothing of it."""


class BulkDataPart:
    """Bulk data: it waits on the disk."""

    def __init__(self, transaction: Transaction, part: BulkPart) -> None:
        self._bulk = transaction.bulk
        self._part = part

    def write(self, data: memoryview) -> None:
        """Take some bytes of it."""
        self._bulk.write(self._part, data)

    def end(self) -> None:
        """It is complete."""

    def drop(self) -> None:
        """It goes with the transaction."""


class RefusedPart:
    """A part that is read and thrown away."""

    def __init__(self, transaction: Transaction, answer: Answer) -> None:
        self._transaction = transaction
        self._answer = answer

    def write(self, data: memoryview) -> None:
        """Throw it away."""

    def end(self) -> None:
        """Say why."""
        self._transaction.outcomes.append(Outcome(answer=self._answer))

    def drop(self) -> None:
        """There is nothing."""


def usable(uid: str) -> str:
    """`uid`, or nothing: keys, paths and logs hold UIDs only."""
    return uid if uid_is_usable(uid) else ""
