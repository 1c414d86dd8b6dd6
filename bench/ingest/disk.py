"""On what kind of disk it all happens: figures with syncs mean nothing without it."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import psutil


def described(folder: Path) -> str:
    """One sentence: the file system, and what it costs to make a file durable."""
    mounted = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    kind = max(mounted, key=lambda part: len(part.mountpoint)).fstype if mounted else "unknown"
    plain, synced = _write_ms(folder, sync=False), _write_ms(folder, sync=True)
    return f"File system {kind}; to write a file of 528 kB takes {plain:.2f} ms, with fdatasync {synced:.2f} ms."


def _write_ms(folder: Path, *, sync: bool, times: int = 50) -> float:
    """Milliseconds, median."""
    content = bytes(528_000)
    took = []
    for number in range(times):
        path = folder / f"disk-{number}"
        began = time.perf_counter()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, content)
        if sync:
            os.fdatasync(fd)
        os.close(fd)
        took.append(time.perf_counter() - began)
        path.unlink()
    return 1000 * statistics.median(took)
