"""What Hilum says on Kafka: one class = one event type = one topic = one file in `schemas/`.

CloudEvents 1.0, Kafka binding, binary mode, JSON. `ce_id` is deterministic: the same fact, said again after a crash,
has the same id. Keys and headers hold UIDs and ids, never a patient's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import Annotated, Literal, Self, TypeVar, cast

import msgspec
from msgspec import Meta, Raw, Struct, field

from hilum.control_events import CommandOutcome, ConfigApplied, Limits, ResourceWanted, StudyCommand
from hilum.dicom import Header
from hilum.errors import Reason
from hilum.event import DAY_MS, EVENTS, Event, Phi, Topic
from hilum.event_ids import delivery_id_for, following_id
from hilum.hl7_events import MessageFinding, MessageReceived, MessageRefused, MessageValidated
from hilum.order_events import MatchChanged, MatchRequested, OrderChanged, PatientChanged, PatientCommand
from hilum.procedure_events import ProcedureStepChanged, StepPerformed
from hilum.study_events import InstanceExpired, StudyChanged, StudyExpected

__all__ = [
    "DAY_MS",
    "EVENTS",
    "AssociationEnded",
    "CommandOutcome",
    "ConfigApplied",
    "ContextResult",
    "Decision",
    "DeliverySettled",
    "DeliveryState",
    "Event",
    "Finding",
    "InputEvent",
    "Instance",
    "InstanceAccepted",
    "InstanceExpired",
    "InstanceQuarantined",
    "InstanceReceived",
    "InstanceRouted",
    "Limits",
    "MatchChanged",
    "MatchRequested",
    "MessageFinding",
    "MessageReceived",
    "MessageRefused",
    "MessageValidated",
    "ObjectRef",
    "OrderChanged",
    "PatientChanged",
    "PatientCommand",
    "Phi",
    "PlannedDelivery",
    "ProcedureStepChanged",
    "ResourceWanted",
    "Source",
    "StepPerformed",
    "StudyChanged",
    "StudyCommand",
    "StudyExpected",
    "Topic",
    "decode",
    "delivery_id_for",
    "encode",
    "following_id",
]


class ObjectRef(Struct, frozen=True, kw_only=True):
    """Where an object's bytes are. The object is a Part 10 file (PS3.10 7)."""

    bucket: str
    key: str
    size_bytes: int
    #: SHA-256 of the data set as received, without preamble and File Meta: 64 hexadecimal digits.
    sha256: str


Adapter = Literal["dicom", "stow", "folder", "media", "hl7"]
#: How something came in: by an association, STOW-RS, a watched folder, `hilum import`, an HL7 message.


class Source(Struct, frozen=True, kw_only=True):
    """Who sent an object, and how it came in."""

    adapter: Adapter
    calling_aet: str = ""
    called_aet: str = ""
    #: Network address of the sender, without port.
    peer: str = ""
    association: str = ""


class Finding(Struct, frozen=True, kw_only=True):
    """Something about an object that a person may want to know and that does not stop it."""

    code: str
    sentence: str


class Instance(Struct, frozen=True, kw_only=True, dict=True):
    """One received SOP instance: what travels through the stages. UIDs are empty only where the object has none."""

    #: Id of the receipt, and of its `received` event: each arrival has its own, also of bytes that came before.
    receipt: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    object: ObjectRef
    source: Source
    received_at: datetime
    #: The SOP class and instance that the C-STORE command or the envelope announced; empty where there is none.
    announced_sop_class_uid: str = ""
    announced_sop_instance_uid: str = ""
    #: DICOM JSON (PS3.18 F.2) without pixel data, long values and per-frame groups; `{}` if unreadable.
    header_json: Annotated[Raw, Meta(extra_json_schema={"type": "object"})] = field(name="header")
    #: Tags (`GGGGEEEE`) whose values were left out of `header`: read them in the object, never take them for absent.
    header_cut: tuple[str, ...] = ()
    #: Transfer syntax as which the data set had to be read, since it is not encoded in `transfer_syntax_uid`; empty if it is.
    encoded_as: str = ""
    #: Why the data set could not be parsed, without any of its values; empty if it could.
    unreadable: str = ""
    #: Where the data set ends too early, without any of its values; `header` then has what came before. Empty if it is whole.
    truncated: str = ""

    @cached_property
    def header(self) -> Header:
        """The header, decoded on first use."""
        return Header.of_json(self.header_json, frozenset(self.header_cut))


