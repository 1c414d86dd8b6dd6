"""What a receiver says of a message, in the words of a destination."""

from __future__ import annotations

from msgspec import Struct

from hilum.errors import TryAgain
from hilum.hl7.charset import decode
from hilum.hl7.message import NotHl7, parse
from hilum.mllp_client import MllpClient
from hilum.sink import Outage


class Acknowledged(Struct, frozen=True, kw_only=True):
    """What a receiver says of a message."""

    #: MSA-1: `AA`, `AE`, `AR`, `CA`, `CE` or `CR`.
    code: str
    #: ERR-3.1 (or ERR-1.4), the code of table 0357; empty if there is none.
    error: str = ""
    #: MSA-3, ERR-7 or ERR-8, for the ledger only: it may hold anything.
    says: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether it is the receiver's now."""
        return self.code in ("AA", "CA")

    @property
    def is_rejected(self) -> bool:
        """Whether the content is not to blame (HL7 v2.5.1 2.9.2), so that it may be taken later."""
        return self.code in ("AR", "CR") and self.error not in ("200", "201", "202", "203")


class Client:
    """A receiver, over an MLLP connection that is kept. For one thread."""

    def __init__(self, mllp: MllpClient) -> None:
        self._mllp = mllp

    @property
    def where(self) -> str:
        """The receiver, for people."""
        return self._mllp.where

    def connect(self) -> None:
        """Connect, unless it is connected. Raises `Outage`, and `Misconfigured` if a file of TLS cannot be used."""
        try:
            self._mllp.connect()
        except TryAgain as error:
            raise Outage(error.sentence, fix=error.fix) from None

    def send(self, control_id: str, content: bytes) -> Acknowledged:
        """Send one message, and wait for its acknowledgement; those of others are passed over. Raises `Outage`: then nobody knows."""
        try:
            block = self._mllp.send(content, lambda block: acknowledged(block, control_id) is not None)
        except TryAgain as error:
            raise Outage(error.sentence, fix=error.fix) from None
        found = acknowledged(block, control_id)
        assert found is not None
        return found

    def close(self) -> None:
        """Close the connection. May be repeated."""
        self._mllp.close()


def acknowledged(block: bytes, control_id: str) -> Acknowledged | None:
    """The acknowledgement of the message with that control id; None for anything else."""
    try:
        answer = parse(decode(block).text)
    except NotHl7:
        return None
    code, of = answer.get("MSA-1").strip().upper(), answer.get("MSA-2").replace("\0", "").strip()
    if code not in ("AA", "AE", "AR", "CA", "CE", "CR") or (of and of != control_id.strip()):
        return None
    error = answer.get("ERR-3") or answer.get("ERR-1.4") or answer.get("MSA-6")
    says = answer.get("MSA-3") or answer.get("ERR-8") or answer.get("ERR-7") or answer.get("ERR-3.2")
    return Acknowledged(code=code, error=error.strip(), says=" ".join(says.split())[:200])
