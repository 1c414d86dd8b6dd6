"""The tables `deid` and `feed` of the settings file: what de-identification needs besides the policies, and who reads research feeds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from hilum.errors import Misconfigured
from hilum.sections import Section

_Days = Annotated[int, Meta(ge=-36_500, le=36_500)]


class Deid(Section, frozen=True, kw_only=True):
    """De-identification: see [de-identification](../operations/deidentification.md)."""

    #: The file with the key of pseudonyms, absolute, which its owner alone may read (mode 0600). Every machine that delivers has the same.
    key_path: str = ""
    #: The key that must be used, 12 hexadecimal digits; empty: the one in force in `key_path`.
    key_id: str = ""
    #: The file with the key of the way back, for policies with `reverse = true`: another key, kept as the first one is.
    reverse_key_path: str = ""
    #: The folder with the site's own policies, `NAME.toml`; they win over shipped ones. What `hilum apply` publishes comes from the folder
    #: `policies` beside its files.
    policies: str = "config/policies"
    #: Who assigned a PatientID that does not say.
    default_issuer: str = ""
    #: Other names of those who assign identifiers, and the one that counts: `"1.2.3.4" = "NORTH"`.
    same_issuers: dict[str, str] = field(default_factory=dict)
    #: How many days the dates of a patient may move at least and at most, where a policy moves them; before zero is earlier.
    earliest_days: _Days = -3650
    latest_days: _Days = -1
    #: The program that takes faces out of head volumes where a policy says `deface`, a list with `{input}` and `{output}`; never a shell.
    defacer: tuple[str, ...] = ()
    #: How long it may take for one object, in seconds.
    defacer_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides pseudonyms and dates beside policy and key: objects that leave by others fit nothing that left before."""
        return {
            "earliest_days": self.earliest_days,
            "latest_days": self.latest_days,
            "default_issuer": self.default_issuer,
            "same_issuers": dict(self.same_issuers),
        }

    @property
    def settings_id(self) -> str:
        """12 hexadecimal digits of `deciding`."""
        return hashlib.sha256(msgspec.json.encode(self.deciding, order="deterministic")).hexdigest()[:12]

    @property
    def key_file(self) -> Path | None:
        """The file with the key; None if none is named."""
        return Path(self.key_path).expanduser() if self.key_path else None

    @property
    def reverse_key_file(self) -> Path | None:
        """The file with the key of the way back; None if none is named."""
        return Path(self.reverse_key_path).expanduser() if self.reverse_key_path else None

    @property
    def folder(self) -> Path:
        """The folder with the site's policies."""
        return Path(self.policies).expanduser()


_OwnPort = Annotated[int, Meta(ge=1, le=65_535)]


class Feed(Section, frozen=True, kw_only=True):
    """Research feeds, read from other machines: see [the research feed](../operations/research-feed.md#from-another-machine).

    Only where the store or the broker runs here, which are on the loopback interface otherwise.
    """

    #: The address on which readers are answered, by TLS alone; empty: on this machine alone.
    host: str = ""
    #: The name under which readers reach it, as the certificate has it; empty: `host`.
    name: str = ""
    #: The port for the broker.
    kafka_port: _OwnPort = 9093
    #: The port for the store.
    s3_port: _OwnPort = 8443
    #: PEM file with the server's certificate and those that lead to its authority.
    tls_certificate: str = ""
    #: PEM file with its private key; empty: it is in the file of the certificate.
    tls_key: str = ""
    #: So many failed logins from one address within a minute, and nobody from there is answered for `refused_s`; 0: no limit.
    failed_logins: Annotated[int, Meta(ge=0, le=1_000_000)] = 20
    #: How long that lasts, in seconds.
    refused_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0

    def reached_as(self) -> str:
        """The name or address under which readers reach it. Raises `Misconfigured` if that is every address."""
        name = self.name or self.host
        if name in ("0.0.0.0", "::"):  # noqa: S104  # it is refused
            raise Misconfigured(
                "feed-name", f"feed.host is {self.host}, which is no address to reach.", fix="Set feed.name to the name in its certificate."
            )
        return f"[{name}]" if ":" in name else name
