"""A listener without Kafka, and peers that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trustme

from hilum.events import MessageReceived, MessageRefused, decode
from hilum.hl7.message import Message, parse
from hilum.hl7_sections import Hl7
from hilum.journal import Journal, Position
from hilum.mllp import Reader, framed
from hilum.settings import Settings
from hilum.testing import eventually
from hilum.tls import ServerTls
from ingest.hl7.intake import Kept
from ingest.hl7.listener import Listener
from ingest.hl7.repeats import Repeats


class Running:
    """A listener with its journal."""

    def __init__(self, listener: Listener, journal: Journal) -> None:
        self.listener = listener
        self.journal = journal

    @property
    def port(self) -> int:
        return self.listener.port

    def kept(self) -> list[MessageReceived | MessageRefused]:
        """Everything that is durable, in its order."""
        found: list[MessageReceived | MessageRefused] = []
        for entry in self.journal.read(Position(0, 0), most_bytes=2**30):
            each = msgspec.msgpack.decode(entry.payload, type=Kept)
            found.append(decode(MessageReceived, each.event) if each.kind == "r" else decode(MessageRefused, each.event))
        return found

    def received(self) -> list[MessageReceived]:
        return [each for each in self.kept() if isinstance(each, MessageReceived)]

    def refused(self) -> list[MessageRefused]:
        return [each for each in self.kept() if isinstance(each, MessageRefused)]


@contextmanager
def listening(
    path: Path, *, min_free_bytes: int = 0, tls: ServerTls | None = None, processes: bool = False, **hl7: Any
) -> Iterator[Running]:
    """A listener on a free port, with its journal in `path`; `hl7` are settings of that table. Without `processes` it validates itself."""
    settings = Settings(hl7=msgspec.convert({"port": 0, **hl7}, Hl7))
    journal = Journal(path / "hl7", history_bytes=2**20, min_free_bytes=min_free_bytes, segment_bytes=2**16)
    repeats = Repeats()

    def restored(payload: bytes) -> None:
        each = msgspec.msgpack.decode(payload, type=Kept)
        repeats.remember(each.key, each.digest)

    stop = threading.Event()
    with journal.opened(restored) as mine:
        assert mine
        listener = Listener(settings, journal, repeats, tls, None if processes else ThreadPoolExecutor(1))
        thread = threading.Thread(target=lambda: asyncio.run(listener.serve(stop)))
        thread.start()
        try:
            eventually(lambda: (listener.port or listener.tls_port) != 0)
            yield Running(listener, journal)
        finally:
            stop.set()
            thread.join(60)


def secured(path: Path, authority: trustme.CA) -> ServerTls:
    """TLS of a listener that wants certificates of the authority, such as that in `ris.pem`; the authority's own is in `ca.pem`."""
    certificate = authority.issue_cert("127.0.0.1")
    (path / "cert.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
    (path / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    authority.issue_cert("ris.invalid").private_key_and_cert_chain_pem.write_to_path(path / "ris.pem")
    authority.cert_pem.write_to_path(path / "ca.pem")
    return ServerTls("hl7", str(path / "cert.pem"), str(path / "key.pem"), str(path / "ca.pem"))


class Peer:
    """A raw socket that speaks MLLP."""

    def __init__(self, port: int, wrap: Any = None) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket = wrap(raw) if wrap else raw
        self._reader = Reader(2**20)
        self._read: list[bytes] = []

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self) -> Message | None:
        """The next acknowledgement; None if the connection ends without."""
        raw = self.raw_answer()
        return None if raw is None else parse(raw.decode("latin-1"))

    def raw_answer(self) -> bytes | None:
        while not self._read:
            data = self.socket.recv(2**16)
            if not data:
                return None
            self._read += [block.content for block in self._reader.feed(data)]
        return self._read.pop(0)

    def asked(self, content: bytes | str) -> Message:
        """The acknowledgement of a message."""
        self.send(framed(content.encode() if isinstance(content, str) else content))
        found = self.answer()
        assert found is not None, "the connection ended without an acknowledgement"
        return found


def a_message(
    control_id: str = "M1",
    *,
    kind: str = "ORM^O01^ORM_O01",
    version: str = "2.5.1",
    charset: str = "",
    accept: str = "",
    application: str = "",
    processing: str = "P",
    sender: str = "RIS",
    more: str = "",
) -> str:
    """A small order."""
    return (
        f"MSH|^~\\&|{sender}|NORTH|HILUM|NORTH|20260102100000+0100||{kind}|{control_id}|{processing}|{version}|||{accept}|{application}||{charset}\r"
        "PID|1||SYNTH0001^^^NORTH^MR||Synthetic^Sam||19700101|M\r"
        "PV1|1|O\r"
        "ORC|NW|P0001^RIS|F0001^RIS||SC||^^^20260102110000\r"
        "OBR|1|P0001^RIS|F0001^RIS|CTCHEST^CT chest^NORTH\r"
        f"ZDS|2.25.3201^NORTH^Application^DICOM\r{more}"
    )
