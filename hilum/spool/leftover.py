"""A published object in the file that it came in: the spool gives files back to be written again, and until then the bytes are there.

So an object that is delivered soon after it came need not be read from the object store. Nothing is promised: the file may be written
anew while it is read. Whoever uses what is found compares its digest.
"""

from __future__ import annotations

from pathlib import Path

from hilum.dicom.file_meta import read_meta

from .files import DONE, FREE, WAITING

#: File Meta Information that Hilum writes is some hundred bytes.
_HEAD_BYTES = 4096


def left_over(spool: Path, receipt: str, size_bytes: int) -> bytes | None:
    """`size_bytes` bytes of a data set, where that of `receipt` was in the spool in the folder `spool`; None if they are gone."""
    for suffix in (FREE, WAITING, DONE):
        try:
            with (spool / "objects" / f"{receipt}{suffix}").open("rb", buffering=0) as file:
                _, begins_at = read_meta(file.read(_HEAD_BYTES))
                file.seek(begins_at)
                found = file.read(size_bytes)
        except (OSError, ValueError, IndexError):  # it is not there, or something else is
            continue
        if len(found) == size_bytes:
            return found
    return None
