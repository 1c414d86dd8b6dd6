"""A DICOMweb service on 127.0.0.1 that answers as a test wants, and a session that sends to one."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import NamedTuple

from pydicom import dcmread

from hilum.errors import HilumError
from hilum.outcomes import meanings
from hilum.part10 import Part10, data_set_offset
from hilum.rewriting import lossy_of
from hilum.sink import Delivery, Session, Settled
from hilum.testing import MemoryStore, a_delivery
from sinks.stow import Stow
from sinks.stow.session import Manner, Requests


class Request(NamedTuple):
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    #: The files of a multipart body.
    files: list[bytes]

    @property
    def uids(self) -> list[str]:
        return [str(dcmread(BytesIO(file)).SOPInstanceUID) for file in self.files]


class Reply(NamedTuple):
    """What is answered; nothing at all and the connection's end if the status is 0."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def told(
    stored: dict[str, int] | None = None, failed: dict[str, int] | None = None, others: tuple[int, ...] = (), status: int = 200
) -> Reply:
    """A response in DICOM JSON (PS3.18 I.2)."""

    def number(tag: str, value: int) -> dict[str, object]:
        return {tag: {"vr": "US", "Value": [value]}} if value else {}

    def instance(uid: str) -> dict[str, object]:
        return {"00081150": {"vr": "UI", "Value": ["1.2"]}, "00081155": {"vr": "UI", "Value": [uid]}}

    body: dict[str, object] = {}
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": [instance(uid) | number("00081196", reason) for uid, reason in stored.items()]}
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": [instance(uid) | number("00081197", reason) for uid, reason in failed.items()]}
    if others:
        body["0008119A"] = {"vr": "SQ", "Value": [number("00081197", reason) for reason in others]}
    return Reply(status, json.dumps(body).encode(), (("Content-Type", "application/dicom+json"),))


def stores(request: Request) -> Reply:
    """An answer: everything is stored, and searches find nothing."""
    return told(dict.fromkeys(request.uids, 0)) if request.method == "POST" else Reply(204)


class StowServer:
    """Keeps the data sets of what it answers to with 200 or 202, by SOP instance UID, and every request."""

    def __init__(self, answer: Callable[[Request], Reply] = stores, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.stored: dict[str, list[bytes]] = {}
        self.answer = answer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https" if tls else "http"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/dicom-web"

    @property
    def posts(self) -> list[list[str]]:
        """The SOP instance UIDs of each POST."""
        return [request.uids for request in self.requests if request.method == "POST"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: Request) -> Reply:
        self.requests.append(request)
        reply = self.answer(request)
        if request.method == "POST" and reply.status in (200, 202):
            for uid, file in zip(request.uids, request.files, strict=True):
                self.stored.setdefault(uid, []).append(file[data_set_offset(file) :])
        return reply


def _handler(server: StowServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if len(body) < int(self.headers.get("Content-Length", "0")):
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = server.take(Request(self.command, self.path, headers, _files(headers.get("content-type", ""), body)))
            if not reply.status:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(reply.body)

        do_GET = do_POST = do_OPTIONS = _serve  # noqa: N815  # as http.server wants it

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _files(content_type: str, body: bytes) -> list[bytes]:
    _, found, boundary = content_type.partition("boundary=")
    if not found:
        return []
    parts = body.split(b"--" + boundary.strip('"').encode())[1:-1]
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]


@contextmanager
def stow_server(answer: Callable[[Request], Reply] = stores, tls: ssl.SSLContext | None = None) -> Iterator[StowServer]:
    """A `StowServer` for as long as the block lasts."""
    server = StowServer(answer, tls)
    try:
        yield server
    finally:
        server.close()


def session_for(url: str, store: MemoryStore, now: Callable[[], float] = lambda: 0.0, /, **more: object) -> Requests:
    """As `Stow.open` makes one, on a store in memory."""
    sink = Stow(url=url, **more)  # type: ignore[arg-type]  # by name
    manner = Manner(
        instances=sink.instances,
        max_request_bytes=sink.max_request_bytes,
        max_instance_bytes=sink.max_instance_bytes,
        conflict=sink.conflict,
        meanings=meanings(sink.profile, own_reasons=sink.reasons),
        transcode=sink.transcode == "if-needed",
        syntaxes=frozenset(sink.syntaxes),
        lossy=lossy_of(sink.lossy, sink.lossy_ratio, transcode=True),
    )
    return Requests(sink.client(), store, manner, now)


def several(store: MemoryStore, count: int, **more: object) -> list[Delivery]:
    return [a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}", **more) for n in range(count)]  # type: ignore[arg-type]  # by name


def send(session: Session, store: MemoryStore, deliveries: list[Delivery]) -> list[Settled | HilumError]:
    found: list[Settled | HilumError] = []
    session.begin(deliveries)
    for delivery in deliveries:
        try:
            found.append(session.deliver(delivery, Part10(store, delivery.object)))
        except HilumError as error:
            found.append(error)
    session.close()
    return found


def states(outcomes: list[Settled | HilumError]) -> list[str]:
    return [outcome.state if isinstance(outcome, Settled) else type(outcome).__name__ for outcome in outcomes]
