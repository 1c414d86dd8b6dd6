"""TLS for what listens: BCP 195 (RFC 9325), as the DICOM profiles ask for it (PS3.15 B.12), and when certificates expire."""

from __future__ import annotations

import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from hilum.client_tls import CIPHERS, no_password
from hilum.errors import Misconfigured

#: So long before its end a certificate's expiry is told.
WARN_DAYS = 30


class ServerTls:
    """What a listener needs to speak TLS. The certificate is read again when its file has changed, so that renewing needs no restart.

    Raises `Misconfigured` if certificate, key or authorities cannot be used.
    """

    def __init__(self, section: str, certificate: str, key: str = "", client_ca: str = "") -> None:
        """Files in PEM, as the settings' `section` names them; without `key` it is in the file of the certificate.

        With `client_ca` a peer must show a certificate that one of these authorities has signed.
        """
        if not certificate:
            raise Misconfigured(
                "tls-certificate",
                f"{section}.tls_certificate is missing: there is no TLS without it.",
                fix=f"Set {section}.tls_certificate.",
            )
        self._certificate, self._key, self._section = Path(certificate), Path(key or certificate), section
        self._lock = threading.Lock()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_ciphers(CIPHERS)
        self._context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        if client_ca:
            try:
                self._context.load_verify_locations(client_ca)
            except (OSError, ssl.SSLError) as error:
                raise self._unusable("tls_client_ca", Path(client_ca), error) from None
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._seen = self._change()
        self._load()

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connections: always the same one, with the certificate that is there now.

        A renewed certificate that cannot be used leaves the one before it.
        """
        with self._lock:
            try:
                seen = self._change()
                if seen != self._seen:
                    self._seen = seen
                    self._load()
            except Misconfigured:
                pass  # half written, or the key does not come with it yet
        return self._context

    @property
    def expires_at(self) -> datetime:
        """When the certificate ends. Raises `Misconfigured` if its file is gone."""
        try:
            return x509.load_pem_x509_certificate(self._certificate.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            raise self._unusable("tls_certificate", self._certificate, error) from None

    def warning(self, now: datetime | None = None) -> str:
        """A sentence if the certificate has expired, will soon, or cannot be read; else empty."""
        try:
            ends = self.expires_at
        except Misconfigured as error:
            return str(error)
        days = (ends - (now or datetime.now(UTC))).days
        if days < 0:
            return f"The TLS certificate expired on {ends:%Y-%m-%d}: peers that check it do not connect."
        return f"The TLS certificate expires on {ends:%Y-%m-%d}, in {days} days." if days < WARN_DAYS else ""

    def _change(self) -> tuple[int, int]:
        return self._changed_at("tls_certificate", self._certificate), self._changed_at("tls_key", self._key)

    def _changed_at(self, setting: str, file: Path) -> int:
        try:
            return file.stat().st_mtime_ns
        except OSError as error:
            raise self._unusable(setting, file, error) from None

    def _load(self) -> None:
        _ = self.expires_at  # the certificate by itself: else OpenSSL does not say which of the two files it cannot use
        try:
            self._context.load_cert_chain(self._certificate, self._key, password=no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise self._unusable("tls_key", self._key, error) from None

    def _unusable(self, setting: str, file: Path, error: Exception) -> Misconfigured:
        reason = str(getattr(error, "reason", "") or "")
        if setting == "tls_key" and self._key == self._certificate:
            why = f"{self._section}.tls_key is not set, and there is no key beside the certificate"
        elif reason == "KEY_VALUES_MISMATCH":
            why = "it is not the key of the certificate"
        elif isinstance(error, ssl.SSLError) or (isinstance(error, ValueError) and setting == "tls_certificate"):
            why = reason.replace("_", " ").lower() or "it is not PEM"
        else:
            why = getattr(error, "strerror", "") or str(error) or type(error).__name__
        return Misconfigured(
            "tls-unusable",
            f"{self._section}.{setting}: {file} cannot be used ({why}).",
            fix="It must be PEM and readable by Hilum's user; the key must belong to the certificate and have no password.",
        )


def subject_of(certificate: bytes) -> str:
    """Whom a certificate in DER names, as RFC 4514 writes it; at most 256 characters, empty without one."""
    return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()[:256] if certificate else ""
