"""HL7 messages acknowledged per second, and how long each waits, beside HAPI's server and python-hl7's."""

from __future__ import annotations

import argparse
import itertools
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

import msgspec

from bench.hapi import hapi_server
from bench.peers import free_port, wait_for_port
from bench.report import Report
from hilum import bus
from hilum.events import EVENTS, MessageReceived
from hilum.mllp import END, START
from hilum.services import embedded
from hilum.settings import S3, Kafka, Postgres, Settings

ONE_PER_S, SIXTEEN_PER_S, P99_MS, RATE = 400, 3000, 50, 500

#: About what a RIS sends: an order with a report's few lines.
MESSAGE = (
    "MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20260102100000+0100||ORM^O01^ORM_O01|{id}|P|2.5.1||||||UNICODE UTF-8\r"
    "PID|1||SYNTH0001^^^NORTH^MR||Synthetic^Sam||19700101|M|||Street 1^^North^^12345^DE||0123456\r"
    "PV1|1|O|RAD^^^NORTH||||0001^Referring^Rita\r"
    "ORC|NW|{id}^RIS|{id}^RIS||SC||^^^20260102110000||20260102100000\r"
    "OBR|1|{id}^RIS|{id}^RIS|CTCHEST^CT chest^NORTH|||20260102100000|||||||||0001^Referring^Rita||A0001|RP1|SPS1|||||CT\r"
    "ZDS|2.25.3201^NORTH^Application^DICOM\r" + "NTE|1||" + "x" * 400 + "\r"
)
PYTHON_HL7 = """
import asyncio, sys
import hl7.mllp

async def serve(reader, writer):
    try:
        while True:
            message = await reader.readmessage()
            writer.writemessage(message.create_ack())
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()

async def main():
    server = await hl7.mllp.start_hl7_server(serve, "127.0.0.1", int(sys.argv[1]), encoding="utf-8", limit=2**20)
    await server.serve_forever()

asyncio.run(main())
"""


#: No message is sent twice: a repeat would be acknowledged without being written.
_ids = itertools.count(1)


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""
        self.sent_at = 0.0
        self.due_at = 0.0

    def send(self, due_at: float) -> None:
        self.due_at, self.sent_at, self.read = due_at, time.perf_counter(), b""
        self.socket.sendall(START + MESSAGE.format(id=f"M{next(_ids):09}").encode() + END)

    def acknowledged(self) -> bool:
        """Read what is there; whether the acknowledgement is whole."""
        self.read += self.socket.recv(65536)
        if not self.read.endswith(END):
            return False
        assert b"|AA|" in self.read or b"|CA|" in self.read, self.read
        return True


def at_full_speed(port: int, connections: int, seconds: float) -> tuple[float, list[float]]:
    """Each connection sends its next message when the last is acknowledged: messages per second, and seconds of each."""
    with selectors.DefaultSelector() as selector:
        peers = [_Connection(port) for _ in range(connections)]
        took: list[float] = []
        began = time.perf_counter()
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
            peer.send(began)
        while (now := time.perf_counter()) - began < seconds:
            for key, _ in selector.select(1):
                peer = key.data
                if peer.acknowledged():
                    took.append(time.perf_counter() - peer.sent_at)
                    peer.send(now)
        for peer in peers:
            peer.socket.close()
        return len(took) / (now - began), took


def at_rate(port: int, connections: int, seconds: float, rate: float) -> list[float]:
    """Messages come at even times, whoever is busy: seconds from when each was due to its acknowledgement."""
    with selectors.DefaultSelector() as selector:
        idle = [_Connection(port) for _ in range(connections)]
        for peer in idle:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
        took: list[float] = []
        began, number = time.perf_counter(), 0
        while len(took) < rate * seconds:
            now = time.perf_counter()
            while idle and number < rate * seconds and began + number / rate <= now:
                idle.pop().send(began + number / rate)
                number += 1
            for key, _ in selector.select(max(began + number / rate - time.perf_counter(), 0.0002) if idle else 0.01):
                if key.data.acknowledged():
                    took.append(time.perf_counter() - key.data.due_at)
                    idle.append(key.data)
        return took


