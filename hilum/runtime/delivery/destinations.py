"""Which destinations there are now: workers are started and retired as that changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hilum.settings import Settings

Tables = Mapping[str, dict[str, Any]]


class Destinations(Protocol):
    """The configured destinations, as of now."""

    def now(self) -> Tables:
        """Their tables by name, as `[destinations.NAME]` has them. Called several times a second, so it answers at once.

        A table that changed has another value; the one that was given before stays as it was.
        """
        ...


class OfSettings:
    """Those of the settings file, which do not change while a process runs."""

    def __init__(self, settings: Settings) -> None:
        self._tables = settings.destinations

    def now(self) -> Tables:
        """See `Destinations`."""
        return self._tables
