"""The role `stow` under fuzzed requests."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bench.conversations import Stream
from bench.ingest.receivers import alone
from bench.patient import STREAM_S, Patient, Told, Vitals
from bench.peers import free_port
from bench.web_requests import KEY, MARKS, request
from ingest.dicom.answers import NOT_DICOM
from ingest.stow.service import SYNCS

#: A client that says nothing more gets no answer for so long, and hangs up.
SILENCE_S = 0.5
#: Requests at once; each may have a thread, which stays.
MAX_REQUESTS = 32
_SETTINGS = """
[stow]
port = {port}
clients = "{clients}"
max_requests = {most}
idle_timeout_s = 0.3
max_request_bytes = 2000000
max_parts = 200
"""


def converse(port: int, what: Stream) -> Told:
    """Send a request and hear what comes back."""
    told = Told()
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=STREAM_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(BrokenPipeError, ConnectionResetError):  # it has heard enough
                for piece in what.pieces:
                    connection.sendall(piece)
            if what.breaks_off:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return told
            received = _heard(connection, what, told)
    except TimeoutError:
        told.complaint = f"It neither answered nor closed the connection within {STREAM_S:.0f} s."
        return told
    except OSError:
        told.complete = False
    try:
        read(received, told)
    except ValueError as error:
        told.complaint = f"Its answer is garbled: {error}."
    return told


def _heard(connection: socket.socket, what: Stream, told: Told) -> bytes:
    """All that comes. Who has sent a request with a fault hangs up after a while; then it does not know what became of it."""
    received = b""
    told.complete = True
    if what.changes:
        connection.settimeout(SILENCE_S)
    while True:
        try:
            more = connection.recv(65536)
        except TimeoutError:
            if not told.complete or not what.changes:
                raise
            told.complete = False
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(STREAM_S)
            continue
        except ConnectionResetError:
            told.complete = False
            return received
        if not more:
            return received
        received += more


def read(received: bytes, told: Told) -> None:
    """Raises `ValueError` if it is not whole answers as they may be."""
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            raise ValueError("a head is cut off")
        line, *fields = head.split(b"\r\n")
        status = line.split(b" ")[1].decode()
        if status == "100":
            received = rest
            continue
        headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(b":") for each in fields)}
        length = int(headers.get(b"content-length", b"0"))
        body, received = rest[:length], rest[length:]
        kind = headers.get(b"content-type", b"").decode()
        if len(body) < length:  # as in the answer to HEAD, or where the client has hung up
            body, received = b"", b""
        _answered(status, kind, body, told)


def _answered(status: str, kind: str, body: bytes, told: Told) -> None:
    if kind == "application/problem+json" and body:
        told.outcomes.append(f"{status} {json.loads(body)['reason']}")
        return
    told.outcomes.append(status)
    if kind == "application/dicom+json" and body:
        module = json.loads(body)
        failed = module.get("00081198", {}).get("Value", [])
        told.kept += len(module.get("00081199", {}).get("Value", []))
        told.kept += sum(item.get("00000902", {}).get("Value") == [NOT_DICOM.comment] for item in failed)
    elif kind == "application/dicom+xml":
        told.complete = False  # it is not read here, so what is kept is not known
    elif body:
        raise ValueError(f"an answer of type {kind!r}")


class WebPatient(Patient):
    """One process of the role `stow`."""

    def __init__(self, process: psutil.Process, port: int, folder: Path) -> None:
        super().__init__(process, port, folder)
        # Each request that is under way at the same time adds a thread, up to a bound.
        self.rest = Vitals(self.rest.handles, self.rest.threads + MAX_REQUESTS + SYNCS, self.rest.memory_mb)

    def converse(self, what: Stream) -> Told:
        return converse(self.port, what)

    def warm(self) -> None:
        self.converse(next(what for number in range(1000) if not (what := request(number)).changes))

    def unknown(self, what: Stream) -> int:
        return sum(what.raw.count(mark) for mark in MARKS)

    def failures(self, streams: Sequence[Stream], told: Sequence[Told]) -> Iterator[str]:
        wrong = [each.outcomes for what, each in zip(streams, told, strict=True) if not what.changes and each.outcomes != ["200"]]
        if wrong:
            yield f"Requests without a fault were answered {wrong}."

    def is_served(self) -> bool:
        get = b"GET /dicom-web/studies HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        return self.converse(Stream((get,), (), breaks_off=False, data_sets=())).outcomes == ["405 only-store"]


@contextmanager
def web_patient(folder: Path) -> Iterator[Patient]:
    """A receiver for as long as the block lasts."""
    port, clients = free_port(), folder / "clients"
    clients.touch(0o600)
    clients.write_text(f"FUZZ sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    with alone(folder, "stow", port, _SETTINGS.format(port=port, clients=clients, most=MAX_REQUESTS)) as process:
        yield WebPatient(psutil.Process(process.pid), port, folder)
