"""Whether a process still answers: one that runs, answers nothing and does nothing is worse than one that died."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: How often a process is asked.
ASKED_EVERY_S = 5.0
#: So many questions in a row must stay without an answer: this machine itself may have stood still for as long.
UNANSWERED = 4


class Liveness:
    """Asks one process from a thread of its own, since an answer may be long in coming, and remembers when it last had one."""

    def __init__(self, answers: Callable[[], bool], *, every_s: float = ASKED_EVERY_S) -> None:
        """`answers` asks once, waits for as long as even a slow process may take, and may raise `OSError` for "no"."""
        self._answers = answers
        self._every_s = every_s
        self._since = time.monotonic()
        self._unanswered = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="liveness", daemon=True)
        self._thread.start()

    @property
    def silent_s(self) -> float:
        """For how many seconds it has not answered; 0 unless several questions in a row have had no answer."""
        return time.monotonic() - self._since if self._unanswered >= UNANSWERED else 0.0

    def end(self) -> None:
        """Ask no more. Does not wait for an answer that is awaited."""
        self._ended.set()

    def _ask(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                heard = self._answers()
            except OSError:
                heard = False
            if heard:
                self._since, self._unanswered = time.monotonic(), 0
            else:
                self._unanswered += 1
