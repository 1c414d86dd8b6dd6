"""The table `[hl7]` of the settings file. `hilum.settings` reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from hilum.kinds import Host, Port, Seconds, TimeZone
from hilum.sections import Section

Validation = Literal["lenient", "strict", "off"]


class Hl7Sender(Section, frozen=True, kw_only=True):
    """What is different for one sender of HL7 messages. The first whose `addresses`, `applications` and `facilities` all fit is meant."""

    #: Networks from which it sends, such as `192.0.2.0/24`; empty: any.
    addresses: tuple[str, ...] = ()
    #: What it says in MSH-3.1; empty: anything.
    applications: tuple[str, ...] = ()
    #: What it says in MSH-4.1; empty: anything.
    facilities: tuple[str, ...] = ()
    #: Character set of its messages where MSH-18 is empty, by table 0211, such as `8859/1`; empty: as `hl7.character_set` says.
    character_set: str = ""
    #: How its messages are held against the grammar; empty: as `hl7.validation` says.
    validation: Literal["", "lenient", "strict", "off"] = ""
    #: Processing ids (MSH-11.1) that are taken; `AR` with code 202 for others. Empty: any.
    processing_ids: tuple[str, ...] = ()
    #: Whether an application acknowledgement follows the accept acknowledgement on the connection, where MSH-16 asks for one.
    application_acknowledgement: bool = True
    #: Where its messages have what; see [orders](../operations/orders.md). `hilum hl7 map` shows what a message becomes.
    profile: str = "hl7"
    #: Whose patient identifiers, accession numbers, and placer and filler order numbers are that do not say.
    issuer_of_patient_id: str = ""
    issuer_of_accession_number: str = ""
    issuer_of_orders: str = ""
    #: Of its times without an offset, such as `Europe/Vienna`; empty: as `orders.time_zone` says.
    time_zone: TimeZone = ""


class Hl7(Section, frozen=True, kw_only=True):
    """The listener for HL7 v2 messages over MLLP, where the role `hl7` runs."""

    host: Host = "127.0.0.1"
    #: 0 picks a free port and keeps it.
    port: Port = 2575
    #: Whether messages are taken without TLS, on `port`. If not, `tls_port` is needed.
    without_tls: bool = True
    #: Port on which TLS is spoken; 0: none. It needs the certificate and its key.
    tls_port: Port = 0
    #: PEM file of the listener's certificate, with its chain.
    tls_certificate: str = ""
    #: PEM file of its private key.
    tls_key: str = ""
    #: PEM file of the authorities whose certificates peers must show; empty: they need none.
    tls_client_ca: str = ""
    #: MSH-3 and MSH-4 of acknowledgements whose message names no receiver, and of messages that Hilum sends.
    application: str = "HILUM"
    facility: str = ""
    #: Whether messages are taken that none of `senders` fits.
    unknown_senders: Literal["accept", "refuse"] = "accept"
    #: By names of your choice.
    senders: dict[str, Hl7Sender] = field(default_factory=dict)
    #: Character set of messages whose MSH-18 is empty, by table 0211, such as `8859/1`; empty: what they look like.
    character_set: str = ""
    #: `strict` refuses what the grammar of its version does not allow before it is acknowledged; `lenient` tells it afterwards.
    validation: Validation = "lenient"
    #: Processes that validate for `strict` senders, each about 100 messages a second.
    validators: Annotated[int, Meta(ge=1, le=64)] = 1
    #: Connections open at once; one more is closed at once.
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 200
    #: Largest message, in bytes; larger ones are refused with `AE`.
    max_message_bytes: Annotated[int, Meta(ge=4096, le=2**30)] = 32 * 2**20
    #: Messages of a connection that may wait for their acknowledgement before more is read.
    max_pipelined: Annotated[int, Meta(ge=1, le=100_000)] = 256
    #: Seconds without a byte within a message, after which its connection is closed. Between messages it may be idle for ever.
    idle_timeout_s: Seconds = 60.0
    #: Seconds in which a message must have come as a whole.
    message_timeout_s: Seconds = 600.0
    #: So many bytes of published messages are kept in the journal, by which repeats are recognised.
    history_bytes: Annotated[int, Meta(ge=2**20, le=2**40)] = 64 * 2**20

    def __post_init__(self) -> None:
        if self.tls_port and self.tls_port == self.port and self.without_tls:
            raise ValueError("`tls_port` and `port` must be two ports")
        if not self.without_tls and not self.tls_port:
            raise ValueError("`tls_port` is needed where `without_tls` is false")
