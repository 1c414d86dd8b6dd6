"""The tables of the settings file, each with its keys, their bounds and what they mean. `hilum.settings` reads them."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from hilum.kinds import AeTitle, BareAeTitle, Bucket, Endpoint, Host, OptionalAeTitle, PduBytes, Port, Seconds, Uid, refuse_tiny_pdus

#: What an order may set right in an object; `hilum.dicom.edits` knows how each is written.
Coercible = Literal[
    "AccessionNumber",
    "AdmissionID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "RequestedProcedureDescription",
    "RequestingService",
    "StudyDescription",
]
#: With less a sender waits longer for its answer than most are willing to.
LEAST_OBJECTS_PER_S = 0.1


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Site(Section, frozen=True, kw_only=True):
    """Who this Hilum is."""

    #: Name in event sources and metrics.
    name: Annotated[
        str, Meta(max_length=63, pattern=r"^[a-z0-9]+(-+[a-z0-9]+)*\Z", description="lower case letters, digits and hyphens, 63 at most")
    ] = "hilum"


class Dicom(Section, frozen=True, kw_only=True):
    """The DICOM listener."""

    aet: AeTitle = "HILUM"
    host: Host = "127.0.0.1"
    #: 0 picks a free port and keeps it.
    port: Port = 11112
    #: Whether a peer may call Hilum by any AE title; otherwise only by `aet` and those in `titles` (PS3.8 9.3.4).
    any_called_aet: bool = True
    #: What is different for peers that call Hilum by this AE title.
    titles: dict[BareAeTitle, Title] = field(default_factory=dict)
    #: Whether a calling AE title that is not in `senders` and was not allowed by `hilum sender allow` is served.
    unknown_senders: Literal["accept", "refuse"] = "accept"
    #: Port on which TLS is spoken (2762 is registered for it); 0: none. It needs the certificate and its key.
    tls_port: Port = 0
    #: PEM file of the listener's certificate, with its chain.
    tls_certificate: str = ""
    #: PEM file of its private key.
    tls_key: str = ""
    #: PEM file of the authorities whose certificates peers must show; empty: they need none.
    tls_client_ca: str = ""
    #: Whether several processes may listen on the port; the system spreads associations over them (`SO_REUSEPORT`).
    reuse_port: bool = False
    #: Largest PDU that Hilum offers to receive, in bytes (PS3.8 D.1); 0 means no limit, and less than 4,096 is refused.
    max_pdu_bytes: PduBytes = 131_072
    #: UIDs of transfer syntaxes that Hilum chooses, in this order, where a sender offers them; else the sender's own first choice.
    transfer_syntaxes: tuple[Uid, ...] = ()
    #: Associations open at once in each process; one more is rejected as transient (PS3.8 9.3.4).
    max_associations: Annotated[int, Meta(ge=1, le=10_000)] = 100
    #: Seconds without a byte from the peer, or in which a message brings neither its end nor 16 KB, before an association is aborted.
    idle_timeout_s: Seconds = 60.0
    #: Largest object accepted, in bytes of data set; larger ones get 0xA700. A title or a sender may have a narrower limit.
    max_object_bytes: Annotated[int, Meta(ge=1)] = 16 * 2**30

    def __post_init__(self) -> None:
        refuse_tiny_pdus(self.max_pdu_bytes)
        if self.tls_port and self.tls_port == self.port:
            raise ValueError("`tls_port` and `port` must be two ports")


class Title(Section, frozen=True, kw_only=True):
    """What is different for peers that call Hilum by one AE title."""

    #: Whether senders that are not known are served; empty: as `dicom.unknown_senders` says.
    unknown_senders: Literal["", "accept", "refuse"] = ""
    #: Largest object accepted under this title, in bytes of data set, if that is narrower than `dicom.max_object_bytes`; 0: as that says.
    max_object_bytes: Annotated[int, Meta(ge=0)] = 0


class Stow(Section, frozen=True, kw_only=True):
    """The DICOMweb listener (STOW-RS), where the role `stow` runs."""

    #: Where other machines can reach it, clients need keys (`clients`), certificates (`tls_client_ca`), or `anonymous`.
    host: Host = "127.0.0.1"
    #: 0 picks a free port and keeps it.
    port: Port = 8104
    #: Path of the service: instances are sent to `<base>/studies`.
    base: Annotated[str, Meta(pattern="^[A-Za-z0-9._~/-]*$")] = "/dicom-web"
    #: PEM file with the server's certificate and those that lead to its authority. Empty: no TLS.
    tls_certificate: str = ""
    #: PEM file with the private key of the certificate.
    tls_key: str = ""
    #: PEM file with the authorities of client certificates: who has none of theirs is not let in. Empty: none is asked for.
    tls_client_ca: str = ""
    #: File with the clients and the digests of their keys, for its owner only; `hilum stow key` makes it. Until then there is none.
    clients: str = ""
    #: Whether requests without a key are taken, also from other machines.
    anonymous: bool = False
    #: Requests that are answered at once; one more gets 503.
    max_requests: Annotated[int, Meta(ge=1)] = 32
    #: Largest request, in bytes; larger ones get 413.
    max_request_bytes: Annotated[int, Meta(ge=1)] = 64 * 2**30
    #: Largest object, in bytes of data set; for larger ones the failure reason is 0xA700.
    max_object_bytes: Annotated[int, Meta(ge=1)] = 16 * 2**30
    #: Parts of a request; more get 413.
    max_parts: Annotated[int, Meta(ge=1)] = 20_000
    #: DICOM JSON in a request, in bytes; more gets 413. It is held in memory.
    max_json_bytes: Annotated[int, Meta(ge=1024)] = 8 * 2**20
    #: Header of a request and of a part, in bytes.
    max_header_bytes: Annotated[int, Meta(ge=1024)] = 16 * 2**10
    #: Seconds without a word from the client after which a request gets 408.
    idle_timeout_s: Seconds = 60.0


class Spool(Section, frozen=True, kw_only=True):
    """Where received objects are kept until the object store and Kafka have them."""

    #: Empty: `spool` in the data directory.
    path: str = ""
    #: Below this much free space new objects are refused with 0xA700, before the disk is full.
    min_free_bytes: Annotated[int, Meta(ge=0)] = 512 * 2**20
    #: So much, or a sixteenth of the disk if that is less, is kept in files that are written again and again, which is faster than
    #: making new ones; made when a receiver starts.
    spare_bytes: Annotated[int, Meta(ge=0, le=2**40)] = 256 * 2**20


class Kafka(Section, frozen=True, kw_only=True):
    """The broker. With `bootstrap` empty, `hilum up` runs Apache Kafka itself."""

    bootstrap: str = ""
    #: Put before the name of every topic, consumer group and transactional id, on a cluster that others use too; e.g. `north.`.
    prefix: Annotated[
        str, Meta(max_length=100, pattern=r"^[A-Za-z0-9._-]*\Z", description="letters, digits, dots, hyphens and underscores, 100 at most")
    ] = ""
    #: Port of the embedded broker; 0 picks a free one and keeps it.
    port: Port = 0
    #: Partitions of each event topic; 0 means 4 on a cluster of one broker, 12 on a larger one.
    partitions: Annotated[int, Meta(ge=0, le=10_000)] = 0
    #: Copies of each partition; 0 means one on each broker, three at most.
    replication: Annotated[int, Meta(ge=0, le=100)] = 0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = ""
    ssl_ca_location: str = ""
    ssl_certificate_location: str = ""
    ssl_key_location: str = ""


class Postgres(Section, frozen=True, kw_only=True):
    """The database. With `dsn` empty, `hilum up` runs PostgreSQL itself."""

    dsn: Annotated[
        str,
        Meta(pattern=r"^(postgres(ql)?://\S+|[^\n]*=[^\n]*)?\Z", description="`postgresql://user:password@host:port/database`, or empty"),
    ] = ""
    #: Port of the embedded server; 0 picks a free one and keeps it.
    port: Port = 0


class S3(Section, frozen=True, kw_only=True):
    """The object store. With `endpoint` empty, `hilum up` runs SeaweedFS itself."""

    endpoint: Endpoint = ""
    #: Port of the embedded store; 0 picks a free one and keeps it.
    port: Port = 0
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    #: Bucket of the originals.
    bucket: Bucket = "hilum-originals"
    #: PEM file of the authorities to trust; empty: the system's.
    ca_file: str = ""
    #: Directory of a store that runs on this machine alone: its disk is synced before an object counts as durable. `hilum up`
    #: fills it in; empty: the store's answer is enough, as it is for one that keeps copies.
    sync_path: str = ""
    #: Absolute path of a folder in which the originals are files, the same for all roles that read or write them; empty: they are in the
    #: store. What is in the store already stays there, and is found.
    folder: Annotated[str, Meta(pattern=r"^(/[^\n]*)?\Z", description="an absolute path, or empty")] = ""

    @property
    def synced(self) -> str:
        """Directory whose disk is synced before an original counts as durable; empty: none, the store's answer is enough."""
        return self.folder or self.sync_path


