"""What is remembered of the files that stay in a watched folder, so that none is read at each look or taken again after a restart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from hilum import telemetry
from hilum.media.sources import Identity
from hilum.services.files import write_atomically

log = telemetry.logger("folder")


class Dealt(Struct, frozen=True, kw_only=True):
    """A file that was dealt with and is still there."""

    size_bytes: int
    mtime_ns: int
    #: `taken`: its objects are in Hilum; `failed`: it cannot be taken; `left`: it holds no object.
    outcome: Literal["taken", "failed", "left"]
    #: Why it failed.
    why: str = ""


class _Written(Struct, kw_only=True):
    files: dict[str, Dealt] = {}


class Memory:
    """A small file that is replaced as a whole. Names of files may be names of patients: it is its owner's alone, and never logged."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._changed = False
        try:
            self._files = msgspec.json.decode(path.read_bytes(), type=_Written).files
        except FileNotFoundError:
            self._files = {}
        except (OSError, msgspec.DecodeError):
            log.warning("folder_memory_lost", setting=name, says="What was taken before is taken again, as duplicates.")
            self._files = {}

    def of(self, file: str, identity: Identity) -> Dealt | None:
        """What became of the file, if it is still the same."""
        dealt = self._files.get(file)
        return dealt if dealt is not None and (dealt.size_bytes, dealt.mtime_ns) == (identity.size_bytes, identity.mtime_ns) else None

    def note(self, file: str, identity: Identity, outcome: Literal["taken", "failed", "left"], why: str = "") -> None:
        """Remember it."""
        self._files[file] = Dealt(size_bytes=identity.size_bytes, mtime_ns=identity.mtime_ns, outcome=outcome, why=why)
        self._changed = True

    def forget(self, file: str) -> None:
        """It has left the folder."""
        self._changed = self._files.pop(file, None) is not None or self._changed

    def keep_only(self, files: Set[str]) -> None:
        """Forget the files that have left the folder."""
        for file in self._files.keys() - files:
            self.forget(file)

    def count(self) -> Counter[str]:
        """How many files there are of each outcome."""
        return Counter(dealt.outcome for dealt in self._files.values())

    def save(self) -> None:
        """Write it if it has changed. Raises `OSError`; then nothing is lost but the file, and the next call tries again."""
        if self._changed:
            write_atomically(self._path, msgspec.json.encode(_Written(files=self._files)).decode())
            self._changed = False
