"""Processes that a test did not start itself, and whether they have ended."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def children_of(pid: int) -> list[psutil.Process]:
    """The processes that this one started and that are not waited for yet, by the moment they were started."""
    return psutil.Process(pid).children()


def by_number(pid: str) -> list[psutil.Process]:
    """The process of this number, or none if it is gone."""
    try:
        return [psutil.Process(int(pid))]
    except psutil.NoSuchProcess:
        return []


def ended(processes: Iterable[psutil.Process]) -> bool:
    """Whether each has ended; what waits to be reaped by its parent has."""
    return not any(_runs(each) for each in processes)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False
