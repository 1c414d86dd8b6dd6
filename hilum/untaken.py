"""How a destination, or what Hilum needs for it, does not take an object: each is tried again, or waits for a person, in its own way."""

from __future__ import annotations

from hilum.errors import HilumError, TryAgain


class Later(TryAgain):
    """This one object was not taken now and may be later: it is tried again, after growing pauses, up to `max_attempts` times."""

    def __init__(self, sentence: str, *, fix: str = "", peer_status: str = "", peer_comment: str = "") -> None:
        """`peer_comment` are the peer's own words, for the ledger only: nobody knows what a peer puts there."""
        super().__init__(sentence, fix=fix)
        self.peer_status = peer_status
        self.peer_comment = peer_comment


class Park(HilumError):
    """This one object needs a person before it can be delivered: it is put aside at once, and the others go on."""

    def __init__(self, sentence: str, *, fix: str = "", peer_status: str = "", peer_comment: str = "") -> None:
        """`peer_comment` are the peer's own words, for the ledger only: nobody knows what a peer puts there."""
        super().__init__(sentence, fix=fix)
        self.peer_status = peer_status
        self.peer_comment = peer_comment


class Waits(TryAgain):
    """The object is at the destination, which has yet to say what became of it: looked at again after `after_s`, no attempt counted."""

    def __init__(self, sentence: str, *, after_s: float) -> None:
        super().__init__(sentence)
        self.after_s = after_s


class NotYet(Waits):
    """It is not its turn, and the destination was not asked: that says nothing of whether the destination is there."""


class Outage(TryAgain):
    """The destination as a whole takes nothing now: its queue waits, and no attempt is counted against any object."""
