"""Keys of pseudonyms: files, named by their path in the settings, that only their owner can read.

`FILE` holds the key in force, `FILE.ID` each one that was before it: 64 hexadecimal digits, 256 bits of chance. `rotate` puts a new one
into force and keeps the old, since what left under it is told apart by its id, and a later object of the same patient may have to be
found among it. Whoever loses a key loses the connection of what left with what comes; whoever copies one can find out by counting whose
each pseudonym is. So keys are made here, backed up by the site, and never leave.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from hilum.errors import Misconfigured

_BYTES = 32
_TEXT = re.compile(rb"[0-9A-Fa-f]{64}\s*\Z")
_ID = re.compile(r"[0-9a-f]{12}\Z")
#: Chance gives 30 different bytes of 32; fewer than this are typed by hand.
_LEAST_DIFFERENT = 16


class Key(Struct, frozen=True):
    """A key in memory. Its text form shows its id alone."""

    secret: bytes
    #: Names the key in events, in the ledger and in objects: the beginning of a digest, 12 hexadecimal digits.
    id: str

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id)]


class KeyFile(Struct, frozen=True, kw_only=True):
    """A key as `hilum deid keys list` shows it."""

    id: str
    path: Path
    in_force: bool
    #: When the file was written, UTC.
    made_at: datetime


def key_of(secret: bytes) -> Key:
    """The key with these bytes. Its id tells nothing of it that helps."""
    return Key(secret, hashlib.sha256(b"hilum pseudonym key\0" + secret).hexdigest()[:12])


def read_key(path: Path, key_id: str = "") -> Key:
    """The key in force, or the one with `key_id` if it is still there.

    Raises `Misconfigured` (`key-missing`, `key-open`, `key-foreign`, `key-unreadable`, `key-malformed`, `key-unknown`) with the fix.
    """
    if not key_id:
        return _read(path)
    if not _ID.match(key_id):
        raise Misconfigured("key-unknown", "A key's id is 12 hexadecimal digits.", fix="See them with: hilum deid keys list")
    former = _former(path, key_id)
    if former.exists():
        key = _read(former)
        if key.id != key_id:
            raise Misconfigured("key-malformed", f"{former} holds another key than its name says.", fix="Restore it from the backup.")
        return key
    key = _read(path)
    if key.id != key_id:
        raise Misconfigured(
            "key-unknown",
            f"There is no key {key_id} beside {path}; the one in force is {key.id}.",
            fix=f"Restore {former.name} from the backup, with mode 0600.",
        )
    return key


def make_key(path: Path) -> Key:
    """Make the first key; whichever of two makers is first, both have it. Raises `Misconfigured` if it cannot be written."""
    with _alone(path):
        if not path.exists():
            _write(path)
    return _read(path)


def rotate(path: Path) -> tuple[Key, Key]:
    """Put a new key into force and keep the old; returns the old and the new.

    What was pseudonymised from now on cannot be joined with what left before, unless somebody has both keys. Kill it at any moment and
    run it again: one of the two is in force, and no key that was in force is lost. Raises `Misconfigured` as `read_key` does.
    """
    with _alone(path):
        old = _read(path)
        if path.is_symlink():
            raise Misconfigured("key-linked", f"{path} is a link to a file.", fix="Have the key replaced where the file is kept.")
        former = _former(path, old.id)
        if former.exists():
            read_key(path, old.id)
        else:
            os.link(path, former)
            _sync(path.parent)
        _write(path)
    return old, _read(path)


def list_keys(path: Path) -> list[KeyFile]:
    """The key in force first, then the former ones, the newest first. Raises `Misconfigured` for any that cannot be used."""
    in_force = _listed(path, in_force=True)
    former = [
        _listed(each, in_force=False) for each in path.parent.glob(f"{path.name}.*") if _ID.match(each.name.removeprefix(f"{path.name}."))
    ]
    # A rotation that was cut short leaves the key in force under both names.
    others = [each for each in former if each.id != in_force.id]
    return [in_force, *sorted(others, key=lambda each: (each.made_at, each.id), reverse=True)]


def ids_of(path: Path, in_force: Key) -> frozenset[str]:
    """The ids of the key in force and of the former ones beside it, none of which is read."""
    former = (each.name.removeprefix(f"{path.name}.") for each in path.parent.glob(f"{path.name}.*"))
    return frozenset({in_force.id, *(each for each in former if _ID.match(each))})


def _listed(path: Path, *, in_force: bool) -> KeyFile:
    key = _read(path)
    return KeyFile(id=key.id, path=path, in_force=in_force, made_at=datetime.fromtimestamp(path.stat().st_mtime, UTC))


def _former(path: Path, key_id: str) -> Path:
    return path.with_name(f"{path.name}.{key_id}")


def _read(path: Path) -> Key:
    try:
        # What is looked at is what is read: the file itself, whichever links lead to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Misconfigured("key-missing", f"There is no key in {path}.", fix=_how_to_have(path)) from None
    except OSError as error:
        raise Misconfigured("key-unreadable", f"The key in {path} cannot be read: {error.strerror}.", fix="Check its rights.") from None
    try:
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            check_rights(path, status)
            text = file.read(4096)
    except OSError as error:
        raise Misconfigured("key-unreadable", f"The key in {path} cannot be read: {error.strerror}.", fix="Check its rights.") from None
    secret = bytes.fromhex(text.decode("ascii")) if _TEXT.match(text) else b""
    if len(set(secret)) < _LEAST_DIFFERENT:
        raise Misconfigured("key-malformed", f"{path} holds no key: a key is 64 hexadecimal digits by chance.", fix=_how_to_have(path))
    return key_of(secret)


def check_rights(path: Path, status: os.stat_result) -> None:
    """Raise `Misconfigured` unless a file of this status is Hilum's account's, or root's, and nobody else may use it."""
    if not stat.S_ISREG(status.st_mode):
        raise Misconfigured("key-unreadable", f"{path} is no file.", fix="Name the file that holds the key.")
    if mode := stat.S_IMODE(status.st_mode) & 0o077:
        raise Misconfigured(
            "key-open",
            f"Others than its owner may use the key in {path} (mode {stat.S_IMODE(status.st_mode):04o}, {mode:03o} too much).",
            fix=f"chmod 600 {path}; and if others could read it, have a new one: hilum deid keys rotate",
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise Misconfigured(
            "key-foreign", f"The key in {path} belongs to another account.", fix=f"chown it to the one Hilum runs as: {path}"
        )


def _write(path: Path) -> None:
    """A new key, whole or not at all, after a power cut as well."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            secret = secrets.token_bytes(_BYTES)
            while len(set(secret)) < _LEAST_DIFFERENT:
                secret = secrets.token_bytes(_BYTES)
            file.write(secret.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else changes keys in this folder meanwhile."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Misconfigured(
            "key-not-written", f"No key can be written to {path.parent}: {error.strerror}.", fix="Check its rights and its space."
        ) from None


def _how_to_have(path: Path) -> str:
    return f"Restore it from the backup, or from a machine that has it. Only if nothing has left yet: hilum deid keys make --key {path}"
