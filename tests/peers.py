"""DICOM nodes that tests deliver to: pynetdicom's SCP with the answer that a test wants, sockets that misbehave, Orthanc's store."""

from __future__ import annotations

import socket
import ssl
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import requests
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_2000 = "1.2.840.10008.1.2.4.90"

#: Samples (`tests.storable`) without StudyInstanceUID: Orthanc has no place for them.
NOT_FOR_ORTHANC = {
    "test_files/JPEGLSNearLossless_08.dcm",
    "test_files/JPEGLSNearLossless_16.dcm",
    "test_files/SC_rgb_jls_lossy_line.dcm",
    "test_files/SC_rgb_jls_lossy_sample.dcm",
}


class Pacs:
    """A storage SCP on 127.0.0.1 that keeps the data sets it is sent, as they come, unless `answer` decides otherwise."""

    def __init__(
        self,
        answer: Callable[[evt.Event], int | Dataset] = lambda _: 0x0000,
        *,
        contexts: Iterable[tuple[str, str]] = ((CT, EXPLICIT), (CT, IMPLICIT), (MR, EXPLICIT), (MR, IMPLICIT), (CT, JPEG_2000)),
        aet: str = "PACS",
        echo: bool = True,
        only_called: bool = False,
        only_calling: tuple[str, ...] = (),
        associations: int = 10,
        max_pdu_bytes: int = 16_384,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        ae = AE(aet)
        ae.maximum_pdu_size = max_pdu_bytes
        ae.require_called_aet = only_called
        ae.require_calling_aet = list(only_calling)
        ae.maximum_associations = associations
        if echo:
            ae.add_supported_context(VERIFICATION)
        for sop_class, transfer_syntax in contexts:
            ae.add_supported_context(sop_class, transfer_syntax)
        #: Data sets by SOP instance UID, in the order in which they came.
        self.stored: dict[str, list[bytes]] = {}
        #: What each association asked for.
        self.asked: list[list[tuple[str, str]]] = []
        #: As what each association's requestor called itself, and what it called.
        self.titles: list[tuple[str, str]] = []
        self.released = 0
        self._answer = answer
        self._lock = threading.Lock()
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_REQUESTED, self._requested), (evt.EVT_RELEASED, self._released)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)  # type: ignore[arg-type]  # its own tuples
        assert server is not None
        self._server = server
        self.port: int = server.server_address[1]

    def _store(self, event: evt.Event) -> int | Dataset:
        request = event.request
        assert isinstance(request, C_STORE)
        assert isinstance(request.DataSet, BytesIO)
        answer = self._answer(event)
        status = answer if isinstance(answer, int) else int(answer.Status)
        if status == 0 or status >> 12 == 0xB:
            with self._lock:
                self.stored.setdefault(str(request.AffectedSOPInstanceUID), []).append(request.DataSet.getvalue())
        return answer

    def _requested(self, event: evt.Event) -> None:
        asked, request = event.assoc.requestor.requested_contexts, event.assoc.requestor.primitive
        assert request is not None
        self.titles.append((str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()))
        self.asked.append([(str(context.abstract_syntax), str(context.transfer_syntax[0])) for context in asked])

    def _released(self, _: evt.Event) -> None:
        self.released += 1

    def close(self) -> None:
        """Take no more associations and end those that are open."""
        assert self._server.socket is not None
        self._server.socket.close()
        for association in self._server.active_associations:
            if association.is_established:
                association.abort(block=False)
        threading.Thread(target=self._server.shutdown, daemon=True).start()  # its loop looks twice a second


@contextmanager
def pacs(*args: object, **options: object) -> Iterator[Pacs]:
    """A `Pacs` for as long as the block lasts."""
    running = Pacs(*args, **options)  # type: ignore[arg-type]  # passed through
    try:
        yield running
    finally:
        running.close()


def aborts(event: evt.Event) -> int:
    """An answer of a `Pacs`: abort the association instead."""
    event.assoc.abort(block=False)
    return 0x0000


def hangs_up(event: evt.Event) -> int:
    """An answer of a `Pacs`: close the connection instead, with the data received."""
    connection = event.assoc.dul.socket
    assert connection is not None
    assert connection.socket is not None
    connection.socket.shutdown(socket.SHUT_RDWR)
    return 0x0000


def status(code: int, comment: str = "") -> Callable[[evt.Event], Dataset]:
    """An answer of a `Pacs`: this status, with an ErrorComment."""
    answer = Dataset()
    answer.Status = code
    if comment:
        answer.ErrorComment = comment
    return lambda _: answer


@contextmanager
def raw_peer(behaviour: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections are dealt with by `behaviour`, one after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(60)
                behaviour(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)


def says_nothing(connection: socket.socket) -> None:
    """A behaviour of a `raw_peer`: take everything, answer nothing."""
    while connection.recv(65_536):
        pass


def give_to_orthanc(address: str, files: Iterable[Path]) -> list[str]:
    """Store DICOM files in the Orthanc at `address`, as one ZIP; its names of the instances that it took."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, path in enumerate(files):
            archive.write(path, f"{number}.dcm")
    answer = requests.post(f"{address}/instances", packed.getvalue(), timeout=60)
    answer.raise_for_status()
    return [taken["ID"] for taken in answer.json()]


def clear_orthanc(address: str, instances: Iterable[str]) -> None:
    """Delete instances from it."""
    requests.post(f"{address}/tools/bulk-delete", json={"Resources": list(instances)}, timeout=60).raise_for_status()
