"""TLS towards peers that Hilum calls, by the same rules as where it listens (`hilum.tls`)."""

from __future__ import annotations

import ssl
from pathlib import Path

from msgspec import Struct

from hilum.errors import Misconfigured

#: TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 4.2); what TLS 1.3 has is all like that.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ClientTls(Struct, frozen=True, kw_only=True):
    """How TLS is spoken to a peer. The files are in PEM, and read for each connection, so that renewing needs no restart."""

    #: What the settings are called, for people.
    section: str
    #: Authorities that are trusted; empty: the system's.
    ca: str = ""
    #: Whether the peer's certificate must name the host that is called.
    check_name: bool = True
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """For one connection. Raises `Misconfigured` if a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise unusable(self.section, "tls_ca", Path(self.ca), error) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.check_hostname = self.check_name
        if self.certificate:
            key = self.key or self.certificate
            try:
                context.load_cert_chain(self.certificate, key, password=no_password)
            except (OSError, ssl.SSLError, ValueError) as error:
                raise unusable(self.section, "tls_certificate and tls_key", Path(key), error) from None
        return context


def unusable(section: str, setting: str, file: Path, error: Exception) -> Misconfigured:
    """What is to be said of a file that `setting` names and that cannot be used."""
    why = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
    return Misconfigured(
        "tls-unusable",
        f"{section}.{setting}: {file} cannot be used ({why}).",
        fix="It must be PEM and readable by Hilum's user; the key must belong to the certificate and have no password.",
    )


def no_password() -> bytes:
    """Instead of asking for the password of a key at the terminal."""
    raise ValueError("the key has a password")
