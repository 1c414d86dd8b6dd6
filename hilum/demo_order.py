"""The story of one order in the demo: a RIS orders by HL7, a modality finds it on its worklist, performs it, and its images match."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from msgspec import Struct
from pydicom.dataset import Dataset

from hilum.database.ordered import Ordered, ordered
from hilum.errors import HilumError
from hilum.hl7.message import parse
from hilum.mllp_client import MllpClient
from hilum.modality_scu import Performed, scheduled_steps
from hilum.peer import Peer
from hilum.settings import Settings

T = TypeVar("T")
#: How long each thing may take that follows from another, in seconds.
WITHIN_S = 60.0

ACCESSION = "SYN0001"
ORDER = """\
MSH|^~\\&|RIS|EXAMPLE|HILUM|EXAMPLE|{now}||OMI^O23^OMI_O23|DEMO{now}|P|2.5.1||||||UNICODE UTF-8
PID|1||SYNTH0001^^^EXAMPLE^MR||Synthetic^Sam||19700101|O
ORC|NW|P0001^RIS|F0001^RIS||SC||||{now}|||0001^Referrer^Rita
TQ1|1||||||{now}||R
OBR|1|P0001^RIS|F0001^RIS|CTCHEST^CT chest^EXAMPLE||||||||||||0001^Referrer^Rita||SYN0001|RP1|SPS1||||CT
IPC|SYN0001^EXAMPLE|RP1||SPS1|CT|CTCHEST^CT chest^EXAMPLE|CT01||{station}
"""


class Step(Struct, frozen=True, kw_only=True):
    """One thing of the story: what was done, what came of it, and how long that took."""

    what: str
    came_of_it: str
    ok: bool
    seconds: float


class OrderStory:
    """Tells it step by step; `steps` is what was so far. Each method raises `HilumError` if a part does not answer."""

    def __init__(self, settings: Settings, dicom: Peer, hl7: tuple[str, int]) -> None:
        self._settings = settings
        self._dicom = dicom
        self._hl7 = hl7
        self._performed: Performed | None = None
        self.steps: list[Step] = []

    def order(self) -> None:
        """The RIS sends the order."""
        text = ORDER.format(now=f"{datetime.now(UTC):%Y%m%d%H%M%S}", station=self._dicom.calling_aet)
        began = time.monotonic()
        with MllpClient(*self._hl7) as ris:
            answer = ris.send(text.replace("\n", "\r").encode())
        code = parse(answer.decode("utf-8", "replace")).get("MSA-1")
        self._told(began, "The RIS orders a CT by HL7 (OMI^O23 over MLLP)", f"{code}: the message is on stable storage", code == "AA")

    def worklist(self) -> str:
        """The modality asks for its steps; the StudyInstanceUID that it gets with the order's."""
        began = time.monotonic()
        item = self._until(self._on_worklist, "the order on the worklist")
        self._performed = Performed(self._dicom, item)
        [step] = item.ScheduledProcedureStepSequence
        what = f"{item.PatientID}, {step.ScheduledProcedureStepDescription}, accession number {item.AccessionNumber}"
        self._told(began, f"{self._dicom.calling_aet} asks for its worklist (C-FIND)", what, item.AccessionNumber == ACCESSION)
        return str(item.StudyInstanceUID)

    def begin(self) -> None:
        """The modality says that it begins."""
        assert self._performed is not None
        began = time.monotonic()
        status = self._performed.begin(datetime.now(UTC))
        self._told(began, "It says that it begins (MPPS N-CREATE)", f"0x{status:04X}", status == 0)

    def end(self, series_instance_uid: str, instances: Sequence[tuple[str, str]]) -> None:
        """The modality says what it made."""
        assert self._performed is not None
        began = time.monotonic()
        status = self._performed.complete(datetime.now(UTC), series_instance_uid, instances)
        self._told(began, f"It says that it is done, with {len(instances)} objects (MPPS N-SET)", f"0x{status:04X}", status == 0)

    def matched(self, study_instance_uid: str) -> None:
        """Hilum holds the study against its order, the step leaves the worklist, and the modality's word is in the index."""
        began = time.monotonic()

        def fits() -> Ordered | None:
            found = ordered(self._settings.postgres.dsn, study_instance_uid)
            done = found.match is not None and found.match.outcome == "matched" and found.performed
            return found if done and found.performed[0].state == "completed" else None

        found = self._until(fits, "the study's match")
        assert found.match is not None
        by = {"accession-number": "by its accession number"}.get(found.match.by or "", "by its StudyInstanceUID")
        [order] = found.orders
        self._told(began, "The images are held against their order", f"matched with {order.accession_number}, {by}", True)
        began = time.monotonic()
        self._until(lambda: self._on_worklist() is None or None, "the step gone from the worklist")
        self._told(began, "The step leaves the worklist", "gone", True)

    def _on_worklist(self) -> Dataset | None:
        keys = [("ScheduledStationAETitle", self._dicom.calling_aet)]
        found = scheduled_steps(self._dicom, of_order=[("AccessionNumber", ACCESSION)], of_step=keys)
        return found[0] if found else None

    def _until(self, look: Callable[[], T | None], what: str) -> T:
        end = time.monotonic() + WITHIN_S
        while True:
            found = look()
            if found is not None:
                return found
            if time.monotonic() > end:
                raise HilumError(f"The demo waited {WITHIN_S:g} s for {what}.", fix="See `hilum status` for what is not ready.")
            time.sleep(0.2)

    def _told(self, began: float, what: str, came_of_it: str, ok: bool) -> None:
        self.steps.append(Step(what=what, came_of_it=came_of_it, ok=ok, seconds=round(time.monotonic() - began, 2)))
