"""A program for tests of forks: it runs its argument, as `python -c` does."""

from __future__ import annotations

import signal
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Run the code in the first argument."""
    exec(arguments[0], {"__name__": "__main__"})  # noqa: S102  # a test's own code


def stays_young(*_: object) -> None:
    """In a fork, in place of `hilum.services.forked.become`: it does not come to leave its supervisor's session."""
    signal.pause()
