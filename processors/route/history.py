"""Ask candidate rules about what came in, as the index has it. Nothing is sent.

The index keeps one header a series, and of each instance the few attributes that differ most: an attribute that a rule names and that
is neither is taken from that one header. `Outcome.by_series` names these.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct
from psycopg.rows import dict_row

from hilum.database import AWAY, away, connect
from hilum.dicom import tag_of
from hilum.dicom.modules import EQUIPMENT, PATIENT, SERIES, STUDY
from hilum.errors import Quarantine
from hilum.events import Finding, Instance, InstanceAccepted, ObjectRef, Source

from .facts import StudyFacts, StudyRoute
from .names import Asked
from .rules import Rules
from .text import written
from .why import why

#: Attributes of an instance that have a column of their own, with their VR.
_OWN = {
    "InstanceNumber": ("instance_number", "IS"),
    "NumberOfFrames": ("number_of_frames", "IS"),
    "Rows": ("rows", "US"),
    "Columns": ("columns", "US"),
    "ContentDate": ("content_date", "DA"),
    "ContentTime": ("content_time", "TM"),
    "SOPClassUID": ("sop_class_uid", "UI"),
    "SOPInstanceUID": ("sop_instance_uid", "UI"),
}
_SAME_IN_SERIES = frozenset(" ".join((PATIENT, STUDY, SERIES, EQUIPMENT)).split())
_EXAMPLES = 3
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # no rule asks when

_GROUPS = """
SELECT i.study_instance_uid, i.series_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, r.adapter, r.calling_aet, r.called_aet, r.peer,
       r.findings, {columns} count(*) AS count, s.header, s.modality
FROM instance i JOIN receipt r ON r.receipt = i.receipt JOIN series s ON s.series_instance_uid = i.series_instance_uid
WHERE i.received_at >= %(since)s AND i.received_at < %(until)s
GROUP BY i.study_instance_uid, i.series_instance_uid, s.series_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, r.adapter,
         r.calling_aet, r.called_aet, r.peer, r.findings {grouped}
