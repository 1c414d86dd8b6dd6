"""What a C-STORE status means for a delivery (PS3.4 B.2.3, PS3.7 C)."""

from __future__ import annotations

from hilum.association import Answer
from hilum.peer import Peer
from hilum.sink import Later, Settled

#: Statuses that may pass (PS3.4 B.2.3, PS3.7 C), besides A7xx "out of resources".
_PASSING = {0x0110: "processing failure", 0x0124: "not authorised", 0x0213: "resource limitation"}
_LASTING = {
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
}


def outcome_of(answer: Answer, peer: Peer) -> Settled:
    """How the peer's answer settles the delivery. Raises `Later` if the object may be taken another time."""
    status, code, said = answer.status, f"0x{answer.status:04X}", answer.comment
    if status == 0x0000:
        return Settled(state="delivered", peer_status=code, peer_comment=said)
    if status == 0x0111:
        return Settled(state="already_there", peer_status=code, peer_comment=said)
    if status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116):  # warnings: the object is stored
        return Settled(state="delivered", peer_status=code, peer_comment=said)
    if status >> 8 == 0xA7 or status in _PASSING:
        raise Later(
            f"{peer.aet} answered {code} ({_PASSING.get(status, 'out of resources')}).",
            fix="The peer's own log says why; Hilum tries again.",
            peer_status=code,
            peer_comment=said,
        )
    if status >> 8 == 0xA9:
        meaning = "data set does not match SOP class"
    elif status >> 12 == 0xC:
        meaning = "cannot understand"
    else:
        meaning = _LASTING.get(status, "failure")
    return Settled(state="rejected", peer_status=code, comment=f"{peer.aet}: {meaning}.", peer_comment=said)
