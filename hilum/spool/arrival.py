"""How an object came in, as the File Meta of its spool file says it: the file alone tells all after a crash."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from hilum.dicom import file_meta

#: Names the private information in File Meta as Hilum's (PS3.10 7.1, (0002,0100)).
_PRIVATE_CREATOR = b"2.25.65675523194859300406767503550941765082"


class Arrival(Struct, frozen=True, kw_only=True):
    """How an object came in."""

    adapter: Literal["dicom", "stow", "folder", "media", "hl7"]
    transfer_syntax_uid: str
    #: What the sender announced, such as the Affected SOP Class and Instance UID of a C-STORE.
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    calling_aet: str = ""
    called_aet: str = ""
    #: Network address of the sender, without port.
    peer: str = ""
    association: str = ""


class _Private(Struct, frozen=True, kw_only=True):
    adapter: Literal["dicom", "stow", "folder", "media", "hl7"]
    association: str = ""


def head_of(arrival: Arrival) -> bytes:
    """Preamble and File Meta of the spool file, for the data set to follow."""
    more = {
        file_meta.PRIVATE_CREATOR_UID: _PRIVATE_CREATOR,
        file_meta.PRIVATE_INFORMATION: msgspec.json.encode(_Private(adapter=arrival.adapter, association=arrival.association)),
    }
    optional = {
        file_meta.SENDING_AET: arrival.calling_aet,
        file_meta.RECEIVING_AET: arrival.called_aet,
        file_meta.SENDING_ADDRESS: f"dicom://{arrival.peer}" if arrival.peer else "",
    }
    more |= {element: value.encode("latin-1", "replace") for element, value in optional.items() if value}
    return file_meta.part10_head(arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid, more)


def read_arrival(head: bytes) -> tuple[Arrival, int]:
    """What the first bytes of a spool file say of it, and where its data set begins. Raises `ValueError` if it is none."""
    meta, data_set_at = file_meta.read_meta(head)

    def text(element: int) -> str:
        return meta.get(element, b"").decode("latin-1")

    private = msgspec.json.decode(meta.get(file_meta.PRIVATE_INFORMATION, b"").rstrip(b"\0") or b'{"adapter":"folder"}', type=_Private)
    arrival = Arrival(
        adapter=private.adapter,
        association=private.association,
        transfer_syntax_uid=text(file_meta.TRANSFER_SYNTAX_UID),
        sop_class_uid=text(file_meta.SOP_CLASS_UID),
        sop_instance_uid=text(file_meta.SOP_INSTANCE_UID),
        calling_aet=text(file_meta.SENDING_AET),
        called_aet=text(file_meta.RECEIVING_AET),
        peer=text(file_meta.SENDING_ADDRESS).removeprefix("dicom://"),
    )
    return arrival, data_set_at