class Probe(Section, frozen=True, kw_only=True):
    """Where a process of Hilum answers `/health` (JSON) and `/metrics` (Prometheus)."""

    host: Host = "127.0.0.1"
    #: 0 picks a free one; `hilum status` shows it.
    port: Port = 0


class Log(Section, frozen=True, kw_only=True):
    """What is logged: JSON lines on stderr, without patient data."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Roles(Section, frozen=True, kw_only=True):
    """Which roles run together in one process under `hilum up`: each entry is one process, roles joined by commas."""

    processes: tuple[str, ...] = (
        "dicom",
        "hl7",
        "publish",
        "validate,route,ledger,index",
        "orders,match,notices,grammar",
        "deliver,commitment,query,expire,worklist",
    )
    #: A process that has answered nothing for so many seconds, ready or not, is ended by `hilum up` and started again; 0: never.
    silent_s: Annotated[float, Meta(ge=0)] = 120.0


class Called(Section, frozen=True, kw_only=True):
    """Where a peer listens that Hilum calls, and how TLS is spoken to it."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    #: Whether Hilum speaks TLS to this port.
    tls: bool = False
    #: PEM file of the authorities that the peer's certificate must come from; empty: the system's.
    tls_ca: str = ""
    #: Whether the peer's certificate must name `host` (or `tls_server_name`), too. Certificates of devices often do not.
    tls_check_name: bool = True
    #: The name in the peer's certificate; empty: `host`.
    tls_server_name: str = ""
    #: PEM file of the certificate that Hilum shows to the peer, if it asks for one.
    tls_certificate: str = ""
    #: PEM file of its private key; empty: it is in the file of the certificate.
    tls_key: str = ""