ORDER BY i.study_instance_uid
"""
_STUDIES = "SELECT count(DISTINCT study_instance_uid) AS count FROM instance WHERE received_at >= %(since)s AND received_at < %(until)s"


class Count(Struct, kw_only=True):
    """Instances, their studies, and a few of these."""

    instances: int = 0
    studies: int = 0
    examples: list[str] = []

    def add(self, study: str, instances: int) -> None:
        """Count instances of one study; each study once."""
        self.instances += instances
        self.studies += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(study)


class OfDestination(Struct, kw_only=True):
    """What would go to a destination."""

    destination: str
    takes: Count = msgspec.field(default_factory=Count)
    newly: Count = msgspec.field(default_factory=Count)
    no_longer: Count = msgspec.field(default_factory=Count)


class Near(Struct, kw_only=True):
    """A comparison that alone kept a rule from matching."""

    rule: str
    missed: str
    count: Count = msgspec.field(default_factory=Count)


class OfRule(Struct, kw_only=True):
    """What a candidate rule would do."""

    rule: str
    takes: Count = msgspec.field(default_factory=Count)
    #: Instances on which it fails: it sends them nowhere, and takes them from no other rule.
    fails: Count = msgspec.field(default_factory=Count)


class Outcome(Struct, kw_only=True):
    """What candidates would have done."""

    since: datetime
    studies: int = 0
    instances: int = 0
    destinations: dict[str, OfDestination] = msgspec.field(default_factory=dict)
    rules: dict[str, OfRule] = msgspec.field(default_factory=dict)
    near: list[Near] = msgspec.field(default_factory=list)
    #: Names in the rules that may differ within a series, and were taken from one of its headers.
    by_series: list[str] = msgspec.field(default_factory=list)


class _Group(Struct, frozen=True, kw_only=True):
    """Instances of one series that no rule can tell apart."""

    event: InstanceAccepted
    modality: str
    count: int


def studies_since(dsn: str, since: datetime, until: datetime) -> int:
    """How many studies there are to ask about. Raises `TryAgain`."""
    try:
        with connect(dsn, name="hilum rule test") as connection:
            found = connection.execute(_STUDIES, {"since": since, "until": until}).fetchone()
            return int(found[0]) if found else 0
    except AWAY as error:
        raise away(dsn, error) from None


def replay(
    dsn: str, current: Rules, candidate: Rules, since: datetime, until: datetime, done: Callable[[], None] = lambda: None
) -> Outcome:
    """Ask both about all studies of which something came in from `since` to `until`; `done` is called after each. Raises `TryAgain`."""
    named = {keyword for rules in (current, candidate) for each in rules.compiled for keyword in each.keywords}
    tally = Tally(current, candidate, since)
    tally.outcome.by_series = sorted(keyword for keyword in named if keyword not in _OWN and keyword not in _SAME_IN_SERIES)
    for study, groups in _studies(dsn, named, since, until):
        tally.add(study, groups)
        done()
    return tally.finished()


def _studies(dsn: str, named: Iterable[str], since: datetime, until: datetime) -> Iterator[tuple[str, list[_Group]]]:
    own = [keyword for keyword in _OWN if keyword in named and keyword != "SOPClassUID"]
    columns = "".join(f"i.{_OWN[keyword][0]}, " for keyword in own)
    grouped = "".join(f", i.{_OWN[keyword][0]}" for keyword in own)
    statement = _GROUPS.format(columns=columns, grouped=grouped)
    study, groups = "", list[_Group]()
    try:
        with (
            connect(dsn, name="hilum rule test", autocommit=False) as connection,
            connection.cursor("history", row_factory=dict_row) as cursor,
        ):
            cursor.itersize = 500
            for row in cursor.execute(statement, {"since": since, "until": until}):
                if row["study_instance_uid"] != study and groups:
                    yield study, groups
                    groups = []
                study = row["study_instance_uid"]
                groups.append(_group(row, (*own, "SOPClassUID")))
    except AWAY as error:
        raise away(dsn, error) from None
    if groups:
        yield study, groups


def _group(row: Mapping[str, Any], own: Iterable[str]) -> _Group:
    header = dict(row["header"] or {})
    for keyword in own:
        column, vr = _OWN[keyword]
        value = row[column]
        header[tag_of(keyword)] = {"vr": vr} if value is None else {"vr": vr, "Value": [value]}
    source = Source(
        adapter=row["adapter"], calling_aet=row["calling_aet"] or "", called_aet=row["called_aet"] or "", peer=row["peer"] or ""
    )
    instance = Instance(
        receipt="",
        study_instance_uid=row["study_instance_uid"],
        series_instance_uid=row["series_instance_uid"],
        sop_instance_uid=row.get("sop_instance_uid") or "",
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        object=ObjectRef(bucket="", key="", size_bytes=0, sha256=""),
        source=source,
        received_at=_LONG_AGO,
        header_json=Raw(msgspec.json.encode(header)),
    )
    findings = tuple(Finding(code=str(each.get("code", "")), sentence="") for each in row["findings"] or ())
    return _Group(event=InstanceAccepted(instance=instance, findings=findings), modality=row["modality"] or "", count=row["count"])


class _Said(Struct, kw_only=True):
    """What one set of rules says of a study: for each destination, which of its groups go there."""

    to: dict[str, set[int]]
    matching: dict[str, set[int]]


class Tally:
    """Counts what two sets of rules say, study by study."""

    def __init__(self, current: Rules, candidate: Rules, since: datetime) -> None:
        self._current = current
        self._candidate = candidate
        self._near: dict[tuple[str, str], Near] = {}
        self.outcome = Outcome(since=since, rules={each.rule.name: OfRule(rule=each.rule.name) for each in candidate.compiled})

    def add(self, study: str, groups: list[_Group]) -> None:
        """Ask about one study."""
        self.outcome.studies += 1
        self.outcome.instances += sum(group.count for group in groups)
        facts = StudyFacts(
            instances=sum(group.count for group in groups),
            series=len({group.event.instance.series_instance_uid for group in groups}),
            modalities=tuple(sorted({group.modality for group in groups if group.modality})),
            reason="idle",
        )
        now = self._said(self._current, groups, facts)
        then = self._said(self._candidate, groups, facts)
        self._count_destinations(study, groups, now, then)
        self._count_rules(study, groups, then)

    def finished(self) -> Outcome:
        """All of it, the most frequent near misses first."""
        self.outcome.near = sorted(self._near.values(), key=lambda near: -near.count.instances)
        return self.outcome

    def _said(self, rules: Rules, groups: list[_Group], facts: StudyFacts) -> _Said:
        said = _Said(to=defaultdict(set), matching=defaultdict(set))
        for number, group in enumerate(groups):
            try:
                matched = rules.matched(group.event)
            except Quarantine:
                continue
            for destination, names in matched.destinations.items():
                said.to[destination].add(number)
                for name in names:
                    said.matching[name].add(number)
            for name in matched.study_rules:
                said.matching[name].add(number)
        counts = {name: sum(groups[number].count for number in numbers) for name, numbers in said.matching.items()}
        routes: Iterable[StudyRoute] = ()
        with suppress(Quarantine):  # a study that a rule fails on goes nowhere by it
            routes = rules.of_study(facts, counts)
        for route in routes:
            for destination in route.to:
                said.to[destination] |= set(range(len(groups))) if route.send != "matching" else said.matching[route.rule]
        return said

    def _count_destinations(self, study: str, groups: list[_Group], now: _Said, then: _Said) -> None:
        for destination in sorted({*now.to, *then.to}):
            found = self.outcome.destinations.setdefault(destination, OfDestination(destination=destination))
            before, after = now.to.get(destination, set()), then.to.get(destination, set())
            for count, numbers in ((found.takes, after), (found.newly, after - before), (found.no_longer, before - after)):
                if numbers:
                    count.add(study, sum(groups[number].count for number in numbers))

    def _count_rules(self, study: str, groups: list[_Group], then: _Said) -> None:
        for each in self._candidate.compiled:
            name = each.rule.name
            if numbers := then.matching.get(name):
                self.outcome.rules[name].takes.add(study, sum(groups[number].count for number in numbers))
            fails = 0
            missed: Counter[str] = Counter()
            for number, group in enumerate(groups):
                if number not in then.matching.get(name, ()):
                    reason = why(each, Asked(group.event, group.event.instance.header))
                    fails += group.count if reason.fails else 0
                    if reason.near:
                        missed[reason.missed[0].text] += group.count
            if fails:
                self.outcome.rules[name].fails.add(study, fails)
            for text, count in missed.items():
                if text != written(each.when.statement.expression):  # a rule of one comparison misses nothing nearly
                    self._near.setdefault((name, text), Near(rule=name, missed=text)).count.add(study, count)
