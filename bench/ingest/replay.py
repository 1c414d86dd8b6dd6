"""A sender that costs little, so that the receiver sets the pace: `python -m bench.ingest.replay PORT ASSOCIATIONS LIST`.

All PDUs are made before the clock starts: each association sends an object in one go, waits for the answer, sends the next.
Prints the seconds from the first connection to the last answer. LIST is a file that names the objects, one a line.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hilum import upper_layer as ul
from hilum.dicom import file_meta

#: A receiver that serves one association after the other makes the last one wait for all others.
PATIENCE_S = 300.0
_MAX_PDU_BYTES = 131_072
_CALLING, _CALLED = "BENCH", "SCP"


class Sent:
    """One object, ready to go."""

    def __init__(self, path: Path, message_id: int, fragment: int) -> None:
        raw = memoryview(path.read_bytes())
        meta, at = file_meta.read_meta(bytes(raw[: file_meta.MAX_META_BYTES]))
        self.context = ul.Context(
            abstract_syntax=meta[file_meta.SOP_CLASS_UID].rstrip(b"\0").decode(),
            transfer_syntax=meta[file_meta.TRANSFER_SYNTAX_UID].rstrip(b"\0").decode(),
        )
        command = ul.c_store_rq(message_id, self.context.abstract_syntax, meta[file_meta.SOP_INSTANCE_UID].rstrip(b"\0").decode())
        parts: list[bytes | memoryview] = [ul.data_header(1, len(command), last=True, command=True), command]
        while at < len(raw):
            piece = raw[at : at + fragment]
            at += len(piece)
            parts += [ul.data_header(1, len(piece), last=at == len(raw)), piece]
        self.wire = b"".join(parts)


class Association:
    """One association in one presentation context."""

    def __init__(self, port: int, context: ul.Context) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(ul.associate_rq(_CALLING, _CALLED, [context], _MAX_PDU_BYTES))
        kind, body = self._pdu()
        if kind != ul.Pdu.ASSOCIATE_AC:
            raise ConnectionError("The receiver refused the association.")
        accepted = ul.read_associate_ac(body)
        if accepted.results.get(1) != 0:
            raise ConnectionError("The receiver refused the presentation context.")
        self.max_pdu_bytes = min(accepted.max_pdu_bytes or _MAX_PDU_BYTES, _MAX_PDU_BYTES)

    def store(self, wire: bytes) -> int:
        """Send an object; its status."""
        self._socket.sendall(wire)
        command = b""
        while True:
            kind, body = self._pdu()
            if kind != ul.Pdu.DATA:
                raise ConnectionError(f"A PDU of type {kind} came instead of an answer.")
            for _, _, last, piece in ul.pdvs(body):
                command += piece
                if last:
                    return ul.read_response(command).status

    def release(self) -> None:
        self._socket.sendall(ul.pdu(ul.Pdu.RELEASE_RQ, bytes(4)))
        self._pdu()
        self._socket.close()

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = ul.read_header(self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("The receiver closed the connection.")
            data += more
        return data


def replay(port: int, associations: int, paths: Sequence[Path]) -> float:
    """Send the objects, dealt to so many associations at once; the seconds it took. Raises `ConnectionError` unless all get Success."""
    probe = Association(port, Sent(paths[0], 1, 4096).context)  # tells how large PDUs may be
    probe.release()
    fragment = probe.max_pdu_bytes - 6
    dealt = [
        [Sent(path, n % 65_535 + 1, fragment) for n, path in enumerate(paths[k::associations])]
        for k in range(min(associations, len(paths)))
    ]
    ends: list[float] = []
    failures: list[str] = []
    go = threading.Barrier(len(dealt) + 1)

    def send(objects: list[Sent]) -> None:
        go.wait()
        try:
            association = Association(port, objects[0].context)
            statuses = {association.store(each.wire) for each in objects}
            ends.append(time.monotonic())
            association.release()
            if statuses != {0x0000}:
                failures.append(f"Statuses were {', '.join(f'0x{status:04X}' for status in sorted(statuses))}.")
        except (OSError, ValueError) as error:
            failures.append(str(error) or type(error).__name__)

    threads = [threading.Thread(target=send, args=(objects,)) for objects in dealt]
    for thread in threads:
        thread.start()
    go.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    if failures:
        raise ConnectionError(failures[0])
    return max(ends) - began


def main() -> None:
    port, associations, names = sys.argv[1:]
    try:
        print(replay(int(port), int(associations), [Path(line) for line in Path(names).read_text(encoding="utf-8").splitlines()]))
    except OSError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
