"""Ask a destination whether it has what the ledger says it has: `hilum reconcile --destination D --verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from msgspec import Struct

from hilum.database import AWAY, away, connect
from hilum.database.deliveries import TAKEN_BACK, THERE, WHERE, Selection
from hilum.errors import Misconfigured
from hilum.sink import Expected, Sink

#: What should be there.
ARRIVED = THERE
_CHUNK = 5000

# Of several deliveries of one instance the last one counts.
_THERE = f"""
    SELECT DISTINCT ON (d.study_instance_uid, d.sop_instance_uid) coalesce(d.member, ''), d.study_instance_uid,
        coalesce(d.series_instance_uid, ''), coalesce(d.sop_class_uid, ''), d.sop_instance_uid,
        coalesce(d.sent_as, d.sop_instance_uid), d.delivery_id, d.settled_at,
        coalesce(d.sent_study, d.study_instance_uid), coalesce(d.sent_series, d.series_instance_uid, ''),
        EXISTS (
            SELECT FROM delivery AS first
            WHERE first.sop_instance_uid = d.sop_instance_uid AND first.study_instance_uid = d.study_instance_uid
                AND first.destination = d.destination AND first.sha256 <> d.sha256
                AND (first.attempts > 0 OR first.state = ANY(%(states)s))),
        {TAKEN_BACK}
    FROM delivery d WHERE {WHERE} ORDER BY d.study_instance_uid, d.sop_instance_uid, d.settled_at DESC
"""  # noqa: S608  # constants


class Asked(Struct, frozen=True, kw_only=True):
    """An object that was delivered, and that its destination was asked for."""

    delivery_id: str
    destination: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    #: By which the destination has it: others, if it left de-identified or compressed with loss.
    sent_study: str
    sent_series: str
    sent_as: str
    settled_at: datetime


class Verified(Struct, frozen=True, kw_only=True):
    """What a destination was asked, and what it lacks."""

    destination: str
    studies: int
    #: Objects that the ledger says it has; those without a SeriesInstanceUID cannot be asked for and are not among them.
    objects: int
    there: int
    missing: tuple[Asked, ...]
    #: Of those that are there, those that it was sent in another form, too, before they were corrected: which form it has, nobody can
    #: tell by a UID.
    unproven: tuple[Asked, ...] = ()
    #: What was taken back from it since (`hilum deid patients withdraw`): it is not asked for, and not among `objects`.
    withdrawn: int = 0


class _Delivered(Struct, frozen=True):
    member: str
    study: str
    series: str
    sop_class_uid: str
    sop_instance_uid: str
    #: The UID under which it was sent.
    sent_as: str
    delivery_id: str
    settled_at: datetime
    #: The study and the series by which it was sent.
    sent_study: str
    sent_series: str
    #: Whether the destination was sent another object under this UID, too.
    corrected: bool
    #: Whether it was taken back since.
    withdrawn: bool

    @property
    def expected(self) -> Expected:
        return Expected(series_instance_uid=self.sent_series, sop_class_uid=self.sop_class_uid, sop_instance_uid=self.sent_as)

    def asked(self, destination: str) -> Asked:
        return Asked(
            delivery_id=self.delivery_id,
            destination=destination,
            study_instance_uid=self.study,
            series_instance_uid=self.series,
            sop_instance_uid=self.sop_instance_uid,
            sent_study=self.sent_study,
            sent_series=self.sent_series,
            sent_as=self.sent_as,
            settled_at=self.settled_at,
        )


def verify(
    dsn: str,
    selection: Selection,
    sinks: Mapping[str, Sink],
    ask: Callable[[Sink, str, list[Expected]], frozenset[str]],
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Verified:
    """Ask the destination of `selection`, study by study; of a group, the member that got the object.

    `ask` asks a sink for what it has of these instances of a study. `progress` is told how many studies and objects were looked at.
    Raises `Misconfigured` if the destination cannot be asked, `TryAgain` while it or PostgreSQL is away.
    """
    studies = objects = withdrawn = 0
    missing: list[Asked] = []
    unproven: list[Asked] = []
    for _, each_of_study in groupby(_delivered(dsn, selection), key=lambda each: each.study):
        of_study = list(each_of_study)
        withdrawn += sum(each.withdrawn for each in of_study)
        asked_of = _by_member(each for each in of_study if not each.withdrawn)
        studies += bool(asked_of)
        for (member, sent_study), expected in asked_of.items():
            name = member or selection.destination
            if name not in sinks:
                fix = "Add it to the settings again, or ask with --since what was delivered after it was taken out."
                raise Misconfigured("member-unknown", f"{name} got objects of the group {selection.destination}, and is gone.", fix=fix)
            there = ask(sinks[name], sent_study, [each.expected for each in expected])
            objects += len(expected)
            missing += [each.asked(name) for each in expected if each.sent_as not in there]
            unproven += [each.asked(name) for each in expected if each.sent_as in there and each.corrected]
        progress(studies, objects)
    return Verified(
        destination=selection.destination,
        studies=studies,
        objects=objects,
        there=objects - len(missing),
        missing=tuple(missing),
        unproven=tuple(unproven),
        withdrawn=withdrawn,
    )


def _by_member(delivered: Iterator[_Delivered]) -> dict[tuple[str, str], list[_Delivered]]:
    """By the member that has them, and the study by which it was sent them."""
    found: dict[tuple[str, str], list[_Delivered]] = {}
    for each in delivered:
        if each.series:
            found.setdefault((each.member, each.sent_study), []).append(each)
    return found


def _delivered(dsn: str, selection: Selection) -> Iterator[_Delivered]:
    values: dict[str, Any] = selection.values | {"states": list(ARRIVED)}
    try:
        with connect(dsn, name="hilum verify") as connection, connection.cursor("delivered", withhold=True) as cursor:
            cursor.itersize = _CHUNK  # no transaction is open while the destination is asked
            for row in cursor.execute(_THERE.encode(), values):
                yield _Delivered(*row)
    except AWAY as error:
        raise away(dsn, error) from None
