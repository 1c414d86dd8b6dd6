"""A receiver in a thread, and peers that behave or do not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]  # made at import

from bench.wire import answers_of
from hilum import upper_layer as ul
from hilum.events import AssociationEnded
from hilum.records import Records
from hilum.settings import Dicom, Settings
from hilum.settings import Spool as SpoolSettings
from hilum.spool import Spool, read_arrival
from hilum.testing import eventually
from ingest.dicom import Receiver

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


class Running:
    """A receiver in a thread, and its spool."""

    def __init__(self, settings: Settings, **times: float) -> None:
        self.receiver = Receiver(settings, **times)
        self.spool = Spool.of(settings)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.receiver.run, args=(self.stop,))
        self.thread.start()
        eventually(lambda: self.receiver.port, what="the receiver listens")

    def end(self) -> None:
        """Stop it, and wait until it has."""
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def data_sets(self) -> list[bytes]:
        """The data sets in the spool, oldest first."""
        files = [self.spool.read(receipt) for receipt in self.spool.waiting()]
        return [file[read_arrival(file)[1] :] for file in files]

    def leftovers(self) -> list[Path]:
        """Unfinished files in the spool."""
        return self.spool.unfinished()


@contextmanager
def running(path: Path, spool: SpoolSettings | None = None, times: dict[str, float] | None = None, **dicom: object) -> Iterator[Running]:
    """A receiver for as long as the block lasts."""
    settings = Settings(data=str(path), dicom=Dicom(port=0, **dicom), spool=spool or SpoolSettings(min_free_bytes=0, spare_bytes=0))  # type: ignore[arg-type]  # passed through
    receiver = Running(settings, **(times or {}))
    try:
        yield receiver
    finally:
        receiver.end()


def records(receiver: Running, count: int = 1) -> list[AssociationEnded]:
    """What is remembered, once there is as much."""
    kept = Records(receiver.spool.folder.parent / "associations")
    eventually(lambda: len(kept.waiting()) >= count, what="the association is recorded")
    return [record for name in kept.waiting() if (record := kept.read(name)) is not None]


def a_slice(**values: str) -> Dataset:
    """A small CT slice."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "2.25.3"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = "2.25.1", "2.25.2", "1"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset) -> bytes:
    """In Explicit VR Little Endian."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, ds)
    return out.getvalue()


@contextmanager
def associated(port: int, *contexts: tuple[str, str], called: str = "HILUM", **ae_options: object) -> Iterator[Association]:
    """An association of pynetdicom's, released afterwards."""
    ae = AE("CT1")
    for name, value in ae_options.items():
        setattr(ae, name, value)
    proposed = [
        build_context(sop_class, syntax) for sop_class, syntax in contexts or ((CTImageStorage, EXPLICIT), (Verification, IMPLICIT))
    ]
    association = ae.associate("127.0.0.1", port, proposed, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(
    association: Association, data_set: bytes, sop_class: str = CTImageStorage, instance: str = "2.25.3", syntax: str = EXPLICIT
) -> Dataset:
    """Send bytes as they are, under any announcement; the response's status and comment."""
    context = next(
        context for context in association.accepted_contexts if (context.abstract_syntax, context.transfer_syntax[0]) == (sop_class, syntax)
    )
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
    request.Priority = 0
    request.DataSet = BytesIO(data_set)
    assert context.context_id is not None
    answers = answers_of(association)
    association.dimse.send_msg(request, context.context_id)
    response = answers.get(timeout=60)
    answer = Dataset()
    answer.Status = response.Status
    answer.ErrorComment = response.ErrorComment
    return answer


def rejection(port: int, called: str = "HILUM") -> tuple[int, int, int]:
    """Result, source and reason with which an association is rejected. Raises `AssertionError` if it is not.

    Asked without pynetdicom, which now and then takes a rejection for an abort, when the connection is closed right after it.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        context = ul.Context(abstract_syntax=CTImageStorage, transfer_syntax=EXPLICIT)
        connection.sendall(ul.associate_rq("CT1", called, [context], 16384))
        peer = RawPeer.on(connection)
        kind, body = peer.pdu()
    assert kind == ul.Pdu.ASSOCIATE_RJ
    return body[1], body[2], body[3]


class RawPeer:
    """A socket that speaks just enough DICOM to misbehave with."""

    def __init__(self, port: int, *, associate: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        if associate:
            contexts = [ul.Context(abstract_syntax=CTImageStorage, transfer_syntax=EXPLICIT)]
            self.socket.sendall(ul.associate_rq("CT1", "HILUM", contexts, 16384))
            assert self.pdu()[0] == ul.Pdu.ASSOCIATE_AC

    @classmethod
    def on(cls, connection: socket.socket) -> RawPeer:
        """The same on a connection that is there."""
        peer = cls.__new__(cls)
        peer.socket = connection
        return peer

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU; kind 0 if the connection is closed."""
        head = self.exactly(6)
        if not head:
            return 0, b""
        kind, length = ul.read_header(head)
        return kind, self.exactly(length)

    def begin(self, instance: str = "2.25.3") -> None:
        """Send the command of a C-STORE."""
        command = ul.c_store_rq(1, CTImageStorage, instance)
        self.socket.sendall(ul.data_header(1, len(command), last=True, command=True) + command)

    def fragment(self, data: bytes, *, last: bool = False) -> None:
        self.socket.sendall(ul.data_header(1, len(data), last=last) + data)

    def status(self) -> int:
        _, body = self.pdu()
        [(_, _, _, command)] = ul.pdvs(body)
        return ul.read_response(command).status

    def store(self, data_set: bytes, instance: str = "2.25.3") -> int:
        self.begin(instance)
        self.fragment(data_set, last=True)
        return self.status()

    def release(self) -> None:
        self.socket.sendall(ul.pdu(ul.Pdu.RELEASE_RQ, bytes(4)))
        assert self.pdu()[0] == ul.Pdu.RELEASE_RP
        self.socket.close()
