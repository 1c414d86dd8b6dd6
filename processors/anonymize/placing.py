"""Where a de-identified file goes in a folder: whole and durably, and never over another one unless that was asked for."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hilum.disk import sync_folder

#: What a process that was killed leaves: hidden, and removed by the next run.
_PREFIX, _SUFFIX = ".hilum-", ".part"
_CHUNK_BYTES = 2**20


def tidied(out: Path) -> dict[str, Path]:
    """The files of earlier runs in a folder, by the SOP instance UID in their names; what these left half written is removed."""
    for left in out.rglob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            left.unlink()
    return {each.stem: each for each in out.glob("*/*/*.dcm")}


def placed(
    file: Path, parts: Sequence[bytes | memoryview], *, replace: bool = False
) -> Literal["written", "there", "replaced", "other-bytes"]:
    """Write a file that is not there already; one with other bytes stays, unless it is to be replaced. Raises `OSError`."""
    is_there = file.exists()
    if is_there and _has(file, parts):
        return "there"
    if is_there and not replace:
        return "other-bytes"
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        with part.open("xb") as out:
            out.writelines(parts)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(file.parent, or_share=True)
    return "replaced" if is_there else "written"


def _has(file: Path, parts: Sequence[bytes | memoryview]) -> bool:
    """Whether a file has these bytes; a large one is not read into memory."""
    if file.stat().st_size != sum(map(len, parts)):
        return False
    with file.open("rb") as there:
        for part in parts:
            for at in range(0, len(part), _CHUNK_BYTES):
                some = part[at : at + _CHUNK_BYTES]
                if there.read(len(some)) != some:
                    return False
    return True
