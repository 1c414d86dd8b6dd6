"""Faults: instances flow in while each part is killed with `kill -9` and a worker is added; then everything is counted."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from bench.report import Report
from bench.running import RunningHilum, running_hilum
from bench.wire import RawReceiver, RawSender, part10_data_set
from hilum.bus import client, headers_of
from hilum.reconcile import Account
from hilum.synthetic import ct_study

SENDERS = 3
WORKER = "validate,route,ledger,index"

#: What happens, and after which part of the objects has been acknowledged.
FAULTS: tuple[tuple[float, str], ...] = (
    (0.10, WORKER),
    (0.22, "dicom"),
    (0.34, "publish"),
    (0.46, "deliver"),
    (0.58, "postgres"),
    (0.70, "kafka"),
    (0.82, "add a worker"),
)


@dataclass
class Outcome:
    """What was counted in the end."""

    objects: int
    account: Account
    seconds: float
    at_the_pacs: set[str]
    settled: Counter[str]  #: how often each delivery was said to be settled on the log, by distinct event id
    faults: list[tuple[float, str]] = field(default_factory=list)
    stalls: list[tuple[str, float]] = field(default_factory=list)


class Modality(threading.Thread):
    """Sends its objects as a modality would: each again and again until it has Success, over a new association if need be."""

    def __init__(self, port: int, objects: Sequence[tuple[str, bytes]], acknowledged: list[float]) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._objects = objects
        self._acknowledged = acknowledged

    def run(self) -> None:
        sender: RawSender | None = None
        for uid, data_set in self._objects:
            while True:
                status = None
                with suppress(Exception):  # whatever breaks: a modality tries again
                    sender = sender or RawSender(self._port, [(CTImageStorage, ExplicitVRLittleEndian)])
                    status = sender.send(CTImageStorage, uid, ExplicitVRLittleEndian, data_set)
                if status == 0x0000:
                    self._acknowledged.append(time.time())
                    break
                if sender is not None:
                    sender.association.abort()
                sender = None
                time.sleep(0.2)
        if sender is not None:
            sender.release()


def objects(count: int, folder: Path, patient: str = "FAULT") -> list[tuple[str, bytes]]:
    """`count` small CT objects (about 4 kB) in studies of 100: SOP Instance UID and data set. Other UIDs for another `patient`."""
    path = folder / "object.dcm"
    [template] = ct_study(1, rows=8, columns=8, patient=patient)
    marks = tuple(f"2.25.{digit}{'9' * 38}" for digit in "123")
    template.StudyInstanceUID, template.SeriesInstanceUID, template.SOPInstanceUID = marks
    template.save_as(path, enforce_file_format=True)
    data_set = part10_data_set(path)[1]
    family = f"{zlib.crc32(patient.encode()):010d}"
    made = []
    for number in range(count):
        study = number // 100
        uids = (f"2.25.1{family}{study:028d}", f"2.25.2{family}{study:028d}", f"2.25.3{family}{number:028d}")
        filled = data_set
        for mark, uid in zip(marks, uids, strict=True):
            filled = filled.replace(mark.encode(), uid.encode())
        made.append((uids[2], filled))
    return made


def run(hilum: RunningHilum, pacs: RawReceiver, count: int, folder: Path, within_s: float) -> Outcome:
    """Send `count` objects through `hilum` while the faults happen, and count what became of them."""
    made = objects(count, folder)
    began = time.monotonic()
    acknowledged: list[float] = []
    modalities = [Modality(hilum.port, made[n::SENDERS], acknowledged) for n in range(SENDERS)]
    for modality in modalities:
        modality.start()
    happened: list[tuple[float, str]] = []
    added: subprocess.Popen[bytes] | None = None
    try:
        for part, fault in FAULTS:
            while len(acknowledged) < part * count and any(m.is_alive() for m in modalities):
                time.sleep(0.05)
            happened.append((time.time(), fault))
            print(f"{time.monotonic() - began:6.1f} s, {len(acknowledged)} acknowledged: {fault}", file=sys.stderr)
            if fault == "add a worker":
                command = [sys.executable, "-m", "hilum", "run", WORKER, "--config", str(hilum.config)]
                environment = {**os.environ, "HILUM_SLOT": "1"}
                added = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            else:
                hilum.kill(fault)
        for modality in modalities:
            modality.join()
        account = hilum.come_to_rest(within_s)
    finally:
        if added is not None:
            added.terminate()
            added.wait(60)
    settled = Counter(uid for uid, _ in dict.fromkeys(_log(hilum, "delivery.settled.v1")))
    stalls = _stalls(hilum, acknowledged)
    return Outcome(count, account, time.monotonic() - began, set(pacs.received), settled, happened, stalls)


def _log(hilum: RunningHilum, topic: str) -> list[tuple[str, str]]:
    """(subject, event id) of every committed event on `topic`."""
    return [(subject, identity) for subject, identity, _ in _events(hilum, topic)]


def _events(hilum: RunningHilum, topic: str) -> list[tuple[str, str, float]]:
    """(subject, event id, time in seconds) of every committed event on `topic`."""
    consumer = Consumer(
        {
            **client(hilum.settings),
            "group.id": "hilum-bench-faults",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found, ended = [], 0
        while ended < len(partitions):
            message = consumer.poll(10)
            assert message is not None, f"{topic} cannot be read to its end"
            if message.error():
                ended += 1
                continue
            headers = headers_of(message)
            found.append((str(headers["ce_subject"], "ascii"), str(headers["ce_id"], "ascii"), message.timestamp()[1] / 1000))
        return found
    finally:
        consumer.close()


def _stalls(hilum: RunningHilum, acknowledged: Sequence[float]) -> list[tuple[str, float]]:
    """The longest silence of each role, in seconds, from its first word to its last."""
    said: dict[str, Sequence[float]] = {"dicom (acknowledgements)": acknowledged}
    for role, topic in (("publish", "received"), ("validate", "accepted"), ("route", "routed")):
        said[role] = [at for _, _, at in _events(hilum, f"imaging.instance.{topic}.v1")]
    said["ledger"] = [at.timestamp() for (at,) in hilum.rows("SELECT created_at FROM delivery")]
    for (destination,) in hilum.rows("SELECT DISTINCT destination FROM delivery ORDER BY 1"):
        rows = hilum.rows("SELECT settled_at FROM delivery WHERE destination = %s AND settled_at IS NOT NULL", destination)
        said[f"deliver ({destination})"] = [at.timestamp() for (at,) in rows]
    return [(role, max((b - a for a, b in _pairs(sorted(times))), default=0.0)) for role, times in said.items()]


def _pairs(times: Sequence[float]) -> list[tuple[float, float]]:
    return list(pairwise(times))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench faults", description=__doc__)
    parser.add_argument("--objects", type=int, default=30_000)
    given = parser.parse_args(arguments)
    report = Report("faults", f"{given.objects} instances while everything is killed once")
    pacs = RawReceiver(keep=False)
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name, running_hilum(Path(name), pacs.port) as hilum:
        outcome = run(hilum, pacs, given.objects, Path(name), within_s=1200)
    pacs.close()
    account = outcome.account
    once = sum(1 for times in outcome.settled.values() if times == 1)
    report.table(
        "Counted in the end",
        ("What", "Number"),
        [
            ("objects sent until acknowledged", outcome.objects),
            ("received (a repeat after a lost answer counts again)", account.received),
            ("duplicates", account.duplicates),
            ("expected deliveries", account.expected_deliveries),
            ("delivered", account.delivered),
            ("deliveries settled exactly once on the log", once),
            ("objects at the PACS", len(outcome.at_the_pacs)),
            ("undecided", account.undecided),
            ("unaccounted", account.unaccounted),
            ("seconds", f"{outcome.seconds:.0f}"),
        ],
    )
    report.table(
        "Killed with kill -9, or added", ("After s", "What"), [(f"{at - outcome.faults[0][0]:.0f}", what) for at, what in outcome.faults]
    )
    report.table("Longest stall", ("Role", "Seconds"), [(role, f"{stall:.1f}") for role, stall in outcome.stalls])
    report.write()
    lost = account.unaccounted or account.undecided or len(outcome.at_the_pacs) != given.objects or once != account.expected_deliveries
    sys.exit(1 if lost else 0)
