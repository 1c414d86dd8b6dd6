"""What the directory of a medium says is on it (PS3.3 F, PS3.10 8)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from hilum.dicom.dataset import read_header
from hilum.media.errors import Unreadable, Why
from hilum.media.recognise import HEAD_BYTES, recognise
from hilum.media.sources import Source

#: About 100,000 images.
MAX_BYTES = 64 * 2**20
_RECORDS, _FILE_ID = "00041220", "00041500"


def references(source: Source) -> list[str]:
    """The file IDs that the DICOMDIR names, in its order, joined by `/`. Raises `Unreadable` if it cannot be read."""
    with source.open() as content:
        parts, size = [], 0
        while size <= MAX_BYTES and (part := content.read(2**20)):
            parts.append(part)
            size += len(part)
    if size > MAX_BYTES:
        raise Unreadable(Why.DICOMDIR, f"The DICOMDIR is larger than {MAX_BYTES} bytes; what it names is not checked.")
    whole = b"".join(parts)
    head = recognise(whole[:HEAD_BYTES], source.name)
    header = read_header(whole, head.transfer_syntax_uid, start=head.data_set_at, full=True)
    if header.fault:
        raise Unreadable(Why.DICOMDIR, f"The DICOMDIR cannot be read, so what it names is not checked: {header.fault}")
    return list(_file_ids(header.json.get(_RECORDS, {}).get("Value") or []))


def _file_ids(records: list[dict[str, dict[str, list[object]]]]) -> Iterator[str]:
    for record in records:
        components = [str(each).strip() for each in record.get(_FILE_ID, {}).get("Value") or [] if each]
        if components:
            yield "/".join(components)


def same_place(path: PurePosixPath | str) -> str:
    """A path in the form in which it is compared: media are mounted in lower case, with versions (`;1`) and trailing dots or without."""
    parts = str(path).upper().split("/")
    return "/".join(part.partition(";")[0].rstrip(".") for part in parts)
