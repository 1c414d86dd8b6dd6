"""A certificate by which the inner servers of one service know each other, and nobody else."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from pathlib import Path

from hilum.services.files import write_atomically

NEVER_ENDS = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001 - RFC 5280 4.1.2.5: "no well-defined expiration date"; always UTC
LONG_SINCE = datetime(2000, 1, 1)  # noqa: DTZ001 - a machine's clock may be wrong when it starts


def make_certificate(path: Path, host: str) -> None:
    """Write a new key and its certificate into `path` (PEM, mode 0600).

    It is its own authority, for server and client alike: who trusts `path` alone trusts only who can read `path`.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hilum")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_SINCE)
        .not_valid_after(NEVER_ENDS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomically(path, (private + certificate.public_bytes(pem)).decode())
