"""The steps of the truth table, and queries for them by dcmtk and pynetdicom."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]  # made at import

from bench.peers import free_port
from hilum.dicom.file_meta import part10_head
from hilum.dicom.writing import CharacterSet, character_set, encode
from hilum.order_events import Code, Identifier, Order, Patient, RequestedProcedure, ScheduledStep
from hilum.settings import Dicom, Settings, Worklist
from hilum.settings import Spool as SpoolSettings
from hilum.testing import eventually
from hilum.worklist import Worklist as WorklistFile
from ingest.dicom import Receiver, role
from ingest.worklist.items import items_of
from ingest.worklist.packed import pack

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
Keys = Mapping[str, Any]
STEP = "ScheduledProcedureStepSequence"


def an_order(number: str, *steps: ScheduledStep, **values: Any) -> Order:
    """An order whose one procedure has these steps."""
    patient = values.pop("patient", {})
    who = Patient(
        **{
            "key": f"p{number}",
            "ids": (Identifier(value=f"PID{number}", issuer="HOSP"),),
            "name": "Test^Case",
            "birth_date": "19700101",
            "sex": "F",
        }
        | patient
    )
    procedure = RequestedProcedure(
        procedure_id=f"RP{number}",
        study_instance_uid=f"2.25.10{number}",
        description="Examination",
        codes=(Code(value="C1", meaning="Examination", scheme="99SITE"),),
        priority=values.pop("priority", "ROUTINE"),
        steps=steps,
    )
    said: dict[str, Any] = {
        "order_id": f"o{number}",
        "version": 1,
        "status": "scheduled",
        "patient": who,
        "procedures": (procedure,),
        "accession": Identifier(value=f"ACC{number}", issuer="RIS"),
        "said_at": datetime(2026, 1, 2, tzinfo=UTC),
    } | values
    return Order(**said)


def a_step(number: str, start: str, modality: str = "CT", *stations: str, **values: Any) -> ScheduledStep:
    """A step that starts at `YYYYMMDDHHMM`."""
    return ScheduledStep(
        **{
            "step_id": f"SPS{number}",
            "modality": modality,
            "station_ae_titles": stations,
            "start_date": start[:8],
            "start_time": start[8:],
            "description": "Thorax",
        }
        | values
    )


ORDERS = (
    an_order("1", a_step("1", "202607050800", "CT", "CT1"), patient={"name": "Doe^John"}),
    an_order("2", a_step("2", "202607051000", "CT", "CT2", performing_physician="House^Greg"), patient={"name": "DOE^JANE^Q"}),
    an_order("3", a_step("3", "202607051800", "MR", "MR1"), patient={"name": "Müller^Jörg", "birth_date": "19850316", "sex": "M"}),
    an_order("4", a_step("4", "202607060700", "CT", "CT1", "CT2"), patient={"name": "Doering^Ida"}),
    an_order("5", a_step("5", "20260706180030.5", "US"), patient={"name": "Yamada^Tarou=山田^太郎"}, priority="STAT"),
    an_order("6", a_step("6", "202607071730", "CT", "CT1"), patient={"name": "Иванов^Пётр"}),
    an_order("7", a_step("7", "202607071801", "MR", "MR1"), patient={"name": "Smith"}),
    an_order("8", a_step("8", "202607080900", "DX", "dx1"), accession=None, patient={"name": "Lee^Ann", "birth_date": ""}),
    # Two steps of one procedure, and one without a start time.
    an_order("9", a_step("9", "202607090900", "NM", "NM1"), a_step("9B", "202607091300", "CT", "CT1"), patient={"name": "O'Hara^Pat"}),
    an_order("10", a_step("10", "20260706", "OT", performing_physician="Müller^Eva"), patient={"name": "Null^Time"}),
)
ITEMS = {item[f"{0x00400100:08X}"]["Value"][0]["00400009"]["Value"][0]: item for order in ORDERS for _, item in items_of(order)}


def steps_query(**keys: Any) -> dict[str, Any]:
    """Keys of the step beside its id, which is always asked for."""
    return {STEP: {"ScheduledProcedureStepID": "", **keys}}


def data_set(keys: Keys) -> Dataset:
    """An identifier of keywords (or tags) and values; a mapping stands for a sequence of one item."""
    ds = Dataset()
    for keyword, value in keys.items():
        setattr(ds, keyword, [data_set(value)] if isinstance(value, Mapping) else value)
    return ds


def encoded(ds: Dataset, transfer_syntax_uid: str = EXPLICIT) -> bytes:
    """A data set's bytes."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, transfer_syntax_uid == IMPLICIT
    write_dataset(out, ds, parent_encoding="iso8859")
    return out.getvalue()


