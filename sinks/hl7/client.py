"""A persistent MLLP client: one message after the other, each until it is acknowledged."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from msgspec import Struct

from hilum.client_tls import ClientTls
from hilum.hl7.charset import decode
from hilum.hl7.message import NotHl7, parse
from hilum.mllp import Block, Reader, framed
from hilum.sink import Outage

#: No acknowledgement is longer.
MAX_ANSWER_BYTES = 2**20
_READ_BYTES = 65_536


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
    """One connection, opened when it is needed and kept. For one thread."""

    def __init__(self, host: str, port: int, tls: ClientTls | None, connect_timeout_s: float, acknowledgement_timeout_s: float) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._connect_timeout_s, self._timeout_s = connect_timeout_s, acknowledgement_timeout_s
        self._socket: socket.socket | None = None
        self._reader = Reader(MAX_ANSWER_BYTES)

    @property
    def where(self) -> str:
        """The receiver, for people."""
        return f"{self._host}:{self._port}"

    def connect(self) -> None:
        """Connect, unless it is connected. Raises `Outage`, and `Misconfigured` if a file of TLS cannot be used."""
        if self._socket is not None and self._was_closed():
            self.close()
        if self._socket is not None:
            return
        context = self._tls.context() if self._tls is not None else None
        try:
            connection = socket.create_connection((self._host, self._port), timeout=self._connect_timeout_s)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    name = (self._tls.server_name if self._tls is not None else "") or self._host
                    connection = context.wrap_socket(connection, server_hostname=name)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            why = getattr(error, "reason", "") or error.strerror or type(error).__name__
            raise Outage(
                f"{self.where} cannot be connected to ({why}).", fix="Check that the receiver runs, and host, port and TLS."
            ) from None
        self._socket = connection
        self._reader = Reader(MAX_ANSWER_BYTES)

    def send(self, control_id: str, content: bytes) -> Acknowledged:
        """Send one message, and wait for its acknowledgement; those of others are passed over. Raises `Outage`: then nobody knows.

        After an `Outage` the connection is closed, so that a late acknowledgement is not taken for another message's.
        """
        self.connect()
        assert self._socket is not None
        deadline = time.monotonic() + self._timeout_s
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(framed(content))
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ConnectionResetError
                for block in list(self._reader.feed(data)):
                    found = _read(block, control_id)
                    if found is not None:
                        return found
        except TimeoutError:
            self.close()
            raise Outage(
                f"{self.where} did not acknowledge a message within {self._timeout_s:g} s.",
                fix="Look at the receiver, or raise acknowledgement_timeout_s.",
            ) from None
        except OSError:
            self.close()
            raise Outage(f"{self.where} closed the connection before it acknowledged a message.", fix="Look at the receiver.") from None

    def _was_closed(self) -> bool:
        """Whether the receiver closed the connection meanwhile, as many do when nothing comes for a while."""
        assert self._socket is not None
        try:
            self._socket.settimeout(0)
            return self._socket.recv(1, socket.MSG_PEEK) == b"" if self._tls is None else self._socket.recv(1) == b""
        except (BlockingIOError, TimeoutError):
            return False
        except OSError as error:
            return type(error).__name__ != "SSLWantReadError"

    def close(self) -> None:
        """Close the connection. May be repeated."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None


def _read(block: Block, control_id: str) -> Acknowledged | None:
    """The acknowledgement of the message with that control id; None for anything else."""
    if block.problem:
        return None
    try:
        answer = parse(decode(block.content).text)
    except NotHl7:
        return None
    code, of = answer.get("MSA-1").strip().upper(), answer.get("MSA-2").strip()
    if code not in ("AA", "AE", "AR", "CA", "CE", "CR") or (of and of != control_id):
        return None
    error = answer.get("ERR-3") or answer.get("ERR-1.4") or answer.get("MSA-6")
    says = answer.get("MSA-3") or answer.get("ERR-8") or answer.get("ERR-7") or answer.get("ERR-3.2")
    return Acknowledged(code=code, error=error.strip(), says=" ".join(says.split())[:200])
