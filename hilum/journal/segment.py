"""One file of a journal: a header that says which of its lives this is, and records that hold only in that life.

A file is written again and again. Each life has a number that only grows; a record's checksum covers it, and where the record is. So
what a former life left means nothing, whatever a power cut leaves of the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from msgspec import Struct
from xxhash import xxh3_64_intdigest

HEADER_BYTES = 64
_HEADER = struct.Struct("<8sQQ")
_MAGIC = b"HILUMJ\0\1"
#: Before each record: mark, length of the payload, kind, checksum, receipt. Records begin at multiples of eight bytes.
_RECORD = struct.Struct("<4sIB3xQ16s")
_MARK = b"\xf5HJ\1"
_READ_BYTES = 2**20


class Record(Struct, frozen=True):
    """What was written at once. `end` is where the next one begins."""

    kind: int
    receipt: UUID
    payload: bytes
    begin: int
    end: int


def header(life: int) -> bytes:
    """The beginning of a file in its life `life`."""
    return _HEADER.pack(_MAGIC, life, xxh3_64_intdigest(_MAGIC + life.to_bytes(8, "little"))).ljust(HEADER_BYTES, b"\0")


def read_life(fd: int) -> int:
    """In which life a file is; 0 if it has had none. Raises `OSError`."""
    raw = os.pread(fd, _HEADER.size, 0)
    if len(raw) < _HEADER.size:
        return 0
    magic, life, checksum = _HEADER.unpack(raw)
    return int(life) if magic == _MAGIC and checksum == xxh3_64_intdigest(_MAGIC + life.to_bytes(8, "little")) else 0


def record(life: int, at: int, kind: int, receipt: UUID, payload: bytes) -> bytes:
    """A record as it is written at `at`."""
    size = _RECORD.size + len(payload)
    checksum = _checksum(life, at, kind, receipt.bytes, payload)
    return _RECORD.pack(_MARK, len(payload), kind, checksum, receipt.bytes) + payload + bytes(-size % 8)


def size_of(payload: bytes) -> int:
    """What a record takes in the file, in bytes."""
    size = _RECORD.size + len(payload)
    return size + -size % 8


def records(fd: int, life: int, begin: int, end: int) -> Iterator[Record]:
    """The whole records between `begin` and `end` of a file; what is between them and is none is left out. Raises `OSError`."""
    at, piece, piece_at = begin, b"", begin
    while at + _RECORD.size <= end:
        if at < piece_at or at + _RECORD.size > piece_at + len(piece):
            piece, piece_at = os.pread(fd, min(_READ_BYTES, end - at), at), at
        inside = at - piece_at
        if piece[inside : inside + 4] != _MARK:
            if len(piece) - inside < _RECORD.size:
                return
            found = _next_mark(piece, inside + 1, piece_at)
            at = piece_at + found if found >= 0 else piece_at + max(len(piece) - 8, inside + 8) & ~7
            continue
        _, length, kind, checksum, receipt = _RECORD.unpack_from(piece, inside)
        size = _RECORD.size + length
        if at + size <= end:
            begins = inside + _RECORD.size
            inside_piece = begins + length <= len(piece)
            payload = piece[begins : begins + length] if inside_piece else os.pread(fd, length, at + _RECORD.size)
            if checksum == _checksum(life, at, kind, receipt, payload):
                after = at + size + -size % 8
                yield Record(kind, UUID(bytes=receipt), payload, at, after)
                at = after
                continue
        at += 8


def make(path: Path, size_bytes: int) -> None:
    """A file whose blocks are on the disk; its name is not synced. Raises `OSError`, and leaves none then."""
    part = path.with_suffix(".new")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            left = size_bytes
            while left:
                left -= os.write(fd, bytes(min(left, _READ_BYTES)))
            os.fdatasync(fd)
        finally:
            os.close(fd)
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _next_mark(piece: bytes, begin: int, piece_at: int) -> int:
    found = piece.find(_MARK, begin)
    while found >= 0 and (piece_at + found) % 8:
        found = piece.find(_MARK, found + 1)
    return found


def _checksum(life: int, at: int, kind: int, receipt: bytes, payload: bytes) -> int:
    return xxh3_64_intdigest(payload, seed=xxh3_64_intdigest(struct.pack("<QQB", life, at, kind) + receipt))
