"""How much memory a process has had."""

from __future__ import annotations

from pathlib import Path

import psutil


def peak_mb(pid: int) -> float:
    """The largest resident set that the process has had (`VmHWM`), in MB of 2**20 bytes; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)


def peak_of_tree_mb(pid: int) -> float:
    """The sum of the peaks of the process and of all that it started and that lives."""
    try:
        process = psutil.Process(pid)
        return sum(peak_mb(each.pid) for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0.0
