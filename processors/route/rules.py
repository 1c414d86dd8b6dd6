"""The rules: which objects go where, each by itself or as a complete study.

The language is described in `docs/reference/rules.md`, which is generated with the tables of `names.py` and `facts.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rule_engine import errors as rule_errors

from hilum.dicom import CutValue, Header
from hilum.errors import Quarantine, Reason
from hilum.events import InstanceAccepted, RuleFailure
from hilum.settings import Rule, Settings

from .compiled import FAILURES, Compiled, compiled, failure
from .facts import Matched, StudyFacts, StudyRoute
from .names import Asked, Item, is_list

__all__ = ["Matched", "Rules", "StudyFacts", "StudyRoute"]


class Rules:
    """All rules of a configuration, in their order.

    Raises `Misconfigured` that names the rule and the nearest known name, if one cannot work.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.compiled = tuple(compiled(rule) for rule in rules)
        self._studies = {each.rule.name: each for each in self.compiled if each.study is not None}
        self._tags = frozenset[str]().union(*(each.tags for each in self.compiled))

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The rules of `settings`."""
        return cls(settings.rules)

    @property
    def tags(self) -> frozenset[str]:
        """The tags (`GGGGEEEE`) of every attribute that a rule names."""
        return self._tags

    @property
    def any_of_study(self) -> bool:
        """Whether there are rules for complete studies."""
        return bool(self._studies)

    def matched(self, event: InstanceAccepted, header: Header | None = None) -> Matched:
        """Where `event` goes at once, and which rules for complete studies it is a part of.

        `header` stands in for the event's own where that one leaves out what a rule names. A rule that fails on the object takes
        it from no other.
        """
        asked = Asked(event, header or event.instance.header)
        destinations: dict[str, tuple[str, ...]] = {}
        priorities: dict[str, int] = {}
        study_rules = []
        failed = []
        for each in self.compiled:
            rule = each.rule
            try:
                if not matches(each, asked):
                    continue
            except Quarantine as why:
                failed.append(RuleFailure(rule=rule.name, says=why.sentence))
                continue
            if each.study is not None:
                study_rules.append(rule.name)
                continue
            for destination in rule.to:
                destinations[destination] = (*destinations.get(destination, ()), rule.name)
                priorities[destination] = max(rule.priority, priorities.get(destination, rule.priority))
        return Matched(destinations=destinations, study_rules=tuple(study_rules), priorities=priorities, failed=tuple(failed))

    def destinations(self, event: InstanceAccepted, header: Header | None = None) -> dict[str, tuple[str, ...]]:
        """`matched`, without the rules for complete studies. Raises `Quarantine` if a rule fails on the object."""
        matched = self.matched(event, header)
        if matched.failed:
            raise Quarantine(Reason.RULE_FAILED, matched.failed[0].says)
        return dict(matched.destinations)

    def of_study(self, facts: StudyFacts, matched: Mapping[str, int]) -> tuple[StudyRoute, ...]:
        """Where a complete study goes. `matched` holds for each rule how many of its instances `Matched.study_rules` named it for.

        A rule that no instance is a part of is not asked; nor is one that has gone since. Raises `Quarantine` if one fails.
        """
        found = []
        for name, each in self._studies.items():
            if matching := matched.get(name, 0):
                try:
                    goes = each.study.matches((facts, matching))
                except FAILURES as error:
                    sentence = f"Rule {name!r} could not be evaluated on a complete study: {failure(error)}."
                    raise Quarantine(Reason.RULE_FAILED, sentence, fix="Correct the rule's `study`, then apply it.") from None
                if goes:
                    found.append(StudyRoute(rule=name, to=each.rule.to, send=each.rule.send, priority=each.rule.priority))
        return tuple(found)


def matches(rule: Compiled, asked: Asked) -> bool:
    """Whether the rule's `when` holds. Raises `Quarantine` if it fails on the object."""
    asked.missing = False
    try:
        return bool(rule.when.matches(asked))
    except CutValue as error:
        raise _failed(rule, f"the value of {error.keyword} is too long") from None
    except FAILURES as error:
        cause = getattr(error, "error", None)  # what a function of the rule raised
        if isinstance(cause, CutValue):
            raise _failed(rule, f"the value of {cause.keyword} is too long") from None
        if is_absent(rule, asked, error):
            return False
        raise _failed(rule, failure(error)) from None


def is_absent(rule: Compiled, asked: Asked, error: Exception) -> bool:
    """Whether the rule could not be evaluated since the object lacks something that it names: then it does not match."""
    if asked.missing or (isinstance(error, rule_errors.LookupError) and all(isinstance(each, Item) for each in error.container)):
        return True  # an item that is not there, or the first value of a list without any
    return any(not is_list(keyword) and asked.value(keyword) is None for keyword in rule.keywords)


def _failed(rule: Compiled, why: str) -> Quarantine:
    return Quarantine(
        Reason.RULE_FAILED,
        f"Rule {rule.rule.name!r} could not be evaluated: {why}.",
        fix="Correct the rule's `when`, try it with `hilum rule test FILE --last 7d`, then apply it.",
    )
