"""Why the protocol machine ends an association (PS3.8 9.3.8)."""

from __future__ import annotations

from msgspec import Struct

# Reasons of an abort by the provider (PS3.8 Table 9-26).
UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PARAMETER = 6


class Abort(Struct, frozen=True, kw_only=True):
    """Why the protocol machine ends an association, in words, and when: a reason of PS3.8 Table 9-26 by the service provider.

    Before the association is established the reason is not told: then the source is the service user (PS3.8 Table 9-9, AA-1).
    """

    reason: int
    says: str
    when: str


EARLY_PDU = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a PDU before it asked for an association",
    when="Another PDU than an A-ASSOCIATE-RQ comes first.",
)
ENDLESS_PDU = Abort(
    reason=INVALID_PARAMETER,
    says="it sent a PDU of impossible length",
    when="A PDU other than P-DATA-TF announces more than 1 MB.",
)
PDU_OUT_OF_PLACE = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a PDU out of place",
    when="A PDU has no place in an established association, such as a second A-ASSOCIATE-RQ, or a release amid a message (PS3.8 9.2).",
)
UNKNOWN_PDU = Abort(
    reason=UNRECOGNIZED_PDU,
    says="it sent a PDU of unknown type",
    when="The first byte of a PDU is no PDU type.",
)
GARBLED_REQUEST = Abort(
    reason=INVALID_PARAMETER,
    says="its request for an association is garbled",
    when="An item of the A-ASSOCIATE-RQ is cut off or longer than what holds it; a presentation context id is even or there twice.",
)
STRAY_FRAGMENT = Abort(
    reason=INVALID_PARAMETER,
    says="it sent a fragment that fits no PDU or no accepted context",
    when="A fragment is longer than its PDU or leaves too little room for another, or is of a context that was not accepted.",
)
COMMAND_AMID_ANSWERS = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a request before its query was answered",
    when="Another command than a C-CANCEL comes while a C-FIND is being answered.",
)
COMMAND_AMID_MESSAGE = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a command amid a message",
    when="A command comes before the data set of the one before it, or in another presentation context than it began.",
)
ENDLESS_COMMAND = Abort(
    reason=INVALID_PARAMETER,
    says="it sent an endless command",
    when="A command set is longer than 64 kB.",
)
DATA_SET_WITHOUT_COMMAND = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a data set without a command",
    when="A fragment of a data set comes without a command before it, or in another presentation context than its command.",
)
GARBLED_COMMAND = Abort(
    reason=INVALID_PARAMETER,
    says="it sent a command that cannot be parsed",
    when="A command set is no Implicit VR Little Endian, or lacks its type, message id or data set type.",
)
STRAY_ANSWER = Abort(
    reason=INVALID_PARAMETER,
    says="it answered a report that it was not sent",
    when="A response to an N-EVENT-REPORT that Hilum has not sent.",
)

#: Before an association is established, and in one; each in the order of the reference page.
ABORTS_BEFORE = (EARLY_PDU, ENDLESS_PDU, UNKNOWN_PDU, GARBLED_REQUEST)
ABORTS = (
    ENDLESS_PDU,
    PDU_OUT_OF_PLACE,
    UNKNOWN_PDU,
    STRAY_FRAGMENT,
    COMMAND_AMID_MESSAGE,
    COMMAND_AMID_ANSWERS,
    ENDLESS_COMMAND,
    DATA_SET_WITHOUT_COMMAND,
    GARBLED_COMMAND,
    STRAY_ANSWER,
)
