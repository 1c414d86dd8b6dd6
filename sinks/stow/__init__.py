"""Store instances at a DICOMweb service by STOW-RS (PS3.18 10.5), several in one request, each with an outcome of its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from hilum.client_tls import ClientTls
from hilum.kinds import Seconds, Uid
from hilum.outcomes import meanings
from hilum.profiles import ReasonOutcome, StatusCode
from hilum.rewriting import LossySyntax, lossy_of
from hilum.settings import Settings
from hilum.sink import Expected, Session, Sink, Step
from hilum.store import open_store

from .check import CHECK_WAITS_S, check
from .client import Client, Credentials
from .session import Manner, Requests

Url = Annotated[
    str,
    Meta(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?\Z", description="`http://host:port/path` or `https://host:port/path`"),
]


class Stow(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A DICOMweb service that takes STOW-RS."""

    takes_policy: ClassVar[bool] = True

    #: Base of the service: what comes before `/studies`.
    url: Url
    #: Basic authentication (RFC 7617).
    username: str = ""
    password: str = ""
    #: Bearer token (RFC 6750).
    token: str = ""
    #: File of the bearer token, read again for each request, so that it may be renewed.
    token_file: str = ""
    #: PEM file of the authorities to trust; empty: the system's.
    tls_ca: str = ""
    #: PEM file of the certificate that Hilum shows, if the service asks for one.
    tls_certificate: str = ""
    #: PEM file of its key; empty: in the file of the certificate.
    tls_key: str = ""
    connect_timeout_s: Seconds = 10.0
    #: For the answer to a request, and for the service to take the next piece of one.
    response_timeout_s: Seconds = 120.0
    #: Most instances in one request.
    instances: Annotated[int, Meta(ge=1, le=500)] = 16
    #: Most bytes in one request of several instances; a larger instance has a request of its own.
    max_request_bytes: Annotated[int, Meta(ge=1_000_000, le=10**12)] = 64_000_000
    #: Largest instance that the service takes; a larger one is rejected without being sent. 0: no limit is known.
    max_instance_bytes: Annotated[int, Meta(ge=0, le=10**13)] = 0
    #: Transfer syntaxes that the service takes, where that is known; none named: it is sent all, and asked by that.
    syntaxes: tuple[Uid, ...] = ()
    #: `if-needed`: what the service does not take is written without loss in Explicit VR Little Endian; `never`: it is rejected.
    transcode: Literal["if-needed", "never"] = "if-needed"
    #: Compress images with loss (`jpeg-2000`), under a new SOP instance UID; empty: never. It goes with `lossy_ratio`.
    lossy: LossySyntax = ""
    #: How many times smaller than its pixels an image is to be, from 2 to 100.
    lossy_ratio: float = 0.0
    #: A correction of an object that was sent before: `send` it, if the peer replaces what it has; `person`: it is put aside until
    #: somebody has deleted the first there. For a peer that answers Success and keeps the first.
    corrections: Literal["send", "person"] = "send"
    #: What 409 means where the answer gives the instance no reason: `ask` whether it is there (QIDO-RS), `already-there`, `rejected`.
    conflict: Literal["ask", "already-there", "rejected"] = "ask"
    #: What is known of this service; empty: the standard at its word. Known ones: docs/reference/profiles.md.
    profile: str = ""
    #: What becomes of an instance, by its FailureReason, where that is to be otherwise than the profile says: `"0x0110" = "conflict"`.
    reasons: dict[StatusCode, ReasonOutcome] = {}  # noqa: RUF012  # msgspec copies an empty one

    batch: ClassVar[int] = 64

    def __post_init__(self) -> None:
        if "@" in self.url.split("/")[2]:
            raise ValueError("`url` must not hold a user: set `username` and `password`")
        if bool(self.username) != bool(self.password):
            raise ValueError("`username` and `password` go together")
        if sum(map(bool, (self.username, self.token, self.token_file))) > 1:
            raise ValueError("only one of `username`, `token` and `token_file` may be there")
        if self.url.startswith("http:") and (self.tls_ca or self.tls_certificate or self.tls_key):
            raise ValueError("`url` begins with http:, so no setting of TLS may be there")
        wanted = lossy_of(self.lossy, self.lossy_ratio, transcode=self.transcode != "never")
        if wanted is not None and self.syntaxes and wanted.syntax not in self.syntaxes:
            raise ValueError(f"`syntaxes` does not name {wanted.syntax}, in which `lossy` writes")

    @property
    def grouped(self) -> bool:
        """See `Sink.grouped`: a request is of one study, as PS3.18 10.5 has it."""
        return True

    @property
    def reads(self) -> bool:
        """See `Sink.reads`: requests read for themselves."""
        return False

    def asks_before_replacing(self, settings: Settings) -> bool:
        """See `Sink.asks_before_replacing`."""
        del settings
        return self.corrections == "person"

    def client(self, *, most_s: float = math.inf) -> Client:
        """Connections to the service, which wait no longer than `most_s`. Raises `Misconfigured` if a file of TLS cannot be used."""
        tls = ClientTls(ca=self.tls_ca, certificate=self.tls_certificate, key=self.tls_key)
        credentials = Credentials(username=self.username, password=self.password, token=self.token, token_file=self.token_file)
        return Client(self.url, credentials, tls, min(most_s, self.connect_timeout_s), min(most_s, self.response_timeout_s))

    def holdings(self, settings: Settings, study_instance_uid: str, expected: Collection[Expected]) -> frozenset[str]:
        """See `Sink.holdings`: by QIDO-RS."""
        del settings, expected
        client = self.client()
        try:
            return client.instances_of(study_instance_uid)
        finally:
            client.close()

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        manner = Manner(
            instances=self.instances,
            max_request_bytes=self.max_request_bytes,
            max_instance_bytes=self.max_instance_bytes,
            conflict=self.conflict,
            meanings=meanings(self.profile, own_reasons=self.reasons),
            transcode=self.transcode == "if-needed",
            syntaxes=frozenset(self.syntaxes),
            lossy=lossy_of(self.lossy, self.lossy_ratio, transcode=True),
        )
        return Requests(self.client(), open_store(settings), manner, spool=settings.spool_dir)

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: name, TCP, TLS, the service and whom it admits, a marked test object by STOW-RS."""
        del settings
        yield from check(self.client(most_s=CHECK_WAITS_S), meanings(self.profile).profile, with_object=with_object)
