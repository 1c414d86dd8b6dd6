"""Fuzz: broken conversations and noise against a real receiver process, which must answer, forget them, and stay as it was."""

from __future__ import annotations

import argparse
import random
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.conversations import Stream, stream, valid
from bench.ingest.receivers import alone
from bench.patient import STREAM_S, Patient, Told, Vitals
from bench.peers import free_port
from bench.report import Report
from bench.web_patient import web_patient
from bench.web_requests import request
from hilum import upper_layer as ul
from ingest.dicom.answers import NOT_DICOM

#: Streams between two looks at the receiver, and how many of them run at once.
BATCH, AT_ONCE = 50, 8
#: The receiver's memory may grow by so many MB once it is warm.
MOST_GROWTH_MB = 16.0
#: After so many batches that failed it is known that something is wrong.
MOST_FAILURES = 5
#: So many streams of a batch that failed are looked for that do it alone.
MOST_CULPRITS = 5


def converse(port: int, what: Stream) -> Told:
    """Send a stream and hear what comes back."""
    told = Told()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=STREAM_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            received = _exchange(connection, what, told)
    except TimeoutError:
        told.complaint = f"It neither answered nor closed the connection within {STREAM_S:.0f} s."
        return told
    except OSError:
        received = b""
    try:
        _read(received, told)
    except ValueError as error:
        told.complaint = f"Its answer is garbled: {error}."
    return told


def _exchange(connection: socket.socket, what: Stream, told: Told) -> bytes:
    with suppress(BrokenPipeError, ConnectionResetError):  # it has heard enough
        for piece in what.pieces:
            connection.sendall(piece)
    if what.breaks_off:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return b""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    received = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            received += more
        told.complete = True
    return received


def _read(received: bytes, told: Told) -> None:
    """Raises `ValueError` if it is not whole PDUs that an acceptor may send."""
    command = b""
    while received:
        if len(received) < 6:
            raise ValueError("a PDU is cut off")
        kind, length = ul.read_header(received[:6])
        body, received = received[6 : 6 + length], received[6 + length :]
        if len(body) < length:
            raise ValueError("a PDU is cut off")
        if kind != ul.Pdu.DATA:
            if kind not in (ul.Pdu.ASSOCIATE_AC, ul.Pdu.ASSOCIATE_RJ, ul.Pdu.RELEASE_RP, ul.Pdu.ABORT):
                raise ValueError(f"an acceptor sends no PDU of type {kind}")
            more = f" {body[2]}/{body[3]}" if kind == ul.Pdu.ABORT else ""
            told.outcomes.append(f"{ul.Pdu(kind).name}{more}")
            continue
        for _, is_command, last, piece in ul.pdvs(body):
            command += piece if is_command else b""
            if is_command and last:
                _answered(command, told)
                command = b""


def _answered(command: bytes, told: Told) -> None:
    of = _field(command)
    if not of & 0x8000:
        return  # a request of its own: the report of a storage commitment
    response = ul.read_response(command)
    told.outcomes.append(f"answer 0x{of:04X}: 0x{response.status:04X}")
    if of == 0x8001:
        told.kept += response.status == 0x0000 or response.status >> 12 == 0xB or response.comment == NOT_DICOM.comment


def _field(command: bytes) -> int:
    """The Command Field (0000,0100)."""
    at = 0
    while at + 8 <= len(command):
        _, element, length = struct.unpack_from("<HHI", command, at)
        if element == 0x0100:
            return int.from_bytes(command[at + 8 : at + 10], "little")
        at += 8 + length
    raise ValueError("an answer has no command field")


class DicomPatient(Patient):
    """One process of the role `dicom`."""

    def converse(self, what: Stream) -> Told:
        return converse(self.port, what)

    def warm(self) -> None:
        self.converse(Stream(tuple(valid(random.Random("warm")).pdus), (), breaks_off=False, data_sets=()))

    def unknown(self, what: Stream) -> int:
        return what.raw.count(b"\4")

    def is_served(self) -> bool:
        echo = ul.c_echo_rq(1)
        contexts = [ul.Context(abstract_syntax=ul.VERIFICATION, transfer_syntax=ul.IMPLICIT_VR_LITTLE_ENDIAN)]
        pieces = (
            ul.associate_rq("FUZZ", "HILUM", contexts, 16_384),
            ul.data_header(1, len(echo), last=True, command=True) + echo,
            ul.pdu(ul.Pdu.RELEASE_RQ, bytes(4)),
        )
        told = self.converse(Stream(pieces, (), breaks_off=False, data_sets=()))
        return told.outcomes == ["ASSOCIATE_AC", "answer 0x8030: 0x0000", "RELEASE_RP"]


@contextmanager
def patient(folder: Path) -> Iterator[Patient]:
    """A receiver for as long as the block lasts."""
    port = free_port()
    with alone(folder, "dicom", port) as process:
        yield DicomPatient(psutil.Process(process.pid), port, folder)


@dataclass(frozen=True)
class Way:
    """A way in: its streams by their seeds, and its receiver."""

    name: str
    title: str
    #: Python keeps some of what it once had: after this many streams the receiver's memory is compared with.
    warm_streams: int
    stream: Callable[[object], Stream]
    patient: Callable[[Path], AbstractContextManager[Patient]]


WAYS = {
    each.name: each
    for each in (
        Way("fuzz", "Fuzzed streams against the receiver", 500, stream, patient),
        # It has up to 36 threads, each with a heap of glibc's that is filled once.
        Way("fuzz-stow", "Fuzzed requests against the web receiver", 2000, request, web_patient),
    )
}