class _OfInstance(Event, frozen=True, kw_only=True):
    instance: Instance

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.instance.study_instance_uid or self.instance.receipt

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.instance.sop_instance_uid or self.instance.receipt


class InstanceReceived(_OfInstance, frozen=True, kw_only=True):
    """An instance is durably in the object store; its sender has its acknowledgement."""

    topic = Topic(name="imaging.instance.received.v1", phi="full")


class InstanceAccepted(_OfInstance, frozen=True, kw_only=True):
    """An instance can be kept and found again. What was noticed about it rides along."""

    topic = Topic(name="imaging.instance.accepted.v1", phi="full")

    findings: tuple[Finding, ...] = ()

    @classmethod
    def following(cls, event: InstanceReceived, findings: Iterable[Finding] = ()) -> Self:
        """The acceptance of what was received."""
        return cls(instance=event.instance, findings=tuple(findings))


class InputEvent(Struct, frozen=True, kw_only=True):
    """An event as a stage read it, whole, so that it can be emitted there again."""

    type: str
    id: str
    data: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]


class InstanceQuarantined(Event, frozen=True, kw_only=True):
    """An instance waits for a person: why, and what would let it go on."""

    topic = Topic(name="imaging.instance.quarantined.v1", phi="full")

    receipt: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    stage: str
    reason: Reason
    sentence: str
    fix: str
    found: str = ""
    expected: str = ""
    quarantined_at: datetime
    input: InputEvent

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid or self.receipt

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.sop_instance_uid or self.receipt


class PlannedDelivery(Struct, frozen=True, kw_only=True):
    """One object on its way to one destination, named once and for all by `delivery_id_for`."""

    delivery_id: str
    destination: str
    #: Names of the rules that asked for it, in the order of the settings.
    rules: tuple[str, ...]
    priority: int = 0
    #: That of its destination: it leaves de-identified by one or not at all.
    policy: str = ""


Decision = Literal["deliver", "duplicate", "no-rule", "returned", "held", "waits", "corrected", "ignored", "withdrawn"]
#: `deliver`: to the destinations named; `duplicate`: it came before; `no-rule`: no rule wants it; `returned`: it was sent back; `waits`:
#: for its study; `corrected`: it replaces one with another header; `ignored`: such a one, by its sender's settings; `withdrawn`: by a note.


class RuleFailure(Struct, frozen=True, kw_only=True):
    """A rule that could not be evaluated on an object, and why, without any value of the object."""

    rule: str
    says: str


class InstanceRouted(Event, frozen=True, kw_only=True):
    """The decision on an accepted instance.

    There is one on arrival. What waited for its study has a second one when that is complete; a rejection note takes back what
    was planned. `revision` tells the second from the first.
    """

    topic = Topic(name="imaging.instance.routed.v1", phi="limited")

    receipt: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    object: ObjectRef
    received_at: datetime
    decision: Decision
    deliveries: tuple[PlannedDelivery, ...] = ()
    config_version: str
    decided_at: datetime
    #: The study's revision with whose completion this was decided; 0: on arrival.
    revision: int = 0
    #: What was noticed when the object was held against its study.
    findings: tuple[Finding, ...] = ()
    #: Deliveries planned before that are not to be made any more; those that are settled stay so.
    cancels: tuple[str, ...] = ()
    #: Rules that could not be evaluated: they are asked again once another configuration is in force. The others' deliveries go.
    failed: tuple[RuleFailure, ...] = ()
    #: Whether rules that could not be evaluated before are decided now, all of them.
    mended: bool = False

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.sop_instance_uid


