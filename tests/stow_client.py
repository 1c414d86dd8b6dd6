"""The role `stow` in a thread, and a client that sends it what a test wants."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from hilum.dicom.file_meta import part10_head
from hilum.events import AssociationEnded
from hilum.records import Records
from hilum.senders import Exceptions
from hilum.settings import Sender, Settings, Stow
from hilum.settings import Spool as SpoolSettings
from hilum.spool import Arrival, Spool, read_arrival
from hilum.testing import encoded, eventually
from ingest.stow import StowReceiver

CT, EXPLICIT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
HANGING_PROTOCOL = "1.2.840.10008.5.1.4.38.1"
HEADER = {
    "SOPClassUID": CT,
    "SOPInstanceUID": "2.25.3",
    "PatientName": "Marked^Patient",
    "PatientID": "MRN-1",
    "StudyInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
}
TO_DICOM = 'multipart/related; type="application/dicom"; boundary=b'
TO_JSON = 'multipart/related; type="application/dicom+json"; boundary=b'


def a_file(transfer_syntax: str = EXPLICIT, announced: dict[str, str] | None = None, **header: str) -> bytes:
    """A DICOM file with a CT slice's header."""
    values = HEADER | header
    said = values | (announced or {})
    return part10_head(said["SOPClassUID"], said["SOPInstanceUID"], transfer_syntax) + encoded(values, transfer_syntax)


def a_head(length: int = 9999, more: str = "") -> bytes:
    """The head of a request."""
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Type: {TO_DICOM}\r\nContent-Length: {length}\r\n{more}\r\n"
    return head.encode()


def a_body(*parts: bytes, kind: str = "application/dicom", more: str = "") -> bytes:
    """A multipart body with the boundary `b`."""
    begun = b"".join(f"--b\r\nContent-Type: {kind}\r\n{more}\r\n".encode() + part + b"\r\n" for part in parts)
    return begun + b"--b--\r\n"


class Answered:
    """A response that was read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> dict[str, Any]:
        """The body."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def items(self, tag: str) -> list[dict[str, Any]]:
        """The items of a sequence, each with its attributes' first values."""
        items = self.json.get(tag, {}).get("Value", [])
        return [{tag: attribute.get("Value", [None])[0] for tag, attribute in item.items()} for item in items]

    @property
    def referenced(self) -> list[str]:
        """SOP instances that are stored."""
        return [item["00081155"] for item in self.items("00081199")]

    @property
    def failed(self) -> list[tuple[str, int]]:
        """SOP instances that are not, and why; `""` where they have no name."""
        return [(item.get("00081155", ""), item["00081197"]) for item in self.items("00081198") + self.items("0008119A")]

    @property
    def reason(self) -> str:
        """Why nothing was taken."""
        assert self.headers["content-type"] == "application/problem+json"
        assert {"title", "detail", "fix"} <= self.json.keys()
        assert self.json["status"] == self.status
        return str(self.json["reason"])


class Running:
    """The role in a thread, and its spool."""

    def __init__(self, wanted: Settings, **times: float) -> None:
        self.receiver = StowReceiver(wanted, **times)
        self.exceptions = Exceptions.of(wanted)
        self.spool = Spool.of(wanted)
        self._records = Records.of(wanted)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.receiver.run, args=(self.stop,))
        self.thread.start()
        self.port = eventually(lambda: self.receiver.port, what="it listens")

    def end(self) -> None:
        """Stop it, and wait until it has."""
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def post(
        self, body: bytes | Iterator[bytes], kind: str = TO_DICOM, path: str = "/dicom-web/studies", method: str = "POST", **headers: str
    ) -> Answered:
        """Ask it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, body, sent, encode_chunked=not isinstance(body, bytes))
        try:
            return Answered(connection.getresponse())
        finally:
            connection.close()

    def records(self) -> list[AssociationEnded]:
        """The records that it has left, oldest first."""
        found = [self._records.read(name) for name in self._records.waiting()]
        return [record for record in found if record is not None]

    def stored(self) -> list[tuple[Arrival, bytes]]:
        """What is in the spool, oldest first: arrival and data set."""
        files = [self.spool.read(receipt) for receipt in self.spool.waiting()]
        return [(arrival, file[begin:]) for file in files for arrival, begin in [read_arrival(file)]]

    def leftovers(self) -> list[Path]:
        """Unfinished files in the spool."""
        return self.spool.unfinished()

    def is_clean(self) -> bool:
        """Whether nothing was kept and nothing is left over."""
        return not self.stored() and not self.leftovers()


@contextmanager
def running(
    path: Path,
    spool: SpoolSettings | None = None,
    times: dict[str, float] | None = None,
    senders: dict[str, Sender] | None = None,
    **stow: Any,
) -> Iterator[Running]:
    """The role for as long as the block lasts."""
    wanted = Settings(
        data=str(path),
        stow=Stow(port=0, **stow),
        spool=spool or SpoolSettings(min_free_bytes=0, spare_bytes=0),
        senders=senders or {},
    )
    receiver = Running(wanted, **(times or {}))
    try:
        yield receiver
    finally:
        receiver.end()


def a_json(**changes: Any) -> dict[str, Any]:
    """DICOM JSON of a small image whose pixels are bulk data."""
    ds = Dataset()
    for keyword, value in HEADER.items():
        setattr(ds, keyword, value)
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.SamplesPerPixel = 2, 2, 8, 1
    return ds.to_json_dict() | {"7FE00010": {"vr": "OW", "BulkDataURI": "pixels"}} | changes


def a_json_body(*instances: dict[str, Any], bulk: Mapping[str, tuple[str, bytes]] | None = None) -> bytes:
    """A request with these instances and their bulk data."""
    body = b"--b\r\nContent-Type: application/dicom+json\r\n\r\n" + json.dumps(instances, ensure_ascii=False).encode() + b"\r\n"
    for location, (kind, data) in ({"pixels": ("application/octet-stream", b"\1\2\3\4")} if bulk is None else bulk).items():
        body += f"--b\r\nContent-Type: {kind}\r\nContent-Location: {location}\r\n\r\n".encode() + data + b"\r\n"
    return body + b"--b--"
