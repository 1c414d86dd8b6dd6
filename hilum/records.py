"""Records of associations and of other ways in, on their way to Kafka: small files beside the spool.

They are not synced: a power cut may cost the last seconds' records, never an object. If nobody publishes them for long, the
newest are kept and the rest is left out, so that a flood of refused peers does not fill the disk.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from hilum.events import AssociationEnded, decode, encode
from hilum.settings import Settings

SUFFIX = ".json"
#: Records that may wait.
MOST_WAITING = 10_000
#: Looked at only so often: counting files costs more than writing one.
_COUNT_EVERY = 256


class Records:
    """The records in `path`; used by many threads and processes at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    @classmethod
    def of(cls, settings: Settings) -> Records:
        """Those beside the spool that `settings` name."""
        return cls(settings.spool_dir / "associations")

    def put(self, record: AssociationEnded) -> None:
        """Leave a record. Raises `OSError`."""
        self._written += 1
        if self._written % _COUNT_EVERY == 0:
            self.remove(self.waiting()[:-MOST_WAITING])
        part = self._path / f".{secrets.token_hex(8)}"
        part.write_bytes(encode(record))
        # The time comes first in the name, so that names sort by it.
        part.rename(self._path / f"{int(record.ended_at.timestamp() * 1000):013d}-{record.association}{SUFFIX}")

    def waiting(self) -> list[str]:
        """The names of those that wait, oldest first."""
        with os.scandir(self._path) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))

    def read(self, name: str) -> AssociationEnded | None:
        """The record of a name; None if it is gone or no record (then it is removed)."""
        try:
            return decode(AssociationEnded, (self._path / name).read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            self.remove([name])
            return None

    def remove(self, names: Iterable[str]) -> None:
        """Remove what is published."""
        for name in names:
            with suppress(FileNotFoundError):
                (self._path / name).unlink()
