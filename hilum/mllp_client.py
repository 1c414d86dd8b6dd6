"""Send HL7 messages over MLLP, each until it is acknowledged: one connection, one message at a time (HL7 v2.5.1 2.9)."""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from hilum.client_tls import ClientTls
from hilum.errors import TryAgain
from hilum.mllp import Reader, framed

#: No acknowledgement is longer.
MOST_BYTES = 2**20
_READ_BYTES = 65_536


def _any(_: bytes) -> bool:
    return True


class MllpClient:
    """A connection to `host`:`port`, made when it is needed and kept. For one thread; use it as a context, or `close` it.

    `connect_timeout_s` bounds connecting, `timeout_s` a message's way to its acknowledgement.
    """

    def __init__(
        self, host: str, port: int, *, tls: ClientTls | None = None, connect_timeout_s: float = 10.0, timeout_s: float = 30.0
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._connect_timeout_s, self._timeout_s = connect_timeout_s, timeout_s
        self._socket: socket.socket | None = None
        self._reader = Reader(MOST_BYTES)
        self._read: deque[bytes] = deque()
        #: Blocks that had begun before they were asked for.
        self._unasked = 0

    @property
    def where(self) -> str:
        """The receiver, for people."""
        return f"{self._host}:{self._port}"

    def connect(self) -> None:
        """Connect, unless it is connected. Raises `TryAgain`, and `Misconfigured` if a file of TLS cannot be used."""
        if self._socket is not None and self._was_closed():
            self.close()
        if self._socket is not None:
            return
        context = self._tls.context() if self._tls is not None else None
        try:
            self._socket = self._connected(context)
        except ssl.SSLError as error:
            why = error.reason or type(error).__name__
            raise TryAgain(f"{self.where} speaks no TLS that fits ({why}).", fix="Check its certificate and the trusted ones.") from None
        except OSError as error:
            fix = "Check that it listens there."
            raise TryAgain(f"{self.where} cannot be reached: {(error.strerror or str(error)).lower()}.", fix=fix) from None
        self._reader, self._unasked = Reader(MOST_BYTES), 0
        self._read.clear()

    def send(self, content: bytes, is_answer: Callable[[bytes], bool] = _any) -> bytes:
        """Send a message; the first block for which `is_answer` holds. Other blocks are passed over, also those that came unasked before.

        Raises `TryAgain` if the connection ends or nothing comes in time: then nobody knows whether the message arrived. The connection
        is closed then, so that a late acknowledgement is not taken for another message's.
        """
        self.connect()
        deadline = time.monotonic() + self._timeout_s
        try:
            self._wait_until(deadline).sendall(framed(content))
            while not is_answer(block := self._next(deadline)):
                pass
        except TimeoutError:
            self.close()
            fix = "Look whether it took the message, or wait longer."
            raise TryAgain(f"{self.where} gave no acknowledgement within {self._timeout_s:g} s.", fix=fix) from None
        except OSError as error:
            self.close()
            why = (getattr(error, "reason", "") or error.strerror or str(error)).replace("_", " ").lower()
            fix = "Look at its log."
            if self._tls is not None:  # a peer that does not like it may say so by ending the connection only
                fix += " It may want " + ("another certificate than Hilum's." if self._tls.certificate else "a certificate of Hilum's.")
            raise TryAgain(f"{self.where} ended the connection without an acknowledgement ({why}).", fix=fix) from None
        return block

    def close(self) -> None:
        """End the connection. May be repeated."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    def __enter__(self) -> MllpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self, context: ssl.SSLContext | None) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), timeout=self._connect_timeout_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if context is None or self._tls is None:
                return connection
            return context.wrap_socket(connection, server_hostname=self._tls.server_name or self._host)
        except BaseException:
            connection.close()
            raise

    def _was_closed(self) -> bool:
        """Whether the peer closed the connection meanwhile, as many do when nothing comes for a while. What it said unasked is dropped.

        An acknowledgement that comes late, or a second one of a message before, must not be taken for the next one's.
        """
        assert self._socket is not None
        self._read.clear()
        try:
            self._socket.setblocking(False)
            while data := self._socket.recv(_READ_BYTES):
                list(self._reader.feed(data))
        except (BlockingIOError, ssl.SSLWantReadError):
            self._unasked = int(self._reader.inside)
            return False
        except OSError:
            pass
        return True

    def _wait_until(self, deadline: float) -> socket.socket:
        """The connection, which waits no longer than that."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        assert self._socket is not None
        self._socket.settimeout(left)
        return self._socket

    def _next(self, deadline: float) -> bytes:
        while not self._read:
            data = self._wait_until(deadline).recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("closed by the peer")
            for block in self._reader.feed(data):
                if block.problem == "garbage":
                    continue
                if self._unasked:
                    self._unasked -= 1
                else:
                    self._read.append(block.content)
        return self._read.popleft()
