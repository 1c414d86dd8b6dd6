"""The ports at which the listener takes connections. Over TLS it shakes hands itself, so that it can say whose handshake failed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine

from hilum import telemetry
from hilum.errors import Misconfigured
from hilum.tls import ServerTls

#: A TLS handshake may take so long.
HANDSHAKE_S = 10.0
_BACKLOG = 256
#: How long nobody is let in after the system would not let anybody in: file descriptors have run out.
_PAUSE_S = 0.05

log = telemetry.logger("hl7")


class Doors:
    """The open ports of a listener. `protocol` makes what speaks on a new connection, over TLS once its handshake is done."""

    def __init__(self, host: str, protocol: Callable[[], asyncio.Protocol], is_told: Callable[[str], bool]) -> None:
        """`is_told` says whether a failed handshake of that address is worth a line now."""
        self._host = host
        self._protocol = protocol
        self._is_told = is_told
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int, setting: str, tls: ServerTls | None = None) -> int:
        """Listen on `port`; the port, also if it was 0. Raises `Misconfigured` if it cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            if tls is None:
                server = await loop.create_server(self._protocol, self._host, port, backlog=_BACKLOG)
                self._servers.append(server)
                return int(server.sockets[0].getsockname()[1])
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            door = socket.create_server((self._host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise Misconfigured(
                "port-unusable",
                f"{setting}: {self._host}:{port} cannot be listened on ({error.strerror or error}).",
                fix="Choose another port or address, or end what uses it.",
            ) from None
        door.setblocking(False)
        self._sockets.append(door)
        self._begin(self._let_in(door, tls))
        return int(door.getsockname()[1])

    def close(self) -> None:
        """Let nobody in any more; connections that are open stay."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        for door in self._sockets:
            door.close()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _let_in(self, door: socket.socket, tls: ServerTls) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(door)
            except OSError:
                await asyncio.sleep(_PAUSE_S)
                continue
            self._begin(self._shake_hands(connection, str(address[0]), tls))

    async def _shake_hands(self, connection: socket.socket, peer: str, tls: ServerTls) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._protocol, connection, ssl=tls.context, ssl_handshake_timeout=HANDSHAKE_S)
        except OSError as error:  # that it took too long is one, too
            telemetry.HL7_CONNECTIONS_REFUSED.labels(reason="tls").inc()
            if self._is_told(peer):
                log.warning("handshake_failed", peer=peer, says=_why(error))


def _why(error: OSError) -> str:
    """What the TLS library says of it: of the protocol, nothing of the peer's."""
    if isinstance(error, ssl.SSLError):
        return f"The TLS handshake failed: {(error.reason or 'no reason given').replace('_', ' ').lower()}."
    if isinstance(error, ConnectionAbortedError):
        return f"The TLS handshake took longer than {HANDSHAKE_S:g} s."
    return f"The TLS handshake was not finished: {(error.strerror or 'the peer ended the connection').lower()}."
