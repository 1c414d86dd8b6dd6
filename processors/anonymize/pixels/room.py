"""Where an object is while its pixels change: in memory if it is small, else in a file that has no name."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path

from hilum.errors import TryAgain

#: Larger objects are files.
MOST_MEMORY_BYTES = 16 * 2**20


def kept(parts: Iterable[bytes | memoryview], folder: Path | None) -> bytes | mmap:
    """`parts` one after the other. A file, in `folder`, is gone with the last reference to it. Raises `TryAgain` if there is no room."""
    with tempfile.SpooledTemporaryFile(max_size=MOST_MEMORY_BYTES, dir=str(folder) if folder else None) as file:
        try:
            for part in parts:
                file.write(part)
            if file.tell() <= MOST_MEMORY_BYTES:
                file.seek(0)
                return file.read()
            file.rollover()
            file.flush()
            return mmap(file.fileno(), 0, access=ACCESS_READ)
        except OSError as error:
            why = "there is no room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "it cannot be written"
            raise TryAgain(f"An object whose pixels change is kept in a file for that time, and {why}.") from None
