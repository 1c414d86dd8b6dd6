"""Slow work on the events of a batch, in threads: one event of an object after the other, different objects side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from hilum.errors import Misconfigured, Stopped, TryAgain
from hilum.events import Event
from hilum.runtime.stage import Incoming

THREADS = 8


class Pool:
    """Threads that do a processor's `work`, or `work_on` what was asked for. Events with one `subject` are worked on in order."""

    def __init__(
        self, name: str, work: Callable[[Event], Any] | None, work_on: Callable[[Any], Any] | None = None, threads: int = THREADS
    ) -> None:
        self._work = work
        self._work_on = work_on
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"{name}-work")

    def start(self, batch: Sequence[Incoming]) -> list[Future[None]]:
        """Begin with what of the batch is not done yet. A future raises `TryAgain` if its object is to be tried again.

        What is done leaves its result, or the exception that is the event's fate, with the event.
        """
        lanes: dict[str, list[Incoming]] = {}
        for incoming in batch:
            wanted = self._work is not None or incoming.asked is not None
            if wanted and incoming.event is not None and incoming.problem is None and not incoming.worked:
                lanes.setdefault(incoming.event.subject, []).append(incoming)
        return [self._threads.submit(self._one_after_the_other, lane) for lane in lanes.values()]

    def close(self) -> None:
        """Begin nothing more. What runs ends by itself; its result is not used."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _one_after_the_other(self, lane: Sequence[Incoming]) -> None:
        for incoming in lane:
            assert incoming.event is not None
            try:
                if self._work is not None:
                    incoming.work = self._work(incoming.event)
                elif self._work_on is not None:
                    incoming.work = self._work_on(incoming.asked)
            except (TryAgain, Stopped, Misconfigured):
                raise
            except Exception as error:  # the fate of this event alone; `Stage.conclude` tells poison from fault
                incoming.problem = error
            incoming.worked = True
