"""What a modality does with its worklist: it asks for its steps (PS3.4 K), and says what it performs (PS3.4 F)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
)

from hilum.errors import Misconfigured, TryAgain
from hilum.find import ready
from hilum.peer import Peer, addresses, connect, secure

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
    with _associated(peer, ModalityWorklistInformationFind, "worklist queries") as association:
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
        with _associated(self._peer, ModalityPerformedProcedureStep, "performed procedure steps") as association:
            answer, _ = getattr(association, how)(said, ModalityPerformedProcedureStep, self._uid)
            return _status(self._peer, answer)


def _status(peer: Peer, answer: Any) -> int:
    if "Status" not in answer:
        raise TryAgain(f"{peer.aet} gave no answer within {peer.response_timeout_s:g} s.", fix="Ask again, or look at its log.")
    return int(answer.Status)


@contextmanager
def _associated(peer: Peer, sop_class: str, what: str) -> Iterator[Association]:
    """An association for one service. Raises `TryAgain` if there is none to be had."""
    ae = AE(peer.calling_aet)
    ae.connection_timeout, ae.acse_timeout = peer.connect_timeout_s, peer.association_timeout_s
    ae.dimse_timeout = ae.network_timeout = peer.response_timeout_s
    ae.add_requested_context(sop_class)
    secure(peer, connect(peer, addresses(peer))).close()  # says in words why it cannot be reached
    tls = (peer.tls.context(), peer.tls.server_name or peer.host) if peer.tls else None
    association = ae.associate(peer.host, peer.port, ae_title=peer.aet, tls_args=tls)
    if association.is_rejected:
        fix = f"Ask its administrator to admit {peer.calling_aet}, and check the AE title {peer.aet}."
        raise TryAgain(f"{peer.aet} at {peer.address} does not admit {peer.calling_aet} for {what}.", fix=fix)
    try:
        # pynetdicom itself ends an association on which nothing is agreed to.
        if not any(context.abstract_syntax == sop_class for context in association.accepted_contexts):
            raise TryAgain(f"{peer.aet} takes no {what}.", fix="Of a Hilum, see `worklist.serve` and `worklist.mpps`.")
        if not association.is_established:
            raise TryAgain(f"{peer.aet} at {peer.address} ended the association.", fix="Look at its log.")
        ready(association)
        yield association
    finally:
        if association.is_established:
            association.release()
