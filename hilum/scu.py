"""Send Part 10 files by C-STORE, byte for byte, over as few associations as their presentation contexts allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import Struct
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from hilum.association import Answer, Association, AssociationLost
from hilum.dicom import uid_is_usable
from hilum.dicom.beginning import SOP_CLASS_UID, SOP_INSTANCE_UID, sop_uids
from hilum.dicom.encoding import DEFLATED, encoding_of
from hilum.dicom.file_meta import TRANSFER_SYNTAX_UID, read_meta
from hilum.errors import HilumError
from hilum.part10 import data_set_offset
from hilum.peer import Peer
from hilum.upper_layer import MAX_CONTEXTS, Context

#: The UIDs of nearly every file are in its first bytes.
_HEAD_BYTES = 4096


class Unanswered(Struct, frozen=True, kw_only=True):
    """Instead of the peer's answer, where there is none: the object was not sent, or nobody knows what became of it."""

    #: `not sent` or `no answer`.
    what: str
    why: str


class Outgoing(Struct, frozen=True, kw_only=True):
    """A file that can be sent."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    #: Where its data set begins.
    offset: int

    @property
    def context(self) -> Context:
        """The presentation context that it needs."""
        return Context(abstract_syntax=self.sop_class_uid, transfer_syntax=self.transfer_syntax_uid)


def outgoing(path: Path) -> Outgoing:
    """What must be known of a file to send it. Raises `HilumError` if it is no SOP instance in a Part 10 file (PS3.10 7)."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            found = _at_once(path, head) or _parsed(path, head + file.read(1 << 16))
    except (InvalidDicomError, AttributeError, OSError, ValueError, NotImplementedError, HilumError):
        raise HilumError(f"{path} is no DICOM object with SOP class, instance and transfer syntax.", fix="Leave it out.") from None
    return found


def _at_once(path: Path, head: bytes) -> Outgoing | None:
    """By the file's first bytes, as most files allow; None if they do not tell."""
    try:
        meta, offset = read_meta(head)
        transfer_syntax_uid = meta[TRANSFER_SYNTAX_UID].decode("ascii")
        if transfer_syntax_uid in DEFLATED:
            return None
        data_set = head[offset:]
        uids = sop_uids(data_set, encoding_of(data_set, len(data_set), transfer_syntax_uid))
    except (ValueError, KeyError):
        return None
    if not (uid_is_usable(uids.get(SOP_CLASS_UID, "")) and uid_is_usable(uids.get(SOP_INSTANCE_UID, ""))):
        return None
    return Outgoing(
        path=path,
        sop_class_uid=uids[SOP_CLASS_UID],
        sop_instance_uid=uids[SOP_INSTANCE_UID],
        transfer_syntax_uid=transfer_syntax_uid,
        offset=offset,
    )


def _parsed(path: Path, head: bytes) -> Outgoing:
    parsed = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    return Outgoing(
        path=path,
        sop_class_uid=str(parsed.SOPClassUID),
        sop_instance_uid=str(parsed.SOPInstanceUID),
        transfer_syntax_uid=str(parsed.file_meta.TransferSyntaxUID),
        offset=data_set_offset(head),
    )


def status_of(answer: Answer | Unanswered) -> str:
    """The status as `0x0000`; `not sent` or `no answer` where there is none."""
    return answer.what if isinstance(answer, Unanswered) else f"0x{answer.status:04X}"


def reason_of(answer: Answer | Unanswered) -> str:
    """The peer's comment, or why there is none."""
    return answer.why if isinstance(answer, Unanswered) else answer.comment


def send_all(peer: Peer, files: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, Answer | Unanswered]]:
    """Send each file and give the peer's answer to it. Raises `NoAssociation` if the peer cannot be reached or refuses.

    An association that breaks is asked for again for the next file; the one that was under way is `Unanswered`.
    """
    needed = list(dict.fromkeys(file.context for file in files))
    for start in range(0, len(needed), MAX_CONTEXTS):
        contexts = needed[start : start + MAX_CONTEXTS]
        association = Association(peer, contexts)
        try:
            for file in files:
                if file.context not in contexts:
                    continue
                if not association.is_open():
                    association = Association(peer, contexts)
                yield file, _send(association, file)
        finally:
            association.release()


def _send(association: Association, file: Outgoing) -> Answer | Unanswered:
    if file.context not in association.accepted:
        return Unanswered(what="not sent", why="the peer refused this SOP class in this transfer syntax")
    with suppress(AssociationLost):
        return association.c_store(file.context, file.sop_instance_uid, partial(_pieces, file))
    return Unanswered(what="no answer", why="the association ended before the answer")


def _pieces(file: Outgoing, piece_bytes: int) -> Iterator[bytes]:
    with file.path.open("rb") as content:
        content.seek(file.offset)
        while piece := content.read(piece_bytes):
            yield piece
