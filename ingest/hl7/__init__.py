"""The HL7 receiver: an MLLP listener whose `AA` means that the message survives a power cut, and which tells Kafka in order.

`listener` and `connection` have the sockets, `intake` says what becomes of a message, `repeats` which came before, `refusals` why one is
not taken; `publish` goes from the journal (`hilum.journal`) to Kafka.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import cast

import msgspec

from hilum.bus import Log, partition_counts, producer, topic_of
from hilum.disk import sync_file_system
from hilum.errors import HilumError
from hilum.events import MessageReceived, MessageRefused
from hilum.journal import SEGMENT_BYTES, Journal
from hilum.role import Health, Role
from hilum.settings import Settings
from hilum.store import open_store
from hilum.tls import ServerTls
from hilum.words import counted

from .intake import Kept
from .listener import Listener
from .publish import SILENCE_S, Publisher
from .repeats import Repeats
from .senders import Senders

RETRY_S = 1.0
SWITCH_S = 0.0005
#: How long the broker may take to say which topics there are.
CONNECT_S = 3.0


class Receiver:
    """The role `hl7`."""

    name = "hl7"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listener: Listener | None = None
        self._publisher: Publisher | None = None
        self._journal: Journal | None = None
        self._tls: ServerTls | None = None
        self._fault = ""

    @property
    def port(self) -> int:
        """The port it listens on, also where the settings say 0; that for TLS if there is no other; 0 while it does not listen."""
        return (self._listener.port or self._listener.tls_port) if self._listener else 0

    def run(self, stop: threading.Event) -> None:
        """Listen and publish until `stop`. Raises `Misconfigured` and `Stopped`."""
        spool, hl7 = self._settings.spool, self._settings.hl7
        try:
            self._tls = _tls_of(self._settings)
            journal = Journal(
                self._settings.spool_dir / "hl7",
                history_bytes=hl7.history_bytes,
                min_free_bytes=spool.min_free_bytes,
                segment_bytes=min(SEGMENT_BYTES, max(hl7.history_bytes // 8, 2**20)),
            )
            repeats = Repeats()
            decoder = msgspec.msgpack.Decoder(Kept)

            def restored(payload: bytes) -> None:
                kept = decoder.decode(payload)
                repeats.remember(kept.key, kept.digest)

            while not stop.is_set():
                with journal.opened(restored) as mine:
                    if mine:
                        self._fault = ""
                        self._serve(journal, repeats, stop)
                        return
                self._fault = "Another process has the journal of HL7 messages; this one waits to take over."
                stop.wait(RETRY_S)
        except HilumError as error:
            self._fault = str(error)
            raise

    def _serve(self, journal: Journal, repeats: Repeats, stop: threading.Event) -> None:
        # Three threads take turns for each message: the usual 5 ms for a turn would add up.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._journal = journal
        listener = Listener(self._settings, journal, repeats, self._tls)
        self._publisher = publisher = _publisher_of(self._settings, journal)
        failed: list[Exception] = []
        end = _Either(stop)

        def publish() -> None:
            try:
                publisher.run(end)
            except Exception as error:
                failed.append(error)
                end.set()

        threads = [
            threading.Thread(target=journal.prepare, name="journal files", daemon=True),
            threading.Thread(target=publish, name="hl7 publisher", daemon=True),
        ]
        for thread in threads:
            thread.start()
        self._listener = listener
        try:
            asyncio.run(listener.serve(end))
        finally:
            self._listener = None
            end.set()
            for thread in threads:
                thread.join(10)
        if failed:
            raise failed[0]

    def health(self) -> Health:
        """Whether it listens, and whether what it took gets on."""
        listener, publisher, journal = self._listener, self._publisher, self._journal
        if listener is None or publisher is None or journal is None or not self.port:
            return Health(ready=False, says=self._fault or "not listening")
        hl7 = self._settings.hl7
        ports = [f"on {hl7.host}:{listener.port}"] if hl7.without_tls else []
        says = f"HL7 {', '.join([*ports, *([f'with TLS on {hl7.tls_port}'] if self._tls else [])])}"
        says += f", {counted(listener.connections, 'connection')} open."
        trouble = publisher.trouble
        if not trouble and publisher.waits_s > SILENCE_S:
            trouble = "Kafka does not acknowledge; messages wait in the journal."
        # It listens and answers: were it not ready, a Hilum whose Kafka is away would not take messages at its next start.
        more = " ".join(filter(None, (listener.trouble, trouble, self._tls.warning() if self._tls else "")))
        return Health(ready=True, says=f"{says} {more}".rstrip(), lag=journal.lag)


class _Either(threading.Event):
    """Set when it is set, or when the role is to stop."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop = stop

    def is_set(self) -> bool:
        """See `threading.Event`."""
        return super().is_set() or self._stop.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event`; `timeout` is needed."""
        return super().is_set() or self._stop.wait(timeout)


def check(settings: Settings) -> None:
    """Raise `Misconfigured` if TLS is asked for and cannot be spoken, or a sender's settings cannot work."""
    _tls_of(settings)
    Senders(settings.hl7)


def _tls_of(settings: Settings) -> ServerTls | None:
    hl7 = settings.hl7
    return ServerTls("hl7", hl7.tls_certificate, hl7.tls_key, hl7.tls_client_ca) if hl7.tls_port else None


def _publisher_of(settings: Settings, journal: Journal) -> Publisher:
    def connect() -> Log:
        kafka = producer(settings, message_timeout_ms=0)
        partition_counts(kafka, [topic_of(settings, MessageReceived), topic_of(settings, MessageRefused)], timeout_s=CONNECT_S)
        return cast("Log", kafka)

    path = Path(settings.s3.synced) if settings.s3.synced else None
    return Publisher(settings, journal, connect, open_store(settings), (lambda: sync_file_system(path)) if path else None)


def role(settings: Settings) -> Role:
    """The role `hl7`."""
    return Receiver(settings)
