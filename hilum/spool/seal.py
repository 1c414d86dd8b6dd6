"""The seal of a spool file: 40 bytes in the preamble, which Part 10 leaves to us (PS3.10 7.1), that tell a whole object from all else.

A file is overwritten again and again, and a power cut may leave any part of it as it was before. So the seal, written last, holds
the object's size, its receipt and a checksum of both and of every byte after the preamble: if that holds, the object is whole.
"""

from __future__ import annotations

import os
import struct
from uuid import UUID

from msgspec import Struct
from xxhash import xxh3_64

PREAMBLE_BYTES = 128
_WAITING, _FREE = b"HILUM\0\1W", b"HILUM\0\1F"
_SEAL = struct.Struct("<8sQQ16s")
_READ_BYTES = 2**20

#: The preamble of a file whose bytes mean nothing.
FREE = _FREE.ljust(PREAMBLE_BYTES, b"\0")


class Seal(Struct, frozen=True):
    """What the preamble of a waiting object says: its bytes in the file, preamble included; a checksum; its receipt."""

    size_bytes: int
    checksum: int
    receipt: UUID


class Checksum:
    """Of what is behind the preamble, as it is written. It finds torn files; it is no digest against forgers."""

    def __init__(self) -> None:
        self._hash = xxh3_64()
        self._size_bytes = PREAMBLE_BYTES

    def update(self, data: bytes | memoryview) -> None:
        """Take what follows."""
        self._hash.update(data)
        self._size_bytes += len(data)

    def seal(self, receipt: UUID) -> Seal:
        """The seal over all that was taken."""
        self._hash.update(self._size_bytes.to_bytes(8, "little") + receipt.bytes)
        return Seal(self._size_bytes, self._hash.intdigest(), receipt)


def write_seal(fd: int, seal: Seal) -> None:
    """Say that the file holds a whole object. Raises `OSError`."""
    os.pwrite(fd, _SEAL.pack(_WAITING, seal.size_bytes, seal.checksum, seal.receipt.bytes), 0)


def read_seal(fd: int) -> Seal | None:
    """What the file says that it holds; None if nothing. Raises `ValueError` if it is no spool file, and `OSError`."""
    raw = os.pread(fd, _SEAL.size, 0)
    if raw.startswith(_FREE):
        return None
    if len(raw) < _SEAL.size or not raw.startswith(_WAITING):
        raise ValueError("no spool file")
    _, size_bytes, checksum, receipt = _SEAL.unpack(raw)
    return Seal(size_bytes, checksum, UUID(bytes=receipt))


def holds(fd: int, seal: Seal) -> bool:
    """Whether the file holds what its seal says: all of it reached the disk. Raises `OSError`."""
    checksum, at = Checksum(), PREAMBLE_BYTES
    while at < seal.size_bytes:
        piece = os.pread(fd, min(_READ_BYTES, seal.size_bytes - at), at)
        if not piece:
            return False
        checksum.update(piece)
        at += len(piece)
    return checksum.seal(seal.receipt) == seal
