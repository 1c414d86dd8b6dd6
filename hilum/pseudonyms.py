"""Names of patients and orders that tell nothing: an HMAC with the site's secret, for keys on Kafka, rows of state and logs.

A plain hash of a patient identifier can be reversed by counting; with a secret it cannot (RFC 2104). Who loses the secret loses the
connection of what is remembered with what comes, so it is made once and kept; its loss costs open orders, never an image.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from hilum.errors import Misconfigured
from hilum.settings import Settings

_BYTES = 32


class Pseudonyms:
    """Makes names: equal ones for equal values, and nobody without the secret can tell of what."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        #: An event asks for the same ones several times.
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, kind: str, *parts: str) -> str:
        """32 hexadecimal digits for `parts`, of which another `kind` has others."""
        text = "\x1f".join((kind, *parts))
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


def pseudonyms(settings: Settings) -> Pseudonyms:
    """With the site's secret, which is made if there is none yet. Raises `Misconfigured` if its file cannot be read or made."""
    return Pseudonyms(_secret(settings))


def _secret(settings: Settings) -> bytes:
    path = Path(settings.orders.secret).expanduser() if settings.orders.secret else settings.data_dir / "site-secret"
    try:
        found = _read(path)
        if found is None and settings.orders.secret:
            raise Misconfigured("secret-missing", f"orders.secret: {path} is not there.", fix="Make it: openssl rand -hex 32 > FILE")
        while found is None:
            _make(path)
            found = _read(path)
    except OSError as error:
        raise Misconfigured("secret-unreadable", f"{path} cannot be used: {error.strerror}.", fix="Check its path and rights.") from None
    if len(found) < _BYTES:
        raise Misconfigured("secret-short", f"{path} holds less than {_BYTES} characters.", fix="Make it: openssl rand -hex 32 > FILE")
    return found


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes().strip()
    except FileNotFoundError:
        return None


def _make(path: Path) -> None:
    """Whole or not at all; of two that make it at the same time, the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_BYTES).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        scratch.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
