"""A program for tests of forks: it runs its argument, as `python -c` does."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Run the code in the first argument."""
    exec(arguments[0], {"__name__": "__main__"})  # noqa: S102  # a test's own code
