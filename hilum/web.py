"""The web service's address, and its clients, known by their keys: a file with a line `TITLE sha256:DIGEST` for each key.

Only the digest is kept. The keys are long and random, so that a fast digest is enough; a person's password is not.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from hilum.errors import Misconfigured
from hilum.settings import Stow

_LINE = re.compile(r"(?P<title>[A-Za-z0-9_.-]{1,16})\s+sha256:(?P<digest>[0-9a-f]{64})")
_TITLE = re.compile(r"[A-Za-z0-9_.-]{1,16}")


def url_of(settings: Stow, port: int) -> str:
    """Base URL of the service that listens on `port`."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_certificate else 'http'}://{host}:{port}/{settings.base.strip('/')}".rstrip("/")


class Clients:
    """The clients in the file `path`, which is read again when it has changed. Where there is no such file, there is no client yet.

    Raises `Misconfigured` if it cannot be read, others than its owner can read it, or a line is not as it should be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = (0, 0)
        self._titles: list[tuple[bytes, str]] = []
        self.title_of("")

    def title_of(self, key: str) -> str:
        """The title of the client with this key, `""` if there is none. Takes the same time for every key. Raises as the class does."""
        self._refresh()
        digest = hashlib.sha256(key.encode()).digest()
        found = ""
        for known, title in self._titles:
            if hmac.compare_digest(known, digest):
                found = title
        return found

    def is_empty(self) -> bool:
        """Whether nobody has a key. Raises as the class does."""
        self._refresh()
        return not self._titles

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise Misconfigured(
                    "clients-open", f"{self._path} can be read by others than its owner.", fix=f"Run `chmod 600 {self._path}`."
                )
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            self._titles, self._version = [], (0, 0)
            return
        except (OSError, UnicodeDecodeError) as error:
            says = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Misconfigured(
                "clients-unreadable",
                f"The file of clients {self._path} cannot be read: {says}.",
                fix="Give it to the account that Hilum runs as, or remove it and add clients with `hilum stow key`.",
            ) from None
        titles = []
        for number, line in enumerate(text.splitlines(), 1):
            if not (bare := line.partition("#")[0].strip()):
                continue
            if not (match := _LINE.fullmatch(bare)):
                raise Misconfigured(
                    "clients-line",
                    f"Line {number} of {self._path} is not `TITLE sha256:DIGEST`.",
                    fix="Correct it, or remove it and make a new key with `hilum stow key`.",
                )
            titles.append((bytes.fromhex(match["digest"]), match["title"]))
        self._titles, self._version = titles, version


def add_client(path: Path, title: str) -> str:
    """Add a client to the file, which is made if it is not there; its key, which is kept nowhere. Raises `Misconfigured`."""
    if not _TITLE.fullmatch(title):
        raise Misconfigured("client-title", f"{title!r} is no title for a client.", fix="Use at most 16 letters, digits, `_`, `.` and `-`.")
    key = secrets.token_urlsafe(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a", encoding="utf-8") as file:
            file.write(f"{title} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Misconfigured("clients-unwritable", f"{path} cannot be written: {error.strerror}.", fix="Correct stow.clients.") from None
    return key
