"""TLS of the web service, as BCP 195 (RFC 9325) has it: 1.2 or newer, forward secrecy, authenticated encryption."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from hilum.errors import Misconfigured
from hilum.settings import Stow

#: For TLS 1.2 (RFC 9325 4.2); the suites of TLS 1.3 are all good.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(settings: Stow) -> ssl.SSLContext | None:
    """The context of the settings, None if they ask for none. Raises `Misconfigured`."""
    if not settings.certificate:
        if settings.client_ca or settings.private_key:
            raise Misconfigured("tls-certificate", "stow.certificate is missing: there is no TLS without it.", fix="Set stow.certificate.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(settings.certificate, settings.private_key or None)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            "tls-certificate",
            f"{settings.certificate} and its key cannot be used for TLS: {_words(error)}.",
            fix="Set stow.certificate and stow.private_key to PEM files that belong together.",
        ) from None
    if settings.client_ca:
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                "tls-client-ca", f"{settings.client_ca} cannot be used: {_words(error)}.", fix="Set stow.client_ca to a PEM file."
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def expires_at(certificate: str) -> datetime | None:
    """When the certificate in the PEM file ends; None if there is no such file. Raises `Misconfigured`."""
    if not certificate:
        return None
    try:
        return x509.load_pem_x509_certificate(Path(certificate).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        raise Misconfigured(
            "tls-certificate", f"{certificate} is no certificate that can be read.", fix="Set stow.certificate to a PEM file."
        ) from None


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM file").replace("_", " ").lower()
    return error.strerror or type(error).__name__
