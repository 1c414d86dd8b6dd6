"""What a STOW-RS client is answered: of each instance (PS3.18 I.2), and of a request of which nothing is taken."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from hilum.errors import HilumError
from ingest.dicom import answers as c_store
from ingest.dicom.answers import NO_DATA_SET, NOT_DICOM, STORED, Answer

#: A file is announced by its File Meta Information; there is no command.
OTHER_OBJECT = replace(
    c_store.OTHER_OBJECT,
    comment="Stored; data set is another object than its File Meta says",
    when="The SOP class or instance in File Meta Information differs from (0008,0016) or (0008,0018) in the data set.",
)
TOO_LARGE = Answer(
    status=0xA700,
    comment="Out of resources: larger than this receiver's limit",
    when="The data set is larger than `stow.max_object_bytes`, or than `max_object_bytes` in the sender's settings.",
    means="It is not kept. Raise the narrower one, then send it again.",
)
OTHER_STUDY = Answer(
    status=0xA901,
    comment="StudyInstanceUID is not that of the request",
    when="The request was for one study, and the instance is of another or of none.",
    means="It is not kept. Send it to `studies`, or to its own study.",
)
NOT_PART_10 = Answer(
    status=0xC000,
    comment="Cannot understand: not a DICOM file (PS3.10)",
    when="The part has no preamble, or its File Meta Information cannot be read or names no transfer syntax.",
    means="It is not kept.",
)
NOT_AS_ANNOUNCED = Answer(
    status=0xC000,
    comment="Cannot understand: media type or encoding of the part",
    when="The part's Content-Type is not the one of the request, or it has a Content-Transfer-Encoding that is not binary.",
    means="It is not kept.",
)
NO_UIDS = Answer(
    status=0xC000,
    comment="Cannot understand: no usable SOP Class or Instance UID",
    when="Neither File Meta Information nor the beginning of the data set has SOP Class and SOP Instance UID as PS3.5 9.1 wants them.",
    means="It is not kept.",
)
WRONG_JSON = Answer(
    status=0xC000,
    comment="Cannot understand",
    when="DICOM JSON with an unknown VR, one that the standard does not give the attribute, or a value that does not fit it (PS3.18 F).",
    means="It is not kept; the comment names the attribute.",
)
NO_BULK_DATA = Answer(
    status=0xC000,
    comment="Cannot understand: its bulk data",
    when="A BulkDataURI names no part of the request, or a part that cannot be the attribute's value.",
    means="It is not kept; the comment names the attribute.",
)
BULK_DATA_UNNAMED = Answer(
    status=0xC000,
    comment="Cannot understand: no instance names this bulk data",
    when="A part of bulk data that no BulkDataURI names, or without Content-Location.",
    means="It is not kept.",
)
TRANSFER_SYNTAX = Answer(
    status=0xC122,
    comment="Transfer syntax not supported",
    when="The transfer syntax is no UID, or compressed frames come as bulk data of a multi-frame image.",
    means="It is not kept. Send the file as `application/dicom`.",
)
SOP_CLASS = Answer(
    status=0x0122,
    comment="SOP class not supported",
    when="The SOP class is none of a patient's study: a hanging protocol, a color palette, a directory.",
    means="It is not kept.",
)

#: In the order of the reference page.
ANSWERS = (
    STORED,
    OTHER_OBJECT,
    replace(NOT_DICOM, when="The data set does not begin as one in its transfer syntax."),
    replace(NO_DATA_SET, when="The part has no bytes, or none behind its File Meta Information."),
    NOT_PART_10,
    NOT_AS_ANNOUNCED,
    NO_UIDS,
    WRONG_JSON,
    NO_BULK_DATA,
    BULK_DATA_UNNAMED,
    TRANSFER_SYNTAX,
    SOP_CLASS,
    OTHER_STUDY,
    TOO_LARGE,
)


def of_file(answer: Answer) -> Answer:
    """A judgement of C-STORE in the words of a file."""
    return OTHER_OBJECT if answer == c_store.OTHER_OBJECT else answer


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one instance. Its UIDs are `""` where they are not known."""

    answer: Answer
    sop_class_uid: str = ""
    sop_instance_uid: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether it is, with or without a warning."""
        return self.answer.status == 0 or self.answer.status >> 12 == 0xB


class Refusal(Struct, frozen=True, kw_only=True):
    """Why nothing of a request is taken."""

    #: HTTP status.
    status: int
    #: A word for machines and metrics.
    reason: str
    title: str
    fix: str
    when: str
    #: Seconds after which it may be tried again.
    retry_after_s: int = 0


UNAUTHORIZED = Refusal(
    status=401,
    reason="unauthorized",
    title="No key, or one that is not known",
    fix="Send `Authorization: Bearer KEY`, or Basic with the key as password; `hilum stow key` makes a key.",
    when="There is no known key, and `stow.anonymous` does not allow that.",
)
BLOCKED = Refusal(
    status=403,
    reason="blocked",
    title="This sender is blocked",
    fix="On the receiver, run `hilum sender allow` or `hilum sender forget` with the title of the client's key.",
    when="The client was blocked by `hilum sender block`.",
)
WRONG_ADDRESS = Refusal(
    status=403,
    reason="wrong-address",
    title="This sender may not send from this address",
    fix="On the receiver, add the address to senders.NAME.addresses, or run `hilum sender allow NAME --from ADDRESS`.",
    when="The request comes from none of the addresses that `[senders.NAME]` and `hilum sender allow --from` give the client.",
)
NOT_FOUND = Refusal(
    status=404,
    reason="not-found",
    title="There is no such resource",
    fix="Send to `studies` or `studies/{study}` below the base of the service.",
    when="The path is another than `<stow.base>/studies` and `<stow.base>/studies/{study}`, or `{study}` is no UID.",
)
ONLY_STORE = Refusal(
    status=405,
    reason="only-store",
    title="Only storing is served here",
    fix="Use POST to store instances; ask an archive for queries and retrieval.",
    when="The method is not POST: there is no QIDO-RS and no WADO-RS here.",
)
MEDIA_TYPE = Refusal(
    status=415,
    reason="media-type",
    title="This media type is not taken",
    fix='Send `multipart/related; type="application/dicom"`, `…"application/dicom+json"`, or one file as `application/dicom`.',
    when="The Content-Type is another one (XML among them), or there is a Content-Encoding.",
)
NO_BOUNDARY = Refusal(
    status=400,
    reason="no-boundary",
    title="The Content-Type names no boundary",
    fix="Add the parameter `boundary` (RFC 2046 5.1.1).",
    when="multipart/related without `boundary`, or with one of more than 200 characters.",
)
MALFORMED = Refusal(
    status=400,
    reason="malformed",
    title="The body is not well-formed",
    fix="Have the client corrected; the text says what is wrong.",
    when="It ends before its last boundary, has no boundary, a header that cannot be read, or JSON that is none.",
)
CUT_OFF = Refusal(
    status=400,
    reason="cut-off",
    title="The request is cut off",
    fix="Send it again.",
    when="The client closes the connection before the end; the answer reaches nobody, and the metric counts it.",
)
NO_INSTANCES = Refusal(
    status=400,
    reason="no-instances",
    title="There is no instance in the request",
    fix="Send at least one part.",
    when="There is no part in the body, no DICOM JSON, or none with an instance.",
)
TOO_SLOW = Refusal(
    status=408,
    reason="too-slow",
    title="The client was silent for too long",
    fix="Send again; look at the network between the two.",
    when="Less than 16 KB came within `stow.idle_timeout_s`.",
)
REQUEST_TOO_LARGE = Refusal(
    status=413,
    reason="too-large",
    title="The request is too large",
    fix="Send fewer instances at once, or raise stow.max_request_bytes, stow.max_parts or stow.max_json_bytes.",
    when="It is larger than `stow.max_request_bytes`, has more parts than `stow.max_parts`, or more JSON than `stow.max_json_bytes`.",
)
BUSY = Refusal(
    status=503,
    reason="busy",
    title="Too many requests at once",
    fix="Try again.",
    when="As many requests as `stow.max_requests` are under way.",
    retry_after_s=5,
)
STOPPING = Refusal(
    status=503,
    reason="stopping",
    title="Hilum stops",
    fix="Try again.",
    when="Hilum is being stopped; what is under way is finished if it takes seconds only.",
    retry_after_s=10,
)
NO_SPACE = Refusal(
    status=503,
    reason="no-space",
    title="The receiver's disk is full",
    fix="Try again later; on the receiver, free some space.",
    when="The spool's disk has less than `spool.min_free_bytes` left, is full, over its quota, or fails.",
    retry_after_s=60,
)
NO_CLIENTS = Refusal(
    status=503,
    reason="no-clients",
    title="The receiver cannot read its clients' keys",
    fix="On the receiver, look at the file that stow.clients names; the log says what is wrong.",
    when="The file `stow.clients` can no longer be read.",
    retry_after_s=60,
)
FAILED = Refusal(
    status=500,
    reason="failed",
    title="Hilum failed in a way nobody foresaw",
    fix="Report it with the moment; the log has the place.",
    when="A fault of Hilum's own.",
)

#: In the order of the reference page.
REFUSALS = (
    NO_BOUNDARY,
    MALFORMED,
    CUT_OFF,
    NO_INSTANCES,
    UNAUTHORIZED,
    BLOCKED,
    WRONG_ADDRESS,
    NOT_FOUND,
    ONLY_STORE,
    TOO_SLOW,
    REQUEST_TOO_LARGE,
    MEDIA_TYPE,
    FAILED,
    BUSY,
    STOPPING,
    NO_SPACE,
    NO_CLIENTS,
)


class Refused(HilumError):
    """Nothing of the request is taken. The text holds no value of it."""

    def __init__(self, refusal: Refusal, sentence: str = "") -> None:
        super().__init__(sentence or f"{refusal.title}.", fix=refusal.fix)
        self.refusal = refusal