DeliveryState = Literal["delivered", "already_there", "returned", "rejected", "cancelled"]
#: The final states of a delivery; until it has one, it is `pending`.


class DeliverySettled(Event, frozen=True, kw_only=True):
    """A delivery has its one final state."""

    topic = Topic(name="delivery.settled.v1", phi="limited")

    delivery_id: str
    receipt: str
    destination: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sha256: str
    state: DeliveryState
    attempts: int
    #: The peer's status as it gave it, e.g. `0x0000` or `409`; empty where the destination has none.
    peer_status: str = ""
    #: What Hilum says about it. Never a value of the object, hence not the peer's own words: these are in the ledger.
    comment: str = ""
    #: The SOP instance UID under which the destination has it, if that is another: of an image compressed with loss.
    sent_as: str = ""
    #: By which policy and key it was de-identified; empty if it went as it is. Under which UIDs it left is in the ledger alone.
    policy: str = ""
    policy_version: str = ""
    key_id: str = ""
    config_version: str
    settled_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.study_instance_uid

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.delivery_id


class ContextResult(Struct, frozen=True, kw_only=True):
    """What became of one presentation context (PS3.8 9.3.2.2, 9.3.3.2)."""

    id: int
    abstract_syntax: str
    #: What the peer proposed, in its order.
    transfer_syntaxes: tuple[str, ...]
    #: 0 accepted, 1 refused for its role, 3 abstract syntax not supported, 4 transfer syntaxes not supported; -1 not negotiated, since
    #: the association was refused.
    result: int
    #: The one that was chosen; empty if the context was not accepted.
    transfer_syntax: str = ""


class AssociationEnded(Event, frozen=True, kw_only=True):
    """An association that a peer asked for is over, or was refused: who, what was agreed to, what came of it.

    Also a connection without a request that could be read, or whose TLS handshake failed; of these only a few a minute. And, summed
    up, a minute of a STOW-RS client's requests or of a watched folder's files, and an import (`adapter`).
    """

    topic = Topic(name="ingest.association.ended.v1", phi="limited", partitions=1)

    association: str
    #: Empty, as `called_aet`, if the peer gave none that is an AE title.
    calling_aet: str
    called_aet: str
    #: Network address of the peer, without port; `folder NAME` or `import` where there is none, `others` of more than can be told.
    peer: str
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    #: Largest PDU that the peer takes, in bytes; 0 means no limit.
    max_pdu_bytes: int = 0
    #: As whom the peer's certificate names it; empty without TLS or without a certificate.
    certificate: str = ""
    #: How its user identified himself (PS3.7 D.3.3.7), such as `username`; who he is, is not kept. Empty: not at all.
    user_identity: str = ""
    contexts: tuple[ContextResult, ...] = ()
    #: Why it was refused, if it was rejected with result, source and reason of PS3.8 Table 9-21; empty if it was not refused.
    refused: str = ""
    #: How it ended, in words.
    ended: str
    #: Objects that were stored, and their size in bytes of data set.
    objects: int = 0
    size_bytes: int = 0
    #: How often each status was given to a C-STORE, such as `0x0000`, or by STOW-RS; how often a file was `taken`, or why it was not.
    statuses: dict[str, int] = field(default_factory=dict)
    opened_at: datetime
    ended_at: datetime
    adapter: Adapter = "dicom"
    #: How many associations, requests or files this sums up; an association and an import are one.
    requests: int = 1

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.calling_aet or self.peer

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.association


_ENCODER = msgspec.json.Encoder()
_DECODERS: dict[type[Event], msgspec.json.Decoder[Event]] = {}
E = TypeVar("E", bound=Event)


def encode(event: Event) -> bytes:
    """The event as JSON, UTF-8: the value of its Kafka message."""
    return _ENCODER.encode(event)


def decode(kind: type[E], value: bytes) -> E:
    """The event of `kind` in `value`. Unknown members are ignored, so that a newer writer does not stop an older reader.

    Raises `msgspec.ValidationError` (a member is missing or of another type) or `msgspec.DecodeError` (no JSON).
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    return cast("E", decoder.decode(value))
