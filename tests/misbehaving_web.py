"""A STOW-RS service that plays what services are known to answer: for tests.

It keeps the files that it takes, answers each instance as its behaviour says (PS3.18 10.5.3), and tells by QIDO-RS what it has.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import pydicom

CHECKED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One instance of a request."""

    uid: str
    digest: str
    #: How often it has come, this time included.
    times: int
    #: Its number among all instances, from 1.
    instance: int
    service: Service


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of one instance: stored, perhaps with a WarningReason, or not, with a FailureReason (0 leaves it out)."""

    stored: bool
    code: int = 0
    #: Whether it then has what it says is stored.
    kept: bool = True


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What is answered to a whole request, without a word about its instances."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    #: End the connection instead.
    hangs_up: bool = False


#: Decides on one instance.
Answer = Callable[[Arrival], Verdict]
#: Decides on a request by its number, from 1; None lets it pass.
Door = Callable[[int], Refusal | None]


class Service:
    """A STOW-RS service on 127.0.0.1."""

    def __init__(self, answer: Answer, *, door: Door = lambda _: None, max_request_bytes: int = 1 << 40, token: str = "") -> None:
        #: Digest of the file that it has of each instance.
        self.kept: dict[str, str] = {}
        self.came: Counter[str] = Counter()
        self.requests = 0
        self._uids: dict[str, dict[str, str]] = {}
        self._answer, self._door = answer, door
        self._max_request_bytes, self._token = max_request_bytes, token
        self._lock = threading.Lock()
        self._order: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Its base URL, as a DICOMweb client wants it."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def seed(self, uids: Mapping[str, str], digest: str) -> None:
        """Have an instance, by the UIDs of its study, series and itself, as if it had come before."""
        with self._lock:
            self.kept[uids["SOPInstanceUID"]] = digest
            self._uids[uids["SOPInstanceUID"]] = dict(uids)

    def refusal(self, authorization: str, size: int) -> Refusal | None:
        """What is wrong with a request as a whole."""
        with self._lock:
            self.requests += 1
            number = self.requests
        if self._token and authorization != f"Bearer {self._token}":
            return Refusal(status=401)
        if size > self._max_request_bytes:
            return Refusal(status=413)
        return self._door(number)

    def store(self, files: list[bytes]) -> tuple[int, dict[str, object]]:
        """HTTP status and body of the answer to these DICOM files."""
        failed: list[dict[str, object]] = []
        referenced: list[dict[str, object]] = []
        for file in files:
            ds = pydicom.dcmread(BytesIO(file), stop_before_pixels=True, force=True)
            uids = {keyword: str(ds.get(keyword, "")) for keyword in CHECKED}
            uid, digest = uids["SOPInstanceUID"], sha256(file).hexdigest()
            with self._lock:
                self.came[uid] += 1
                instance = self._order.setdefault(uid, len(self._order) + 1)
                times = self.came[uid]
            verdict = self._answer(Arrival(uid=uid, digest=digest, times=times, instance=instance, service=self))
            item: dict[str, object] = {"00081150": _ui(uids["SOPClassUID"]), "00081155": _ui(uid)}
            if verdict.code:
                item["00081196" if verdict.stored else "00081197"] = {"vr": "US", "Value": [verdict.code]}
            if verdict.stored and verdict.kept:
                with self._lock:
                    self.kept.setdefault(uid, digest)
                    self._uids[uid] = uids
            (referenced if verdict.stored else failed).append(item)
        body: dict[str, object] = {}
        if failed:
            body["00081198"] = {"vr": "SQ", "Value": failed}
        if referenced:
            body["00081199"] = {"vr": "SQ", "Value": referenced}
        whole = not failed and not any("00081196" in item for item in referenced)
        return (200 if whole else 202 if referenced else 409), body

    def instances(self, wanted: Mapping[str, str]) -> list[dict[str, object]]:
        """What it has with these values (PS3.18 10.6)."""
        tags = {"StudyInstanceUID": "0020000D", "SeriesInstanceUID": "0020000E", "SOPInstanceUID": "00080018", "SOPClassUID": "00080016"}
        with self._lock:
            found = [uids for uids in self._uids.values() if all(uids.get(key) in value.split(",") for key, value in wanted.items())]
        return [{tags[keyword]: _ui(uid) for keyword, uid in uids.items()} for uids in found]


@contextmanager
def service(answer: Answer, **options: object) -> Iterator[Service]:
    """A `Service` for as long as the block lasts."""
    running = Service(answer, **options)  # type: ignore[arg-type]  # passed through
    try:
        yield running
    finally:
        running.close()


# Behaviours


def stores(arrival: Arrival) -> Verdict:
    """Take everything, as often as it comes."""
    del arrival
    return Verdict(stored=True)


def like_azure(arrival: Arrival) -> Verdict:
    """An instance that is there is refused with its own reason, whatever its bytes."""
    return Verdict(stored=False, code=0xB00E) if arrival.uid in arrival.service.kept else Verdict(stored=True)


def like_google(arrival: Arrival) -> Verdict:
    """The same file again is stored; another one with its UIDs is a "processing failure"."""
    same = arrival.service.kept.get(arrival.uid, arrival.digest) == arrival.digest
    return Verdict(stored=True) if same else Verdict(stored=False, code=0x0110)


def warns(code: int) -> Answer:
    """Store everything with this WarningReason."""
    return lambda _: Verdict(stored=True, code=code)


def refuses(*codes: int) -> Answer:
    """Answer the instances with these FailureReasons in turn, each always with the same; 0 stores it."""

    def answer(arrival: Arrival) -> Verdict:
        code = codes[(arrival.instance - 1) % len(codes)]
        return Verdict(stored=code == 0, code=code)

    return answer


def refuses_without_a_reason(arrival: Arrival) -> Verdict:
    """Name each instance as failed, and say no more."""
    del arrival
    return Verdict(stored=False)


def forgets(arrival: Arrival) -> Verdict:
    """Say that everything is stored, and have nothing."""
    del arrival
    return Verdict(stored=True, kept=False)


def at_first(times: int, status: int, retry_after_s: int | None = None, *, hangs_up: bool = False) -> Door:
    """Answer so many requests with this HTTP status, or none at all, and let the others pass."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return lambda number: Refusal(status=status, headers=headers, hangs_up=hangs_up) if number <= times else None


