"""Whose turn it is while an object is delivered: the destination's, or that of Hilum, which has to make the object first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Attempt:
    """One object that is under way, in the thread that delivers it; others may ask how long its destination has been silent."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waits_since = now()
        self._making = 0

    def silent_s(self) -> float:
        """How long it has waited for the destination: without the time in which the object was made. 0 while it is."""
        return 0.0 if self._making else max(0.0, self._now() - self._waits_since)  # in this order: `making` ends in the other one

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Let `making` in this thread tell this attempt."""
        token = _attempt.set(self)
        try:
            yield
        finally:
            _attempt.reset(token)

    def during(self, deliver: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `deliver` returns; `making` in it tells this attempt."""
        with self.under_way():
            return deliver(*arguments, **named)

    @contextmanager
    def making(self) -> Iterator[None]:
        """Until this ends it is Hilum's own turn."""
        began = self._now()
        self._making += 1
        try:
            yield
        finally:
            if self._making == 1:
                self._waits_since += self._now() - began
            self._making -= 1


_attempt: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


@contextmanager
def making() -> Iterator[None]:
    """Around whatever takes long before, or between, what a destination is sent."""
    attempt = _attempt.get()
    if attempt is None:
        yield
        return
    with attempt.making():
        yield
