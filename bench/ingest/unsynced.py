"""A process of Hilum in which syncs do nothing: `python -m bench.ingest.unsynced ROLES --config FILE`. For the benchmark alone.

It tells what the syncs cost, and makes Hilum comparable with receivers that do without. It may lose what it acknowledged.
"""

from __future__ import annotations

import os

from hilum import host


def _nothing(fd: object) -> None:
    pass


if __name__ == "__main__":
    os.fsync = os.fdatasync = _nothing
    host.main()
