"""What `hilum run` runs: a role is one long-lived job; several may share a process, each in a thread of its own.

A stage module offers its role as `def role(settings: Settings) -> Role`; `hilum run validate` finds it in
`processors/validate.py`, `hilum run publish` in `ingest/publish.py`. Nothing keeps a list.
"""

from __future__ import annotations

import threading
from typing import Protocol

from msgspec import Struct


class Health(Struct, frozen=True, kw_only=True):
    """How a role is doing, as `hilum status` shows it."""

    ready: bool
    #: One sentence: what it does now, or what it waits for.
    says: str = ""
    #: Records, files or rows that wait for this role; None where that is not known.
    lag: int | None = None


class Role(Protocol):
    """One long-lived job."""

    @property
    def name(self) -> str:
        """As in `hilum run NAME`."""
        ...

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then finish or undo what is open, and return within a few seconds.

        An outage (Kafka, PostgreSQL, S3 away) is waited out inside. Raises `Stopped` if it cannot go on safely and
        `Misconfigured` if only a person can help; the process then ends with these words.
        """
        ...

    def health(self) -> Health:
        """Called from another thread at any time; answers at once."""
        ...
