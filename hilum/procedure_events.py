"""What modalities say of the procedure steps that they perform (PS3.4 F, MPPS). `hilum.events` has all events."""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from hilum.event import Event, Topic


class PerformedReference(Struct, frozen=True, kw_only=True):
    """One object that was made: SOP class and instance."""

    sop_class_uid: str
    sop_instance_uid: str


class PerformedSeries(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item of the Performed Series Sequence (PS3.3 C.4.15)."""

    series_instance_uid: str
    protocol_name: str = ""
    description: str = ""
    retrieve_aet: str = ""
    #: PN, several joined by a backslash.
    operators: str = ""
    performing_physician: str = ""
    images: tuple[PerformedReference, ...] = ()
    #: ReferencedNonImageCompositeSOPInstanceSequence (0040,0220): reports, presentation states, waveforms.
    non_images: tuple[PerformedReference, ...] = ()


class PerformedOf(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step that was scheduled, an item of the Scheduled Step Attributes Sequence; of an unscheduled one only the study is known.

    Several items: one examination for several orders (PS3.17 J, group case).
    """

    study_instance_uid: str
    accession_number: str = ""
    placer_number: str = ""
    filler_number: str = ""
    procedure_id: str = ""
    procedure_description: str = ""
    step_id: str = ""
    step_description: str = ""


PerformedState = Literal["in-progress", "completed", "discontinued"]


class ProcedureStepChanged(Event, frozen=True, kw_only=True):
    """A modality began, changed or ended a performed procedure step. Says all of it."""

    topic = Topic(name="imaging.procedure.changed.v1", phi="full")

    #: Of the Modality Performed Procedure Step.
    sop_instance_uid: str
    #: 1 for N-CREATE, and one more with each N-SET.
    revision: int
    state: PerformedState
    #: Of the first of those that it is for; empty if none says its study.
    study_instance_uid: str = ""
    scheduled: tuple[PerformedOf, ...]
    #: PerformedProcedureStepID.
    step_id: str = ""
    station_aet: str = ""
    station_name: str = ""
    location: str = ""
    modality: str = ""
    description: str = ""
    #: By the clock of the equipment, DA and TM.
    start_date: str = ""
    start_time: str = ""
    end_date: str = ""
    end_time: str = ""
    #: Why it was discontinued (PS3.16 CID 9300), such as `110514` of `DCM`: the wrong entry of the worklist was chosen.
    reason_code: str = ""
    reason_scheme: str = ""
    reason_meaning: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    series: tuple[PerformedSeries, ...] = ()
    #: Objects that the series refer to, also where `series` leaves them out because they are too many for one event.
    objects: int = 0
    references_cut: bool = False
    #: What the message itself said, as DICOM JSON (PS3.18 F.2), with its (0008,0005); of an N-SET, without what it may not set. The first
    #: revision is the N-CREATE, all others are N-SETs. `{}` if it is in `said_packed`, or too much for one event (`said_cut`).
    said: dict[str, Any] = {}  # noqa: RUF012  # msgspec copies an empty one
    #: The same JSON compressed (RFC 1950), if it is too long as it is: UIDs of many objects are alike.
    said_packed: bytes = b""
    said_cut: bool = False
    #: Who said so.
    calling_aet: str = ""
    called_aet: str = ""
    peer: str = ""
    association: str = ""
    #: When the message came.
    changed_at: datetime

    @property
    def study_instance_uids(self) -> tuple[str, ...]:
        """The studies that it is for; more than one in the group case."""
        return tuple(dict.fromkeys(each.study_instance_uid for each in self.scheduled if each.study_instance_uid))

    @property
    def all_said(self) -> dict[str, Any]:
        """`said`, unpacked if need be."""
        return msgspec.json.decode(zlib.decompress(self.said_packed), type=dict[str, Any]) if self.said_packed else self.said

    @property
    def is_wrong_entry(self) -> bool:
        """Whether it was discontinued since the wrong entry of the worklist was chosen (110514, PS3.16 CID 9300)."""
        return self.state == "discontinued" and self.reason_code == "110514" and self.reason_scheme in ("DCM", "")

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid or self.sop_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.sop_instance_uid


class StepPerformed(Event, frozen=True, kw_only=True):
    """What a `ProcedureStepChanged` means for orders, where it has its place among all that is said of them: on one partition."""

    topic = Topic(name="orders.step.performed.v1", phi="limited", partitions=1)

    #: As in `ProcedureStepChanged`.
    sop_instance_uid: str
    revision: int
    state: PerformedState
    #: Whether it was discontinued since the wrong entry of the worklist was chosen: then it was no order's.
    wrong_entry: bool = False
    #: Studies and ids of scheduled steps, and nothing else that the modality said of them.
    scheduled: tuple[PerformedOf, ...]
    changed_at: datetime

    @classmethod
    def of(cls, event: ProcedureStepChanged) -> StepPerformed:
        """What follows from a change of a step."""
        return cls(
            sop_instance_uid=event.sop_instance_uid,
            revision=event.revision,
            state=event.state,
            wrong_entry=event.is_wrong_entry,
            scheduled=tuple(PerformedOf(study_instance_uid=each.study_instance_uid, step_id=each.step_id) for each in event.scheduled),
            changed_at=event.changed_at,
        )

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.sop_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.sop_instance_uid