def ids_of(answers: list[Dataset]) -> list[str]:
    """The ids of the steps that were found."""
    return sorted(str(each[STEP].value[0].ScheduledProcedureStepID) for each in answers)


class Running:
    """A receiver that serves the worklist."""

    def __init__(self, settings: Settings) -> None:
        found = role(settings)
        assert isinstance(found, Receiver)
        self.settings = settings
        self.stop = threading.Event()
        self.thread = threading.Thread(target=found.run, args=(self.stop,))
        self.thread.start()
        self.port = eventually(lambda: found.port, what="the receiver listens")

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def find(self, keys: Keys, *, calling: str = "CT1") -> tuple[list[Dataset], list[int]]:
        """Ask by pynetdicom: the answers, and all statuses."""
        ae = AE(ae_title=calling)
        ae.add_requested_context(ModalityWorklistInformationFind, [EXPLICIT])
        association = ae.associate("127.0.0.1", self.port, ae_title="HILUM")
        assert association.is_established
        try:
            found = [
                (int(status.Status), answer) for status, answer in association.send_c_find(data_set(keys), ModalityWorklistInformationFind)
            ]
        finally:
            association.release()
        return [answer for _, answer in found if answer is not None], [status for status, _ in found]


def put(settings: Settings, items: Mapping[str, Mapping[str, Any]] = ITEMS) -> None:
    """Make these the steps that there are."""
    WorklistFile(settings).put({id_: ("1", pack(item)) for id_, item in items.items()}, set())


@contextmanager
def running(path: Path, items: Mapping[str, Mapping[str, Any]] | None = ITEMS, **worklist: Any) -> Iterator[Running]:
    """A receiver with these steps, or without a file of steps."""
    settings = Settings(
        data=str(path),
        dicom=Dicom(port=0),
        spool=SpoolSettings(min_free_bytes=0, spare_bytes=0),
        worklist=Worklist(**{"serve": True, "mpps": True, "refresh_s": 0.1} | worklist),
    )
    if items is not None:
        put(settings, items)
    receiver = Running(settings)
    try:
        if items is not None:
            eventually(lambda: receiver.find({"PatientID": "nobody"})[1] != [0xA700], what="the steps are read")
        yield receiver
    finally:
        receiver.end()


def findscu(port: int, keys: Keys, folder: Path, *, calling: str = "CT1", cancel_after: int = 0) -> list[Dataset]:
    """Ask by dcmtk's findscu."""
    folder.mkdir(parents=True)
    query = folder / "query.dcm"
    query.write_bytes(part10_head("1.2.840.10008.5.1.4.31", "2.25.1", EXPLICIT, {}) + encoded(data_set(keys)))
    answers = folder / "answers"
    answers.mkdir()
    cancel = ["--cancel", str(cancel_after)] if cancel_after else []
    command = ["findscu", "-W", "-X", "-od", str(answers), *cancel, "-aet", calling, "-aec", "HILUM", "127.0.0.1", str(port), str(query)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [dcmread(BytesIO(file.read_bytes()), force=True) for file in sorted(answers.iterdir())]


@contextmanager
def wlmscpfs(folder: Path) -> Iterator[int]:
    """dcmtk's worklist server on the same steps; its port."""
    files = folder / "HILUM"
    files.mkdir(parents=True)
    (files / "lockfile").touch()
    unicode = character_set("ISO_IR 192")
    assert isinstance(unicode, CharacterSet)
    for id_, item in ITEMS.items():
        head = part10_head("1.2.840.10008.5.1.4.31", "2.25.1", EXPLICIT, {})
        (files / f"{id_}.wl").write_bytes(head + encode(item, unicode, explicit=True))
    port = free_port()
    command = ["wlmscpfs", "-s", "-dfr", "-dfp", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            ae = AE()
            ae.add_requested_context(ModalityWorklistInformationFind)

            def listens() -> bool:
                association = ae.associate("127.0.0.1", port, ae_title="HILUM")
                established = bool(association.is_established)
                if established:
                    association.release()
                return established

            eventually(listens, what="wlmscpfs listens")
            yield port
        finally:
            server.terminate()
