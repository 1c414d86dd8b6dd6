"""Send Part 10 files by C-STORE, byte for byte, over as few associations as their presentation contexts allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import Struct
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from hilum.association import Answer, Association, AssociationLost, Peer
from hilum.errors import HilumError
from hilum.part10 import data_set_offset
from hilum.upper_layer import MAX_CONTEXTS, Context

#: "Processing failure" (PS3.7 C.5.15), for an object whose transfer syntax the peer refused or whose answer never came.
NOT_SENT = 0x0110


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
        head = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        with path.open("rb") as file:
            offset = data_set_offset(file.read(1 << 16))
        found = Outgoing(
            path=path,
            sop_class_uid=str(head.SOPClassUID),
            sop_instance_uid=str(head.SOPInstanceUID),
            transfer_syntax_uid=str(head.file_meta.TransferSyntaxUID),
            offset=offset,
        )
    except (InvalidDicomError, AttributeError, OSError, ValueError, NotImplementedError, HilumError):
        raise HilumError(f"{path} is no DICOM object with SOP class, instance and transfer syntax.", fix="Leave it out.") from None
    return found


def send_all(peer: Peer, files: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, Answer]]:
    """Send each file and give the peer's answer to it. Raises `NoAssociation` if the peer cannot be reached or refuses.

    An association that breaks is asked for again for the next file; the one that was under way has `NOT_SENT`.
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


def _send(association: Association, file: Outgoing) -> Answer:
    if file.context not in association.accepted:
        return Answer(status=NOT_SENT, comment="the peer refused this SOP class in this transfer syntax")
    answer = Answer(status=NOT_SENT, comment="the association ended before the answer")
    with suppress(AssociationLost):
        answer = association.c_store(file.context, file.sop_instance_uid, partial(_pieces, file))
    return answer


def _pieces(file: Outgoing, piece_bytes: int) -> Iterator[bytes]:
    with file.path.open("rb") as content:
        content.seek(file.offset)
        while piece := content.read(piece_bytes):
            yield piece
