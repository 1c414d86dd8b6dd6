"""Send HL7 messages over MLLP: what becomes of studies and steps, and messages of others that are passed on, in order and acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from hilum.client_tls import ClientTls
from hilum.errors import Misconfigured
from hilum.hl7 import outgoing
from hilum.hl7.charset import encode
from hilum.hl7.message import parsed_path
from hilum.hl7.outgoing import Kind
from hilum.in_order import Queued
from hilum.kinds import Host, Seconds
from hilum.mllp_client import MllpClient
from hilum.notices import Composed, Notice, refuse_rules
from hilum.settings import Settings
from hilum.sink import Session, Sink, Step
from hilum.store import open_store

from .check import check
from .client import Client
from .passing import passed_on
from .session import Messages

MessageType = Annotated[str, Meta(pattern=r"^[A-Z0-9]{3}(\^[A-Z0-9]{3})?\Z", description="such as `ADT` or `ORM^O01`")]
ErrorCode = Annotated[str, Meta(pattern=r"^\d{1,6}\Z", description="such as `207`")]
SegmentName = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9]{2}\Z", description="three characters, such as `ZPI`")]


class Hl7(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receiver of HL7 messages. No rule sends objects to it."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    tls: bool = False
    #: PEM file of the authorities that its certificate must come from; empty: the system's.
    tls_ca: str = ""
    #: PEM file of the certificate that Hilum shows, if it asks for one.
    tls_certificate: str = ""
    #: PEM file of its private key; empty: it is in the file of the certificate.
    tls_key: str = ""
    #: The name in its certificate; empty: `host`.
    tls_server_name: str = ""
    #: Whether its certificate must name the host.
    tls_check_name: bool = True
    connect_timeout_s: Seconds = 10.0
    #: For the acknowledgement of a message; then it is sent again, with the same control id.
    acknowledgement_timeout_s: Seconds = 30.0
    #: What it is told of. `delivered`: a complete study of which nothing is pending for one of `delivered_to` any more; `message`:
    #: messages of others, as `forward` says.
    on: tuple[Kind, ...] = ("study-completed",)
    #: Which message says so.
    message: Literal["ORU^R01", "OMG^O19", "ORM^O01"] = "ORU^R01"
    #: File with a message to be said instead, in which `${PatientID}` and the like stand for what is known.
    template: str = ""
    #: Destinations whose deliveries `delivered` is about.
    delivered_to: tuple[str, ...] = ()
    #: Types of messages that are passed on, such as `ADT` or `ORM^O01`; empty: all.
    forward: tuple[MessageType, ...] = ()
    #: Names of senders (`hl7.senders`) whose messages are passed on; empty: of all.
    senders: tuple[str, ...] = ()
    #: What is set in messages that are passed on, by path: `"MSH-5" = "PACS"`; `${PID-3.1}` stands for that value of the message.
    set: dict[str, str] = {}  # noqa: RUF012  # msgspec copies an empty one
    #: Segments that are left out of messages that are passed on.
    without: tuple[SegmentName, ...] = ()
    #: MSH-3 to MSH-6 of Hilum's own messages.
    sending_application: str = "HILUM"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    #: MSH-12.
    version: Annotated[str, Meta(pattern=r"^2\.[1-9](\.\d)?\Z")] = "2.5.1"
    #: MSH-11.
    processing_id: Literal["P", "T", "D"] = "P"
    #: MSH-18 and what Hilum's own messages are written in; what it does not hold is transliterated. What others say is passed on in their
    #: own character set, and in this one if what is set does not fit into theirs.
    character_set: str = "UNICODE UTF-8"
    #: Codes of table 0357 with which an `AE` or `CE` means that it cannot take messages for now, as an `AR` does; such as `207`.
    try_again: tuple[ErrorCode, ...] = ()
    #: A message that is rejected for now (`AR`, `CR`, `try_again`) is put aside after so long, in seconds; 0: never. Meanwhile it is sent
    #: again after growing pauses, and the others wait.
    rejected_for_s: Annotated[float, Meta(ge=0)] = 0.0

    #: Messages go one after the other.
    workers: Annotated[int, Meta(ge=1, le=1)] = 1
    #: Over all processes, too.
    max_associations: Annotated[int, Meta(ge=1, le=1)] = 1

    batch: ClassVar[int] = 32

    def __post_init__(self) -> None:
        try:
            encode("", self.character_set)
        except ValueError as error:
            raise ValueError(f"`character_set`: {error}") from None
        for path, value in self.set.items():
            for each in (path, *outgoing.asked_for(value)):
                parsed_path(each)
        if "delivered" in self.on and not self.delivered_to:
            raise ValueError("`delivered_to` must name destinations, since `on` has `delivered`")

    @property
    def reads(self) -> bool:
        """See `Sink.reads`: there are no objects."""
        return False

    def fits(self, name: str, settings: Settings) -> None:
        """See `Sink.fits`."""
        where = f"destinations.{name}"
        missing = sorted(set(self.delivered_to) - settings.destinations.keys())
        if missing:
            says = f"{where}.delivered_to names {missing[0]!r}, which is no destination."
            raise Misconfigured("destination-unknown", says, fix="Name destinations of the settings.")
        refuse_rules(name, settings)
        if self.template:
            unknown = sorted(outgoing.asked_for(self._template()) - set(outgoing.FACTS))
            if unknown:
                fix = f"Known are: {', '.join(outgoing.FACTS)}."
                raise Misconfigured("template-unknown", f"{where}.template asks for {unknown[0]!r}, which is not known.", fix=fix)

    def _template(self) -> str:
        try:
            return Path(self.template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            says = f"The template {self.template} cannot be read ({type(error).__name__})."
            raise Misconfigured("template-unreadable", says, fix="Put it there, in UTF-8.") from None

    def wants(self, notice: Notice) -> bool:
        """See `hilum.notices.Notified`."""
        if notice.kind not in self.on:
            return False
        if notice.kind == "delivered":
            return notice.facts.get("Destination") in self.delivered_to
        if notice.message is not None:
            said = notice.message
            if self.forward and not outgoing.types_match(self.forward, said.code, said.trigger):
                return False
            return not self.senders or said.sender in self.senders
        return True

    def compose(self, notice: Notice, study: Mapping[str, str]) -> Composed | None:
        """See `hilum.notices.Notified`. None of a message that is too large to be changed."""
        if notice.message is not None:
            return passed_on(notice.message, self.set, self.without, self.character_set)
        return Composed(text=self._own(notice, study))

    def _own(self, notice: Notice, study: Mapping[str, str]) -> str:
        facts = dict.fromkeys(outgoing.FACTS, "") | dict(study) | dict(notice.facts)
        facts |= {"Event": notice.kind, "Now": outgoing.now(), "ControlID": notice.control_id}
        if self.template:
            return outgoing.filled(self._template(), facts)
        header = outgoing.Header(
            (self.sending_application, self.sending_facility),
            (self.receiving_application, self.receiving_facility),
            self.version,
            self.processing_id,
            self.character_set,
        )
        return outgoing.message_of(self.message, header, facts)

    def client(self) -> Client:
        """A connection to the receiver. Raises `Misconfigured` if a file of TLS cannot be used."""
        tls = ClientTls(
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            server_name=self.tls_server_name,
            check_name=self.tls_check_name,
        )
        if self.tls:
            tls.context()
        mllp = MllpClient(
            self.host,
            self.port,
            tls=tls if self.tls else None,
            connect_timeout_s=self.connect_timeout_s,
            timeout_s=self.acknowledgement_timeout_s,
        )
        return Client(mllp)

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        return Messages(
            self.client(),
            Queued(settings.postgres.dsn),
            self.character_set,
            partial(_stored, settings),
            try_again=self.try_again,
            patience_s=self.rejected_for_s,
        )

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: the connection, and with `with_object` a query that any receiver answers somehow and that changes nothing."""
        del settings
        yield from check(self.client(), with_object=with_object)


def _stored(settings: Settings, bucket: str, key: str) -> bytes:
    return open_store(settings).get(bucket, key)
