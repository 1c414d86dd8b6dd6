"""The C-STORE SCU alone beside dcmtk's dcmsend: to dcmtk's storescp, to Hilum's receiver, and to one that keeps nothing."""

from __future__ import annotations

import argparse
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import Process
from pathlib import Path

from bench.ingest.receivers import alone, is_prepared
from bench.ingest.sets import SETS
from bench.peers import dcmsend, free_port, installed, storescp, wait_for_port
from bench.report import Report
from hilum.association import Answer
from hilum.peer import Peer
from hilum.scu import outgoing, send_all
from hilum.testing import eventually

#: Bytes of a P-DATA-TF that the receiver which keeps nothing offers to take.
_OFFERED = 131_072


def hilum_sends(files: Sequence[Path], port: int) -> None:
    """Find out what each file is, and send it, as `hilum send` does. Raises `AssertionError` if one is not stored."""
    peer = Peer(host="127.0.0.1", port=port, aet="PACS", calling_aet="BENCH")
    for file, answer in send_all(peer, [outgoing(path) for path in files]):
        assert isinstance(answer, Answer), file
        assert answer.status == 0, file


def dcmsend_sends(files: Sequence[Path], port: int) -> None:
    done = dcmsend(files, port, "PACS")
    assert done.returncode == 0, done.stderr


SENDERS: dict[str, Callable[[Sequence[Path], int], None]] = {"Hilum": hilum_sends, "dcmsend": dcmsend_sends}


@contextmanager
def to_storescp(folder: Path) -> Iterator[int]:
    with storescp(folder / "stored", port := free_port(), "PACS", "--max-pdu", "131072"):
        yield port


@contextmanager
def to_hilum(folder: Path) -> Iterator[int]:
    with alone(folder, "dicom", port := free_port()):
        eventually(lambda: is_prepared(folder), 60, what="the spool's spare files are there")
        yield port


@contextmanager
def to_nowhere(_: Path) -> Iterator[int]:
    """A receiver that reads as fast as it can and keeps nothing, so that the sender alone is measured."""
    process = Process(target=_swallow, args=(port := free_port(),), daemon=True)
    process.start()
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.join()


RECEIVERS: dict[str, tuple[str, Callable[[Path], AbstractContextManager[int]]]] = {
    "nowhere": ("a receiver that keeps nothing", to_nowhere),
    "storescp": ("dcmtk's storescp", to_storescp),
    "hilum": ("Hilum's receiver", to_hilum),
}


def _swallow(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = connection.makefile("rb", buffering=1 << 20)
    buffer = bytearray(1 << 20)
    message = b"\0\0"
    while len(head := stream.read(6)) == 6:
        kind, length = struct.unpack(">BxI", head)
        if kind == 4:
            context_, control = struct.unpack(">4xBB", stream.read(6))
            if control & 1:
                command = stream.read(length - 6)
                message = command[command.index(b"\0\0\x10\x01\x02\0\0\0") + 8 :][:2]
            else:
                _skip(stream, length - 6, buffer)
                if control & 2:
                    answer = _elements(
                        (0x0002, b"1.2\0"), (0x0100, b"\x01\x80"), (0x0120, message), (0x0800, b"\x01\x01"), (0x0900, b"\0\0")
                    )
                    connection.sendall(struct.pack(">BxIIBB", 4, len(answer) + 6, len(answer) + 2, context_, 3) + answer)
        elif kind == 1:
            connection.sendall(_accept(stream.read(length)))
        else:
            if kind == 5:
                connection.sendall(struct.pack(">BxI4x", 6, 4))
            return


def _skip(stream: object, size: int, buffer: bytearray) -> None:
    view = memoryview(buffer)
    while size:
        size -= stream.readinto(view[:size])  # type: ignore[attr-defined]


def _elements(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _accept(request: bytes) -> bytes:
    """Accept each proposed context in its first transfer syntax."""
    items, at = [request[68 : 68 + 4 + struct.unpack_from(">H", request, 70)[0]]], 68
    while at < len(request):
        kind, length = struct.unpack_from(">BxH", request, at)
        if kind == 0x20:
            context = request[at + 4 : at + 4 + length]
            abstract = struct.unpack_from(">H", context, 6)[0]
            syntax = context[8 + abstract :][: 4 + struct.unpack_from(">H", context, 8 + abstract + 2)[0]]
            items.append(struct.pack(">BxHB3x", 0x21, 4 + len(syntax), context[0]) + syntax)
        at += 4 + length
    items.append(struct.pack(">BxHBxHI", 0x50, 8, 0x51, 4, _OFFERED))
    body = request[:68] + b"".join(items)
    return struct.pack(">BxI", 2, len(body)) + body


def rate(send: Callable[[Sequence[Path], int], None], files: Sequence[Path], port: int) -> float:
    """Objects/s, without what one object takes: a program's start is no matter of its sending."""
    began = time.perf_counter()
    send(files[:1], port)
    one = time.perf_counter() - began
    began = time.perf_counter()
    send(files, port)
    return (len(files) - 1) / max(1e-9, time.perf_counter() - began - one)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench scu", description=__doc__)
    parser.add_argument("--part", type=float, default=1.0, help="this part of each set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--to", nargs="+", choices=RECEIVERS, default=list(RECEIVERS))
    given = parser.parse_args(arguments)
    if not installed("dcmsend"):
        sys.exit("This benchmark needs dcmtk: apt-get install dcmtk")
    report = Report("scu", "C-STORE SCU alone")
    rows = []
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        for set_name in ("ct", "small"):
            files = SETS[set_name].write(Path(name) / set_name, given.part)
            for receiver in given.to:
                title, run = RECEIVERS[receiver]
                rates: dict[str, list[float]] = {sender: [] for sender in SENDERS}
                folder = Path(name) / f"{set_name}-{receiver}"
                folder.mkdir()
                with run(folder) as port:
                    for number in range(given.rounds):
                        for sender in sorted(SENDERS, reverse=number % 2 == 1):
                            rates[sender].append(rate(SENDERS[sender], files, port))
                ours, theirs = (statistics.median(rates[sender]) for sender in ("Hilum", "dcmsend"))
                rows.append((f"{len(files)} {SETS[set_name].title}", title, f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}"))
    report.table("Objects/s, median of the rounds, turn about", ("Set", "To", "Hilum", "dcmsend", "Ratio (goal 1.0)"), rows)
    report.say("What a program needs for one object, its start included, is subtracted. Each looks at every file before it sends.")
    report.write()
