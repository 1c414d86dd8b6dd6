"""The statuses with which requests are answered: C-STORE (PS3.4 B.2.3), storage commitment (PS3.4 J.3.2), others (PS3.7 C); and when."""

from __future__ import annotations

from msgspec import Struct

from hilum.dicom.beginning import SOP_CLASS_UID, SOP_INSTANCE_UID, sop_uids
from hilum.dicom.encoding import DEFLATED, DataSetError, encoding_of


class Answer(Struct, frozen=True, kw_only=True):
    """A status, its Error Comment (0000,0902; at most 64 characters), and what it means for the sender."""

    status: int
    comment: str = ""
    #: Error ID (0000,0903), where the standard has one; else 0.
    error_id: int = 0
    #: When it is given, for the reference page.
    when: str
    #: What became of the object, and what the sender should do.
    means: str


STORED = Answer(
    status=0x0000,
    when="The object is in the spool, and the spool is synced to disk.",
    means="The sender may delete its copy: the object survives a power cut, and Hilum accounts for it from then on.",
)
OTHER_OBJECT = Answer(
    status=0xB007,
    comment="Stored; data set is another object than the command announced",
    when="The SOP class or instance in the command differs from (0008,0016) or (0008,0018) in the data set.",
    means="A warning: the object is stored as it came, and waits in quarantine for a person. Sending it again changes nothing.",
)
NO_SPACE = Answer(
    status=0xA700,
    comment="Out of resources: the receiver's disk is full; try again later",
    when="The spool's disk has less than `spool.min_free_bytes` left, is full, over its quota, or fails.",
    means="Nothing is kept. The sender should try again later.",
)
TOO_LARGE = Answer(
    status=0xA700,
    comment="Out of resources: larger than this receiver's limit",
    when="The data set is larger than the narrowest `max_object_bytes` that applies: of `[dicom]`, the called title's, the sender's.",
    means="Nothing is kept. Raise the setting, then send again.",
)
NOT_DICOM = Answer(
    status=0xC000,
    comment="Cannot understand: not a data set in this transfer syntax",
    when="The data set does not begin as one in the negotiated transfer syntax.",
    means="A failure for the sender; the bytes are kept, and wait in quarantine for a person.",
)
NO_DATA_SET = Answer(
    status=0xC000,
    comment="Cannot understand: there is no data set",
    when="The command announces no data set, or the data set has no bytes.",
    means="Nothing is kept.",
)
NOT_NEGOTIATED = Answer(
    status=0x0122,
    comment="SOP class not supported: accepted in no presentation context",
    when="The SOP class in the command was accepted in no presentation context of the association (PS3.7 C)."
    " One that was accepted in another context than the command's own is stored.",
    means="Nothing is kept. The sender must propose the class that it sends.",
)
UNKNOWN_COMMAND = Answer(
    status=0x0211,
    comment="This request is not served here",
    when="Any other request than those of this page on an accepted presentation context (PS3.7 C.5.24).",
    means="The request has no effect; the association stays open.",
)
CANCELLED = Answer(
    status=0xFE00,
    when="A C-CANCEL of the query came before its last answer (PS3.4 K.4.1.2.2).",
    means="No further answer follows.",
)

COMMITMENT_ASKED = Answer(
    status=0x0000,
    when="The request is on the disk; the objects may still be on their way.",
    means="A report follows (N-EVENT-REPORT), also after a restart or a power cut. Until then the sender keeps its copies.",
)
NO_SUCH_INSTANCE = Answer(
    status=0x0112,
    comment="Requested SOP Instance must be 1.2.840.10008.1.20.1.1",
    when="The N-ACTION is for another instance than the well-known one (PS3.4 J.3.5, PS3.7 C).",
    means="Nothing is kept.",
)
NO_SUCH_ACTION = Answer(
    status=0x0123,
    comment="Action Type ID must be 1",
    when="The N-ACTION is of another action type than 1 (PS3.4 J.3.2.1, PS3.7 C).",
    means="Nothing is kept.",
)
INVALID_ARGUMENT = Answer(
    status=0x0115,
    comment="No Transaction UID, or no usable Referenced SOP Sequence",
    when="The data set cannot be read, or is without a transaction UID or usable references (PS3.7 C).",
    means="Nothing is kept; the sender's vendor must correct the request.",
)
ACTION_TOO_LARGE = Answer(
    status=0x0213,
    comment="Resource limitation: ask for fewer objects at once",
    when="The data set is larger than 4 MB, about 30,000 objects (PS3.7 C).",
    means="Nothing is kept. The sender should ask in several transactions.",
)
TOO_MANY_REQUESTS = Answer(
    status=0x0213,
    comment="Resource limitation; try again later",
    when="10,000 requests, or 1 GB of them, are open, or the spool's disk has less than `spool.min_free_bytes` left.",
    means="Nothing is kept. The sender should try again later.",
)
NOT_KEPT = Answer(
    status=0x0110,
    comment="Processing failure: the request could not be kept",
    when="The spool's disk fails (PS3.7 C).",
    means="Nothing is kept. The sender should try again later.",
)

REPORT_TAKEN = Answer(
    status=0x0000,
    when="The report is on one of Hilum's own transactions, and on the disk.",
    means="The destination need not report again.",
)
REPORT_UNKNOWN = Answer(
    status=0x0110,
    comment="Processing failure: no such transaction is open here",
    when="Hilum has not asked for the transaction, or not from this machine, or it is over.",
    means="Nothing changes. Hilum asks again when its time is up.",
)
REPORT_GARBLED = Answer(
    status=0x0115,
    comment="No Transaction UID, or no data set that can be read",
    when="The report cannot be read, or names no transaction (PS3.7 C).",
    means="Nothing changes; the destination's vendor must correct the report.",
)

#: In the order of the reference page.
ANSWERS = (STORED, OTHER_OBJECT, NO_SPACE, TOO_LARGE, NOT_DICOM, NO_DATA_SET, NOT_NEGOTIATED, UNKNOWN_COMMAND)
COMMITMENT_ANSWERS = (COMMITMENT_ASKED, NO_SUCH_INSTANCE, NO_SUCH_ACTION, INVALID_ARGUMENT, ACTION_TOO_LARGE, TOO_MANY_REQUESTS, NOT_KEPT)
REPORT_ANSWERS = (REPORT_TAKEN, REPORT_UNKNOWN, REPORT_GARBLED, ACTION_TOO_LARGE, NOT_KEPT)

#: What `judge` looks at: the elements up to SOPInstanceUID begin every data set.
HEAD_BYTES = 4096


def judge(head: bytes, size_bytes: int, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str) -> Answer:
    """The answer for a stored object whose data set of `size_bytes` begins with `head`, and of which the command announced these UIDs.

    Cheap and tolerant: it looks at the first few elements only. Whatever it cannot see (a deflated data set, an odd element in
    front) is for `validate` to find.
    """
    if transfer_syntax_uid in DEFLATED:
        return STORED
    try:
        encoding = encoding_of(head, size_bytes, transfer_syntax_uid)
    except DataSetError:
        return NOT_DICOM
    found = sop_uids(head, encoding)
    announced = {SOP_CLASS_UID: sop_class_uid, SOP_INSTANCE_UID: sop_instance_uid}
    if any(uid and found.get(tag, uid) != uid for tag, uid in announced.items()):
        return OTHER_OBJECT
    return STORED