class Node(Called, frozen=True, kw_only=True):
    """Where a peer listens, by the AE title with which it calls: storage commitment is reported there."""

    #: Where this peer wants its reports; empty: as `commitment.report` says.
    report: Literal["", "same-or-new", "new"] = ""


class Query(Called, frozen=True, kw_only=True):
    """Where a sender may be asked, by C-FIND, how many instances a study has, so that it is known when all are here."""

    #: Its AE title there; empty: that with which it sends.
    aet: OptionalAeTitle = ""
    #: Hilum's AE title towards it; empty: `dicom.aet`.
    calling_aet: OptionalAeTitle = ""
    #: Whether it is asked: to leave it alone for a while, without taking its address out.
    allowed: bool = True
    #: Seconds without anything new for a study after which it is asked.
    after_s: Annotated[float, Meta(gt=0, le=86_400)] = 15.0
    #: Seconds that its whole answer may take.
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 20.0


class Completeness(Section, frozen=True, kw_only=True):
    """When a study counts as complete. What comes later makes a further revision of it."""

    #: Seconds without anything new for the study, by the time at which objects came in.
    idle_s: Annotated[float, Meta(gt=0, le=604_800)] = 60.0
    #: By modality, such as `MR = 300`: seconds without anything new for a series of it, as long as which the study stays open.
    modalities: dict[str, Annotated[float, Meta(gt=0, le=604_800)]] = field(default_factory=dict)
    #: Seconds after its first object at which it is complete, whatever still comes or is missing.
    maximum_s: Annotated[float, Meta(gt=0, le=2_592_000)] = 14_400.0
    #: Who is believed to name all objects of a study, which is complete once they are here; whoever else names some only keeps it
    #: open for them. Many senders ask for storage commitment series by series.
    lists: tuple[Literal["manifest", "mpps", "query", "storage-commitment"], ...] = ("manifest", "mpps", "query")
    #: Seconds after the last of the objects that such a list names has come.
    expected_s: Annotated[float, Meta(ge=0, le=604_800)] = 5.0


class Studies(Section, frozen=True, kw_only=True):
    """What becomes of objects that do not fit their study. `note` lets them pass with a finding."""

    #: PatientID or its issuer differ from those of the study's first object.
    other_patient: Literal["quarantine", "note"] = "quarantine"
    #: Date, accession number or other attributes of the study differ.
    differs: Literal["quarantine", "note"] = "note"


