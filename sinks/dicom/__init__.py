"""Store each instance at a DICOM node by C-STORE (PS3.4 B), one association a study, in the bytes that came if the peer takes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from msgspec import Meta
from msgspec.structs import replace

from hilum.client_tls import ClientTls
from hilum.kinds import AeTitle, Host, OptionalAeTitle, PduBytes, Port, Seconds, refuse_tiny_pdus
from hilum.outcomes import meanings
from hilum.peer import Peer
from hilum.profiles import Outcome, StatusCode, profile
from hilum.rewriting import LossySyntax, lossy_of
from hilum.settings import Settings
from hilum.sink import Expected, Session, Sink, Step
from hilum.transactions import Transactions

from .check import check
from .committed import committed
from .promise import Promises, Terms
from .session import Associations, Manner


class Dicom(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A DICOM node that takes C-STORE."""

    takes_policy: ClassVar[bool] = True

    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    #: The peer's AE title.
    aet: AeTitle
    #: Hilum's AE title towards this peer; empty: `dicom.aet`.
    calling_aet: OptionalAeTitle = ""
    #: `sender`: Hilum calls as the modality called itself from which an object came; `setting`: as `calling_aet` says. What came
    #: otherwise than by C-STORE goes by the setting, and so does all but C-STORE.
    calling_title: Literal["setting", "sender"] = "setting"
    #: `sender`: the peer is called by the title that the modality called; `setting`: by `aet`.
    called_title: Literal["setting", "sender"] = "setting"
    connect_timeout_s: Seconds = 10.0
    #: For the answer to an association request.
    association_timeout_s: Seconds = 30.0
    #: For the answer to a C-STORE, and for the peer to take the next megabyte of one.
    response_timeout_s: Seconds = 60.0
    #: An association stays open for so long after its last object, in seconds.
    idle_s: Annotated[float, Meta(ge=0, le=86_400)] = 5.0
    #: `study`: each study has an association of its own; `none`: whatever comes next shares it.
    group_by: Literal["study", "none"] = "study"
    #: Longest PDU sent, if the peer takes it; 0: as long as the peer takes; less than 4,096 is refused.
    max_pdu_bytes: PduBytes = 0
    #: The AE title by which it is asked what it has (C-FIND), if that is not `aet`.
    query_aet: OptionalAeTitle = ""
    #: The port for that, if it is not `port`.
    query_port: Port = 0
    #: What is known of this product; empty: the standard at its word. Known ones: docs/reference/profiles.md.
    profile: str = ""
    #: What becomes of an object, by the peer's status, where that is to be otherwise than the profile says: `"0xC000" = "retry"`.
    statuses: dict[StatusCode, Outcome] = {}  # noqa: RUF012  # msgspec copies an empty one
    #: What becomes of an object that the peer takes in no presentation context, while it takes others: `person`: it is put aside until
    #: somebody changes something there or here; `permanent`: it is rejected; `retry`: it is tried again.
    refused_contexts: Literal["person", "permanent", "retry"] = "person"
    #: A correction of an object that was sent before: `send` it, if the peer replaces what it has; `person`: it is put aside until
    #: somebody has deleted the first there. For a peer that answers Success and keeps the first.
    corrections: Literal["send", "person"] = "send"
    #: `if-needed`: what the peer does not take in its own transfer syntax is written without loss in one that it takes;
    #: `never`: it is not (`refused_contexts`). What the peer takes as it is goes as it is.
    transcode: Literal["if-needed", "never"] = "if-needed"
    #: Compress images with loss (`jpeg-2000`), under a new SOP instance UID; empty: never. It goes with `lossy_ratio`.
    lossy: LossySyntax = ""
    #: How many times smaller than its pixels an image is to be, from 2 to 100.
    lossy_ratio: float = 0.0
    #: Pad values of odd length, which the standard forbids and at which some peers abort (PS3.5 7.1.1).
    fix_odd_lengths: bool = False
    #: Ask the peer for storage commitment (PS3.4 J): an object counts as delivered once the peer has committed it.
    commit: bool = False
    #: `new`: the peer reports on an association of its own, to a receiver of this spool; `same`: on that of the request.
    commit_report: Literal["new", "same"] = "new"
    #: So long the peer may take to report; then the object is sent, and its commitment asked for, again.
    commit_within_s: Annotated[float, Meta(gt=0, le=604_800)] = 3600.0
    #: How `hilum reconcile --verify` asks what the peer has: `query` by C-FIND, `commitment` by storage commitment, for a peer that
    #: answers no queries.
    verify_by: Literal["query", "commitment"] = "query"
    #: Speak TLS (PS3.15 B.12).
    tls: bool = False
    #: PEM file of the authorities to trust; empty: the system's.
    tls_ca: str = ""
    #: PEM file of the certificate that Hilum shows, if the peer asks for one.
    tls_certificate: str = ""
    #: PEM file of its key; empty: in the file of the certificate.
    tls_key: str = ""
    #: The name in the peer's certificate; empty: `host`.
    tls_server_name: str = ""
    #: Whether the peer's certificate must name it at all. Certificates of devices often do not.
    tls_check_name: bool = True

    def __post_init__(self) -> None:
        refuse_tiny_pdus(self.max_pdu_bytes)
        lossy_of(self.lossy, self.lossy_ratio, transcode=self.transcode != "never")
        if self.policy and self.calling_title == "sender":
            raise ValueError("`policy` is set, so `calling_title` cannot be `sender`: it would tell of which device the objects are")
        if not self.tls and (self.tls_ca or self.tls_certificate or self.tls_key or self.tls_server_name):
            raise ValueError("`tls` is false, so no other setting of TLS may be there")

    @property
    def grouped(self) -> bool:
        """See `Sink.grouped`."""
        return self.group_by == "study"

    def titled_in(self, settings: Settings) -> bool:
        """See `Sink.titled_in`."""
        del settings
        return "sender" in (self.calling_title, self.called_title)

    def asks_before_replacing(self, settings: Settings) -> bool:
        """See `Sink.asks_before_replacing`."""
        del settings
        return self.corrections == "person"

    def peer(self, settings: Settings) -> Peer:
        """The node, as `hilum.association` wants it."""
        tls = ClientTls(
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            server_name=self.tls_server_name,
            check_name=self.tls_check_name,
        )
        return Peer(
            host=self.host,
            port=self.port,
            aet=self.aet,
            calling_aet=self.calling_aet or settings.dicom.aet,
            connect_timeout_s=self.connect_timeout_s,
            association_timeout_s=self.association_timeout_s,
            response_timeout_s=self.response_timeout_s,
            max_pdu_bytes=self.max_pdu_bytes,
            tls=tls if self.tls else None,
        )

    def query_peer(self, settings: Settings) -> Peer:
        """The node that answers queries about what it stored: the same, unless a title of its own is set for them."""
        return replace(self.peer(settings), aet=self.query_aet or self.aet, port=self.query_port or self.port)

    def holdings(self, settings: Settings, study_instance_uid: str, expected: Collection[Expected]) -> frozenset[str]:
        """See `Sink.holdings`: by C-FIND, or by storage commitment asked for anew."""
        if self.verify_by == "commitment":
            return committed(self.peer(settings), Transactions.of(settings), self._terms, expected)
        from hilum.find import instances_of  # brings all of pynetdicom, which nothing else here needs

        return instances_of(self.query_peer(settings), study_instance_uid, {each.series_instance_uid for each in expected})

    @property
    def _terms(self) -> Terms:
        return Terms(within_s=self.commit_within_s, same_association_s=self.response_timeout_s if self.commit_report == "same" else 0.0)

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        peer = self.peer(settings)
        if peer.tls is not None:
            peer.tls.context()  # raises if a file cannot be used
        manner = Manner(
            by_study=self.grouped,
            idle_s=self.idle_s,
            transcode=self.transcode == "if-needed",
            fix_odd_lengths=self.fix_odd_lengths,
            meanings=meanings(self.profile, self.statuses),
            refused_contexts=self.refused_contexts,
            lossy=lossy_of(self.lossy, self.lossy_ratio, transcode=True),
            calling_of_sender=self.calling_title == "sender",
            called_of_sender=self.called_title == "sender",
        )
        if not self.commit:
            return Associations(peer, manner)
        transactions = Transactions.of(settings)
        transactions.forget_old(datetime.now(UTC))
        return Associations(peer, manner, Promises(peer, transactions, self._terms))

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: name, TCP, TLS, association, presentation contexts, C-ECHO, a marked test object by C-STORE.

        With `postgres.dsn` it also asks about the kinds of objects that the index holds. A person waits for it, so no answer is
        waited for longer than `CHECK_WAITS_S`.
        """
        yield from check(
            self.peer(settings),
            settings,
            transcode=self.transcode == "if-needed",
            with_object=with_object,
            profile=profile(self.profile) if self.profile else None,
            meanings=meanings(self.profile, self.statuses),
            query_aet=self.query_aet,
            lossy=lossy_of(self.lossy, self.lossy_ratio, transcode=True),
        )
