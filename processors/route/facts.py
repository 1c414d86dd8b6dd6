"""What rules are asked about an instance and a study, and what they answer: the seam between rules and the state of studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

from hilum.dicom import Header
from hilum.events import InstanceAccepted, RuleFailure


class StudyFacts(Struct, frozen=True, kw_only=True):
    """A study at the moment at which it is complete."""

    #: Instances that count as the study's: neither duplicates nor quarantined.
    instances: int
    series: int
    #: The modalities of its series, each once.
    modalities: tuple[str, ...] = ()
    #: 1 for the first time, and one more for each time that something came afterwards.
    revision: int = 1
    #: Why it counts as complete, such as `idle`.
    reason: str = ""
    #: How it fits its orders; empty: it was held against none.
    order_match: str = ""


class StudyRoute(Struct, frozen=True, kw_only=True):
    """Where a complete study goes by one rule."""

    rule: str
    to: tuple[str, ...]
    #: All that is new; of that, the instances for which the rule's `when` held; or the `whole` study again, former revisions included.
    send: Literal["all", "matching", "whole"] = "all"
    #: Higher goes first.
    priority: int = 0


class Matched(Struct, frozen=True, kw_only=True):
    """What the rules say of one instance on its arrival."""

    #: Each destination to which it goes at once, with the rules that ask for it, in their order.
    destinations: Mapping[str, tuple[str, ...]]
    #: Rules for complete studies whose `when` holds for it.
    study_rules: tuple[str, ...] = ()
    #: The highest priority of the rules that ask for each destination.
    priorities: Mapping[str, int] = {}
    #: Rules that could not be evaluated on it.
    failed: tuple[RuleFailure, ...] = ()


class StudyFact(Struct, frozen=True):
    """A name in a rule's `study`, and what it stands for. `matching` is how many instances the rule's `when` held for."""

    says: str
    of: Callable[[StudyFacts, int], Any]


STUDY: Mapping[str, StudyFact] = {
    "instances": StudyFact("How many instances there are.", lambda facts, _: facts.instances),
    "series": StudyFact("How many series there are.", lambda facts, _: facts.series),
    "modalities": StudyFact("A list: the modalities of its series, each once.", lambda facts, _: facts.modalities),
    "revision": StudyFact("1 at first, and one more each time after something came later.", lambda facts, _: facts.revision),
    "reason": StudyFact("Why it counts as complete, such as `idle`.", lambda facts, _: facts.reason),
    "matching": StudyFact("For how many instances the rule's `when` holds.", lambda _, matching: matching),
    "order_match": StudyFact(
        "How it fits its [orders](../operations/orders.md): `matched`, `mismatched`, `unmatched` and others; empty: not known.",
        lambda facts, _: facts.order_match,
    ),
}


class Deciding(Protocol):
    """The rules, as the state of studies asks them."""

    @property
    def tags(self) -> frozenset[str]:
        """The tags (`GGGGEEEE`) of every attribute that a rule names."""
        ...

    @property
    def any_of_study(self) -> bool:
        """Whether there are rules for complete studies: only then anything waits for them."""
        ...

    def matched(self, event: InstanceAccepted, header: Header | None = None) -> Matched:
        """What the rules say of an instance that arrives, and which fail on it."""
        ...

    def of_study(self, facts: StudyFacts, matched: Mapping[str, int]) -> tuple[StudyRoute, ...]:
        """What the rules say of a complete study; `matched` counts for each rule the instances for which its `when` held.

        Raises `Quarantine` if one fails on it.
        """
        ...
