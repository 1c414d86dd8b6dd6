"""One Store transaction (PS3.18 10.5): its body goes into the spool as it comes, and becomes durable as a whole.

It knows nothing of HTTP. What is wrong with one instance is told of that instance; what is wrong with the request is raised,
and then nothing of it is kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

from msgspec import Struct

from hilum.settings import Stow
from hilum.spool import Arrival, Incoming, Spool, SpoolFull, SpoolTooLarge
from ingest.dicom.answers import STORED, Answer
from ingest.dicom.negotiation import is_storage

from . import answers
from .answers import Outcome, Refused
from .bulk import Bulk
from .file_meta import FileMeta
from .media import DICOM, DICOM_JSON, MediaType, media_type
from .metadata import UnfitError, data_set_of, read_instances, uid_of, write
from .multipart import Event, MalformedError, MultipartParser, PartBegin, PartData, PartEnd, TooManyPartsError
from .parts import SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, BulkDataPart, FilePart, JsonPart, Part, RefusedPart, usable

#: Parts of one request that may wait for the disk at the same time, each with an open file.
MAX_UNSYNCED = 16


class Request(Struct, frozen=True, kw_only=True):
    """Who sends what."""

    #: `application/dicom` or `application/dicom+json`.
    kind: str
    #: Boundary of the parts; empty: the body is one part.
    boundary: str = ""
    #: Only instances of this study are taken; empty: any.
    study: str = ""
    #: Title of the client whose key came with the request.
    sender: str = ""
    peer: str = ""
    #: Id of the record in which the request is counted.
    id: str = ""
    #: Largest object, in bytes of data set; 0: as `stow.max_object_bytes` says.
    max_object_bytes: int = 0


class Transaction:
    """`receive` the body in pieces, then `end`; or `drop` it, which may be called at any time and from any thread.

    Each may raise `Refused`; then it is dropped.
    """

    def __init__(self, request: Request, spool: Spool, settings: Stow, syncs: Executor, scratch: Path) -> None:
        self.request = request
        self.spool = spool
        self.settings = settings
        self.size_bytes = 0
        #: Of the data sets that are kept.
        self.kept_bytes = 0
        self.json_bytes = 0
        self.documents: list[bytes] = []
        self.bulk = Bulk(scratch)
        #: In the order of their parts; those that are still open end with the request.
        self.outcomes: list[Outcome] = []
        self._kept: list[Incoming] = []
        self._unsynced: deque[Future[None]] = deque()
        self._syncs = syncs
        self._parser = (
            MultipartParser(request.boundary.encode(), max_parts=settings.max_parts, max_header_bytes=settings.max_header_bytes)
            if request.boundary
            else _OnePart(request.kind)
        )
        self._part: Part | None = None
        self._lock = threading.Lock()
        self._is_over = False

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        with self._lock, _Dropping(self):
            self.size_bytes += len(data)
            if self.size_bytes > self.settings.max_request_bytes:
                raise Refused(answers.REQUEST_TOO_LARGE)
            for event in self._parser.feed(data):
                self._handle(event)

    def end(self) -> list[Outcome]:
        """The body is over: what became of each instance. What is said to be stored is durable."""
        with self._lock, _Dropping(self):
            for event in self._parser.finish() or ():
                self._handle(event)
            for document in self.documents:
                self._write_documents(document)
            self.outcomes += [Outcome(answer=answers.BULK_DATA_UNNAMED) for part in self.bulk.parts.values() if not part.is_used]
            if not self.outcomes:
                raise Refused(answers.NO_INSTANCES)
            self._synced(0)
            if self._kept:
                self.spool.commit(self._kept)
            self._kept.clear()
            self.documents.clear()
            self.bulk.close()
            self._is_over = True
            return self.outcomes

    def drop(self) -> None:
        """Leave nothing of it, if it is not over."""
        with self._lock:
            self._drop()

    def begin(self, meta: FileMeta) -> Incoming:
        """Begin an object in the spool."""
        arrival = Arrival(
            adapter="stow",
            transfer_syntax_uid=meta.transfer_syntax_uid,
            sop_class_uid=usable(meta.sop_class_uid),
            sop_instance_uid=usable(meta.sop_instance_uid),
            calling_aet=self.request.sender,
            peer=self.request.peer,
            association=self.request.id,
        )
        return self.spool.open(arrival, max_bytes=self.request.max_object_bytes or self.settings.max_object_bytes)

    def keep(self, incoming: Incoming) -> None:
        """Have a complete object synced while others come, and committed with them."""
        self._kept.append(incoming)
        self.kept_bytes += incoming.size_bytes
        self._unsynced.append(self._syncs.submit(incoming.sync))
        self._synced(MAX_UNSYNCED)

    def _synced(self, but: int) -> None:
        while len(self._unsynced) > but:
            self._unsynced.popleft().result()

    def _handle(self, event: Event) -> None:
        match event:
            case PartBegin(headers):
                self._part = self._part_for(headers)
            case PartData(data):
                assert self._part is not None
                self._part.write(data)
            case PartEnd():
                assert self._part is not None
                self._part.end()
                self._part = None

    def _part_for(self, headers: dict[str, str]) -> Part:
        kind = media_type(headers["content-type"]) if "content-type" in headers else MediaType(type=self.request.kind)
        if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
            return RefusedPart(self, answers.NOT_AS_ANNOUNCED)
        if self.request.kind == DICOM:
            return FilePart(self) if kind.type == DICOM else RefusedPart(self, answers.NOT_AS_ANNOUNCED)
        if kind.type == DICOM_JSON:
            return JsonPart(self)
        location = headers.get("content-location", "")
        if not location:
            return RefusedPart(self, answers.BULK_DATA_UNNAMED)
        if location in self.bulk.parts:
            raise Refused(answers.MALFORMED, "Two parts have the same Content-Location.")
        return BulkDataPart(self, self.bulk.begin(location, kind))

    def _write_documents(self, document: bytes) -> None:
        try:
            instances = read_instances(document)
        except ValueError as error:
            raise Refused(answers.MALFORMED, f"The body cannot be read: {error}.") from None
        if len(self.outcomes) + len(instances) > self.settings.max_parts:
            raise Refused(answers.REQUEST_TOO_LARGE)
        for instance in instances:
            sop_class, sop_instance, study = (
                usable(uid_of(instance, tag)) for tag in (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID)
            )
            incoming = None
            try:
                if (answer := self.refused(sop_class, sop_instance)) is None and self.request.study not in ("", study):
                    answer = answers.OTHER_STUDY
                if answer is None:
                    ds, syntax = data_set_of(instance, self.bulk)
                    meta = FileMeta(sop_class_uid=sop_class, sop_instance_uid=sop_instance, transfer_syntax_uid=syntax, data_set_at=0)
                    incoming = self.begin(meta)
                    write(ds, incoming)
                    self.keep(incoming)
                    answer = STORED
                else:
                    self.bulk.mark_used(instance)
            except UnfitError as error:
                answer = error.answer
                self.bulk.mark_used(instance)
                if incoming is not None:
                    incoming.discard()
            except SpoolTooLarge:
                answer = answers.TOO_LARGE
            self.outcomes.append(Outcome(answer=answer, sop_class_uid=sop_class, sop_instance_uid=sop_instance))

    def refused(self, sop_class_uid: str, sop_instance_uid: str) -> Answer | None:
        """Why an instance of this class cannot be kept, if it cannot."""
        if not sop_class_uid or not sop_instance_uid:
            return answers.NO_UIDS
        return None if is_storage(sop_class_uid) else answers.SOP_CLASS

    def _drop(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        for future in self._unsynced:
            future.cancel()
            future.exception() if not future.cancelled() else None  # it must not be written to any more
        if self._part is not None:
            self._part.drop()
            self._part = None
        self.documents.clear()
        for incoming in self._kept:
            incoming.discard()
        self._kept.clear()
        self.bulk.close()


class _Dropping:
    """What is raised within drops the transaction; what is known becomes a refusal."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __enter__(self) -> None:
        if self._transaction._is_over:
            raise Refused(answers.CUT_OFF)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        self._transaction._drop()
        match error:
            case MalformedError():
                raise Refused(answers.MALFORMED, f"The body cannot be read: {error}.") from None
            case TooManyPartsError():
                raise Refused(answers.REQUEST_TOO_LARGE) from None
            case SpoolFull():
                raise Refused(answers.NO_SPACE) from None


class _OnePart:
    """The parser of a body that is one part."""

    def __init__(self, kind: str) -> None:
        self._begun = False
        self._headers = {"content-type": kind}

    def feed(self, data: bytes) -> Iterator[Event]:
        """As it came."""
        if not self._begun and data:
            self._begun = True
            yield PartBegin(self._headers)
        if data:
            yield PartData(memoryview(data))

    def finish(self) -> Iterator[Event]:
        """Its end."""
        if self._begun:
            yield PartEnd()
