"""DICOMweb's Store transaction (STOW-RS, PS3.18 10.5), whose answer means that what it calls stored survives a power cut.

`server` has HTTP and TLS, `service` the requests, `transaction` one request's way into the spool, `multipart`, `file_meta`,
`bulk` and `metadata` read what comes, `answers` says what is refused and why, `response` how that is told.
"""

from __future__ import annotations

import gc
import ipaddress
import threading
from pathlib import Path

from hilum import telemetry
from hilum.errors import Misconfigured, Stopped
from hilum.records import Records
from hilum.role import Health, Role
from hilum.settings import Settings, Stow
from hilum.spool import Spool
from hilum.summed import Summed
from hilum.tls import ServerTls
from hilum.web import Clients, url_of
from hilum.words import counted

from .senders import Senders
from .server import DRAIN_S, HEAD_S, Server
from .service import Service

log = telemetry.logger("stow")

#: asyncio leaves each connection in a cycle, with what hangs on it: garbage is not left to a collector that comes seldom
#: (`hilum.host`) once there are so many new objects, about those of fifty connections.
_MOST_OBJECTS = 1000
NO_CLIENT_YET = "No client has a key yet, so everybody gets 401: make one with `hilum stow key TITLE`, by the same settings."


class StowReceiver:
    """The role `stow`. The times are those of `ingest.stow.server`."""

    name = "stow"

    def __init__(self, settings: Settings, *, head_s: float = HEAD_S, drain_s: float = DRAIN_S) -> None:
        self._settings = settings
        self._head_s, self._drain_s = head_s, drain_s
        self._server: Server | None = None
        self._service: Service | None = None
        self._clients: Clients | None = None
        self._spool: Spool | None = None
        self._fault = ""
        self._summed: Summed | None = None
        self._tls: ServerTls | None = None

    @property
    def port(self) -> int:
        """The port it listens on, also where the settings say 0; 0 while it does not listen."""
        return self._server.port if self._server else 0

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop`. Raises `Misconfigured` if port, certificate, clients or spool cannot be had, or nobody would be kept out."""
        stow = self._settings.stow
        try:
            clients = self._clients = _clients_of(stow)
            self._spool = Spool.of(self._settings)
            self._summed = Summed(Records.of(self._settings), "stow", "request")
            self._service = Service(stow, self._spool, clients, Senders(self._settings), self._summed, self._spool.scratch)
            self._tls = _tls_of(stow)
            server = Server(stow, self._service, self._tls, head_s=self._head_s, drain_s=self._drain_s)
        except Misconfigured as error:
            self._fault = str(error)
            raise
        if self._tls and (soon := self._tls.warning()):
            log.warning("certificate_ends", says=soon)
        if clients is not None and not self._tls and not _is_loopback(stow.host):
            log.warning(
                "keys_in_the_clear", says="There is no TLS: keys and objects can be read on the way, unless a proxy in front has it."
            )
        server.start()
        self._server = server
        try:
            while not stop.wait(0.5):
                if not server.is_alive:
                    raise Stopped("The web service ended by itself.")
                self._summed.write()
                if gc.get_count()[0] > _MOST_OBJECTS:
                    gc.collect()
                _ = self._tls and self._tls.context  # takes up a renewed certificate
        finally:
            self._server = None
            server.stop()
            self._summed.write(everything=True)

    def health(self) -> Health:
        """Whether it listens, and for whom it is busy."""
        server, service, spool = self._server, self._service, self._spool
        if server is None or service is None or spool is None:
            return Health(ready=False, says=self._fault or "not listening")
        if spool.nearly_full():
            return Health(ready=True, says="The spool's disk is nearly full: requests are refused for now with 503. Free some space.")
        try:
            nobody = self._clients is not None and self._clients.is_empty() and not self._settings.stow.anonymous
        except Misconfigured as error:
            return Health(ready=False, says=str(error))
        says = f"{url_of(self._settings.stow, server.port)}, {counted(service.open, 'request')} under way"
        soon = self._tls.warning() if self._tls else ""
        warnings = " ".join(filter(None, (NO_CLIENT_YET if nobody else "", soon)))
        return Health(ready=True, says=f"{says}. {warnings}" if warnings else says)


def check(settings: Settings) -> None:
    """Raise `Misconfigured` if certificate or keys of clients cannot be used, or if the role would take objects from anybody."""
    _tls_of(settings.stow)
    if settings.stow.clients or "stow" in settings.role_names:
        _clients_of(settings.stow)


def _tls_of(stow: Stow) -> ServerTls | None:
    if not (stow.tls_certificate or stow.tls_key or stow.tls_client_ca):
        return None
    tls = ServerTls("stow", stow.tls_certificate, stow.tls_key, stow.tls_client_ca)
    tls.context.set_alpn_protocols(["http/1.1"])
    return tls


def _clients_of(stow: Stow) -> Clients | None:
    if stow.clients:
        return Clients(Path(stow.clients).expanduser())
    if not (stow.anonymous or stow.tls_client_ca or _is_loopback(stow.host)):
        raise Misconfigured(
            "stow-open",
            f"STOW-RS on {stow.host} would take objects from anybody.",
            fix="Give clients keys (`hilum stow key`, stow.clients) or certificates (stow.tls_client_ca), or set stow.anonymous = true.",
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def role(settings: Settings) -> Role:
    """The role `stow`."""
    return StowReceiver(settings)
