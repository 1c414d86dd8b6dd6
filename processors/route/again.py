"""Decide once more on instances on which a rule could not be evaluated, when other rules are in force."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from msgspec.structs import replace

from hilum.events import Decision, InstanceAccepted, InstanceRouted, StudyChanged

from .facts import Deciding
from .plan import RULE_TRIED_AGAIN, Saying, deliveries, failing_of, wanted_now
from .returns import Origins
from .rows import InstanceRow, Rows, StudyRow
from .study import REMEMBERED, Studies

#: When an instance is looked at again whose study is being written, or that was not looked up this time.
SOON = timedelta(seconds=5)


class Again:
    """Decides on instances whose rows are `failing`."""

    def __init__(self, rules: Deciding, origins: Origins, studies: Studies) -> None:
        self._rules = rules
        self._origins = origins
        self._studies = studies

    @staticmethod
    def wake(uid: str, rows: Rows, saying: Saying) -> bool:
        """Have an instance decided on as soon as may be, if it waits for other rules; whether it does."""
        row = rows.instance(uid)
        if row is None or row.failing is None or row.failing.version == saying.config_version:
            return False
        put_off(uid, row, rows, saying, timedelta())
        return True

    def decide(
        self, uid: str, row: InstanceRow, event: InstanceAccepted | None, rows: Rows, study: StudyRow, saying: Saying
    ) -> Iterator[InstanceRouted | StudyChanged]:
        """Ask all rules again. It goes where they send it and it was never to go.

        `event` is as it came, with the header of the stored object; None if that is there no more: then nothing can be asked.
        """
        assert row.failing is not None
        if study.closing is not None:  # what that revision sends is being written: what comes now is of the next one
            put_off(uid, row, rows, saying, SOON)
            return
        if row.note or event is None:
            rows.put_instance(uid, replace(row, failing=None), saying.now + REMEMBERED)
            yield saying.of_row(row, uid, "withdrawn" if row.note else "no-rule", mended=True)
            return
        matched = self._rules.matched(event)
        origins = self._origins.of_source(event.instance.source)
        kept_from = {*row.to, *origins, *(row.held.origins if row.held else ())}
        wanted = {name: each for name, each in wanted_now(matched).items() if name not in kept_from}
        planned = deliveries(row, uid, wanted)
        took = row.failing.took
        holding = tuple(rule for rule in matched.study_rules if rule not in took)
        failing = failing_of(matched, saying)
        if failing is not None:
            failing = replace(failing, took=(*took, *holding))
        row = replace(row, to=(*row.to, *wanted), failing=failing)
        waits = row.held is not None or bool(holding)
        decision: Decision = "deliver" if planned else "waits" if waits else "held" if failing else "no-rule"
        yield saying.of_row(row, uid, decision, planned, failed=matched.failed, mended=failing is None)
        if row.held is not None and study.open:
            for rule in holding:
                study.matched[rule] = study.matched.get(rule, 0) + 1
            row = replace(row, held=replace(row.held, rules=(*row.held.rules, *holding)))
            self._studies.keep(event.instance.study_instance_uid, rows, study, saying.now)
        rows.put_instance(uid, row, saying.now + REMEMBERED)
        if holding and row.held is None:  # its study was complete without it: it is part of the next revision
            yield from self._studies.grow(uid, row, event.instance, holding, origins, rows, study, saying)


def put_off(uid: str, row: InstanceRow, rows: Rows, saying: Saying, after: timedelta = RULE_TRIED_AGAIN) -> None:
    """Look at a failing instance again after this time."""
    assert row.failing is not None
    again_at = saying.now + after
    rows.put_instance(uid, replace(row, failing=replace(row.failing, again_at=again_at)), again_at)
