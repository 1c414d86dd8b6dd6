"""What holds for a destination at this moment: its settings, and what people want of it and of studies."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime

from msgspec import Struct

from hilum.desired import Desired
from hilum.events import Limits
from hilum.hours import Hours
from hilum.sink import Sink

#: While a rate is limited, so many seconds of it are claimed at once, and so many objects at most.
_AHEAD_S = 0.5
_LIMITED_BATCH = 16


class Orders(Struct, frozen=True, kw_only=True):
    """For the workers of one destination. Rates are those of all processes together; 0 is no limit."""

    paused: bool = False
    #: Studies of which nothing is delivered.
    held: frozenset[str] = frozenset()
    objects_per_s: float = 0.0
    megabytes_per_s: float = 0.0
    max_associations: int = 0
    hours: Hours = Hours()

    @classmethod
    def of(cls, name: str, sink: Sink, desired: Desired) -> Orders:
        """The settings of the sink `name`, and in their place what is wanted otherwise."""
        wanted = desired.destinations.get(name)
        limits = (wanted.limits if wanted else None) or Limits()
        hours = sink.open_hours()
        if limits.hours is not None:
            with suppress(ValueError):  # `hilum dest limit` refuses it; whoever wrote it otherwise gets what the settings say
                hours = Hours.read(limits.hours, sink.time_zone)
        members = getattr(sink, "members", ())  # of a group: if all of them are paused, it is
        paused = [bool(each and each.paused) for each in map(desired.destinations.get, members)]
        return cls(
            paused=bool(wanted and wanted.paused) or (bool(paused) and all(paused)),
            held=frozenset(desired.held),
            objects_per_s=_first(limits.objects_per_s, sink.objects_per_s),
            megabytes_per_s=_first(limits.megabytes_per_s, sink.megabytes_per_s),
            max_associations=int(_first(limits.max_associations, sink.max_associations)),
            hours=hours,
        )

    @property
    def limited(self) -> bool:
        """Whether its rate is limited."""
        return self.objects_per_s > 0 or self.megabytes_per_s > 0

    def cost_s(self, size_bytes: int) -> float:
        """How long one object of this size takes of the time that its rate allows, in seconds."""
        by_count = 1 / self.objects_per_s if self.objects_per_s > 0 else 0.0
        return max(by_count, size_bytes / (1e6 * self.megabytes_per_s) if self.megabytes_per_s > 0 else 0.0)

    def batch(self, most: int) -> int:
        """How many objects to claim at once, so that none waits in a worker's hands for long."""
        if self.objects_per_s > 0:
            most = min(most, max(1, math.ceil(self.objects_per_s * _AHEAD_S)))
        return min(most, _LIMITED_BATCH) if self.limited else most

    def closed(self, now: datetime | None = None) -> str:
        """Why only what is urgent is delivered at present, in words; empty if everything is."""
        now = now or datetime.now(UTC)
        if self.hours.is_open(now):
            return ""
        opens = self.hours.opens_at(now)
        return "outside its hours" + (f", until {opens.astimezone(self.hours.zone):%a %H:%M}" if opens else "")


def _first(wanted: float | None, otherwise: float) -> float:
    return otherwise if wanted is None else wanted
