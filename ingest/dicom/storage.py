"""One C-STORE from its command to its answer: the data set goes into the spool as it comes."""

from __future__ import annotations

from hilum.spool import Arrival, Incoming, Spool, SpoolFull, SpoolTooLarge

from .answers import HEAD_BYTES, NO_DATA_SET, NO_SPACE, TOO_LARGE, Answer, judge


class Storing:
    """An object on its way in: `write` its fragments, then `end`, or `drop` it."""

    def __init__(self, spool: Spool, arrival: Arrival, max_object_bytes: int) -> None:
        self.receipt = ""  #: once it is stored
        self._arrival = arrival
        self._head = b""
        self._refusal: Answer | None = None
        self._incoming: Incoming | None = None
        try:
            self._incoming = spool.open(arrival, max_bytes=max_object_bytes)
        except SpoolFull:
            self._refusal = NO_SPACE

    @property
    def size_bytes(self) -> int:
        """Bytes of data set in the spool."""
        return self._incoming.size_bytes if self._incoming else 0

    def write(self, fragment: memoryview) -> None:
        """Append to the data set. If that fails, the rest is read and thrown away, and the answer says why."""
        if self._incoming is None:
            return
        if len(self._head) < HEAD_BYTES:
            self._head += fragment[: HEAD_BYTES - len(self._head)]
        try:
            self._incoming.write(fragment)
        except SpoolFull as error:
            self._refuse(error)

    def end(self) -> Answer:
        """Make the object durable; the answer to its sender."""
        if self._incoming is None:
            return self._refusal or NO_SPACE
        if not self._incoming.size_bytes:
            self.drop()
            return NO_DATA_SET
        try:
            self.receipt = self._incoming.commit()
        except SpoolFull as error:
            return self._refuse(error)
        arrival = self._arrival
        return judge(self._head, self._incoming.size_bytes, arrival.transfer_syntax_uid, arrival.sop_class_uid, arrival.sop_instance_uid)

    def drop(self) -> None:
        """Leave nothing of it."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _refuse(self, error: SpoolFull) -> Answer:
        self._incoming = None
        self._refusal = TOO_LARGE if isinstance(error, SpoolTooLarge) else NO_SPACE
        return self._refusal
