"""Data sets as they are on the wire: a proxy that records them, a sender and a receiver that leave every byte as it is."""

from __future__ import annotations

import hashlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from pydicom import dcmread
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.presentation import build_context

VERIFICATION = "1.2.840.10008.1.1"
#: How long the answer to a C-STORE request is waited for.
ANSWER_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One data set of one C-STORE request."""

    sop_class_uid: str
    sop_instance_uid: str
    data_set: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data_set).hexdigest()


def part10_data_set(path: Path) -> tuple[str, bytes]:
    """Transfer syntax and data-set bytes of a Part 10 file, as they are on disk (PS3.10 7.1)."""
    with path.open("rb") as file:
        meta = dcmread(file, stop_before_pixels=True, specific_tags=[]).file_meta
        file.seek(0)
        read_preamble(file, force=False)
        _read_file_meta_info(file)
        return str(meta.TransferSyntaxUID), file.read()


class Reader(Protocol):
    """Finds the data sets in what a sender puts on one connection."""

    def feed(self, data: bytes) -> None:
        """Read on."""


class Recorder:
    """A TCP proxy in front of a storage SCP; `sent` lists what passed, in the order in which it was complete (PS3.8 9.3.5).

    With `reader`, which is given that list, it stands in front of a server of another protocol.
    """

    def __init__(self, target_port: int, reader: Callable[[list[Sent]], Reader] | None = None) -> None:
        self._target = target_port
        self._reader = reader or _Assembler
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent: list[Sent] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pump, args=(client, server, self._reader(self.sent)), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, reader: Reader | None) -> None:
        try:
            while data := source.recv(1 << 18):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                if reader is not None:
                    reader.feed(data)
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class _Assembler:
    """Puts the P-DATA-TF PDUs of one direction together again."""

    sent: list[Sent]
    _buffer: bytearray = field(default_factory=bytearray)
    _command: bytearray = field(default_factory=bytearray)
    _data: bytearray = field(default_factory=bytearray)
    _request: tuple[str, str] | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 6:
            kind, _, length = struct.unpack_from(">BBI", self._buffer)
            if len(self._buffer) < 6 + length:
                return
            if kind == 0x04:
                self._p_data(bytes(self._buffer[6 : 6 + length]))
            del self._buffer[: 6 + length]

    def _p_data(self, pdu: bytes) -> None:
        at = 0
        while at < len(pdu):
            length, _, control = struct.unpack_from(">IBB", pdu, at)
            fragment = pdu[at + 6 : at + 4 + length]
            at += 4 + length
            if control & 1:
                self._command += fragment
                if control & 2:
                    command = decode(BytesIO(bytes(self._command)), True, True)
                    self._command.clear()
                    if command.CommandField == 0x0001:
                        self._request = (str(command.AffectedSOPClassUID), str(command.AffectedSOPInstanceUID))
            else:
                self._data += fragment
                if control & 2 and self._request is not None:
                    sop_class, instance = self._request
                    self.sent.append(Sent(sop_class_uid=sop_class, sop_instance_uid=instance, data_set=bytes(self._data)))
                    self._data.clear()


@contextmanager
def recorder(target_port: int, reader: Callable[[list[Sent]], Reader] | None = None) -> Iterator[Recorder]:
    """A `Recorder` for as long as the block lasts."""
    proxy = Recorder(target_port, reader)
    try:
        yield proxy
    finally:
        proxy.close()


def answers_of(association: Association) -> queue.SimpleQueue[C_STORE]:
    """Where the answers to C-STORE requests come from now on.

    pynetdicom looks for messages in its reactor thread as well and at times takes an answer for a request to serve (pausing the
    reactor has a race): so all answers are taken from there.
    """
    answers: queue.SimpleQueue[C_STORE] = queue.SimpleQueue()

    def take(msg: Any, context_id: int) -> None:  # noqa: ARG001
        answers.put(msg)

    association._serve_request = take  # type: ignore[method-assign]
    return answers


class RawSender:
    """An association that sends data sets byte for byte, right or wrong, under any announced UIDs."""

    def __init__(self, port: int, contexts: Iterable[tuple[str, str]], called: str = "HILUM", calling: str = "RAW") -> None:
        """Propose one context for each (SOP class, transfer syntax); at most 128. Raises `ConnectionError` if refused."""
        ae = AE(calling)
        ae.requested_contexts = [build_context(UID(c), UID(t)) for c, t in dict.fromkeys(contexts)]
        self.association = ae.associate("127.0.0.1", port, ae_title=called)
        if not self.association.is_established:
            raise ConnectionError("The association was refused.")
        self._message_id = 0
        self._answers = answers_of(self.association)

    def send(self, sop_class: str, instance: str, transfer_syntax: str, data_set: bytes) -> int | None:
        """The status of one C-STORE (PS3.7 C), None if the peer aborted or did not answer."""
        request, context_id = self._request(sop_class, instance, transfer_syntax, data_set)
        self.association.dimse.send_msg(request, context_id)
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end:
            with suppress(queue.Empty):
                answer = self._answers.get(timeout=0.1)
                return None if answer.Status is None else int(answer.Status)
            if not self.association.is_established:
                return None
        return None

    def begin(self, sop_class: str, instance: str, transfer_syntax: str, part: bytes) -> None:
        """Send the command and the first `part` of a data set, without a last fragment: to break off afterwards."""
        request, context_id = self._request(sop_class, instance, transfer_syntax, part)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        *begun, _ = message.encode_msg(context_id, self.association.dimse.maximum_pdu_size)
        for pdata in begun:
            self.association.dul.send_pdu(pdata)

    def release(self) -> None:
        self.association.release()

    def _request(self, sop_class: str, instance: str, transfer_syntax: str, data_set: bytes) -> tuple[C_STORE, int]:
        accepted = self.association.accepted_contexts
        context = next((c for c in accepted if (c.abstract_syntax, c.transfer_syntax[0]) == (sop_class, transfer_syntax)), None)
        if context is None:
            raise ConnectionError(f"{sop_class} in {transfer_syntax} was not accepted.")
        self._message_id = self._message_id % 65535 + 1
        request = C_STORE()
        request.MessageID, request.Priority = self._message_id, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
        request.DataSet = BytesIO(data_set)
        assert context.context_id is not None
        return request, context.context_id


class RawReceiver:
    """A storage SCP that keeps the data sets it is sent as they come; `received[sop_instance_uid]` lists them."""

    def __init__(self, port: int = 0, aet: str = "PACS", contexts: Iterable[tuple[str, str]] = (), *, keep: bool = True) -> None:
        """Listen on 127.0.0.1. With `keep` false only the fact of each arrival is kept, not its bytes."""
        from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

        self.received: dict[str, list[Sent]] = {}
        self._keep = keep
        ae = AE(aet)
        ae.maximum_pdu_size = 0
        ae.add_supported_context(VERIFICATION)
        for context in AllStoragePresentationContexts:
            assert context.abstract_syntax is not None
            ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        for sop_class, transfer_syntax in contexts:
            ae.add_supported_context(UID(sop_class), UID(transfer_syntax))
        server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        assert server is not None
        self._server = server
        self.port: int = self._server.server_address[1]

    def _store(self, event: evt.Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        assert isinstance(request.DataSet, BytesIO)
        sent = Sent(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            data_set=request.DataSet.getvalue() if self._keep else b"",
        )
        self.received.setdefault(sent.sop_instance_uid, []).append(sent)
        return 0x0000

    def close(self) -> None:
        self._server.shutdown()
