"""A spool file on its way out: what its event says of it, and how it lies in the object store."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Raw, Struct
from pydicom.datadict import keyword_dict

from hilum.dicom import tag_of, uid_is_usable
from hilum.dicom.dataset import ReadHeader, fitted, read_header
from hilum.dicom.file_meta import MAX_META_BYTES, part10_head
from hilum.dicom.modules import KEPT_TAGS
from hilum.dicom.numbers import NUMBER, tags_numbered
from hilum.events import Instance, InstanceReceived, ObjectRef, Source
from hilum.settings import Settings
from hilum.spool import Arrival, mapped, read_arrival, received_at
from hilum.store import ObjectStore

_READ_BYTES = 2**18
#: Objects up to this size are read once; of larger ones only the header is looked at in memory, and the rest passes through it.
_IN_MEMORY_BYTES = 4 * 2**20


class Described(Struct, frozen=True, kw_only=True):
    """A spool file: its event, and what is to be stored."""

    event: InstanceReceived
    #: Preamble and File Meta of the stored object. Equal for equal data sets, so that storing one again changes nothing.
    head: bytes
    #: Where the data set begins in the spool file.
    data_set_at: int
    #: The spool file's object, if it is small.
    content: bytes | None
    #: The whole header as DICOM JSON, if the event's lacks more of it than bulk values; it is stored beside the object.
    full_header: bytes | None


def describe(path: Path, receipt: str, bucket: str, keep: frozenset[str]) -> Described:
    """Describe the spool file of `receipt`. Tags in `keep` stay in the event's header whatever their size.

    Raises `OSError` if the file cannot be read, and `ValueError` if it is no spool file. What is wrong with the data set is
    part of the description.
    """
    with mapped(path) as view:
        small = view[:] if len(view) <= _IN_MEMORY_BYTES else None
        content = view if small is None else small
        arrival, data_set_at = read_arrival(content[:MAX_META_BYTES])
        size_bytes = len(content) - data_set_at
        if small is not None:
            sha256 = hashlib.sha256(memoryview(small)[data_set_at:]).hexdigest()
        else:
            with path.open("rb") as file:  # read, not mapped: pages of a huge object would count as this process's memory
                file.seek(data_set_at)
                sha256 = _sha256(file, size_bytes)
        header = read_header(content, arrival.transfer_syntax_uid, start=data_set_at, keep=keep)
        full_header = None
        shown, cut = (b"{}", ()) if header.fault and not header.truncated else fitted(header, keep)
        if not header.fault and (header.cut_beyond_bulk or set(cut) != set(header.cut)):
            full = read_header(content, arrival.transfer_syntax_uid, start=data_set_at, keep=keep, full=True)
            full_header, _ = fitted(full, keep, max_bytes=len(content) * 8)
    uids = {name: _usable(header.uid(tag)) for name, tag in _UIDS.items()}
    head = part10_head(
        uids["sop_class_uid"] or arrival.sop_class_uid, uids["sop_instance_uid"] or arrival.sop_instance_uid, arrival.transfer_syntax_uid
    )
    ref = ObjectRef(bucket=bucket, key=_key(uids, header, receipt, sha256), size_bytes=len(head) + size_bytes, sha256=sha256)
    instance = Instance(
        receipt=receipt,
        **uids,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        object=ref,
        source=_source(arrival),
        received_at=received_at(receipt),
        announced_sop_class_uid=arrival.sop_class_uid,
        announced_sop_instance_uid=arrival.sop_instance_uid,
        header_json=Raw(shown),
        header_cut=cut,
        encoded_as=header.encoded_as,
        unreadable=header.fault if not header.truncated else "",
        truncated=header.fault if header.truncated else "",
    )
    event = InstanceReceived(instance=instance)
    return Described(event=event, head=head, data_set_at=data_set_at, content=small, full_header=full_header)


def _sha256(file: BinaryIO, size_bytes: int) -> str:
    digest = hashlib.sha256()
    while size_bytes and (piece := file.read(min(size_bytes, _READ_BYTES))):
        digest.update(piece)
        size_bytes -= len(piece)
    return digest.hexdigest()


_UIDS = {"study_instance_uid": "0020000D", "series_instance_uid": "0020000E", "sop_instance_uid": "00080018", "sop_class_uid": "00080016"}


def _usable(uid: str) -> str:
    """`uid`, or nothing: keys, paths and logs hold UIDs only, whatever a sender puts in their place."""
    return uid if uid_is_usable(uid) else ""


def _key(uids: dict[str, str], header: ReadHeader, receipt: str, sha256: str) -> str:
    path = (uids["study_instance_uid"], uids["series_instance_uid"], uids["sop_instance_uid"])
    if not all(path) or (header.fault and not header.truncated):
        return f"unreadable/{receipt}/{sha256}.dcm"
    return "/".join((*path, f"{sha256}.dcm"))


def _source(arrival: Arrival) -> Source:
    return Source(
        adapter=arrival.adapter,
        calling_aet=arrival.calling_aet,
        called_aet=arrival.called_aet,
        peer=arrival.peer,
        association=arrival.association,
    )


def protected_tags(settings: Settings) -> frozenset[str]:
    """Tags (`GGGGEEEE`) that are never cut for size: patient, study, series, equipment, SOP Common, and what a rule names."""
    words = {word for rule in settings.rules for word in re.findall(r"[A-Za-z]\w*", rule.when)}
    numbers = {tag for rule in settings.rules for text in re.findall(NUMBER, rule.when) for tag in tags_numbered(text)}
    return KEPT_TAGS | {tag_of(word) for word in words if word in keyword_dict} | numbers


def store_object(store: ObjectStore, path: Path, described: Described) -> None:
    """Put the object, and its whole header if the event's is not. Raises as `ObjectStore.put` does."""
    ref = described.event.instance.object
    if described.content is not None:
        whole = b"".join((described.head, memoryview(described.content)[described.data_set_at :]))
        store.put(ref.bucket, ref.key, BytesIO(whole), ref.size_bytes)
    else:
        with path.open("rb") as file:
            file.seek(described.data_set_at)
            data_set = _Joined(described.head, file, ref.size_bytes - len(described.head))
            store.put(ref.bucket, ref.key, cast("BinaryIO", data_set), ref.size_bytes)
    if described.full_header is not None:
        key = ref.key.removesuffix(".dcm") + ".json"
        store.put(ref.bucket, key, BytesIO(described.full_header), len(described.full_header))


class _Joined:
    """`head`, then the next `left` bytes of `file`, to be read once."""

    def __init__(self, head: bytes, file: BinaryIO, left: int) -> None:
        self._head = head
        self._file = file
        self._left = left

    def read(self, size_bytes: int = -1) -> bytes:
        if size_bytes < 0:
            size_bytes = len(self._head) + self._left
        data, self._head = self._head[:size_bytes], self._head[size_bytes:]
        more = self._file.read(min(size_bytes - len(data), self._left))
        self._left -= len(more)
        return data + more if data else more
