"""How long a modality waits for the first answer to a worklist query over 10,000 steps, and for the last; wlmscpfs beside."""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any

from bench.peers import free_port, running, wait_for_port
from bench.report import Report
from hilum import upper_layer as ul
from hilum.dicom import tag_of
from hilum.dicom.file_meta import part10_head
from hilum.dicom.writing import character_set, encode
from hilum.host import spare_the_garbage_collector
from hilum.order_events import Code, Identifier, Order, Patient, RequestedProcedure, ScheduledStep
from hilum.settings import Dicom, Settings, Worklist
from hilum.worklist import Worklist as WorklistFile
from ingest.dicom import role
from ingest.worklist.items import items_of
from ingest.worklist.packed import pack

GOAL_MS = 50.0
FIND = "1.2.840.10008.5.1.4.31"
EXPLICIT = "1.2.840.10008.1.2.1"
STEP = {"ScheduledProcedureStepID": "", "ScheduledProcedureStepStartDate": "", "ScheduledProcedureStepStartTime": "", "Modality": ""}
RETURNED = dict.fromkeys(
    ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyInstanceUID", "RequestedProcedureID"), ""
)
VRS = {
    **dict.fromkeys(("PatientName", "ScheduledPerformingPhysicianName"), "PN"),
    **dict.fromkeys(("PatientBirthDate", "ScheduledProcedureStepStartDate"), "DA"),
    **dict.fromkeys(("PatientSex", "Modality"), "CS"),
    **dict.fromkeys(("AccessionNumber", "RequestedProcedureID", "ScheduledProcedureStepID"), "SH"),
    "ScheduledProcedureStepStartTime": "TM",
    "ScheduledStationAETitle": "AE",
    "StudyInstanceUID": "UI",
    "PatientID": "LO",
}


