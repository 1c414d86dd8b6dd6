"""One file into the spool: its data set byte for byte, judged as a whole before it is committed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from hilum.dicom import uid_is_usable
from hilum.dicom.dataset import read_header
from hilum.media.errors import Skipped, Unreadable, Why
from hilum.media.recognise import HEAD_BYTES, Head, recognise
from hilum.media.sources import Content, Source
from hilum.spool import Arrival, Incoming, Spool, SpoolFull, SpoolTooLarge

_READ_BYTES = 2**20
_IDENTIFIERS = {"00080016": "SOPClassUID", "00080018": "SOPInstanceUID", "0020000D": "StudyInstanceUID", "0020000E": "SeriesInstanceUID"}
#: What must be there if File Meta Information vouches for the rest: validation sets aside what lacks more.
_LEAST = ("00080016", "00080018")
#: Encapsulated pixel data of undefined length in Explicit VR (PS3.5 A.4).
_COMPRESSED = tuple(b"\xe0\x7f\x10\0" + vr + b"\0\0\xff\xff\xff\xff" for vr in (b"OB", b"OW"))


class Found(Struct, frozen=True, kw_only=True):
    """An object, read to its end."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    #: SHA-256 of the data set.
    sha256: bytes
    #: Of the data set.
    size_bytes: int


class Taken(Struct, frozen=True, kw_only=True):
    """An object and what became of it: it is durable now, except in a dry run."""

    object: Found
    #: `taken`: it is in the spool. Otherwise these very bytes came before: in this import, in one that was broken off, or the index
    #: has them.
    outcome: Literal["taken", "duplicate", "taken_before", "indexed"]
    receipt: str = ""


class Intake:
    """Takes sources into the spool. Used by several threads.

    `once` decides for each object whether it is new, and commits it if so. `full` is called when the spool takes nothing: it
    waits, and raises to give up. `record` is the id of the record that the objects name; it may be changed at any time.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        adapter: Literal["folder", "media"],
        sender: str,
        max_object_bytes: int,
        full: Callable[[SpoolFull], None],
        once: Callable[[Found, Incoming], Taken] | None = None,
        record: str = "",
    ) -> None:
        self._spool = spool
        self._adapter = adapter
        self._sender = sender
        self._max_object_bytes = max_object_bytes
        self._full = full
        self._once = once or committed
        self.record = record

    def take(self, source: Source) -> Taken:
        """Take the object in `source`; it is synced when this returns. Raises `Skipped` and `Unreadable`."""
        while True:
            try:
                return self._take(source)
            except SpoolTooLarge as error:
                raise Unreadable(Why.TOO_LARGE, error.sentence, fix=error.fix) from None
            except SpoolFull as error:
                self._full(error)

    def _take(self, source: Source) -> Taken:
        incoming: Incoming | None = None
        try:
            with source.open() as content:
                head = _at_least(content, HEAD_BYTES)
                found = recognise(head, source.name)
                if found.directory:
                    raise Skipped(Why.DICOMDIR)
                incoming = self._spool.open(self._arrival(found), max_bytes=self._max_object_bytes)
                digest = _copied(head[found.data_set_at :], content, incoming)
            return self._once(examined(incoming, found, digest), incoming)
        finally:
            if incoming is not None:
                incoming.discard()  # changes nothing once it is committed

    def _arrival(self, head: Head) -> Arrival:
        return Arrival(
            adapter=self._adapter,
            transfer_syntax_uid=head.transfer_syntax_uid,
            sop_class_uid=head.sop_class_uid,
            sop_instance_uid=head.sop_instance_uid,
            calling_aet=self._sender,
            association=self.record,
        )


def committed(found: Found, incoming: Incoming) -> Taken:
    """Take every object."""
    return Taken(object=found, outcome="taken", receipt=incoming.commit())


def examined(incoming: Incoming, head: Head, sha256: bytes) -> Found:
    """The object that was written, if all of it can be read. Raises `Unreadable`."""
    with incoming.mapped() as (data, start):
        header = read_header(data, head.transfer_syntax_uid, start=start)
        compressed = head.bare and any(data.find(mark, start) >= 0 for mark in _COMPRESSED)
        size_bytes = len(data) - start
    if header.fault:
        raise Unreadable(Why.TRUNCATED if header.truncated else Why.UNREADABLE, header.fault, fix="Have it copied or exported again.")
    if compressed:
        sentence = "Its pixel data is compressed, and without File Meta Information nobody can tell how."
        raise Unreadable(Why.UNREADABLE, sentence, fix="Have it exported as a DICOM file (PS3.10).")
    for tag in _IDENTIFIERS if head.bare else _LEAST:
        if not uid_is_usable(header.uid(tag)):
            sentence = f"{_IDENTIFIERS[tag]} ({tag[:4]},{tag[4:]}) is absent or no valid UID."
            raise Unreadable(Why.IDENTIFIER_MISSING, sentence, fix="Have it corrected at its source and exported again.")
    study = header.uid("0020000D")
    return Found(
        sop_class_uid=header.uid("00080016"),
        sop_instance_uid=header.uid("00080018"),
        study_instance_uid=study if uid_is_usable(study) else "",
        transfer_syntax_uid=head.transfer_syntax_uid,
        sha256=sha256,
        size_bytes=size_bytes,
    )


def _copied(first: bytes, content: Content, incoming: Incoming) -> bytes:
    """Write the data set; its SHA-256."""
    digest = hashlib.sha256()
    piece = first
    while piece:
        digest.update(piece)
        incoming.write(piece)
        piece = content.read(_READ_BYTES)
    return digest.digest()


def _at_least(content: Content, size: int) -> bytes:
    """The first `size` bytes; fewer only if there are no more."""
    parts, left = [], size
    while left > 0 and (part := content.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
