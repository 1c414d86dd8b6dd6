"""Messages that come again: by the sender's application, the control id, and what is in them."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from hilum.hl7.envelope import Envelope

#: More are forgotten, oldest first: some days of a hospital.
MOST = 200_000
DIGEST_BYTES = 16


class Known(Enum):
    """What is known of a message that comes."""

    NEW = 0
    #: The same content came before under its control id, and is durable.
    REPEAT = 1
    #: The same content came just before, and is not durable yet.
    UNDER_WAY = 2
    #: Other content came before under its control id.
    CHANGED = 3


def key_of(envelope: Envelope) -> str:
    """Under what a message is remembered; empty if it has no control id."""
    if not envelope.control_id:
        return ""
    return "\0".join((envelope.sending_application, envelope.sending_facility, envelope.control_id))


class Repeats:
    """What came, in memory. Used by one thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._digests: OrderedDict[str, bytes] = OrderedDict()
        #: Of each key what is on its way to the disk, in its order.
        self._under_way: dict[str, list[bytes]] = {}

    def known(self, key: str, digest: bytes) -> Known:
        """What is known of a message with this content."""
        if not key:
            return Known.NEW
        if key in self._under_way:
            return Known.UNDER_WAY if self._under_way[key][-1] == digest else Known.CHANGED
        before = self._digests.get(key)
        if before is None:
            return Known.NEW
        return Known.REPEAT if before == digest else Known.CHANGED

    def began(self, key: str, digest: bytes) -> None:
        """A message is on its way to the disk."""
        if key:
            self._under_way.setdefault(key, []).append(digest)

    def ended(self, key: str, digest: bytes, *, durable: bool) -> None:
        """It is there, or it is not and was refused."""
        if key:
            under_way = self._under_way[key]
            under_way.remove(digest)
            if not under_way:
                del self._under_way[key]
        if durable:
            self.remember(key, digest)

    def remember(self, key: str, digest: bytes) -> None:
        """A message is durable."""
        if key:
            self._digests[key] = digest
            self._digests.move_to_end(key)
            if len(self._digests) > self._most:
                self._digests.popitem(last=False)