def an_order(number: int, count: int) -> Order:
    """Order `number` of `count`, spread over ten days."""
    start = datetime(2026, 7, 1, 6, tzinfo=UTC) + timedelta(minutes=number * 10 * 24 * 60 // count)
    step = ScheduledStep(
        step_id=f"SPS{number}",
        modality=("CT", "MR", "DX", "US", "NM")[number % 5],
        station_ae_titles=(f"ST{number % 40}",),
        start_date=f"{start:%Y%m%d}",
        start_time=f"{start:%H%M%S}",
        description="Thorax without contrast",
        protocols=(Code(value=f"P{number % 90}", meaning="Thorax", scheme="99SYN"),),
        performing_physician=f"Reader{number % 30}^Robin",
    )
    procedure = RequestedProcedure(
        procedure_id=f"RP{number}", study_instance_uid=f"2.25.99{number}", description="Thorax", steps=(step,), priority="ROUTINE"
    )
    ids = (Identifier(value=f"PID{number:06}", issuer="SYN"),)
    patient = Patient(key=f"p{number}", ids=ids, name=f"Testcase{number}^Sám", birth_date="19700101", sex="O")
    return Order(
        order_id=f"o{number:06}",
        version=1,
        status="scheduled",
        patient=patient,
        procedures=(procedure,),
        accession=Identifier(value=f"A{number:06}", issuer="SYN"),
        said_at=start,
    )


def identifier(keys: Mapping[str, str], **step: str) -> bytes:
    """A query's data set."""

    def elements(values: Mapping[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for keyword, value in values.items():
            said = {"Alphabetic": value} if VRS[keyword] == "PN" else value
            found[tag_of(keyword)] = {"vr": VRS[keyword], "Value": [said] if value else []}
        return found

    chosen = character_set("ISO_IR 192")
    assert chosen is not None
    sequence = {"vr": "SQ", "Value": [elements(STEP | step)]}
    return encode(elements({**RETURNED, **keys}) | {tag_of("ScheduledProcedureStepSequence"): sequence}, chosen, explicit=True)


class Asking:
    """An association that asks, one query after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        contexts = [ul.Context(abstract_syntax=FIND, transfer_syntax=EXPLICIT)]
        self._socket.sendall(ul.associate_rq("BENCH", "HILUM", contexts, 131_072))
        self._file = self._socket.makefile("rb")
        kind, _ = self._pdu()
        assert kind == ul.Pdu.ASSOCIATE_AC

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = ul.read_header(self._file.read(6))
        return kind, self._file.read(length)

    def ask(self, query: bytes) -> tuple[float, float, int, int]:
        """Milliseconds until the first answer and until the last, how many steps were found, and the last status."""
        uid = FIND.encode() + b"\0" * (len(FIND) % 2)
        body = struct.pack("<HHI", 0, 2, len(uid)) + uid
        fields = ((0x100, 0x20), (0x110, 1), (0x700, 0), (0x800, 1))
        body += b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in fields)
        command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
        sent = ul.data_header(1, len(command), last=True, command=True) + command + ul.data_header(1, len(query), last=True) + query
        began, first, count = time.perf_counter(), 0.0, 0
        self._socket.sendall(sent)
        while True:
            _, data = self._pdu()
            for _, is_command, _, raw in ul.pdvs(data):
                if not is_command:
                    continue
                first = first or time.perf_counter()
                status = ul.read_response(raw).status
                if status not in (0xFF00, 0xFF01):
                    return 1000 * (first - began), 1000 * (time.perf_counter() - began), count, status
                count += 1

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def serve(settings: Settings) -> None:
    """Be the receiver until the process is ended."""
    spare_the_garbage_collector()  # as every process of Hilum does
    role(settings).run(threading.Event())


@contextmanager
def hilum(folder: Path, items: Mapping[str, Any]) -> Iterator[int]:
    """A receiver with these steps, in a process of its own; its port."""
    port = free_port()
    settings = Settings(data=str(folder), dicom=Dicom(port=port), worklist=Worklist(serve=True, refresh_s=0.1, max_answers=0))
    WorklistFile(settings).put({id_: ("1", pack(item)) for id_, item in items.items()}, set())
    receiver = multiprocessing.get_context("spawn").Process(target=serve, args=(settings,))
    receiver.start()
    try:
        wait_for_port(port, 60)
        while True:  # until the steps are read
            asking = Asking(port)
            status = asking.ask(identifier({"PatientID": "nobody"}))[3]
            asking.close()
            if not status:
                break
            time.sleep(0.1)
        yield port
    finally:
        receiver.terminate()
        receiver.join()


@contextmanager
def wlmscpfs(folder: Path, items: Mapping[str, Any]) -> Iterator[int]:
    """dcmtk's server with the same steps, a file each; its port."""
    files = folder / "HILUM"
    files.mkdir()
    (files / "lockfile").touch()
    chosen = character_set("ISO_IR 192")
    assert chosen is not None
    for id_, item in items.items():
        (files / f"{id_}.wl").write_bytes(part10_head(FIND, "2.25.1", EXPLICIT) + encode(item, chosen, explicit=True))
    port = free_port()
    with running(["wlmscpfs", "-s", "-q", "-dfr", "-dfp", folder, str(port)], port, folder / "wlmscpfs.log"):
        yield port


def main(arguments: list[str]) -> None:
    """Ask Hilum, then wlmscpfs."""
    options = argparse.ArgumentParser(prog="./dev bench worklist")
    options.add_argument("--steps", type=int, default=10_000)
    options.add_argument("--times", type=int, default=30)
    options.add_argument("--quick", action="store_true", help="few repeats, no peer; writes no result")
    given = options.parse_args(arguments)
    spare_the_garbage_collector()  # as every process of Hilum does
    last = given.steps - 1
    orders = [an_order(number, given.steps) for number in range(given.steps)]
    items = {order.order_id: item for order in orders for _, item in items_of(order)}
    day = orders[last].procedures[0].steps[0].start_date
    queries = {
        "one station on the last day": identifier({}, ScheduledStationAETitle=f"ST{last % 40}", ScheduledProcedureStepStartDate=day),
        "one modality, two days": identifier({}, Modality="CT", ScheduledProcedureStepStartDate=f"20260701-{day}"),
        "the last patient by name": identifier({"PatientName": f"testcase{last}*"}),
        "the last patient by id": identifier({"PatientID": f"PID{last:06}"}),
        "nobody": identifier({"PatientName": "*nobody*"}),
        "everything": identifier({}),
    }
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for server, run in (("Hilum", hilum), ("wlmscpfs", wlmscpfs)):
            if server == "wlmscpfs" and (given.quick or which("wlmscpfs") is None):
                continue
            folder = Path(name) / server
            folder.mkdir()
            with run(folder, items) as port:
                for says, query in queries.items():
                    times = 3 if given.quick or server == "wlmscpfs" or says == "everything" else given.times
                    asking = Asking(port)
                    took = [asking.ask(query) for _ in range(times)]
                    asking.close()
                    first, whole = median(each[0] for each in took), median(each[1] for each in took)
                    worst = max(each[0] for each in took)
                    met = "yes" if worst < GOAL_MS else "no"
                    rows.append((server, says, took[0][2], f"{first:.1f}", f"{worst:.1f}", f"{whole:.0f}", met))
    report = Report("worklist", f"Worklist: queries over {given.steps:,} steps")
    columns = ["server", "query", "found", "first answer ms", "slowest ms", "all answers ms", f"under {GOAL_MS:.0f} ms"]
    report.table("One modality asks; median, and the slowest first answer", columns, rows)
    if not given.quick:
        report.write()
