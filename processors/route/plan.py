"""What is said of an instance: where it goes, or why nowhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from hilum.database.known import Decided, Noted
from hilum.events import Decision, Finding, InstanceAccepted, InstanceRouted, PlannedDelivery, RuleFailure, delivery_id_for

from .facts import Matched, StudyRoute
from .rows import Failing, InstanceRow

#: When it is seen whether a rule that could not be evaluated has become a better one; `hilum apply` has it seen at once.
RULE_TRIED_AGAIN = timedelta(minutes=10)


class Wanted(Struct, frozen=True, kw_only=True):
    """Who wants an instance at one destination, and how urgently."""

    rules: tuple[str, ...]
    priority: int = 0


def wanted_now(matched: Matched) -> dict[str, Wanted]:
    """The destinations that rules ask an instance to go to at once."""
    return {name: Wanted(rules=rules, priority=matched.priorities.get(name, 0)) for name, rules in matched.destinations.items()}


def wanted_by(routes: Iterable[StudyRoute], held_rules: Collection[str], *, whole: bool = False) -> dict[str, Wanted]:
    """The destinations that rules for its study ask an instance to go to; with `whole`, one of a former revision."""
    found: dict[str, Wanted] = {}
    for route in routes:
        if (whole and route.send != "whole") or (route.send == "matching" and route.rule not in held_rules):
            continue
        for destination in route.to:
            known = found.get(destination)
            found[destination] = Wanted(
                rules=(*(known.rules if known else ()), route.rule),
                priority=max(known.priority, route.priority) if known else route.priority,
            )
    return found


def deliveries(row: InstanceRow, sop_instance_uid: str, wanted: Mapping[str, Wanted], *, run: str = "") -> tuple[PlannedDelivery, ...]:
    """A delivery for each destination; `run` tells a repetition from the first time."""
    assert row.object is not None
    return tuple(
        PlannedDelivery(
            delivery_id=delivery_id_for(row.object.sha256, sop_instance_uid, destination, run=run),
            destination=destination,
            rules=each.rules,
            priority=each.priority,
        )
        for destination, each in wanted.items()
    )


def failing_of(matched: Matched, saying: Saying) -> Failing | None:
    """What is remembered of rules that could not be evaluated."""
    if not matched.failed:
        return None
    return Failing(version=saying.config_version, took=matched.study_rules, again_at=saying.now + RULE_TRIED_AGAIN)


def planned_before(row: InstanceRow, sop_instance_uid: str) -> tuple[str, ...]:
    """The ids of all deliveries that were planned for the object as it is."""
    assert row.object is not None
    return (*(delivery_id_for(row.object.sha256, sop_instance_uid, destination) for destination in row.to), *row.again)


def row_of(event: InstanceAccepted) -> InstanceRow:
    """A row for an instance that has just come."""
    instance = event.instance
    return InstanceRow(
        receipts=(instance.receipt,),
        object=instance.object,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        received_at=instance.received_at,
        study=instance.study_instance_uid,
        series=instance.series_instance_uid,
    )


def row_of_indexed(sop_instance_uid: str, decided: Decided, destinations: Iterable[str], noted: Noted | None) -> InstanceRow:
    """The row that left memory, as far as the index tells. `destinations` are those for which deliveries may have been planned."""
    planned = {delivery_id_for(decided.sha256, sop_instance_uid, each): each for each in destinations}
    return InstanceRow(
        receipts=decided.receipts,
        object=decided.object,
        sop_class_uid=decided.sop_class_uid,
        transfer_syntax_uid=decided.transfer_syntax_uid,
        received_at=decided.received_at,
        study=decided.study_instance_uid,
        series=decided.series_instance_uid,
        to=tuple(each for delivery_id, each in planned.items() if delivery_id in decided.deliveries),
        again=tuple(delivery_id for delivery_id in decided.deliveries if delivery_id not in planned),
        also=decided.before,
        note=noted.note if noted is not None and noted.study_instance_uid == decided.study_instance_uid else "",
    )


class Saying(Struct, frozen=True, kw_only=True):
    """Makes decisions events."""

    config_version: str
    now: datetime
    #: The policies of destinations that have one, by the destinations' names.
    policies: Mapping[str, str] = {}

    def of_arrival(
        self,
        event: InstanceAccepted,
        decision: Decision,
        planned: tuple[PlannedDelivery, ...] = (),
        *,
        findings: tuple[Finding, ...] = (),
        cancels: tuple[str, ...] = (),
        failed: tuple[RuleFailure, ...] = (),
        mended: bool = False,
    ) -> InstanceRouted:
        """The decision on an instance that has just come."""
        said = self._of_row(row_of(event), event.instance.sop_instance_uid, decision, planned)
        return replace(said, findings=findings, cancels=cancels, failed=failed, mended=mended)

    def of_row(
        self,
        row: InstanceRow,
        sop_instance_uid: str,
        decision: Decision,
        planned: tuple[PlannedDelivery, ...] = (),
        *,
        revision: int = 0,
        cancels: tuple[str, ...] = (),
        failed: tuple[RuleFailure, ...] = (),
        mended: bool = False,
    ) -> InstanceRouted:
        """A later decision on an instance that is known."""
        said = self._of_row(row, sop_instance_uid, decision, planned)
        return replace(said, revision=revision, cancels=cancels, failed=failed, mended=mended)

    def _of_row(self, row: InstanceRow, uid: str, decision: Decision, planned: tuple[PlannedDelivery, ...]) -> InstanceRouted:
        assert row.object is not None
        return InstanceRouted(
            receipt=row.receipts[-1],
            study_instance_uid=row.study,
            series_instance_uid=row.series,
            sop_instance_uid=uid,
            sop_class_uid=row.sop_class_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            object=row.object,
            received_at=row.received_at or self.now,
            decision=decision,
            deliveries=tuple(replace(each, policy=self.policies.get(each.destination, "")) for each in planned),
            config_version=self.config_version,
            decided_at=self.now,
        )
