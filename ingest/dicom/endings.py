"""What comes of odd input beside statuses, rejections and aborts for a breach of the protocol: for the reference page and its tests."""

from __future__ import annotations

from msgspec import Struct


class Ending(Struct, frozen=True, kw_only=True):
    """When, what the peer is sent, and what becomes of the object under way."""

    when: str
    sent: str
    means: str


_USER_ABORT = "A-ABORT, source 0 (user), reason 0"
_NOTHING_KEPT = "Nothing is kept of an object under way; the sender has no status and sends it again."
_CLOSED = "The connection is closed."

SILENT = Ending(when="The peer is silent for longer than `dicom.idle_timeout_s`.", sent=_USER_ABORT, means=_NOTHING_KEPT)
DRIPPING = Ending(
    when="While Hilum waits `dicom.idle_timeout_s` for the peer, neither the end of a message comes nor 16 KB of command or data"
    " sets, whatever else does: single bytes, empty fragments, empty PDUs. It takes at most twice that time until this is seen.",
    sent=_USER_ABORT,
    means=_NOTHING_KEPT,
)
STOPPING = Ending(when="Hilum stops.", sent=_USER_ABORT, means="An object under way is let finish first, if that takes seconds.")
BROKEN_OFF = Ending(
    when="The connection breaks, is closed or aborted by the peer amid an object: a truncated object.",
    sent="Nothing",
    means=_NOTHING_KEPT,
)
NOT_ASKED = Ending(
    when="No whole A-ASSOCIATE-RQ comes within 30 s, however slowly its bytes do (ARTIM timer, PS3.8 9.1.5; AA-2 of Table 9-9).",
    sent="Nothing",
    means=_CLOSED,
)
TLS_REFUSED = Ending(
    when="The TLS handshake fails: the peer shows no certificate or one that `dicom.tls_client_ca` does not vouch for, does not trust"
    " Hilum's, or speaks neither TLS 1.2 nor 1.3.",
    sent="A TLS alert",
    means=_CLOSED,
)
NO_TLS = Ending(
    when="What comes to `dicom.tls_port` is no TLS: an A-ASSOCIATE-RQ, a web browser's request.",
    sent="No alert and no A-ABORT: the connection is reset, or closed if nothing is left to be read",
    means="The sender must be told to speak TLS, or to use `dicom.port`.",
)
#: In the order of the reference page.
ENDINGS = (SILENT, DRIPPING, STOPPING, BROKEN_OFF, NOT_ASKED, TLS_REFUSED, NO_TLS)

LONG_PDU = Ending(
    when="A P-DATA-TF is longer than `dicom.max_pdu_bytes`.", sent="The status of the message", means="It is taken as any other."
)
SMALL_FRAGMENTS = Ending(
    when="Fragments of one byte, empty ones, several in a PDU, and P-DATA-TF PDUs without any.",
    sent="The status of the message",
    means="They are taken as any other.",
)
TRUNCATED = Ending(
    when="The data set ends amid an element: the object was truncated before it was sent.",
    sent="`0x0000`: what the sender has is stored",
    means="It is kept as it came, and waits in quarantine (`truncated`) for a person.",
)
LENGTH_BEYOND = Ending(
    when="An element declares a length beyond the bytes of the data set that came.",
    sent="`0x0000`: what the sender has is stored",
    means="It is kept as it came, and waits in quarantine (`truncated`) for a person.",
)
#: In the order of the reference page.
TAKEN = (LONG_PDU, SMALL_FRAGMENTS, TRUNCATED, LENGTH_BEYOND)