class Sender(Section, frozen=True, kw_only=True):
    """What is different for one sender, by its calling AE title."""

    #: Networks from which it may call, such as `192.0.2.0/24`; empty: any.
    addresses: tuple[str, ...] = ()
    #: AE titles by which it may call Hilum; empty: any.
    called: tuple[BareAeTitle, ...] = ()
    #: Objects a second, over all its associations with a receiver; faster ones are answered later. 0: as fast as it can; else at
    #: least 0.1, since senders do not wait for ever for an answer.
    max_objects_per_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Largest object accepted from it, in bytes of data set, if that is narrower than the title's and `dicom.max_object_bytes`; 0: as
    #: these say.
    max_object_bytes: Annotated[int, Meta(ge=0)] = 0
    #: Codes of findings that send this sender's objects to quarantine.
    refuse: tuple[str, ...] = ()
    #: An object that came before, with the same pixels and another header: `take` it in the place of the first, or `ignore` it.
    corrections: Literal["quarantine", "take", "ignore"] = "quarantine"
    #: Attributes that the objects of a study have from its order at a destination, such as `PatientName`; the stored object stays as it
    #: came. See [orders](../operations/orders.md).
    coerce: tuple[Coercible, ...] = ()
    #: Destinations that this sender is, besides those with its AE title: what they got and send back is `returned`.
    returns: tuple[str, ...] = ()
    #: Whose patient identifiers and accession numbers are in its images that do not say; empty: as `orders` says.
    issuer_of_patient_id: str = ""
    issuer_of_accession_number: str = ""
    #: When studies are complete that this sender begins; empty: as `completeness` says.
    completeness: Completeness | None = None
    #: Where it is asked how many instances a study has; empty: it is not asked.
    query: Query | None = None

    def __post_init__(self) -> None:
        if 0 < self.max_objects_per_s < LEAST_OBJECTS_PER_S:
            raise ValueError(f"`max_objects_per_s` must be 0 or at least {LEAST_OBJECTS_PER_S}")


class Commitment(Section, frozen=True, kw_only=True):
    """Storage commitment: Hilum answers for what it has, object by object (PS3.4 J)."""

    #: Seconds from the request within which the objects may still arrive; after that they are reported as not here (0112H).
    wait_s: Annotated[float, Meta(ge=0)] = 600.0
    #: Where the report goes: on the request's association while that is open and idle, else on a new one; or on a new one always.
    report: Literal["same-or-new", "new"] = "same-or-new"
    #: Days for which a report is tried again while its SCU cannot be reached.
    retry_days: Annotated[float, Meta(ge=0)] = 7.0
    #: Days for which a request is remembered after its end; its transaction UID is in use for as long.
    keep_days: Annotated[float, Meta(ge=0)] = 30.0


Days = Annotated[int, Meta(ge=0, le=36_500)]


class Retention(Section, frozen=True, kw_only=True):
    """After how many days originals expire that destinations have and that no rule archives in place. 0: never.

    Nothing expires while anything may still need it, whatever is set here: see [what is kept](../operations/storage.md).
    """

    #: From the last of an original's deliveries being settled on.
    originals_days: Days = 0
    #: The same by modality, such as `MR = 90`, in place of `originals_days`.
    modalities: dict[str, Days] = field(default_factory=dict)
    #: The same by the sender's AE title. Where modality and sender both have a term, the longer one holds.
    senders: dict[BareAeTitle, Days] = field(default_factory=dict)
    #: Objects that came in another form of one that was here: another encoding, or sent back by a destination; from their decision on.
    repeats_days: Days = 0
    #: What was promised to its sender by storage commitment is kept for ever; or expires as other objects do, where destinations
    #: have taken over the promise.
    promised: Literal["keep", "as-others"] = "keep"

    @property
    def anything(self) -> bool:
        """Whether anything ever expires."""
        return any((self.originals_days, self.repeats_days, *self.modalities.values(), *self.senders.values()))

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that change whenever a term does."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:12]


class Folder(Section, frozen=True, kw_only=True):
    """A folder that the role `folder` watches: DICOM files and ZIP archives that are put there, also in folders within, are taken in."""

    #: Absolute. The folder must be there: a share that is not mounted is noticed.
    path: str
    #: Who counts as the sender of what is found, as an AE title.
    sender: OptionalAeTitle = ""
    #: Seconds for which a file must not have changed before it is read; longer than its writer ever pauses. 0 where files are
    #: only ever renamed into the folder.
    stable_s: Annotated[float, Meta(ge=0)] = 10.0
    #: What becomes of a file whose objects are safe. `keep` changes nothing in the folder, and remembers what was taken.
    after: Literal["keep", "move", "delete"] = "keep"
    #: Where files go that were taken, with `move`; on the same file system. Empty: `done` in the folder.
    done: str = ""
    #: Where files go that cannot be taken, each with a text beside it that says why; not with `keep`. Empty: `failed` in the folder.
    failed: str = ""
