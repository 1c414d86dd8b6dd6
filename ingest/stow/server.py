"""HTTP and TLS by uvicorn, with what it lacks: a time within which a request's head must come, a bound of connections, refusals
in Hilum's form."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hilum import telemetry
from hilum.errors import Misconfigured
from hilum.settings import Stow
from hilum.tls import ServerTls

from . import response
from .answers import MALFORMED, Refused
from .service import Service

#: The head of a request must be there so long after its first byte, or the connection's; what a client still sends after it was
#: refused is read and thrown away for so long, so that it sees the answer and not a reset.
HEAD_S = 15.0
#: A connection without a request is kept so long.
KEEP_ALIVE_S = 15.0
#: Requests under way get so long to finish when Hilum stops.
DRAIN_S = 5.0
#: Connections for each request that may be under way; more are closed unread.
CONNECTIONS_A_REQUEST = 4


class Server:
    """Listens from construction on; `serve` answers until `stop`. Raises `Misconfigured` if the address cannot be used."""

    def __init__(
        self, settings: Stow, service: Service, tls: ServerTls | None, *, head_s: float = HEAD_S, drain_s: float = DRAIN_S
    ) -> None:
        self._service = service
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        try:
            self._socket = socket.create_server((settings.host, settings.port), family=family, backlog=128)
        except OSError as error:
            raise Misconfigured(
                "stow-port-taken" if error.errno == errno.EADDRINUSE else "stow-address",
                f"STOW-RS cannot listen on {settings.host}:{settings.port}: {os.strerror(error.errno or 0)}.",
                fix="Stop the program that has this port, or set stow.port (0 picks a free one) and stow.host.",
            ) from None
        self.port: int = self._socket.getsockname()[1]
        most = settings.max_requests * CONNECTIONS_A_REQUEST
        config = uvicorn.Config(
            service.app,
            http=type("Protocol", (_Protocol,), {"max_connections": most, "head_s": head_s}),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(KEEP_ALIVE_S),
            timeout_graceful_shutdown=drain_s,  # type: ignore[arg-type]  # it is passed to asyncio, which takes any number
            h11_max_incomplete_event_size=settings.max_header_bytes,
        )
        config.load()
        config.ssl = tls.context if tls else None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="stow http", daemon=True)

    def start(self) -> None:
        """Answer, in a thread of its own."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Take no more connections, let requests under way finish within `drain_s`, then end them. Returns when all is done."""
        self._service.stopping = True
        self._server.should_exit = True
        self._thread.join()
        self._service.close()


class _Protocol(H11Protocol):
    max_connections = 0
    head_s = HEAD_S
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """While a request is under way the service keeps the time; otherwise a timer does."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self._too_slow)

    def _unwatch(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            telemetry.STOW_REFUSED.labels(reason="too-slow").inc()
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request, or whose head is too large. uvicorn's own text stays inside."""
        del msg
        telemetry.STOW_REFUSED.labels(reason=MALFORMED.reason).inc()
        body = response.as_problem(Refused(MALFORMED, "This is no HTTP request, or its head is larger than stow.max_header_bytes."))
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        if self.cycle is not None:  # it may wait for a body that cannot be read any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(head.encode() + body)
        self.transport.close()
