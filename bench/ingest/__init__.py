"""Ingest: C-STORE receivers side by side, publishing, STOW-RS, a huge object; each figure beside its goal."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """The command itself is imported late: senders and receivers are started from this package, and must not pay for all of it."""
    from bench.ingest.command import main as command

    command(arguments)
