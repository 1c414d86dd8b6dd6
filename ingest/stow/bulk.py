"""Bulk data of DICOM JSON (PS3.18 8.7.3): parts that wait on the disk until the instances that name them are written."""

from __future__ import annotations

import os
import tempfile
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from hilum.spool import SpoolFull

from .media import MediaType


class BulkPart(Struct, kw_only=True):
    """Where the bytes of one part lie."""

    kind: MediaType
    begin: int
    size_bytes: int = 0
    is_used: bool = False


class Bulk:
    """The bulk data of one request, in one file without a name that is gone with the process. Its parts come one after another."""

    def __init__(self, directory: Path) -> None:
        self.parts: dict[str, BulkPart] = {}
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._size_bytes = 0

    def begin(self, location: str, kind: MediaType) -> BulkPart:
        """A part begins that has this Content-Location. Raises `SpoolFull`."""
        if self._file is None:
            try:
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115  # closed by `close`
            except OSError as error:
                raise SpoolFull(f"The spool's disk fails: {error.strerror}.") from None
        part = self.parts[location] = BulkPart(kind=kind, begin=self._size_bytes)
        return part

    def write(self, part: BulkPart, data: memoryview) -> None:
        """Append to the part that began last. Raises `SpoolFull`."""
        assert self._file is not None
        try:
            done = 0
            while done < len(data):
                done += self._file.write(data[done:])
        except OSError as error:
            raise SpoolFull(f"The spool's disk is full or fails: {error.strerror}.") from None
        part.size_bytes += len(data)
        self._size_bytes += len(data)

    def open(self, part: BulkPart) -> BufferedReader:
        """The bytes of a part as a file of their own."""
        assert self._file is not None
        return BufferedReader(_Slice(self._file.fileno(), part.begin, part.size_bytes), 2**18)

    def mark_used(self, content: Any) -> None:
        """Bulk data that an instance names which is not kept: nobody else is told of it."""
        left = [content]
        while left:
            match left.pop():
                case dict() as attributes:
                    if isinstance(uri := attributes.get("BulkDataURI"), str) and uri in self.parts:
                        self.parts[uri].is_used = True
                    left += attributes.values()
                case list() as items:
                    left += items

    def close(self) -> None:
        """Leave nothing of it. May be called again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Slice(RawIOBase):
    def __init__(self, fd: int, begin: int, size_bytes: int) -> None:
        self._fd, self._begin, self._size_bytes = fd, begin, size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any writable buffer in the stubs
        size = max(min(len(buffer), self._size_bytes - self._at), 0)
        data = os.pread(self._fd, size, self._begin + self._at) if size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
