"""What an attempt at a delivery comes to."""

from __future__ import annotations

from msgspec import Struct

from hilum.anonymizing import Deidentified
from hilum.sink import Settled

#: Why a correction is put aside where the destination's settings ask for a person (`corrections`).
REPLACES = (
    "It corrects an object that was sent there before, and this destination may answer Success and keep the first."
    " Delete the first there, or make sure that it is replaced, then `hilum deliver retry`."
)


class PutOff(Struct, frozen=True, kw_only=True):
    """An attempt that did not settle the delivery."""

    after_s: float
    #: Whether it counts as an attempt; one that only waits for the destination's word does not.
    counted: bool = True
    #: Whether the destination was asked at all.
    asked: bool = True
    peer_status: str = ""
    #: What Hilum says about it, and the peer's own words, as in `Settled`.
    comment: str = ""
    peer_comment: str = ""
    #: What the destination has de-identified, though it has yet to say its last word.
    deidentified: Deidentified | None = None


class Parked(Struct, frozen=True, kw_only=True):
    """The delivery is put aside until a person looks at it."""

    #: How many attempts led to it just now: none, if it was not even tried.
    attempts: int = 1
    #: Whether it was held before anything of it was sent: it must not leave as it is.
    held: bool = False
    peer_status: str = ""
    #: What Hilum says about it, and the peer's own words, as in `Settled`.
    comment: str = ""
    peer_comment: str = ""


Outcome = Settled | PutOff | Parked
