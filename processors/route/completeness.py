"""When a study is complete: a function of what is known of it and of the thresholds; nothing here waits or acts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from msgspec import Struct

from hilum.settings import Completeness, Settings

from .rows import StudyRow

Reason = Literal["idle", "expected", "by-hand", "maximum"]

#: An object that is dealt with so long after it came was kept up on its way, and others of its study may be, too.
LATE = timedelta(seconds=10)


class Verdict(Struct, frozen=True, kw_only=True):
    """When a study is complete if nothing more comes, and why."""

    at: datetime
    reason: Reason


class Thresholds:
    """The settings of completeness, by sender."""

    def __init__(self, default: Completeness | None = None, senders: Mapping[str, Completeness] | None = None) -> None:
        self._default = default or Completeness()
        self._senders = senders or {}

    @classmethod
    def of(cls, settings: Settings) -> Thresholds:
        """Those of `settings`."""
        own = {aet: sender.completeness for aet, sender in settings.senders.items() if sender.completeness is not None}
        return cls(settings.completeness, own)

    def of_sender(self, calling_aet: str) -> Completeness:
        """What holds for studies that this sender begins."""
        return self._senders.get(calling_aet, self._default)


def verdict(study: StudyRow, thresholds: Completeness, unpublished: datetime | None = None) -> Verdict:
    """When an open study is complete.

    It stays open while an instance is missing that somebody announced. Where all of them were listed, or as many are here as were
    counted, it is complete soon after the last of them came. Else it is once nothing came for it for a while, nor for any of its
    series for as long as their modality asks. An object that came before that
    and lies in a spool (the oldest of them came when `unpublished` says) may be of this study, so that nobody knows whether it was
    silent. At the latest it is complete after the hard maximum.
    """
    assert study.opened_at is not None
    assert study.last_at is not None
    most = Verdict(at=study.opened_at + timedelta(seconds=thresholds.maximum_s), reason="maximum")
    if study.awaited and study.lacking:
        return most
    if study.listed or (study.counted_all and study.counted == study.instances):
        found = Verdict(at=study.last_at + timedelta(seconds=thresholds.expected_s), reason="expected")
    else:
        ends = [study.last_at + timedelta(seconds=thresholds.idle_s)]
        ends += [
            datetime.fromtimestamp(series.last_at, UTC) + timedelta(seconds=thresholds.modalities[series.modality])
            for series in study.series.values()
            if series.modality in thresholds.modalities
        ]
        found = Verdict(at=max(ends), reason="idle")
    if found.reason == "idle" and unpublished is not None and unpublished <= found.at:
        return most
    return found if found.at <= most.at else most


def counted_from(received_at: datetime, now: datetime, thresholds: Completeness) -> datetime:
    """The moment from which idle time runs for an object that came at `received_at` and is dealt with at `now`.

    Usually it is when it came. After an outage objects of one study come in one after the other that came hours ago, and one
    that is still on its way must not be taken for one that will never come: then it is now.
    """
    late = min(LATE, timedelta(seconds=thresholds.idle_s / 2))
    return received_at if now - received_at < late else now