def run(patient: Patient, streams: Sequence[Stream]) -> tuple[list[str], list[Told]]:
    """Send the streams, some at once; what is wrong with the receiver afterwards, and what the streams were told."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(patient.converse, streams))
    try:
        return list(patient.complaints(streams, told)), told
    except psutil.NoSuchProcess:
        return ["The process has ended."], told


def culprits(way: Way, seeds: Sequence[str], folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Those streams of a failed batch that do it alone, `MOST_CULPRITS` at most; after each there is a new receiver."""
    waiting, found = list(seeds), 0
    while waiting and found < MOST_CULPRITS:
        here = folder / str(found)
        here.mkdir(parents=True)
        with way.patient(here) as receiver:
            while waiting:
                seed = waiting.pop(0)
                complaints, _ = run(receiver, [way.stream(seed)])
                if complaints:
                    found += 1
                    yield seed, complaints
                    break


def keep(way: Way, seeds: Sequence[str], complaints: Sequence[str], folder: Path) -> None:
    """Write streams that failed, and what was wrong, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        what = way.stream(seed)
        path = folder / f"{seed.replace('/', '-')}.bin"
        path.write_bytes(what.raw)
        words = [f"seed {seed}", f"changes: {', '.join(what.changes) or 'none'}", f"pieces: {[len(piece) for piece in what.pieces][:50]}"]
        path.with_suffix(".txt").write_text("\n".join([*words, *complaints, ""]), encoding="utf-8")


def fuzz(way: Way, seeds: Iterator[str], until: float, folder: Path, failures: Path) -> tuple[Counter[str], list[Vitals], list[str]]:
    """Batch after batch; what the streams were told, the vitals after each batch, and what was wrong."""
    outcomes: Counter[str] = Counter()
    vitals: list[Vitals] = []
    wrong: list[str] = []
    generation = 0
    while len(wrong) < MOST_FAILURES:
        here = folder / f"receiver-{generation}"
        here.mkdir()
        generation += 1
        with way.patient(here) as receiver:
            while batch := [seed for _, seed in zip(range(BATCH), seeds, strict=False)]:
                streams = [way.stream(seed) for seed in batch]
                complaints, told = run(receiver, streams)
                outcomes["streams"] += len(streams)
                outcomes["bytes"] += sum(len(each.raw) for each in streams)
                outcomes.update(outcome for each in told for outcome in each.outcomes)
                if complaints:
                    break
                vitals.append(receiver.vitals())
                if time.monotonic() > until:
                    break
                if outcomes["streams"] % 1000 == 0:
                    print(f"{outcomes['streams']} streams, {vitals[-1]}", file=sys.stderr)
        if not batch or not complaints:
            return outcomes, vitals, wrong
        wrong.append(f"Streams {batch[0]} to {batch[-1]}: {' '.join(complaints)}")
        print(wrong[-1], file=sys.stderr)
        alone_too = list(culprits(way, batch, here / "culprits"))
        for seed, words in alone_too:
            keep(way, [seed], words, failures)
        if not alone_too:
            keep(way, batch, ["None of the batch does it alone.", *complaints], failures)
        vitals.clear()  # another process
    return outcomes, vitals, wrong


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench fuzz", description=__doc__)
    parser.add_argument("--stow", action="store_true", help="requests of STOW-RS instead of DICOM associations")
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="end earlier")
    parser.add_argument("--seed", default="1", help="the same seed gives the same streams")
    parser.add_argument("--only", type=int, help="the one stream with this number")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="where failing streams are written: %(default)s")
    given = parser.parse_args(arguments)
    way = WAYS["fuzz-stow" if given.stow else "fuzz"]
    numbers = range(given.streams) if given.only is None else [given.only]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hilum-fuzz-") as name:
        seeds = (f"{given.seed}/{number}" for number in numbers)
        outcomes, vitals, wrong = fuzz(way, seeds, began + given.seconds, Path(name), given.failures)
    seconds = time.monotonic() - began
    warm = way.warm_streams // BATCH
    growth_mb = vitals[-1].memory_mb - vitals[warm].memory_mb if len(vitals) > warm else 0.0
    if growth_mb > MOST_GROWTH_MB:
        wrong.append(f"Memory grew by {growth_mb:.0f} MB after the first {way.warm_streams} streams.")
    report = Report(way.name, way.title)
    streams, size = outcomes.pop("streams"), outcomes.pop("bytes")
    report.table(
        f"{streams} streams of seed {given.seed}, {AT_ONCE} at once",
        ("MB", "seconds", "streams/s", f"memory grew by, MB, after {way.warm_streams}", "found"),
        [(f"{size / 1e6:.0f}", f"{seconds:.0f}", f"{streams / seconds:.0f}", f"{growth_mb:.1f}", len(wrong))],
    )
    if vitals:
        rows = [(when, each.handles, each.threads, f"{each.memory_mb:.0f}") for when, each in (("first", vitals[0]), ("last", vitals[-1]))]
        report.table("The receiver after the batches", ("Batch", "file handles", "threads", "resident MB"), rows)
    report.table("What the peers were told", ("What", "How often"), outcomes.most_common())
    for sentence in wrong:
        report.say(sentence)
    if wrong:
        sys.exit(
            f"What failed is in {given.failures}; again with: ./dev bench fuzz{' --stow' * given.stow} --seed {given.seed} --only NUMBER"
        )
    if given.only is None and streams >= 10_000:
        report.write()