# HTTP


def _handler(of: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the standard library's name
            body = self._body()
            refusal = of.refusal(self.headers.get("Authorization", ""), len(body))
            if refusal is None:
                self._say(*of.store(_parts(body, self.headers.get("Content-Type", ""))))
            elif refusal.hangs_up:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(2)
            else:
                self._say(refusal.status, None, refusal.headers)

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            parts = url.path.strip("/").split("/")
            wanted = {key: values[0] for key, values in parse_qs(url.query).items() if key in CHECKED}
            for level, keyword in (("studies", "StudyInstanceUID"), ("series", "SeriesInstanceUID"), ("instances", "SOPInstanceUID")):
                at = parts.index(level) + 1 if level in parts else len(parts)
                if at < len(parts) and parts[at] not in ("series", "instances"):
                    wanted[keyword] = parts[at]
            found = of.instances(wanted)
            self._say(200 if found else 204, found or None)

        def do_OPTIONS(self) -> None:
            self._say(200, None, {"Allow": "POST, GET, OPTIONS"})

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _say(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
            body = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            for name, text in (headers or {}).items():
                self.send_header(name, text)
            if body:
                self.send_header("Content-Type", "application/dicom+json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _parts(body: bytes, content_type: str) -> list[bytes]:
    """The parts of a multipart body, or the body itself where it is one file."""
    _, found, rest = content_type.partition("boundary=")
    if not found:
        return [body]
    mark = b"\r\n--" + rest.partition(";")[0].strip().strip('"').encode()
    pieces = (b"\r\n" + body).split(mark)[1:]
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces if not piece.startswith(b"--")]


def _ui(uid: str) -> dict[str, object]:
    return {"vr": "UI", "Value": [uid]}
