"""Send HL7 messages over MLLP and read their acknowledgements: one connection, one message at a time (HL7 v2.5.1 2.9)."""

from __future__ import annotations

import socket
import ssl
from collections import deque

from hilum.client_tls import ClientTls
from hilum.errors import TryAgain
from hilum.mllp import Reader, framed

#: No acknowledgement is longer.
MOST_BYTES = 2**20


class MllpClient:
    """A connection to `host`:`port`. Raises `TryAgain` if there is none to be had; use it as a context, or `close` it.

    `timeout_s` bounds each wait for the network and for an acknowledgement.
    """

    def __init__(self, host: str, port: int, *, tls: ClientTls | None = None, timeout_s: float = 30.0) -> None:
        self._where = f"{host}:{port}"
        try:
            raw = socket.create_connection((host, port), timeout=timeout_s)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = tls.context().wrap_socket(raw, server_hostname=tls.server_name or host) if tls else raw
        except ssl.SSLError as error:
            why = error.reason or type(error).__name__
            fix = "Check its certificate and the trusted ones."
            raise TryAgain(f"{self._where} speaks no TLS that fits ({why}).", fix=fix) from None
        except OSError as error:
            raise TryAgain(f"{self._where} cannot be reached: {error.strerror or error}.", fix="Check that it listens there.") from None
        self._reader = Reader(MOST_BYTES)
        self._read: deque[bytes] = deque()
        #: Blocks that had begun before they were asked for.
        self._unasked = 0

    def send(self, content: bytes, answers: int = 1) -> list[bytes]:
        """Send a message; the blocks that answer. With `answers=0` none is waited for.

        Raises `TryAgain` if the connection ends or nothing comes in time: then nobody knows whether the message arrived. What the peer
        said before, unasked, is dropped.
        """
        try:
            self._drop_unasked()
            self._socket.sendall(framed(content))
            return [self._answer() for _ in range(answers)]
        except TimeoutError:
            raise TryAgain(f"{self._where} gave no acknowledgement in time.", fix="Look whether it took the message.") from None
        except OSError as error:
            raise TryAgain(f"The connection to {self._where} broke: {error.strerror or error}.", fix="Check the network.") from None

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> MllpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_unasked(self) -> None:
        """An acknowledgement that comes late, or of a message before, must not be taken for the next one's."""
        self._read.clear()
        waits = self._socket.gettimeout()
        try:
            self._socket.setblocking(False)
            while data := self._socket.recv(2**16):
                list(self._reader.feed(data))
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            self._socket.settimeout(waits)
        self._unasked = int(self._reader.inside)

    def _answer(self) -> bytes:
        while not self._read:
            data = self._socket.recv(2**16)
            if not data:
                raise TryAgain(f"{self._where} ended the connection without an acknowledgement.", fix="Look at its log.")
            for block in self._reader.feed(data):
                if block.problem == "garbage":
                    continue
                if self._unasked:
                    self._unasked -= 1
                else:
                    self._read.append(block.content)
        return self._read.popleft()
