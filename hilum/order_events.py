"""What Hilum says on Kafka of orders, patients, and how they fit the studies that came. `hilum.events` has all events.

Each topic has one partition: a merge joins two patients, and an order is found by its accession number, by a StudyInstanceUID or by
its patient, so that only one order of all facts is one in which each of them has its place.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hilum.event import Event, Topic


class Identifier(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An identifier with who assigned it (HL7 v2.5.1 2.A.14 CX and 2.A.28 EI; PS3.3 10.14)."""

    value: str
    #: Namespace of the issuer (CX.4.1, EI.2): IssuerOfPatientID, or LocalNamespaceEntityID of an issuer's sequence.
    issuer: str = ""
    #: The issuer's universal id and its type, such as `1.2.3` and `ISO` (CX.4.2 and 4.3, EI.3 and 4).
    universal_id: str = ""
    universal_id_type: str = ""
    #: Identifier type code (CX.5, table 0203), such as `MR`.
    type: str = ""


class Code(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A coded entry (HL7 CE, CWE; PS3.3 8.8)."""

    value: str
    meaning: str = ""
    scheme: str = ""


class Patient(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who a patient is. Values are as DICOM writes them: PN, DA, CS."""

    #: Names the patient on Kafka and in logs: an HMAC of the identifier with the site's secret. Stays when others merge into it.
    key: str
    #: The first is PatientID and IssuerOfPatientID; the others are OtherPatientIDsSequence.
    ids: tuple[Identifier, ...]
    #: PN: `family^given^middle^prefix^suffix`, component groups joined by `=` (PS3.5 6.2).
    name: str = ""
    #: DA, `YYYYMMDD`.
    birth_date: str = ""
    #: `M`, `F`, `O`, or empty.
    sex: str = ""
    #: Free text for whoever examines: PatientComments, Allergies, MedicalAlerts, SpecialNeeds; 0, 1 or several by keyword.
    notes: dict[str, str] = {}
    #: PatientWeight in kg and PatientSize in m, as text; empty if nobody said.
    weight_kg: str = ""
    size_m: str = ""
    #: Identifiers of patients that were merged into this one.
    former_ids: tuple[Identifier, ...] = ()
    #: Identifiers of patients that are linked with this one (A24): the same person, under two records.
    linked_ids: tuple[Identifier, ...] = ()


StepStatus = Literal["scheduled", "arrived", "ready", "started", "completed", "on-hold", "discontinued", "cancelled"]
#: Of a scheduled procedure step. Only the first three are work that waits, and on the worklist (PS3.3 C.4.10: (0040,0020)).


class ScheduledStep(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A scheduled procedure step (PS3.3 C.4.10)."""

    #: ScheduledProcedureStepID, SH.
    step_id: str
    status: StepStatus = "scheduled"
    #: Modality, CS; empty if nobody said.
    modality: str = ""
    #: ScheduledStationAETitle: one, several for a group of stations, or none, which is any.
    station_ae_titles: tuple[str, ...] = ()
    station_name: str = ""
    location: str = ""
    #: When it starts by the clocks of the place: DA `YYYYMMDD` and TM `HHMMSS`, as a modality is told (PS3.3 C.4.10).
    start_date: str = ""
    start_time: str = ""
    #: The same as a moment, by the sender's time zone; None if the date is not known.
    start_at: datetime | None = None
    end_date: str = ""
    end_time: str = ""
    description: str = ""
    #: ScheduledProtocolCodeSequence.
    protocols: tuple[Code, ...] = ()
    #: ScheduledPerformingPhysicianName, PN.
    performing_physician: str = ""
    premedication: str = ""
    contrast: str = ""
    comments: str = ""


class RequestedProcedure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A requested procedure (PS3.3 C.4.11): what becomes one study."""

    #: RequestedProcedureID, SH.
    procedure_id: str
    #: StudyInstanceUID: as the order says, or made once by Hilum and kept.
    study_instance_uid: str
    #: Whether Hilum made it.
    uid_made: bool = False
    #: Others under which the study may come, as they were offered to modalities before.
    former_uids: tuple[str, ...] = ()
    description: str = ""
    codes: tuple[Code, ...] = ()
    #: `STAT`, `HIGH`, `ROUTINE`, `MEDIUM` or `LOW` (PS3.3 C.4.11: (0040,1003)).
    priority: str = ""
    reason: str = ""
    reason_codes: tuple[Code, ...] = ()
    comments: str = ""
    transport: str = ""
    steps: tuple[ScheduledStep, ...] = ()


OrderStatus = Literal["scheduled", "arrived", "in-progress", "completed", "on-hold", "discontinued", "cancelled"]


class Order(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An imaging service request (PS3.3 C.4.12) with its requested procedures."""

    #: Names the order on Kafka and in logs: made from the first message about it.
    order_id: str
    #: Grows with every change of it.
    version: int
    #: By messages and by what modalities perform; what a message cancelled, discontinued or put on hold, no modality takes up again.
    status: OrderStatus
    #: What modalities say of its steps (MPPS); empty: nothing. The status of a step is that of messages alone.
    performed: Literal["", "in-progress", "completed", "discontinued"] = ""
    patient: Patient
    procedures: tuple[RequestedProcedure, ...] = ()
    #: AccessionNumber with the issuer that applies to it; None while there is none, or none that fits into SH.
    accession: Identifier | None = None
    #: PlacerOrderNumberImagingServiceRequest and FillerOrderNumberImagingServiceRequest (ORC-2, ORC-3).
    placer: Identifier | None = None
    filler: Identifier | None = None
    #: Placer group number (ORC-4): orders of one group may share one study.
    group: Identifier | None = None
    #: PN.
    referring_physician: str = ""
    requesting_physician: str = ""
    requesting_service: str = ""
    entered_by: str = ""
    #: AdmissionID, and where the patient is.
    admission: Identifier | None = None
    patient_location: str = ""
    institution: str = ""
    clinical_information: str = ""
    comments: str = ""
    #: Values that DICOM cannot hold, by keyword, such as an AccessionNumber of more than 16 characters: offered to nobody.
    unusable: dict[str, str] = {}
    #: Who says so: the sender's name.
    sender: str = ""
    #: When the facts came to be, by the sender's clock (ORC-9, EVN-2 or MSH-7).
    said_at: datetime


class Note(Struct, frozen=True, kw_only=True):
    """Something about an order or a patient that a person may want to know. Names no patient."""

    code: Annotated[str, Meta(pattern="^[a-z0-9-]+$")]
    sentence: str


class _OnOnePartition(Event, frozen=True, kw_only=True):
    """A fact whose place among all orders, patients and studies counts."""


class OrderChanged(_OnOnePartition, frozen=True, kw_only=True):
    """An order came, or is another one now. Says all of it."""

    topic = Topic(name="orders.order.changed.v1", phi="full", partitions=1)

    order: Order
    #: `new`, `changed`, `cancelled`, `discontinued`, `status` (only that), `performed` (only what modalities say of it, and the status
    #: by that), `patient` (only who the patient is), `superseded` (it turned out to be another order, which has its facts now) or
    #: `noted` (nothing changed, and `notes` say why).
    change: Annotated[str, Meta(pattern="^[a-z-]+$")]
    #: The order that has its facts now, if it is `superseded`.
    superseded_by: str = ""
    notes: tuple[Note, ...] = ()
    #: The message that said so, as `hilum hl7 show` takes it; empty if no message did.
    message_id: str = ""
    changed_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.order.order_id

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.order.order_id


class PatientChanged(_OnOnePartition, frozen=True, kw_only=True):
    """Somebody said who a patient is, or that two are one."""

    topic = Topic(name="patients.patient.changed.v1", phi="full", partitions=1)

    patient: Patient
    #: Grows with every change of this patient.
    version: int
    #: `updated`, `merged` (into `merged_into`), `unmerged`, `linked`, `unlinked`, or `noted` (nothing changed; `notes` say why).
    change: Annotated[str, Meta(pattern="^[a-z-]+$")]
    #: The patient that all that is this one's belongs to, by its `key`, following all merges; empty if it stands for itself.
    merged_into: str = ""
    notes: tuple[Note, ...] = ()
    #: As in `OrderChanged`. `actor` is who said so by hand.
    message_id: str = ""
    actor: str = ""
    #: When it became so by the sender's clock (EVN-2, EVN-6 or MSH-7).
    said_at: datetime
    changed_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.patient.key

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.patient.key


class PatientCommand(_OnOnePartition, frozen=True, kw_only=True):
    """A person asks that something be done with a patient. The stage `orders` answers with a `CommandOutcome`."""

    topic = Topic(name="patients.command.v1", phi="limited", partitions=1)

    id: str
    #: `unmerge`: the patient stands for itself again.
    action: Annotated[str, Meta(pattern="^[a-z-]+$")]
    patient_key: str
    #: The account that asks, and why. Not for names of patients.
    actor: str = ""
    why: str = ""
    asked_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.patient_key

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.id


class MatchRequested(_OnOnePartition, frozen=True, kw_only=True):
    """What images of a study say of their order and patient: it is to be held against the orders. Sent when they say something new."""

    topic = Topic(name="orders.match.requested.v1", phi="full", partitions=1)

    study_instance_uid: str
    #: AccessionNumber with its issuer, and those in RequestAttributesSequence: more than one where a study serves several orders.
    accessions: tuple[Identifier, ...] = ()
    #: PatientID with its issuer first, then OtherPatientIDsSequence.
    patient_ids: tuple[Identifier, ...] = ()
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    #: DA and TM.
    study_date: str = ""
    study_time: str = ""
    modalities: tuple[str, ...] = ()
    #: Calling AE title of who sent it, and StationName.
    sender: str = ""
    station_name: str = ""
    #: ProcedureCodeSequence and RequestedProcedureCodeSequence.
    codes: tuple[Code, ...] = ()
    #: Instances that count; 0: a rejection note took all of them back.
    instances: int
    #: Whether it holds in place of what was said before, as of a corrected object; else it adds to that.
    replaces: bool = False
    #: When its first object came in.
    first_received_at: datetime
    #: The study's revision that is open or complete.
    revision: int = 0
    requested_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.study_instance_uid


class Difference(Struct, frozen=True, kw_only=True):
    """An attribute that the order and the images do not agree on."""

    #: Its keyword.
    attribute: str
    ordered: str
    found: str


MatchOutcome = Literal[
    "matched",
    "mismatched",
    "unmatched",
    "no-order",
    "order-cancelled",
    "awaited",
    "no-images",
    "imaged",
    "withdrawn",
]
#: Of a study: `matched`, `mismatched` (an order is its, and `differences` say what does not fit), `unmatched` (no order yet),
#: `no-order` (none within the window), `order-cancelled` (its order was called off), `withdrawn` (nothing of it is left).
#: Of an order: `awaited` (no images yet), `no-images` (none within the window), `imaged`, `order-cancelled`.


class MatchChanged(Event, frozen=True, kw_only=True):
    """How a study and its orders fit is another by now. Sent only when it is."""

    topic = Topic(name="orders.match.changed.v1", phi="full")

    #: What the outcome is of: a study, or an order that waits for its images.
    about: Literal["study", "order"]
    #: Of an order: of its first requested procedure, or of the study that came for it.
    study_instance_uid: str
    #: The orders that are the study's; the order.
    order_ids: tuple[str, ...] = ()
    outcome: MatchOutcome
    #: The outcome before; empty at first.
    before: str = ""
    #: By what the order was found: `accession-number` or `study-instance-uid`; empty without one.
    by: Annotated[str, Meta(pattern="^[a-z-]*$")] = ""
    differences: tuple[Difference, ...] = ()
    #: Whether what differs is just what the sender's `coerce` has set right on the way out.
    coercible: bool = False
    #: Orders of the same patient for about that time: somebody may look whether one of them is the study's.
    candidates: tuple[str, ...] = ()
    #: Why it changed: `images`, `order`, `patient` or `time`; or `by-hand`.
    cause: Annotated[str, Meta(pattern="^[a-z-]+$")]
    #: Grows with each change of the same study or order.
    version: int
    notes: tuple[Note, ...] = ()
    changed_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.study_instance_uid if self.about == "study" else self.order_ids[0]