@contextmanager
def hilum(folder: Path, kafka: Kafka | None) -> Iterator[int]:
    """Hilum's role in a process of its own: its port."""
    port = free_port()
    fields = msgspec.to_builtins(kafka) if kafka else {"bootstrap": "127.0.0.1:1"}
    environment = {
        **os.environ,
        **{f"HILUM_KAFKA__{name.upper()}": str(value) for name, value in fields.items()},
        "HILUM_HL7__PORT": str(port),
        "HILUM_PROBE__PORT": str(free_port()),
        "HILUM_POSTGRES__DSN": "postgresql://none",
        "HILUM_S3__ENDPOINT": "http://127.0.0.1:1",
        "HILUM_S3__ACCESS_KEY": "none",
        "HILUM_S3__SECRET_KEY": "none",
    }
    with _process([sys.executable, "-m", "hilum.host", "hl7", "--data", str(folder)], port, environment):
        yield port


@contextmanager
def python_hl7() -> Iterator[int]:
    """python-hl7's asyncio server: its port. It acknowledges and keeps nothing."""
    port = free_port()
    with _process([sys.executable, "-c", PYTHON_HL7, str(port)], port, dict(os.environ)):
        yield port


@contextmanager
def _process(command: list[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port, 60)
            yield
        finally:
            process.terminate()


def main(arguments: list[str]) -> None:
    """Measure each receiver by itself, one after the other."""
    options = argparse.ArgumentParser(prog="./dev bench hl7")
    options.add_argument("--seconds", type=float, default=8)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--quick", action="store_true", help="one short round; writes no result")
    given = options.parse_args(arguments)
    seconds, rounds = (1.5, 1) if given.quick else (given.seconds, given.rounds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hilum-bench-")))
        settings = Settings(postgres=Postgres(dsn="postgresql://none"), s3=S3(endpoint="http://none"))
        endpoints = stack.enter_context(embedded(folder / "kafka", settings))
        kafka = endpoints.filled_into(settings).kafka
        bus.provision_topics(Settings(kafka=kafka), [kind.topic for kind in EVENTS.values()])
        receivers: dict[str, Callable[[], AbstractContextManager[int]]] = {
            "Hilum, synced, onto Kafka": lambda: hilum(folder / "on", kafka),
            "Hilum, synced, Kafka away": lambda: hilum(folder / "away", None),
            "HAPI, keeps nothing": hapi_server,
            "python-hl7, keeps nothing": python_hl7,
        }
        rows, figures = [], {}
        for name, start in receivers.items():
            one, sixteen, paced, took = [], [], [], []
            for _ in range(rounds):
                with start() as port:
                    at_full_speed(port, 1, min(seconds, 1.0))  # warm
                    one.append(at_full_speed(port, 1, seconds)[0])
                    rate, times = at_full_speed(port, 16, seconds)
                    sixteen.append(rate)
                    took += times
                    paced += at_rate(port, 16, seconds, RATE)
            figures[name] = median(one), median(sixteen), 1000 * quantiles(paced, n=100)[98]
            rows.append(
                (
                    name,
                    f"{figures[name][0]:,.0f}",
                    f"{figures[name][1]:,.0f}",
                    f"{1000 * quantiles(took, n=100)[98]:.1f}",
                    f"{1000 * median(paced):.2f}",
                    f"{figures[name][2]:.1f}",
                )
            )
    report = Report("hl7", "HL7: messages acknowledged")
    size = len(MESSAGE.format(id="M1234567"))
    report.say(
        f"Messages of {size:,} bytes; each connection sends its next when the last is acknowledged. Medians of {rounds} rounds of"
        f" {seconds:g} s; sender, receiver and Kafka share the machine. {MessageReceived.topic.name} has one partition."
    )
    columns = ("receiver", "1 connection, /s", "16 connections, /s", "their p99, ms", f"at {RATE}/s: median, ms", f"at {RATE}/s: p99, ms")
    report.table("Acknowledged", columns, rows)
    measured = figures["Hilum, synced, onto Kafka"]
    goals = [
        ("1 connection, /s", f"{measured[0]:,.0f}", f"at least {ONE_PER_S}", measured[0] >= ONE_PER_S),
        ("16 connections, /s", f"{measured[1]:,.0f}", f"at least {SIXTEEN_PER_S:,}", measured[1] >= SIXTEEN_PER_S),
        (f"p99 at {RATE}/s, ms", f"{measured[2]:.1f}", f"under {P99_MS}", measured[2] < P99_MS),
    ]
    report.table("Goals", ("What", "Measured", "Wanted", "Met"), [(*each[:3], "yes" if each[3] else "no") for each in goals])
    if not given.quick:
        report.write()
