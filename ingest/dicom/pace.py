"""Whether a peer gets on: one that drips must not hold an association for ever."""

from __future__ import annotations

from .acceptor import Acceptor

#: So much of a message must come within the idle timeout, or the whole of a shorter one: a line of 2,400 bit/s brings it in a minute.
SLOWEST_BYTES = 16 * 1024


class TooSlow(TimeoutError):
    """Bytes come, and too few of them are of a message."""


class Pace:
    """How long Hilum has waited for a peer in which its messages did not get on.

    A message gets on with its command and data set; empty fragments, empty PDUs and what is around fragments do not count. Time
    in which Hilum does something itself, such as a sync to disk, is not the peer's.
    """

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._waited_s = 0.0
        self._messages = acceptor.messages
        self._message_bytes = acceptor.message_bytes

    def waited(self, seconds: float, within_s: float) -> None:
        """Count a wait for the peer, once what it brought is with the acceptor.

        Raises `TooSlow` after `within_s` without a message's end or `SLOWEST_BYTES`.
        """
        acceptor = self._acceptor
        self._waited_s += seconds
        if acceptor.messages != self._messages or acceptor.message_bytes - self._message_bytes >= SLOWEST_BYTES:
            self._messages, self._message_bytes, self._waited_s = acceptor.messages, acceptor.message_bytes, 0.0
        elif self._waited_s > within_s:
            raise TooSlow
