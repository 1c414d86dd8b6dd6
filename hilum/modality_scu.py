"""What a modality does with its worklist: it asks for its steps (PS3.4 K), and says what it performs (PS3.4 F)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
)

from hilum.asking import associated
from hilum.errors import Misconfigured, TryAgain
from hilum.peer import Peer

_PENDING = (0xFF00, 0xFF01)
#: What is asked for of an order and its patient, and of its step (PS3.4 Table K.6-1).
_OF_ORDER = (
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "RequestedProcedureDescription",
    "RequestedProcedureID",
)
_OF_STEP = (
    "Modality",
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
)


def scheduled_steps(peer: Peer, *, of_order: Sequence[tuple[str, str]] = (), of_step: Sequence[tuple[str, str]] = ()) -> list[Dataset]:
    """The steps on the peer's worklist that fit keys of the order and of the step, by keyword.

    Raises `Misconfigured` for a value that a key cannot have, and `TryAgain` that says what the peer refuses or does not answer.
    """
    asked, step = _keys(_OF_ORDER, of_order), _keys(_OF_STEP, of_step)
    asked.ScheduledProcedureStepSequence = [step]
    asked.SpecificCharacterSet = "ISO_IR 192"
    found = []
    with _asking(peer, ModalityWorklistInformationFind, "worklist queries") as association:
        for answer, identifier in association.send_c_find(asked, ModalityWorklistInformationFind):
            status = _status(peer, answer)
            if status in _PENDING and identifier is not None:
                found.append(identifier)
            elif status:
                comment = f": {answer.ErrorComment}" if "ErrorComment" in answer else ""
                raise TryAgain(f"{peer.aet} answered 0x{status:04X} to a worklist query{comment}.", fix="See its log, or `hilum status`.")
    return found


def _keys(returned: Sequence[str], matched: Sequence[tuple[str, str]]) -> Dataset:
    keys = Dataset()
    for keyword in returned:
        setattr(keys, keyword, "")
    for keyword, value in matched:
        try:
            keys.add(DataElement(tag_for_keyword(keyword) or 0, dictionary_VR(keyword), value, validation_mode=RAISE))
        except ValueError:
            raise Misconfigured("key-invalid", f"{value!r} cannot be looked for as {keyword}.", fix="Write it as DICOM does.") from None
    return keys


class Performed:
    """A procedure step that is performed for an item of the worklist."""

    def __init__(self, peer: Peer, item: Dataset) -> None:
        self._peer = peer
        self._item = item
        self._uid = generate_uid(prefix=None)

    def begin(self, at: datetime) -> int:
        """N-CREATE, in progress; its status. Raises `TryAgain`."""
        item, [step] = self._item, self._item.ScheduledProcedureStepSequence
        said, of = Dataset(), Dataset()
        for keyword in ("StudyInstanceUID", "AccessionNumber", "RequestedProcedureID", "RequestedProcedureDescription"):
            setattr(of, keyword, item.get(keyword, ""))
        for keyword in ("ScheduledProcedureStepID", "ScheduledProcedureStepDescription"):
            setattr(of, keyword, step.get(keyword, ""))
        of.ReferencedStudySequence, of.ScheduledProtocolCodeSequence = [], []
        said.ScheduledStepAttributesSequence = [of]
        for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
            if keyword in item or keyword != "SpecificCharacterSet":
                setattr(said, keyword, item.get(keyword, ""))
        said.PerformedProcedureStepID, said.PerformedStationAETitle = f"{at:%Y%m%d%H%M%S}", self._peer.calling_aet
        said.PerformedStationName = said.PerformedLocation = said.PerformedProcedureTypeDescription = said.StudyID = ""
        said.PerformedProcedureStepStartDate, said.PerformedProcedureStepStartTime = f"{at:%Y%m%d}", f"{at:%H%M%S}"
        said.PerformedProcedureStepEndDate = said.PerformedProcedureStepEndTime = ""
        said.PerformedProcedureStepStatus, said.Modality = "IN PROGRESS", step.get("Modality", "OT")
        said.PerformedProcedureStepDescription = step.get("ScheduledProcedureStepDescription", "")
        said.ReferencedPatientSequence = said.ProcedureCodeSequence = said.PerformedProtocolCodeSequence = []
        said.PerformedSeriesSequence = []
        return self._say("send_n_create", said)

    def complete(self, at: datetime, series_instance_uid: str, instances: Sequence[tuple[str, str]]) -> int:
        """N-SET, completed with one series of `instances`, each its SOP class and instance UID; its status. Raises `TryAgain`."""
        series = Dataset()
        series.SeriesInstanceUID, series.ProtocolName = series_instance_uid, "Chest routine"
        series.PerformingPhysicianName = series.OperatorsName = series.SeriesDescription = series.RetrieveAETitle = ""
        series.ReferencedImageSequence, series.ReferencedNonImageCompositeSOPInstanceSequence = [], []
        for sop_class, sop_instance in instances:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, sop_instance
            series.ReferencedImageSequence.append(reference)
        said = Dataset()
        said.PerformedProcedureStepStatus = "COMPLETED"
        said.PerformedProcedureStepEndDate, said.PerformedProcedureStepEndTime = f"{at:%Y%m%d}", f"{at:%H%M%S}"
        said.PerformedSeriesSequence = [series]
        return self._say("send_n_set", said)

    def _say(self, how: str, said: Dataset) -> int:
        with _asking(self._peer, ModalityPerformedProcedureStep, "performed procedure steps") as association:
            answer, _ = getattr(association, how)(said, ModalityPerformedProcedureStep, self._uid)
            return _status(self._peer, answer)


def _status(peer: Peer, answer: Any) -> int:
    if "Status" not in answer:
        raise TryAgain(f"{peer.aet} gave no answer within {peer.response_timeout_s:g} s.", fix="Ask again, or look at its log.")
    return int(answer.Status)


def _asking(peer: Peer, sop_class: str, what: str) -> AbstractContextManager[Association]:
    return associated(
        peer,
        sop_class,
        what,
        admit=f"Ask its administrator to admit {peer.calling_aet}, and check the AE title {peer.aet}.",
        take="Of a Hilum, see `worklist.serve` and `worklist.mpps`.",
    )
