"""What an import that was broken off has taken already, so that the next run of the same import need not take it again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from hilum.services.files import private_folder

_DIGEST_BYTES = 32


class Journal:
    """Digests of data sets that one import (these paths, this sender) has taken, in a file that ends with the import.

    Digests, not names: another CD at the same place has the same names. A digest is noted only once its object is synced; one that is
    lost in a crash makes a duplicate.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], sender: str, *, again: bool = False) -> None:
        key = hashlib.sha256(json.dumps([sorted(str(path) for path in paths), sender]).encode()).hexdigest()[:16]
        self._path = folder / f"{key}.taken"
        self._lock = threading.Lock()
        private_folder(folder)
        known = self._path.read_bytes() if self._path.exists() and not again else b""
        whole = len(known) - len(known) % _DIGEST_BYTES
        #: What an earlier run took.
        self.earlier = frozenset(known[at : at + _DIGEST_BYTES] for at in range(0, whole, _DIGEST_BYTES))
        self._file = self._path.open("r+b" if known else "wb", buffering=0)
        self._file.seek(whole)
        self._file.truncate()

    def add(self, sha256: bytes) -> None:
        """Note what has just been synced."""
        with self._lock:
            self._file.write(sha256)

    def end(self, *, complete: bool) -> None:
        """Close it; a complete import leaves nothing to be remembered."""
        self._file.close()
        if complete:
            self._path.unlink(missing_ok=True)
