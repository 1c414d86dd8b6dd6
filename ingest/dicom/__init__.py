"""The DICOM receiver: an SCP of Storage and Verification, whose Success means that the object survives a power cut.

`listener` has the sockets, `acceptor` the protocol without sockets, `negotiation` says what is agreed to, `storage` puts one
object into the spool, `answers` chooses its status. `commitment` keeps requests for storage commitment, on which the role
`commitment` decides; `worklist` answers queries for scheduled steps, and `performed` keeps what is said of performed ones.
"""

from __future__ import annotations

import threading

from hilum.errors import Misconfigured
from hilum.records import Records
from hilum.role import Health, Role
from hilum.settings import Settings
from hilum.spool import Spool
from hilum.tls import ServerTls

from .commitment import Committing
from .listener import DRAIN_S, Listener
from .senders import Senders
from .services import Services


class Receiver:
    """The role `dicom`."""

    name = "dicom"

    def __init__(self, settings: Settings, *, drain_s: float = DRAIN_S) -> None:
        """When it stops, objects under way get `drain_s` to arrive."""
        self._settings = settings
        self._drain_s = drain_s
        self._listener: Listener | None = None
        self._spool: Spool | None = None
        self._tls: ServerTls | None = None
        self._fault = ""

    @property
    def port(self) -> int:
        """The port it listens on, also where the settings say 0; 0 while it does not listen."""
        return self._listener.port if self._listener else 0

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop`. Raises `Misconfigured` if a port, the spool or the certificate cannot be had."""
        dicom = self._settings.dicom
        try:
            self._spool = Spool.of(self._settings)
            self._tls = _tls_of(self._settings)
            committing = Committing(self._settings)
            services = Services.of(self._settings, stop)
            listener = Listener(dicom, self._spool, Senders(self._settings), Records.of(self._settings), self._tls, committing, services)
        except Misconfigured as error:
            self._fault = str(error)
            raise
        self._listener = listener
        threading.Thread(target=self._spool.prepare, args=(stop,), name="spare spool files", daemon=True).start()
        thread = threading.Thread(target=listener.serve, name="dicom listener", daemon=True)
        thread.start()
        stop.wait()
        self._listener = None
        listener.stop(self._drain_s)
        thread.join()

    def health(self) -> Health:
        """Whether it listens, and for whom it is busy."""
        listener, dicom = self._listener, self._settings.dicom
        if listener is None or self._spool is None:
            return Health(ready=False, says=self._fault or "not listening")
        if self._spool.nearly_full():
            # It listens and answers. Were it not ready, a Hilum whose spool has run full would not start, nor its publisher empty it.
            return Health(ready=True, says="The spool's disk is nearly full: objects are refused for now with 0xA700. Free some space.")
        says = f"{dicom.aet} listens on {dicom.host}:{listener.port}{f', with TLS on {dicom.tls_port}' if self._tls else ''}"
        says += f", {listener.associations} association{'' if listener.associations == 1 else 's'} open"
        finder = listener.services.finder
        found = (listener.crowd.says(), self._tls.warning() if self._tls else "", finder.says() if finder else "")
        warnings = " ".join(filter(None, found))
        return Health(ready=True, says=f"{says}. {warnings}" if warnings else says)


def check(settings: Settings) -> None:
    """Raise `Misconfigured` if TLS is asked for and cannot be spoken: files that are missing or do not belong together."""
    _tls_of(settings)


def _tls_of(settings: Settings) -> ServerTls | None:
    dicom = settings.dicom
    return ServerTls("dicom", dicom.tls_certificate, dicom.tls_key, dicom.tls_client_ca) if dicom.tls_port else None


def role(settings: Settings) -> Role:
    """The role `dicom`."""
    return Receiver(settings)
